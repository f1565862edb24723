"""Rough fillings of holes by the fast marching method (Telea 2004), which the network refines."""

from __future__ import annotations

import math

import cv2
import numpy as np

from restore.pixels import to_uint8

TELEA_RADIUS = 3  # pixels
MAX_FILLING_PIXELS = 1 << 24  # larger images are shrunk for the rough filling


def rough_filling(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills holes by the fast marching method of Telea (2004).

    Args:
        image: (H,W,3), any supported dtype.
        mask: (H,W) bool, the holes.

    Returns:
        (h,w,3) uint8, shrunk by an integer factor if the image has more than `MAX_FILLING_PIXELS`.
    """
    factor = math.ceil(math.sqrt(max(1.0, mask.size / MAX_FILLING_PIXELS)))
    if factor == 1:
        return telea(to_uint8(image), mask)
    height, width = (-(-side // factor) for side in mask.shape)
    rows = max(1, MAX_FILLING_PIXELS // image.shape[1]) // factor * factor or factor
    small, known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
    for top in range(0, image.shape[0], rows):
        band, valid = image[top : top + rows], (~mask[top : top + rows]).astype(np.float32)
        size = (width, -(-band.shape[0] // factor))
        target = slice(top // factor, top // factor + size[1])
        weight = cv2.resize(valid, size, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(to_uint8(band) * valid[..., None], size, interpolation=cv2.INTER_AREA)
        known[target] = weight
        small[target] = np.clip(mean / np.maximum(weight, 1e-3)[..., None], 0, 255)
    return telea(small, known < 0.5)


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills the pixels of (H,W,3) uint8 inside of `mask` (H,W) bool; all of the picture: left as it is."""
    if mask.all():  # possible after shrinking
        return image
    for axis in (0, 1):
        if mask.shape[axis] == 1:  # OpenCV 5.0 reads beyond a single row or column: other results each time
            wide = telea(np.repeat(image, 3, axis), np.repeat(mask, 3, axis))
            return wide.take([1], axis)
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)).reshape(image.shape)
