"""Logos given by the user: small images with an alpha channel, used as watermarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from restore.errors import UsageError
from restore.pixels import to_dtype, to_float

if TYPE_CHECKING:
    from restore.images import Image

MAX_SIDE = 512  # pixels: every worker process holds a copy
PREMULTIPLIED_WHITE = 255 * 255  # of both opaque alpha and premultiplied white


@dataclass(frozen=True)
class Logo:
    """One logo; hashable, since its values are stored as bytes.

    These are of (height,width,4) uint16, premultiplied RGB, then alpha, both up to `PREMULTIPLIED_WHITE`, so that their
    quotient is exactly the 8-bit colour.
    """

    width: int
    height: int
    premultiplied: bytes

    def render(self, size: int) -> np.ndarray:
        """The logo with a longer side of `size` pixels: (h,w,4) float32 in [0, 1], premultiplied RGB, then alpha."""
        stored = np.frombuffer(self.premultiplied, np.uint16).reshape(self.height, self.width, 4)
        return _resized(stored, size).astype(np.float32) / np.float32(PREMULTIPLIED_WHITE)


def make_logo(name: str, picture: Image) -> Logo:
    """A logo of an image, cropped to its visible part and shrunk to `MAX_SIDE` pixels.

    Raises:
        UsageError: an image without an alpha channel, or completely transparent; the message begins with `name`.
    """
    if picture.alpha is None:
        raise UsageError(f"{name}: has no alpha channel; save the logo with a transparent background")
    alpha = to_dtype(np.clip(to_float(picture.alpha), 0, 1), np.uint8)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not rows.size:
        raise UsageError(f"{name}: is completely transparent; save the logo with visible parts")
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    colour = to_dtype(np.clip(to_float(picture.pixels[part]), 0, 1), np.uint8)
    opacity = alpha[part][..., None].astype(np.uint16)
    joined = np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)) * opacity, opacity * 255], axis=2)
    small = _resized(joined, MAX_SIDE) if max(joined.shape[:2]) > MAX_SIDE else joined
    return Logo(small.shape[1], small.shape[0], small.tobytes())


def _resized(joined: np.ndarray, size: int) -> np.ndarray:
    """Resizes (h,w,4) to a longer side of `size` pixels, antialiased when shrinking."""
    height, width = joined.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(joined, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
