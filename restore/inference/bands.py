"""Whole pictures a band of rows at a time: what is held beside them does not grow with their size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from restore.corruptions.downsample import resize_bicubic
from restore.pixels import is_gray

PIXELS = 1 << 20  # of a band
REACH = 4  # rows beyond a band that bicubic enlargement may look at; it needs 2


def gray(image: np.ndarray) -> bool:
    """`is_gray` of (H,W,1 or 3), without a temporary of its size, and quick for what is coloured."""
    return image.shape[-1] == 1 or all(is_gray(image[top:bottom]) for top, bottom in _bands(image))


def finite(image: np.ndarray) -> bool:
    """Whether (H,W,C) holds numbers only, without a temporary of its size."""
    return image.dtype.kind != "f" or all(bool(np.isfinite(image[top:bottom]).all()) for top, bottom in _bands(image))


def enlarge(image: np.ndarray, into: np.ndarray) -> None:
    """Fills `into` (H*scale,W*scale,C) with (H,W,C) of the same dtype, enlarged by bicubic interpolation."""
    height, width = image.shape[:2]
    scale = into.shape[0] // height
    if scale == 1:
        into[...] = image
        return
    for top, bottom in _bands(into):
        first, last = top // scale, -(-bottom // scale)
        upper, lower = max(0, first - REACH), min(height, last + REACH)
        band = resize_bicubic(image[upper:lower], ((lower - upper) * scale, width * scale))
        into[top:bottom] = band[top - upper * scale : bottom - upper * scale]


def _bands(image: np.ndarray) -> Iterator[tuple[int, int]]:
    rows = max(1, PIXELS // image.shape[1])
    return ((top, min(top + rows, image.shape[0])) for top in range(0, image.shape[0], rows))
