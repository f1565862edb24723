"""A small map of a picture, seen at the picture's own size, a tile at a time."""

from __future__ import annotations

import numpy as np

from restore.tasks.base import Window


def sampled(small: np.ndarray, size: tuple[int, ...], window: Window) -> np.ndarray:
    """The part `window` of `small` (h,w,C) stretched over a picture of `size` (H,W): (height,width,C) float32.

    Bilinear, with pixel centres aligned. Every pixel is computed from its place in the picture alone:
    neighbouring windows fit exactly.
    """
    if small.shape[:2] == tuple(size):
        return small[window.slices].astype(np.float32)
    top, bottom, down = _between(small.shape[0], size[0], window.top, window.height)
    left, right, across = _between(small.shape[1], size[1], window.left, window.width)
    first, last = int(top[0]), int(bottom[-1]) + 1
    rows = small[first:last].astype(np.float32)
    rows = rows[:, left] + across[:, None] * (rows[:, right] - rows[:, left])
    above, below = rows[top - first], rows[bottom - first]
    below -= above
    below *= down[:, None, None]
    stretched: np.ndarray = above + below
    return stretched


def _between(count: int, length: int, start: int, taken: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For pixels `start` to `start + taken` of `length`: the two of `count` values around each, and how far between."""
    place = np.clip((np.arange(start, start + taken) + 0.5) * (count / length) - 0.5, 0, count - 1)
    lower = np.floor(place).astype(np.intp)
    return lower, np.minimum(lower + 1, count - 1), (place - lower).astype(np.float32)
