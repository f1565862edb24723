"""Figures of the connected parts of a mask: how many pixels, how many of them elsewhere too, and means over them."""

from __future__ import annotations

import cv2
import numpy as np

from restore.pixels import Array


def counted(area: Array, within: Array) -> tuple[Array, Array, Array]:
    """Labels (H,W) of the connected parts of `area` (0: none of it); of each the pixels, and those in `within`.

    area, within: (H,W) bool. Pixels that touch at a corner are connected.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    return labels, stats[:, cv2.CC_STAT_AREA], np.bincount(labels[within], minlength=count)


def means(values: Array, labels: Array, within: Array, count: int) -> Array:
    """The mean of `values` (H,W) over the pixels `within` of each of `count` labels (H,W); 0 where there are none."""
    of = labels[within]
    sums, pixels = np.bincount(of, weights=values[within], minlength=count), np.bincount(of, minlength=count)
    result: Array = sums / np.maximum(pixels, 1)
    return result
