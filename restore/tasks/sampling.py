"""A small map of a picture, seen at the picture's own size, a tile at a time."""

from __future__ import annotations

import numpy as np

from restore.tasks.base import Window


def sampled(small: np.ndarray, size: tuple[int, ...], window: Window) -> np.ndarray:
    """The part `window` of `small` (h,w,C) as if it were enlarged to `size` (H,W): (height,width,C) float32.

    Bilinear, with pixel centres aligned; the same values whatever window a place is seen through.
    """
    if small.shape[:2] == tuple(size):
        return small[window.slices].astype(np.float32)
    (top, bottom, down), (left, right, across) = (
        _between(start, count, whole, part)
        for start, count, whole, part in (
            (window.top, window.height, size[0], small.shape[0]),
            (window.left, window.width, size[1], small.shape[1]),
        )
    )
    down, across = down[:, None, None], across[None, :, None]
    rows = small[top] * (1 - down) + small[bottom] * down
    found: np.ndarray = rows[:, left] * (1 - across) + rows[:, right] * across
    return found


def _between(start: int, count: int, whole: int, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of pixels `start` to `start + count`: the two cells that each lies between, and how far towards the second."""
    at = np.clip((np.arange(start, start + count) + 0.5) * (part / whole) - 0.5, 0, part - 1)
    first = np.floor(at).astype(np.intp)
    return first, np.minimum(first + 1, part - 1), (at - first).astype(np.float32)
