"""A distribution over colours: cells of the CIELAB a*b* plane (Zhang et al. 2016), and the mean of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from restore.colour import to_lab
from restore.models.blocks import without_autocast

AB = 110.0  # a* and b* of sRGB lie within this of 0, nearly
SPACINGS = range(8, 31)
SAMPLES = 52  # levels a channel at which sRGB is sampled to find its cells


def mean_ab(logits: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The mean of the distribution with logits (N,K,h,w) over cells at `centres` (K,2): (N,2,h,w), in CIELAB."""
    with without_autocast(logits.device):  # which would round colours to a hundredth
        return expected_ab(logits.float().softmax(1), centres)


def expected_ab(shares: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The mean of `centres` (K,2) by `shares` (N,K,h,w), which add up to 1: (N,2,h,w)."""
    return torch.einsum("nkhw,kc->nchw", shares, centres)


@cache
def ab_centres(spacing: int) -> np.ndarray:
    """Centres (K,2) float32 of a grid in the a*b* plane: all corners of its squares that hold a colour of sRGB."""
    levels = np.linspace(0, 1, SAMPLES, dtype=np.float32)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(SAMPLES, -1, 3)
    squares = np.unique(np.floor(to_lab(colours)[..., 1:].reshape(-1, 2) / spacing).astype(np.int64), axis=0)
    corners = (squares[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2)
    return (np.unique(corners, axis=0) * spacing).astype(np.float32)


@cache
def spacing_of(count: int) -> int:
    """The spacing of cells of which there are `count`."""
    return next(spacing for spacing in SPACINGS if len(ab_centres(spacing)) == count)


def centres_of(count: int) -> np.ndarray:
    """The centres (K,2) of `count` cells."""
    return ab_centres(spacing_of(count))


def cells_of(ab: torch.Tensor, spacing: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four cells around each a*b*, and the shares in which they make it up: (N,2,h,w) -> (N,4,h,w) twice.

    The mean of the cells' centres by those shares is the colour again. Colours outside sRGB go to its rim.
    """
    table, low = _cell_numbers(spacing)
    table = table.to(ab.device)
    place = ab / spacing - torch.from_numpy(low).to(ab.device).view(1, 2, 1, 1)
    limit = torch.tensor(table.shape, device=ab.device).view(1, 2, 1, 1)
    place = torch.minimum(place.clamp(min=0), limit - 1.001)
    corner = place.floor().long()
    part = place - corner
    cells, shares = [], []
    for down in (0, 1):
        for right in (0, 1):
            cells.append(table[corner[:, 0] + down, corner[:, 1] + right])
            shares.append((part[:, 0] if down else 1 - part[:, 0]) * (part[:, 1] if right else 1 - part[:, 1]))
    return torch.stack(cells, dim=1), torch.stack(shares, dim=1)


@cache
def _cell_numbers(spacing: int) -> tuple[torch.Tensor, np.ndarray]:
    """The number of the nearest centre for every crossing of the grid, and the lowest crossing (2,)."""
    crossings = np.rint(ab_centres(spacing) / spacing).astype(np.int64)
    low = crossings.min(axis=0)
    grid = np.stack(np.meshgrid(*(np.arange(n + 1) for n in crossings.max(axis=0) - low), indexing="ij"), axis=-1)
    apart = np.square(grid[:, :, None] - (crossings - low)).sum(axis=-1)
    return torch.from_numpy(apart.argmin(axis=-1)), low.astype(np.float32)
