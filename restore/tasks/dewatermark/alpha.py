"""The opacity and colour of a mark, from what its border does to the picture.

A uniform mark turns `clean` into `clean * (1 - opacity) + colour * opacity`. Just inside and just outside of its border
the clean picture is much the same, so what is seen inside is a straight line over what is seen outside: its slope is
1 - opacity, and it starts at colour * opacity. (Dekel et al. 2017 learn as much from many pictures with one mark.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from restore.pixels import Array, to_float

REACH = 3  # pixels on either side of the border that are compared
# How many pixels next to the border are left out inside and outside, since edges are soft; thin marks have no others.
MARGINS = ((4, 0), (3, 0), (2, 0), (2, 1), (1, 1), (1, 0), (0, 1), (0, 0))
LEAST = 2  # pixels that speak for a place along the border, on either side
FEWEST = 40  # places along the border
ENOUGH = 100_000
CORRELATED = 0.6  # how well the line has to fit, at least
ALIKE = 0.95  # margins whose line fits that well, compared with the best, are as good as it
OPACITY_RANGE = (0.05, 0.9)  # of opacities: weaker marks are not seen, and nothing is seen through stronger ones
LEAST_SHOWN, MOST_SHOWN = 1 - OPACITY_RANGE[1], 1 - OPACITY_RANGE[0]
NEARLY = 0.02  # what shines through may seem that much more than black and white allow
ROUNDS, TINY = 20, 1e-9
FAR = 0.5  # how far beyond black and white an undone blend may lie
BAND = 1 << 20  # pixels that are looked at in one go
STRIDE = 7  # bands that are left out at first, so that the first places come from all of the picture


@dataclass(frozen=True)
class Blend:
    """One opacity and one colour (RGB with white at 1) for all of a mark.

    correlation: between what is seen inside and outside of its border, which tells marks from things in the picture:
    those hide what is behind them.
    """

    opacity: float
    colour: tuple[float, float, float]
    correlation: float = 1.0

    def undone(self, pixels: np.ndarray) -> np.ndarray:
        """(h,w,3) float32 with white at 1 as if all of it lay under the mark, clipped `FAR` beyond black and white."""
        over = np.array(self.colour, np.float32) * np.float32(self.opacity)
        undone: Array = np.clip((pixels - over) / np.float32(1 - self.opacity), -FAR, 1 + FAR)
        return undone


def estimate_alpha(image: np.ndarray, mask: np.ndarray) -> Blend | None:
    """The blend under `mask` (H,W) bool of a picture (H,W,3), any dtype; None where its border does not tell."""
    places: list[list[Array]] = [[] for _ in MARGINS]
    for band in _bands(image, mask):
        for number, margin in enumerate(MARGINS):
            places[number].append(band.beside(*margin))
        if max(sum(map(len, parts)) for parts in places) >= ENOUGH:
            break
    found: list[Blend] = []
    for parts in places:
        joined = np.concatenate(parts) if parts else np.empty((0, 7))
        if len(joined) >= FEWEST:
            found.append(_line(*np.split(joined.astype(np.float64), (3, 6), axis=1)))
    best = max((blend.correlation for blend in found), default=0.0)
    if best < CORRELATED:
        return None
    # Soft edges that are taken for the inside make a mark look weaker than it is, never stronger.
    return max((blend for blend in found if blend.correlation >= ALIKE * best), key=lambda blend: blend.opacity)


@dataclass(frozen=True)
class _Band:
    """Some rows of the picture, and of those around them.

    pixels: (h,w,3) float32. depth, distance: (h,w), how far into the mask a pixel lies, and how far
    from it. border: (h,w) bool, the pixels along the mask that are this band's to speak for.
    """

    pixels: Array
    depth: Array
    distance: Array
    border: Array

    def beside(self, skipped: int, skipped_outside: int) -> Array:
        """(n,7), for each place along the border: mean colour inside and outside, and how many pixels say so."""
        side = 2 * (REACH + max(skipped, skipped_outside)) + 1
        parts = _between(self.depth, skipped), _between(self.distance, skipped_outside)
        counts = [self._total(part, side) for part in parts]
        enough = np.minimum(*counts) >= LEAST
        means = [
            self._total(self.pixels * part[..., None], side)[enough] / count[enough, None]
            for part, count in zip(parts, counts, strict=True)
        ]
        return np.concatenate([*means, np.minimum(*counts)[enough, None]], axis=1)

    def _total(self, values: Array, side: int) -> Array:
        sums = cv2.boxFilter(values, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        total: Array = np.asarray(sums)[self.border]
        return total


def _bands(image: np.ndarray, mask: np.ndarray) -> Iterator[_Band]:
    reach = 2 * (REACH + max(map(max, MARGINS)))
    height, width = mask.shape
    rows = max(1, BAND // width)
    tops = range(0, height, rows)
    for top in (top for first in range(STRIDE) for top in tops[first::STRIDE]):
        around = slice(max(0, top - reach), top + rows + reach)
        columns = np.flatnonzero(mask[around].any(axis=0))
        if not len(columns):
            continue
        part = around, slice(max(0, columns[0] - reach), columns[-1] + 1 + reach)
        inside = mask[part].astype(np.uint8)
        border = (cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside).astype(bool)
        border[: top - around.start] = border[top - around.start + rows :] = False
        yield _Band(to_float(image[part]), _depth(inside), _depth(1 - inside), border)


def _depth(inside: Array) -> Array:
    """How many pixels it is to the next 0 of (h,w) uint8; the frame of the picture is none."""
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 3))


def _between(depth: Array, skipped: int) -> Array:
    return ((depth > skipped) & (depth <= skipped + REACH + 0.5)).astype(np.float32)


def _line(inside: Array, outside: Array, weight: Array) -> Blend:
    """The blend that (n,3) colours inside are a line over those outside by.

    weight: (n,1), of each place; such as do not fit count less and less (Cauchy's weights).
    """
    kept = weight
    for turn in range(ROUNDS):
        within, beyond = ((kept * part).sum(0) / kept.sum() for part in (inside, outside))
        spread, ground = (kept * (inside - within) ** 2).sum() + TINY, (kept * (outside - beyond) ** 2).sum() + TINY
        joint = (kept * (inside - within) * (outside - beyond)).sum()
        # The clean picture differs as much on one side as on the other, and inside that shows weaker by the slope. With
        # such errors Deming's regression is the ratio of the spreads. The first rounds are for finding what is odd.
        slope = joint / ground if turn < ROUNDS // 4 else (spread / ground) ** 0.5
        # No ink is brighter than white or darker than black: over plain ground, that is what tells the opacity.
        farthest = (
            np.where(within > beyond, (1 - within) / (1 - beyond + TINY), within / (beyond + TINY)).min() + NEARLY
        )
        slope = np.clip(slope, LEAST_SHOWN, np.clip(farthest, LEAST_SHOWN, MOST_SHOWN))
        start = within - slope * beyond
        error = (((inside - slope * outside - start) ** 2).sum(1, keepdims=True) / (1 + slope**2)) ** 0.5
        kept = weight / (1 + (error / max(1.4826 * np.median(error), 1 / 255)) ** 2)
    red, green, blue = np.clip(start / (1 - slope), 0, 1).tolist()
    return Blend(float(1 - slope), (red, green, blue), float(joint / (spread * ground) ** 0.5))
