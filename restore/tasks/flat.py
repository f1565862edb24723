"""Where a picture has no variation at all: the white border of a scan, the flat areas of a drawing."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 5  # of the neighbourhood that has to be equal everywhere, in pixels
_AROUND = np.ones((SIDE, SIDE), np.uint8)


def flat_centres(pixels: np.ndarray) -> np.ndarray:
    """(H,W) bool: the pixels of (H,W,3) float32 in whose neighbourhood nothing varies."""
    centres: np.ndarray = (cv2.dilate(pixels, _AROUND) == cv2.erode(pixels, _AROUND)).all(axis=-1)
    return centres


def flat_areas(pixels: np.ndarray) -> np.ndarray:
    """(H,W) bool: all pixels of such neighbourhoods, not only their centres."""
    return cv2.dilate(flat_centres(pixels).astype(np.uint8), _AROUND) > 0
