"""Marks that repeat: what was detected of most copies is completed in those of which a part was missed.

Previews are often covered by one mark again and again, at equal distances. Copies that are cut by the border of the
picture, or that lie on something bright, are missed in part.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from restore.tasks.functional import to_array

SIMILAR = 0.65  # correlation of a mask with itself, shifted, from which on it repeats by that; letters reach 0.55
OVERLAP = 0.2  # share of the picture that both have in common, at least
COMMON = 0.3  # share of the marks that lie there, at least
NEAREST = 12  # pixels: shorter distances are those between strokes
APART = 7  # pixels between two shifts, at least
MAX_SHIFTS = 8  # more of them say little more, and cost time
MIN_COPIES = 2  # that tell whether a pixel belongs to a mark
CORRELATED = 1 << 18  # pixels; masks of larger pictures are shrunk to about so many


def complete_copies(mask: np.ndarray, device: torch.device) -> np.ndarray:
    """Adds what most copies of a repeated mark have.

    Args:
        mask: (H,W) bool.
        device: that computes.

    Returns:
        (H,W) bool, `mask` and what was added to it; `mask` if it does not repeat.
    """
    values = torch.from_numpy(mask).to(device)
    shifts = find_shifts(values)
    if not shifts:
        return mask
    found, copies = torch.zeros((2, *mask.shape), dtype=torch.uint8, device=device)
    for shift in shifts:
        here, there = _common(mask.shape, shift)
        found[here] += values[there]
        copies[here] += 1
    return mask | to_array((2 * found > copies) & (copies >= MIN_COPIES))


def find_shifts(mask: torch.Tensor) -> list[tuple[int, int]]:
    """The shifts by which a mask (H,W) bool repeats, in rows and columns, shortest first; of both signs."""
    factor = max(1, math.isqrt(mask.numel() // CORRELATED))
    small = F.avg_pool2d(mask[None, None].float(), factor, ceil_mode=True)[0, 0] if factor > 1 else mask.float()
    similar = _correlation(small)
    nearest, apart = NEAREST / factor, max(1, APART // factor)
    highest = F.max_pool2d(similar[None, None], 2 * apart + 1, 1, apart)[0, 0]
    peaks = ((similar >= highest) & (similar >= SIMILAR)).nonzero().tolist()
    shifts = [(row - small.shape[0], column - small.shape[1]) for row, column in peaks]
    half = [shift for shift in shifts if shift > (0, 0) and math.hypot(*shift) >= nearest]
    half = sorted(half, key=lambda shift: math.hypot(*shift))[: MAX_SHIFTS // 2]
    exact = [_refined(mask, (row * factor, column * factor), factor) for row, column in half]
    return [shift for row, column in exact for shift in ((row, column), (-row, -column))]


def _correlation(values: torch.Tensor) -> torch.Tensor:
    """Correlation of (H,W) with itself for all shifts: (2H,2W), without a shift in (H,W); 0 where little is in common.

    Normalised by what lies in the common part, so that all copies count the same.
    """
    size = [2 * side for side in values.shape]
    centred = values - values.mean()
    signal, power, ones = (torch.fft.rfft2(one, s=size) for one in (centred, centred.square(), torch.ones_like(values)))
    product, first, second, common = (
        torch.fft.irfft2(one, s=size)
        for one in (signal * signal.conj(), ones * power.conj(), power * ones.conj(), ones * ones.conj())
    )
    total = centred.square().sum()
    enough = (common >= OVERLAP * values.numel()) & (torch.minimum(first, second) >= COMMON * total)
    similar = torch.where(enough, product / (first * second).clamp(min=1e-6).sqrt(), torch.zeros(()).to(product))
    return torch.fft.fftshift(similar)


def _refined(mask: torch.Tensor, shift: tuple[int, int], factor: int) -> tuple[int, int]:
    """The shift beside `shift`, found in a mask shrunk by `factor`, by which most of the mask (H,W) bool repeats."""
    step = factor // 2
    while step:
        around = [(shift[0] + row * step, shift[1] + column * step) for row in (-1, 0, 1) for column in (-1, 0, 1)]
        shift = max(around, key=lambda one: _repeated(mask, one))
        step //= 2
    return shift


def _repeated(mask: torch.Tensor, shift: tuple[int, int]) -> int:
    here, there = _common(tuple(mask.shape), shift)
    return int((mask[here] & mask[there]).sum())


def _common(size: tuple[int, ...], shift: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a picture of `size` and itself moved by `shift` overlap: the pixels, and those that lie `shift` further."""
    here = tuple(slice(max(0, -by), min(side, side - by)) for side, by in zip(size, shift, strict=True))
    there = tuple(slice(max(0, by), min(side, side + by)) for side, by in zip(size, shift, strict=True))
    return here, there
