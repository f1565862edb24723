"""Estimation of the opacity and colour of a mark from the pixels along its border.

A uniform mark turns `clean` into `clean * (1 - opacity) + colour * opacity`. On both sides of its border the clean
image is about the same, so the values inside are a linear function of those outside, with slope 1 - opacity and
intercept colour * opacity. (Dekel et al. 2017 estimate the same from many images with one mark.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from restore.pixels import Array, to_float

STRIP_WIDTH = 3  # pixels on either side of the border that are compared
# Pixels next to the border that are skipped inside and outside, since edges are soft; thin marks need small margins.
MARGINS = ((4, 0), (3, 0), (2, 0), (2, 1), (1, 1), (1, 0), (0, 1), (0, 0))
MIN_PIXELS = 2  # in the strip on either side, for a position along the border to count
MIN_POSITIONS = 40
MAX_POSITIONS = 100_000  # enough: the rest of the border is skipped
MIN_CORRELATION = 0.6
CORRELATION_TOLERANCE = 0.95  # relative to the best correlation, from which on a margin is accepted as well
OPACITY_RANGE = (0.05, 0.9)  # weaker marks are invisible, stronger ones hide what is behind them
MIN_SLOPE, MAX_SLOPE = 1 - OPACITY_RANGE[1], 1 - OPACITY_RANGE[0]
SLOPE_TOLERANCE = 0.02  # beyond the bound that colours within [0, 1] allow
ITERATIONS, EPSILON = 20, 1e-9
# Parts of a mark with a colour of their own: of the largest, those with so many positions along the border, where
# what is left of their hue, in each of the pixels, is so much, and so many times its spread.
MAX_PARTS, MIN_PART_POSITIONS, PART_MARGIN = 32, 100, (1, 1)
MIN_DEVIATION, MIN_SPREADS = 0.2, 4
OVERSHOOT = 0.5  # beyond black and white, to which an inverted blend is clipped
BAND_PIXELS = 1 << 20  # processed at once
BAND_STEP = 7  # every seventh band comes first, so that the positions are spread over the image


@dataclass(frozen=True)
class Blend:
    """An alpha blend with one opacity and one colour."""

    opacity: float  # within `OPACITY_RANGE`
    colour: tuple[float, float, float]  # RGB, white at 1
    correlation: float = 1.0  # between the values inside and outside of the border; low for opaque objects of the scene

    @property
    def strength(self) -> float:
        """How clearly a border is that of a mark, to compare masks: 0 to 1."""
        return self.opacity * self.correlation

    def invert(self, pixels: np.ndarray) -> np.ndarray:
        """Inverts the blend at every pixel of (h,w,3) float32; clipped to `OVERSHOOT` beyond black and white."""
        overlay = np.array(self.colour, np.float32) * np.float32(self.opacity)
        return np.clip((pixels - overlay) / np.float32(1 - self.opacity), -OVERSHOOT, 1 + OVERSHOOT)


def estimate_alpha(image: np.ndarray, mask: np.ndarray) -> Blend | None:
    """Estimates the blend of a mark from the pixels along its border: (H,W,3), and (H,W) bool, the inside of the mark.

    None if the border is too short or the correlation too low.
    """
    blends = [
        _fit_line(*np.split(samples.astype(np.float64), (3, 6), axis=1))
        for samples in _border_samples(image, mask, mask, MARGINS)
        if len(samples) >= MIN_POSITIONS
    ]
    best = max((blend.correlation for blend in blends), default=0.0)
    if best < MIN_CORRELATION:
        return None
    # Pixels of soft edges make the estimated opacity too low, never too high.
    accepted = (blend for blend in blends if blend.correlation >= CORRELATION_TOLERANCE * best)
    return max(accepted, key=lambda blend: blend.opacity)


def estimate_parts(image: np.ndarray, mask: np.ndarray, blend: Blend) -> tuple[Array, tuple[Blend, ...]]:
    """Finds connected parts of a mark whose colour has another hue than most of it, as in logos, and estimates theirs.

    Args:
        image: (H,W,3).
        mask: (H,W) bool, the inside of the mark.
        blend: of most of it.

    Returns:
        Labels (H,W) uint8, n for the nth of these parts and 0 elsewhere; and their blends.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts, blends = np.zeros(mask.shape, np.uint8), []
    for number in 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:MAX_PARTS]:
        left, top, width, height, _ = stats[number].tolist()
        reach = 2 * STRIP_WIDTH  # more than the strips and their sums are wide
        window = slice(max(0, top - reach), top + height + reach), slice(max(0, left - reach), left + width + reach)
        part = labels[window] == number
        own = _own_blend(image[window], part, mask[window], blend)
        if own is not None:
            blends.append(own)
            parts[window][part] = len(blends)
    return parts, tuple(blends)


def _own_blend(image: np.ndarray, part: np.ndarray, mask: np.ndarray, blend: Blend) -> Blend | None:
    """The blend of a part (h,w) of a mark; None if `blend` explains it, or its border is too short to tell."""
    (samples,) = _border_samples(image, part, mask, (PART_MARGIN,))
    if len(samples) < MIN_PART_POSITIONS:
        return None
    inner, outer, colour = samples[:, :3], samples[:, 3:6], np.array(blend.colour)
    residuals = inner - (1 - blend.opacity) * outer - blend.opacity * colour
    residual = np.median(residuals, axis=0)
    if np.ptp(residual) < max(MIN_DEVIATION, MIN_SPREADS * np.median(np.abs(residuals - residual))):
        return None
    red, green, blue = np.clip(colour + residual / blend.opacity, 0, 1).tolist()
    return estimate_alpha(image, part) or replace(blend, colour=(red, green, blue))


@dataclass(frozen=True)
class _Band:
    """Some rows of the image with a margin: (h,w,3) float32, distances (h,w) to outside of the mask and to it.

    border: (h,w) bool, the positions along the mask, without those of the margin.
    """

    pixels: Array
    depth: Array
    distance: Array
    border: Array

    def samples(self, margin_inside: int, margin_outside: int) -> Array:
        """(n,7) for n positions along the border: mean colour inside and outside, and number of pixels."""
        side = 2 * (STRIP_WIDTH + max(margin_inside, margin_outside)) + 1
        strips = _strip(self.depth, margin_inside), _strip(self.distance, margin_outside)
        counts = [self._total(strip, side) for strip in strips]
        enough = np.minimum(*counts) >= MIN_PIXELS
        means = [
            self._total(self.pixels * strip[..., None], side)[enough] / count[enough, None]
            for strip, count in zip(strips, counts, strict=True)
        ]
        return np.concatenate([*means, np.minimum(*counts)[enough, None]], axis=1)

    def _total(self, values: Array, side: int) -> Array:
        sums = cv2.boxFilter(values, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(sums)[self.border]


def _border_samples(
    image: np.ndarray, part: np.ndarray, mask: np.ndarray, margins: Sequence[tuple[int, int]]
) -> list[Array]:
    """`_Band.samples` for each of `margins`, of positions along the border of a part (H,W) bool of `mask`."""
    samples: list[list[Array]] = [[np.empty((0, 7), np.float32)] for _ in margins]
    for band in _bands(image, part, mask):
        for found, margin in zip(samples, margins, strict=True):
            found.append(band.samples(*margin))
        if max(sum(map(len, found)) for found in samples) >= MAX_POSITIONS:
            break
    return [np.concatenate(found) for found in samples]


def _bands(image: np.ndarray, part: np.ndarray, mask: np.ndarray) -> Iterator[_Band]:
    reach = 2 * (STRIP_WIDTH + max(map(max, MARGINS)))
    height, width = part.shape
    rows = max(1, BAND_PIXELS // width)
    tops = range(0, height, rows)
    for top in (top for first in range(BAND_STEP) for top in tops[first::BAND_STEP]):
        around = slice(max(0, top - reach), top + rows + reach)
        columns = np.flatnonzero(part[around].any(axis=0))
        if not len(columns):
            continue
        window = around, slice(max(0, columns[0] - reach), columns[-1] + 1 + reach)
        inside, outside = part[window].astype(np.uint8), ~mask[window]
        border = (cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0) & outside
        border[: top - around.start] = border[top - around.start + rows :] = False
        yield _Band(to_float(image[window]), _depth(inside), _depth(outside.astype(np.uint8)), border)


def _depth(inside: Array) -> Array:
    """Distance of each pixel of (h,w) uint8 to the nearest 0; the border of the image does not count."""
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 3))


def _strip(distance: Array, margin: int) -> Array:
    return ((distance > margin) & (distance <= margin + STRIP_WIDTH + 0.5)).astype(np.float32)


def _fit_line(inside: Array, outside: Array, pixels: Array) -> Blend:
    """Fits a line to the colours inside over those outside, (n,3) each, by iteratively reweighted regression.

    pixels: (n,1), the initial weights; outliers are weighted down by Cauchy's function.
    """
    weight = pixels
    for iteration in range(ITERATIONS):
        mean_in, mean_out = ((weight * values).sum(0) / weight.sum() for values in (inside, outside))
        var_in = (weight * (inside - mean_in) ** 2).sum() + EPSILON
        var_out = (weight * (outside - mean_out) ** 2).sum() + EPSILON
        covariance = (weight * (inside - mean_in) * (outside - mean_out)).sum()
        # The clean image varies equally on both sides, and inside this is scaled by the slope. With such errors
        # Deming's regression is the ratio of the standard deviations. The first iterations only find the outliers.
        slope = covariance / var_out if iteration < ITERATIONS // 4 else (var_in / var_out) ** 0.5
        # The colour of the mark lies within [0, 1], which bounds the slope; over a plain background nothing else does.
        brighter = (1 - mean_in) / (1 - mean_out + EPSILON)
        bound = np.where(mean_in > mean_out, brighter, mean_in / (mean_out + EPSILON)).min() + SLOPE_TOLERANCE
        slope = np.clip(slope, MIN_SLOPE, np.clip(bound, MIN_SLOPE, MAX_SLOPE))
        intercept = mean_in - slope * mean_out
        error = (((inside - slope * outside - intercept) ** 2).sum(1, keepdims=True) / (1 + slope**2)) ** 0.5
        weight = pixels / (1 + (error / max(1.4826 * np.median(error), 1 / 255)) ** 2)
    red, green, blue = np.clip(intercept / (1 - slope), 0, 1).tolist()
    return Blend(float(1 - slope), (red, green, blue), float(covariance / (var_in * var_out) ** 0.5))
