"""A normal distribution as code, held near the standard one (Kingma and Welling 2014; beta: Higgins et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder

SIGMA = 0.1  # of the pixels around the decoded ones, where pictures are compared by squared error
LOG_TWO_PI = math.log(2 * math.pi)


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """(N,code) twice -> (N,): KL of the normal distributions from the standard one, in nats, in closed form."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def log_normal(values: torch.Tensor, mean: torch.Tensor | float, log_variance: torch.Tensor | float) -> torch.Tensor:
    """(N,D) -> (N,): the logarithm of a diagonal normal density."""
    log_variance = torch.as_tensor(log_variance, dtype=values.dtype, device=values.device)
    return -0.5 * (LOG_TWO_PI + log_variance + (values - mean).square() * (-log_variance).exp()).sum(1)


def drawn(mean: torch.Tensor, log_variance: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """A code of each distribution, through which gradients flow."""
    return mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=draw).to(mean.device)


def log_likelihood(network: LatentAutoencoder, codes: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """(N,): log p(picture | code) in nats: Bernoulli pixels (bce), or normal ones of deviation SIGMA (mse)."""
    logits = network.logits(codes).flatten(1)
    pixels = clean.flatten(1)
    if network.config.loss == "bce":
        return -F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(1)
    return log_normal(pixels, torch.sigmoid(logits), 2 * math.log(SIGMA))


@torch.no_grad()
def importance_weighted(
    network: LatentAutoencoder, clean: torch.Tensor, count: int, draw: torch.Generator
) -> torch.Tensor:
    """(N,): an estimate of log p(picture) from `count` codes each, which rises to it with `count` (Burda et al. 2016).

    Args:
        network: Of the variational kind.
        clean: Pictures (N,C,S,S).
        count: Codes drawn; 1 is the evidence lower bound.
        draw: The only source of chance.
    """
    mean, log_variance = network.encoded(clean).chunk(2, 1)
    weights = []
    for _ in range(count):
        codes = drawn(mean, log_variance, draw)
        weights.append(
            log_likelihood(network, codes, clean) + log_normal(codes, 0.0, 0.0) - log_normal(codes, mean, log_variance)
        )
    return torch.stack(weights).logsumexp(0) - math.log(count)


class Variational(Kind):
    """Minus the evidence lower bound, divided by the values of a picture; `beta` weighs the divergence."""

    penalised = True

    def loss(self, network: LatentAutoencoder, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """A code is drawn of each picture's distribution."""
        mean, log_variance = network.encoded(clean).chunk(2, 1)
        codes = drawn(mean, log_variance, draw)
        fit = log_likelihood(network, codes, clean)
        if self.options.loss == "mse":  # without its constant, so that the loss stays above 0
            fit = fit + 0.5 * network.config.values * (LOG_TWO_PI + 2 * math.log(SIGMA))
        return (self.options.beta * divergence(mean, log_variance) - fit).mean() / network.config.values
