"""Pixel values of arrays: conversion between dtypes and channels, luma, and the test for gray images.

Images are numpy (H,W,C) or (H,W) in uint8, uint16 or floating point with white at 1.
"""

from __future__ import annotations

import numpy as np

from restore.errors import UsageError

BT601 = (0.299, 0.587, 0.114)  # ITU-R BT.601, section 2.5.1: luma from R, G, B

Array = np.ndarray


def white(dtype: np.dtype | type) -> float:
    """The value of white in `dtype`: 255, 65535, or 1 for floating point.

    Raises:
        UsageError: any other dtype.
    """
    kind = np.dtype(dtype)
    if kind == np.uint8:
        return 255.0
    if kind == np.uint16:
        return 65535.0
    if kind.kind == "f":
        return 1.0
    raise UsageError(f"pixels of type {kind} are not supported; use uint8, uint16 or float32")


def to_float(image: Array) -> Array:
    """Converts any shape and supported dtype to float32 with black at 0 and white at 1.

    Floating point values outside [0, 1] are kept. `to_dtype(to_float(x), x.dtype)` is exact for integers.

    Raises:
        UsageError: another dtype than uint8, uint16 or floating point.
    """
    scale = white(image.dtype)
    values = image.astype(np.float32)
    return values if scale == 1.0 else values * np.float32(1.0 / scale)


def to_dtype(image: Array, dtype: np.dtype | type) -> Array:
    """Converts floating point pixels to another dtype, rounded to nearest and clipped for integers.

    Raises:
        UsageError: `image` is not floating point, or `dtype` not supported.
    """
    scale = white(dtype)
    if image.dtype.kind != "f":
        raise UsageError(f"pixels of type {image.dtype} must be converted by to_float first")
    if scale == 1.0:
        return image.astype(dtype, copy=False)
    return np.clip(np.rint(image * np.float32(scale)), 0, scale).astype(dtype)


def to_uint8(image: Array) -> Array:
    """Clips and rounds any supported dtype to 8 bits; contiguous, as OpenCV needs it, and no copy if it is already."""
    return np.ascontiguousarray(image if image.dtype == np.uint8 else to_dtype(to_float(image), np.uint8))


def to_rgb(image: Array) -> Array:
    """(H,W,1 or 3) -> (H,W,3), a gray channel three times."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def luma(image: Array) -> Array:
    """BT.601 luma in float32, on the scale of `image`: (H,W,3) -> (H,W); a single channel is luma already."""
    if image.shape[-1] == 1:
        return image[..., 0].astype(np.float32)
    return image.astype(np.float32) @ np.asarray(BT601, np.float32)


def is_gray(image: Array) -> bool:
    """Whether all pixels of (H,W,1 or 3) have equal channels."""
    if image.shape[-1] == 1:
        return True
    red = image[..., 0]
    return all(np.array_equal(red, image[..., c]) for c in range(1, image.shape[-1]))


def bleed(image: Array, alpha: Array) -> Array:
    """Gives fully transparent pixels of (H,W,C) the colour of the nearest visible one; alpha (H,W).

    What a file holds under transparency, mostly black, would otherwise darken the edges of a logo that is resized. A
    copy, or `image` itself where no pixel, or every pixel, is fully transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return image
    import cv2  # slow to import, and only logos need it

    _, labels = cv2.distanceTransformWithLabels(hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.empty((labels.max() + 1, image.shape[-1]), image.dtype)
    colours[labels[~hidden]] = image[~hidden]
    filled = image.copy()
    filled[hidden] = colours[labels[hidden]]
    return filled
