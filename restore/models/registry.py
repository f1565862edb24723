"""Architectures by the name that a weights file carries in its header."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from restore.errors import UsageError, unknown_name


class Architecture(nn.Module):
    """A network with the numbers that tiling needs.

    Attributes:
        stride: sides of the input are padded to a multiple of it, and tiles start at multiples of it.
        radius: how far, in input pixels, an input can influence an output (half the receptive field).
        scales: by how much the output may be larger than the input.
        whole: pictures are better not cut into tiles.
        precisions: what it computes in.
    """

    stride: int
    radius: int
    scales: tuple[int, ...]
    whole = False
    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        """(N,C,H,W) -> (N,C',H*scale,W*scale).

        scale: one of `scales`; None: the first. stage: what to compute, of architectures that do several things.
        """
        raise TypeError(f"{type(self).__name__} does not define forward")

    def values_a_pixel(self, scale: int) -> float:
        """About how many numbers are kept at once for each input pixel when nothing is learnt."""
        raise TypeError(f"{type(self).__name__} does not define values_a_pixel")


# Name -> (config class, network class), filled by `register` when the modules of _BUILT_IN are imported.
ARCHITECTURES: dict[str, tuple[type[Any], Callable[[Any], Architecture]]] = {}
_BUILT_IN = (
    "restore.models.autoencoder",
    "restore.models.masking",
    "restore.models.nafnet",
    "restore.models.pretrained_unet",
)


def register(arch: str, config: type[Any]) -> Callable[[type[Architecture]], type[Architecture]]:
    """Class decorator that adds a network under `arch`, built from the dataclass `config`.

    Raises:
        ValueError: the name is taken; a header would then mean two things.
    """

    def add(network: type[Architecture]) -> type[Architecture]:
        if arch in ARCHITECTURES:
            raise ValueError(f"the architecture name '{arch}' is taken by {ARCHITECTURES[arch][1]}")
        ARCHITECTURES[arch] = (config, network)
        return network

    return add


def _entry(arch: str) -> tuple[type[Any], Callable[[Any], Architecture]]:
    for module in _BUILT_IN:
        import_module(module)
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    return ARCHITECTURES[arch]


def config_from_dict(arch: str, values: Mapping[str, Any]) -> Any:
    """The config dataclass of `arch` from plain values, as JSON gives them (lists become tuples).

    Raises:
        UsageError: unknown architecture, unknown field, or a value that does not fit.
    """
    kind = _entry(arch)[0]
    known = {field.name for field in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            raise unknown_name(f"setting of {arch}", name, known)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def config_for(arch: str, like: str, config: Any) -> Any:
    """The default config of `arch`, for the same planes in and out as `config` of the architecture `like`.

    Raises:
        UsageError: There is no such architecture, or it cannot take that one's place.
    """
    kind = _entry(arch)[0]
    ends = ("in_channels", "out_channels", "scales", "residual")
    if not all(hasattr(known, name) for known in (kind, config) for name in ends):
        raise UsageError(f"the architecture {arch} cannot take the place of {like}, which this task is made for")
    return kind(**{name: getattr(config, name) for name in ends})


def build(arch: str, config: Any) -> Architecture:
    """The network `arch` with fresh weights, from its config dataclass or a mapping of the fields of one.

    Raises:
        UsageError: unknown architecture, or a config that does not fit it.
    """
    kind, network = _entry(arch)
    if isinstance(config, Mapping):
        config = config_from_dict(arch, config)
    if not isinstance(config, kind):
        raise UsageError(f"{arch} is built from a {kind.__name__}, not a {type(config).__name__}")
    return network(config)
