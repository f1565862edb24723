"""Pixel values: one scale for every dtype, and what makes a picture gray.

Images are numpy (H,W,C) or (H,W) in uint8, uint16 or floating point with white at 1.
"""

from __future__ import annotations

import numpy as np

from restore.errors import UsageError

BT601 = (0.299, 0.587, 0.114)  # ITU-R BT.601, section 2.5.1: luma from R, G, B

Array = np.ndarray


def white(dtype: np.dtype | type) -> float:
    """The value of white in `dtype`: 255, 65535, or 1 for floating point.

    Raises UsageError for any other dtype.
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
    """`image` as float32 with black at 0 and white at 1; floats keep values outside [0, 1].

    Shape: any -> the same. Integers survive `to_dtype(to_float(x), x.dtype)` exactly.
    """
    scale = white(image.dtype)
    values = image.astype(np.float32)
    return values if scale == 1.0 else values * np.float32(1.0 / scale)


def to_dtype(image: Array, dtype: np.dtype | type) -> Array:
    """Float pixels with white at 1 as `dtype`: rounded to nearest and clipped for integers.

    Shape: any -> the same. Floating point targets are neither rounded nor clipped.
    Raises UsageError if `image` is not floating point: its white would not be at 1.
    """
    scale = white(dtype)
    if image.dtype.kind != "f":
        raise UsageError(f"pixels of type {image.dtype} have to go through to_float first")
    if scale == 1.0:
        return image.astype(dtype, copy=False)
    return np.clip(np.rint(image * np.float32(scale)), 0, scale).astype(dtype)


def luma(image: Array) -> Array:
    """BT.601 luma in float32, on the scale of `image`.

    Shape: (H,W,3) -> (H,W); one channel is returned as it is.
    """
    if image.shape[-1] == 1:
        return image[..., 0].astype(np.float32)
    return image.astype(np.float32) @ np.asarray(BT601, np.float32)


def is_gray(image: Array) -> bool:
    """Whether every pixel of (H,W,1) or (H,W,3) has equal channels (a gray picture)."""
    if image.shape[-1] == 1:
        return True
    red = image[..., 0]
    return all(np.array_equal(red, image[..., c]) for c in range(1, image.shape[-1]))
