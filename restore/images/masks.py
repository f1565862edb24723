"""Masks and hints from pictures: where a picture is damaged, and colours that a person gives."""

from __future__ import annotations

import numpy as np

from restore.errors import UsageError
from restore.images.image import Array, Image
from restore.pixels import white

PAPER = 0.97  # share of white from which on all channels of hints without alpha say nothing


def mask_from(values: Array) -> Array:
    """Makes a mask of an array.

    Args:
        values: (H,W), (H,W,1), (H,W,3) or (H,W,4): bool; integers that are 0 and 1, or 0 to the white of their type
            (255 for all but uint16); or floating point from 0 to 1. Alpha does not count.

    Returns:
        (H,W) bool: True where any colour channel is over half of white.

    Raises:
        UsageError: another shape, or values on no such scale.
    """
    if values.ndim == 3 and values.shape[2] in (1, 3, 4):
        values = values[..., :3].max(axis=2)
    if values.ndim != 2:
        raise UsageError(f"a mask has shape (H,W), True where the picture is damaged; got {values.shape}")
    if values.dtype == bool or not values.size:
        return values.astype(bool, copy=False)
    top = values.max()
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and top <= 1):  # also for NaN
            raise UsageError(f"a mask of floating point goes from 0 to 1; this reaches {top:g}: divide it by 255")
        return np.asarray(values > 0.5)
    full = 65535 if values.dtype == np.uint16 else 255
    if top <= 1:
        full = 1
    elif values.dtype.kind not in "ui" or not full / 2 < top <= full:
        raise UsageError(f"a mask is bool, 0 and 1, or 0 and {full}; this one reaches {top}: pass `mask > 0`")
    return np.asarray(values > full / 2)


def hints_from(image: Image) -> Array:
    """Makes hints of a picture.

    Returns:
        (H,W,4) RGB and alpha: the colours that are known where alpha is opaque. In a picture without alpha they are
        known where it is not white.
    """
    colours = np.broadcast_to(image.pixels, (*image.pixels.shape[:2], 3))
    if image.alpha is not None:
        return np.concatenate([colours, image.alpha[..., None]], axis=-1)
    opaque = np.asarray(white(colours.dtype), colours.dtype)
    told = colours.min(axis=-1) < PAPER * opaque
    return np.concatenate([colours, told[..., None] * opaque], axis=-1)
