"""Each unit of the code is held at a small mean activation, by the Kullback-Leibler divergence (Ng 2011)."""

from __future__ import annotations

import torch

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder


def bernoulli_divergence(target: float, mean: torch.Tensor) -> torch.Tensor:
    """KL(target || mean) of Bernoulli variables, elementwise; `mean` in [0,1]."""
    mean = mean.clamp(1e-6, 1 - 1e-6)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()


class Sparse(Kind):
    """Sigmoid units; the mean is over a batch."""

    penalised = True

    def penalty(self, network: LatentAutoencoder, clean: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """The mean divergence over the units."""
        return self.weight(0.1) * bernoulli_divergence(self.options.target, code.mean(0)).mean()
