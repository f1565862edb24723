"""Colorization by optimization (Levin et al. 2004): dots of colour spread to neighbours of alike luma."""

from __future__ import annotations

import numpy as np

# Of the variance in a window, how much alike pixels differ by, and the least of that; and what
# a neighbour weighs however much it differs.
SHARE, LEAST, FLOOR = 0.6, 2e-6, 1e-6


def spread_chroma(grey: np.ndarray, chroma: np.ndarray, told: np.ndarray) -> np.ndarray:
    """The linear system of Levin et al. 2004, over windows of 3x3 pixels, solved by scipy's sparse LU.

    Shape: (H,W) luma with white at 1, (H,W,2) of which only `told` (H,W) bool counts -> (H,W,2), float64.
    """
    from scipy.sparse import csr_matrix, eye_array
    from scipy.sparse.linalg import splu

    height, width = grey.shape
    number = np.arange(height * width).reshape(height, width)
    padded = np.pad(grey.astype(np.float64), 1, mode="edge")
    around = [padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    spread = np.maximum(SHARE * np.var(around, axis=0), LEAST)
    rows, columns, weights = [], [], []
    for y, x in [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]:
        here = np.s_[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        there = np.s_[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
        alike = np.exp(-np.square(grey[here] - grey[there]) / spread[here]) + FLOOR
        free = ~told[here]
        rows.append(number[here][free])
        columns.append(number[there][free])
        weights.append(alike[free])
    size = number.size
    row, column, weight = (np.concatenate(parts) for parts in (rows, columns, weights))
    total = np.bincount(row, weight, size)
    shares = csr_matrix((weight / total[row], (row, column)), shape=(size, size))
    known = np.where(told[..., None], chroma, 0).reshape(size, 2).astype(np.float64)
    return np.asarray(splu((eye_array(size) - shares).tocsc()).solve(known)).reshape(height, width, 2)
