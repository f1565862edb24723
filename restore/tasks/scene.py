"""A whole picture at a bounded size, and what is known there taken up at full size along the edges of the luma."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from restore.colour import bands, luma_of
from restore.pixels import to_float

ANALYSED = 192  # short side of what the network sees, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(SMOOTH) (white at 1) as no edges.
REACH = 2
SMOOTH = 3e-4


def analysed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is looked at: `ANALYSED` pixels on the short side, its proportions kept."""
    scale = ANALYSED / min(height, width)
    return min(round(height * scale), LONGEST * ANALYSED), min(round(width * scale), LONGEST * ANALYSED)


def shrunk_luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma of (H,W,3), any dtype, at `analysed_size`: float32, white at 1; see `shrunk`."""
    return shrunk(image, luma_of)


def shrunk(image: np.ndarray, what: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """What `what` makes of the pixels (H,W,3), any dtype, as float32 with white at 1, at `analysed_size`.

    By area where it shrinks, cubic where it grows; never held at full size.
    """
    height, width = analysed_size(*image.shape[:2])
    # Rows first shrink in width only, a band at a time; area and cubic interpolation are separable.
    narrow = [resized(what(to_float(band)), band.shape[0], width) for band in bands(image)]
    return resized(np.concatenate(narrow), height, width)


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h,w) or (h,w,C) by area where it shrinks, cubic where it grows: (height,width) or (height,width,C)."""
    shrinks = height <= values.shape[0] and width <= values.shape[1]
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def guided(luma: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chroma` (h,w,2) as slope * luma + offset, with slope and offset (h,w,2) that vary little (He et al. 2013)."""
    guide = luma[..., None]
    mean, mean_chroma = _box(luma)[..., None], _box(chroma)
    variance = _box(luma * luma)[..., None] - mean * mean
    slope = (_box(guide * chroma) - mean * mean_chroma) / (np.maximum(variance, 0) + np.float32(SMOOTH))
    return _box(slope), _box(mean_chroma - slope * mean)


def _box(values: np.ndarray) -> np.ndarray:
    side = 2 * REACH + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
