"""The codes become normally distributed because a discriminator tells them from normal draws (Makhzani et al. 2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder


class _Reversed(torch.autograd.Function):
    """The identity, with reversed gradients (Ganin and Lempitsky 2015): one step trains encoder and discriminator."""

    @staticmethod
    def forward(context: Any, codes: torch.Tensor, weight: float) -> torch.Tensor:
        context.weight = weight
        return codes.view_as(codes)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.weight * gradient, None


class Adversarial(Kind):
    """The discriminator minimises its error, the encoder, through reversed gradients, maximises it."""

    def loss(self, network: LatentAutoencoder, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """The error of the reconstruction, and the discriminator's."""
        code = network.encoded(clean)
        drawn = torch.randn(code.shape, generator=draw).to(code.device)
        encoded = network.critic(_Reversed.apply(code, self.weight(0.01)))
        normal = network.critic(drawn)
        return self.error(network, code, clean) + F.softplus(encoded).mean() + F.softplus(-normal).mean()
