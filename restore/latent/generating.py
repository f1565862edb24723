"""Pictures out of codes: between two, drawn at random, and what each unit of the code adds."""

from __future__ import annotations

import numpy as np
import torch

from restore.errors import UsageError
from restore.latent.model import Latent
from restore.latent.options import PROBABILISTIC


def walk(first: np.ndarray, last: np.ndarray, steps: int, way: str) -> np.ndarray:
    """Codes from one to another.

    Args:
        first: (D,).
        last: (D,).
        steps: How many, both ends included.
        way: linear, or spherical (Shoemake 1985), which keeps the length of normally distributed codes.

    Returns:
        (steps,D).
    """
    shares = np.linspace(0, 1, steps)[:, None]
    if way == "spherical":
        lengths = np.linalg.norm(first), np.linalg.norm(last)
        cosine = np.clip(first @ last / max(lengths[0] * lengths[1], 1e-12), -1, 1)
        angle = np.arccos(cosine)
        if 1e-4 < angle < np.pi - 1e-4:
            weights = np.sin((1 - shares) * angle), np.sin(shares * angle)
            path: np.ndarray = (weights[0] * first + weights[1] * last) / np.sin(angle)
            return path
    straight: np.ndarray = (1 - shares) * first + shares * last
    return straight


def sample(latent: Latent, count: int, seed: int) -> np.ndarray:
    """Pictures (count,S,S,C) uint8 of codes drawn from the standard normal distribution.

    Raises:
        UsageError: The autoencoder's codes have no distribution.
    """
    if latent.config.kind not in PROBABILISTIC:
        raise UsageError(
            f"codes of the kind {latent.config.kind} cannot be drawn; train --kind variational or adversarial"
        )
    draw = torch.Generator().manual_seed(seed)
    return latent.decode(torch.randn((count, latent.config.code), generator=draw).numpy())


def grid(latent: Latent, count: int) -> np.ndarray:
    """Pictures (count,count,S,S,C) uint8 of a code of two, over the quantiles of the normal distribution."""
    if latent.config.code != 2:
        raise UsageError(f"--grid shows codes of 2; this one has {latent.config.code}")
    places = torch.special.ndtri(torch.linspace(0.03, 0.97, count)).numpy()
    codes = np.stack(np.meshgrid(places, -places), axis=-1).reshape(-1, 2)
    made = latent.decode(codes)
    return made.reshape(count, count, *made.shape[1:])


def filters(latent: Latent, count: int) -> np.ndarray:
    """First filters (n,S,S,C) as uint8 around middle gray, the longest first.

    Of a dense encoder the rows of its first layer, as large as a picture; of a convolutional one its first kernels.
    """
    network, config = latent.network, latent.config
    layer = network.down[0] if network.down else network.encoder[0]
    weight = layer.get_parameter("weight").detach().cpu()
    if not network.down:
        weight = weight.view(-1, config.channels, config.size, config.size)
    order = weight.flatten(1).norm(dim=1).argsort(descending=True)[:count]
    return _around_gray(weight[order])


@torch.no_grad()
def responses(latent: Latent, pixels: np.ndarray, count: int) -> np.ndarray:
    """What each of the first `count` units of the code adds to the decoded mean code, (n,S,S,C) uint8.

    Args:
        latent: Whose units.
        pixels: (N,S,S,C), over which a unit's spread is taken.
        count: Units, those that vary most.
    """
    codes = torch.from_numpy(latent.encode(pixels)).to(latent.device)
    mean, spread = codes.mean(0), codes.std(0, unbiased=False)
    order = spread.argsort(descending=True)[:count]
    moved = mean + 2 * spread[order, None] * torch.eye(len(mean), device=latent.device)[order]
    return _around_gray((latent.network.decode(moved) - latent.network.decode(mean[None])).cpu())


def _around_gray(values: torch.Tensor) -> np.ndarray:
    largest = values.flatten(1).abs().amax(1).clamp_min(1e-9)[:, None, None, None]
    scaled = (values / largest * 127.5 + 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()
