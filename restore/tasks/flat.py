"""Where a picture has no variation at all: the white border of a scan, the flat areas of a drawing."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 5  # of the neighbourhood that has to be equal everywhere, in pixels


def flat_centres(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(H,W) bool: the pixels of (H,W,3) float32 in whose neighbourhood of `side` pixels (odd) nothing varies."""
    around = np.ones((side, side), np.uint8)
    centres: np.ndarray = (cv2.dilate(pixels, around) == cv2.erode(pixels, around)).all(axis=-1)
    return centres


def flat_areas(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(H,W) bool: all pixels of such neighbourhoods, not only their centres."""
    around = np.ones((side, side), np.uint8)
    return cv2.dilate(flat_centres(pixels, side).astype(np.uint8), around) > 0
