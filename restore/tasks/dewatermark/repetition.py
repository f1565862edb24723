"""Marks that repeat: what was detected of each copy is reconciled with the others.

Previews are often covered by one mark again and again, at equal distances. A part that is missed in one copy, since it
lies on something bright or is cut by the border of the image, is found in others; what was found in a single copy is
rather something of the scene.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.models.blocks import max_filter
from restore.pixels import to_float
from restore.tasks.dewatermark.alpha import Blend
from restore.tasks.functional import to_array
from restore.tasks.mask_detection import LEVELS, component_means, components, dilate

SIMILAR = 0.65  # correlation of a mask with itself, shifted, from which on it repeats by that
OVERLAP = 0.2  # share of the image that both have in common, at least
COMMON = 0.3  # share of the marks that lie there, at least
NEAREST = 12  # pixels: shorter distances are those between strokes
APART = 7  # pixels between two shifts, at least
MAX_SHIFTS = 4  # more of them say little more, and cost time
CORRELATED = 1 << 18  # pixels; masks of larger images are shrunk to about so many
# Pixels by which a shift may differ from the lattice of the others: for each step, and in all. Letters of one word
# resemble each other as well, but at distances of no lattice.
STEP_TOLERANCE, TOLERANCE = 0.5, 1.0
OWN_VOTES = 2  # of what was detected in a pixel itself; each of the copies has one
# Mean logit from which on a part stays that the copies do not have: it may be a mark of its own, such as a number
# between tiled logos.
CERTAIN_LOGIT = 2.5
# The opacity measured where copies have more, relative to the mark's, from which on it belongs to the mark. Soft edges
# and compression lower it; where there is no mark it is about 0.
MIN_OPACITY = 0.4
SIGMA = 2.5  # pixels: of the mean of what is beside
MIN_SHARE = 0.02  # of the weight of that mean, for a pixel to count
EPSILON = 1e-6  # against a division by 0
BAND_PIXELS = 1 << 20  # processed at once


def reconcile_copies(
    image: np.ndarray, mask: np.ndarray, logits: np.ndarray, blend: Blend, device: torch.device
) -> np.ndarray:
    """Adds to each copy of a repeated mark what most others have, and removes what most do not have.

    Pixels are added only where the image shows the mark, that is where it is shifted towards the mark's colour, and
    removed only where the segmentation was not certain.

    Args:
        image: RGB (H,W,3) with the marks.
        mask: (H,W) bool, the detected marks.
        logits: (H,W) int8, quantised as by `detect_logits`, that it follows from.
        blend: of the marks.
        device: that computes.

    Returns:
        (H,W) bool; `mask` if it does not repeat.
    """
    values = torch.from_numpy(mask).to(device)
    shifts = find_shifts(values)
    if len(shifts) < 2 or not is_lattice(shifts):
        return mask
    votes, copies = torch.zeros((2, *mask.shape), dtype=torch.uint8, device=device)
    for shift in (*shifts, *((-row, -column) for row, column in shifts)):
        here, there = _common(mask.shape, shift)
        votes[here] += values[there]
        copies[here] += 1
    missed = to_array((2 * votes > copies) & ~values)
    alone = to_array((2 * (votes + OWN_VOTES) <= copies + OWN_VOTES) & values)
    return (mask & ~_uncertain(alone, logits)) | _confirmed(image, missed, mask | missed, blend)


def find_shifts(mask: torch.Tensor) -> list[tuple[int, int]]:
    """The shifts by which a mask (H,W) bool repeats, in rows and columns, shortest first.

    Of two opposite ones that with positive rows, or columns where rows are 0; at most `MAX_SHIFTS`.
    """
    factor = max(1, math.ceil(math.sqrt(mask.numel() / CORRELATED)))
    small = F.avg_pool2d(mask[None, None].float(), factor, ceil_mode=True)[0, 0] if factor > 1 else mask.float()
    similar = _correlation(small)
    nearest, apart = NEAREST / factor, (max(1, APART // factor),) * 2
    highest = max_filter(similar[None, None].clamp(min=0), apart, apart)[0, 0]
    peaks = ((similar >= highest) & (similar >= SIMILAR)).nonzero().tolist()
    shifts = [(row - small.shape[0], column - small.shape[1]) for row, column in peaks]
    half = [shift for shift in shifts if shift > (0, 0) and math.hypot(*shift) >= nearest]
    half = sorted(half, key=lambda shift: math.hypot(*shift))[:MAX_SHIFTS]
    return [_refined(mask, (row * factor, column * factor), factor) for row, column in half]


def is_lattice(shifts: list[tuple[int, int]]) -> bool:
    """Whether shifts, shortest first, are multiples of the first, or sums of multiples of two of them."""
    basis = np.array(shifts[:1], float)
    for shift in np.array(shifts[1:], float):
        steps = np.rint(np.linalg.lstsq(basis.T, shift)[0])
        if np.abs(shift - steps @ basis).max() <= STEP_TOLERANCE * np.abs(steps).sum() + TOLERANCE:
            continue
        (row, column), length = basis[0], np.hypot(*basis[0])
        if len(basis) == 2 or abs(row * shift[1] - column * shift[0]) < APART * length:  # parallel, and no multiple
            return False
        basis = np.stack([basis[0], shift])
    return True


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
    similar = torch.where(enough, product / (first * second).clamp(min=EPSILON).sqrt(), torch.zeros(()).to(product))
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
    return int(torch.count_nonzero(mask[here] & mask[there]))


def _common(size: tuple[int, ...], shift: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where an image of `size` and itself moved by `shift` overlap: the pixels, and those that lie `shift` further."""
    here = tuple(slice(max(0, -by), min(side, side - by)) for side, by in zip(size, shift, strict=True))
    there = tuple(slice(max(0, by), min(side, side + by)) for side, by in zip(size, shift, strict=True))
    return here, there


def _uncertain(alone: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The connected parts of `alone` (H,W) bool with a low mean logit."""
    labels, sizes, _ = components(alone, alone)
    means = component_means(logits, labels, alone, len(sizes))
    return np.asarray(alone & (means < CERTAIN_LOGIT * LEVELS)[labels])


def _confirmed(image: np.ndarray, missed: np.ndarray, marked: np.ndarray, blend: Blend) -> np.ndarray:
    """The connected parts of `missed` (H,W) bool in which the mark is seen; `marked`: (H,W) bool, all that may be.

    In each part the opacity is measured by least squares: how far its colours are shifted from those beside to that of
    the mark.
    """
    count, labels = cv2.connectedComponents(missed.astype(np.uint8), connectivity=8)
    shifted, full = np.zeros((2, count))
    reach, rows = math.ceil(3 * SIGMA) + 1, max(1, BAND_PIXELS // missed.shape[1])
    for top in range(0, len(missed), rows):
        around = slice(max(0, top - reach), top + rows + reach)
        own = slice(top - around.start, top - around.start + rows)
        part = missed[around][own]
        if not part.any():
            continue
        pixels, beside = to_float(image[around]), (~dilate(marked[around], 1)).astype(np.float32)
        weight = cv2.GaussianBlur(beside, (0, 0), SIGMA)
        mean = cv2.GaussianBlur(pixels * beside[..., None], (0, 0), SIGMA) / (weight[..., None] + EPSILON)
        known = part & (weight[own] > MIN_SHARE)
        number, mean, pixels = labels[around][own][known], mean[own][known], pixels[own][known]
        towards = np.array(blend.colour, np.float32) - mean
        shifted += np.bincount(number, ((pixels - mean) * towards).sum(-1), count)
        full += np.bincount(number, np.square(towards).sum(-1), count)
    seen = shifted >= MIN_OPACITY * blend.opacity * (full + EPSILON)
    return np.asarray(missed & seen[labels])
