"""Several small autoencoders that answer as one.

A deep ensemble (Lakshminarayanan et al. 2017): where pictures are too few, networks that start apart err apart, and
their mean errs less than a single network of their size together. Each learns from its own share of every batch, so
that one run trains them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from restore.errors import UsageError
from restore.models.autoencoder import ConvAutoencoder, ConvAutoencoderConfig
from restore.models.registry import Architecture, register


@dataclass(frozen=True)
class EnsembleAutoencoderConfig(ConvAutoencoderConfig):
    """All it takes to build an `EnsembleAutoencoder`.

    members: how many; the rest is the config of each of them.
    Raises UsageError for values that make no network.
    """

    members: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members < 1:
            raise UsageError(f"an ensemble needs at least one member; got {self.members}")


@register("ensemble-autoencoder", EnsembleAutoencoderConfig)
class EnsembleAutoencoder(Architecture):
    """The mean of its members; in training mode each answers for its own share of a batch that is large enough.

    Shape: as `ConvAutoencoder`.
    """

    def __init__(self, config: EnsembleAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        members = [ConvAutoencoder(config) for _ in range(config.members)]
        self.members = nn.ModuleList(members)
        self.stride, self.radius, self.scales = members[0].stride, members[0].radius, members[0].scales

    def forward(self, planes: torch.Tensor, scale: int | None = None) -> torch.Tensor:
        if self.training and len(planes) >= len(self.members):
            shares = planes.tensor_split(len(self.members))
            return torch.cat([member(share, scale) for member, share in zip(self.members, shares, strict=True)])
        total: torch.Tensor = self.members[0](planes, scale)
        for member in self.members[1:]:
            total += member(planes, scale)
        return total / len(self.members)

    def values_a_pixel(self, scale: int) -> float:
        """What one member keeps, which is let go of before the next begins, and the sum."""
        member = self.members[0]
        assert isinstance(member, ConvAutoencoder)
        return float(member.values_a_pixel(scale)) + self.config.out_channels * scale**2
