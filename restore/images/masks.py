"""Masks and hints as people make them: on black, painted or erased on transparency, soft at the edges, 0 and 1."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from restore.errors import UsageError
from restore.images.image import Array, Image
from restore.pixels import white

HALF = 0.5  # from above which on a pixel is marked
SOFT = 1 / 16  # from which on it belongs to the soft edge
REACH = 3  # pixels, of a soft edge beyond what is marked
PHOTOGRAPH = 64  # colours, of 32,768, more than which are no strokes of a brush
PAPER = 0.97  # share of white from which on all channels of hints without alpha say nothing


def as_mask(mask: Any, alpha: Array | None = None) -> Array:
    """Reads a mask from pixels.

    Without transparency, what is bright in any channel is marked; 0 and 1 may stand for black and white. On
    transparency, what is painted in any colour is marked; of a photograph it is what was erased. Soft edges count, so
    that nothing is left of an antialiased stroke.

    Args:
        mask: (H,W) or (H,W,C) bool, integers, or floating point with white at 1 (or 255); the last of 2 or 4 channels
            is alpha. Or a picture of Pillow's.
        alpha: (H,W) of `mask`, in its dtype, if it is apart.

    Returns:
        (H,W) bool, True where marked.

    Raises:
        UsageError: no such array.
    """
    if not isinstance(mask, np.ndarray) and hasattr(mask, "convert"):
        mask = np.asarray(mask if mask.mode in ("1", "L", "LA", "RGB", "RGBA") else mask.convert("RGBA"))
    if not isinstance(mask, np.ndarray) or mask.ndim not in (2, 3) or mask.dtype.kind not in "buif" or not mask.size:
        got = getattr(mask, "shape", type(mask).__name__)
        raise UsageError(
            f"a mask is an array (H,W) or (H,W,C) of bool, integers or floats, or a Pillow image; got {got}"
        )
    if mask.dtype == bool and mask.ndim == 2:
        return mask
    values = mask[..., None] if mask.ndim == 2 else mask
    if values.shape[-1] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1]
    elif values.shape[-1] not in (1, 3):
        raise UsageError(f"a mask has 1 to 4 channels; got {values.shape[-1]}")
    if alpha is not None:
        opaque = _share(alpha)
        if opaque.min() <= HALF:
            return _marked(1 - opaque if _is_photograph(values, opaque) else opaque)
    return _marked(_share(values.max(axis=-1)))


def _share(values: Array) -> Array:
    """Values (H,W) as float32 from 0 to 1, whatever white is."""
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    highest = float(values.max())
    full = float(np.iinfo(values.dtype).max) if values.dtype in (np.uint8, np.uint16) else 255.0
    return np.asarray(np.clip(values, 0, None), np.float32) / np.float32(1 if highest <= 1 else max(full, highest))


def _marked(share: Array) -> Array:
    """What is marked, (H,W) bool, with its soft edges."""
    solid = share > HALF
    if not solid.any():
        return solid
    near = cv2.dilate(solid.astype(np.uint8), np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)) > 0
    soft: Array = near & (share > SOFT)
    return soft


def _is_photograph(values: Array, opaque: Array) -> bool:
    """Whether the opaque pixels of (H,W,1 or 3) have more colours than strokes of a brush."""
    levels = np.rint(31 * np.stack([_share(values[..., channel]) for channel in range(values.shape[-1])], -1))
    codes = levels[opaque > HALF] @ np.array([1, 32, 1024], np.float32)[: values.shape[-1]]
    return len(np.unique(codes)) > (PHOTOGRAPH if values.shape[-1] == 3 else 16)


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
