"""The Bayer mosaic of a sensor, and three ways to make colours of it again. All float32."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from restore.errors import unknown_name

DEMOSAICINGS = ("bilinear", "gradient-corrected", "edge-directed")

_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_OTHER = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
# Malvar, He and Cutler 2004, figure 2: green at red and blue; red beside it in its row, and red at blue, or likewise.
_MALVAR_GREEN = [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]]
_MALVAR_ROW = [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]
_MALVAR_DIAGONAL = [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]
_ALONG = np.array([[-1, 2, 2, 2, -1]], np.float32) / 4
_FIRST = np.array([[-1, 0, 1]], np.float32)
_SECOND = np.array([[-1, 0, 2, 0, -1]], np.float32)


def mosaic(image: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    """Samples one colour a pixel, as a sensor does: (H,W,3) -> (H,W). red: its row and column in the 2x2 pattern."""
    seen = image[..., 1].copy()
    for channel, place in _places(red):
        seen[place] = image[..., channel][place]
    return seen


def demosaic(seen: np.ndarray, red: tuple[int, int], method: str) -> np.ndarray:
    """Interpolates the colours of a Bayer mosaic.

    Args:
        seen: (H,W) float32.
        red: row and column of red in the 2x2 pattern.
        method: bilinear; gradient-corrected (Malvar et al. 2004); or edge-directed (Hamilton and Adams 1997: green
            along the direction that changes less, red and blue by their difference to it).

    Returns:
        (H,W,3) float32.

    Raises:
        UsageError: unknown method.
    """
    if method == "gradient-corrected":
        return _gradient_corrected(seen, red)
    if method not in DEMOSAICINGS:
        raise unknown_name("demosaicing", method, DEMOSAICINGS)
    green = _edge_directed_green(seen, red) if method == "edge-directed" else _bilinear_green(seen, red)
    base = green if method == "edge-directed" else np.zeros_like(seen)
    planes = [green, green, green]
    for channel, place in _places(red):
        difference = np.zeros_like(seen)
        difference[place] = seen[place] - base[place]
        planes[channel] = base + _filtered(difference, _OTHER)
    return np.stack(planes, axis=-1)


def _places(red: tuple[int, int]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Red and blue: the channel, and where the mosaic has it."""
    yield 0, (slice(red[0], None, 2), slice(red[1], None, 2))
    yield 2, (slice(1 - red[0], None, 2), slice(1 - red[1], None, 2))


def _filtered(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    # This reflection keeps the pattern: a neighbour beyond the edge has the colour that it would have.
    return np.asarray(cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def _bilinear_green(seen: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    green = seen.copy()
    for _, place in _places(red):
        green[place] = 0
    return _filtered(green, _GREEN)


def _edge_directed_green(seen: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    across = np.abs(_filtered(seen, _FIRST)) + np.abs(_filtered(seen, _SECOND))
    down = np.abs(_filtered(seen, _FIRST.T)) + np.abs(_filtered(seen, _SECOND.T))
    best = np.where(across < down, _filtered(seen, _ALONG), _filtered(seen, _ALONG.T))
    green = seen.copy()
    for _, place in _places(red):
        green[place] = best[place]
    return green


def _gradient_corrected(seen: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    kernels = (_MALVAR_GREEN, _MALVAR_ROW, np.transpose(_MALVAR_ROW), _MALVAR_DIAGONAL)
    green, row, column, diagonal = (_filtered(seen, np.array(kernel, np.float32) / 16) for kernel in kernels)
    planes = [seen.copy(), seen.copy(), seen.copy()]
    for channel, place in _places(red):
        planes[1][place] = green[place]
        planes[2 - channel][place] = diagonal[place]
        rows, columns = place
        beside = rows, slice(1 - columns.start, None, 2)
        below = slice(1 - rows.start, None, 2), columns
        planes[channel][beside] = row[beside]
        planes[channel][below] = column[below]
    return np.stack(planes, axis=-1)
