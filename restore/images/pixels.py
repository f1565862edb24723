"""Decoded pixels: Pillow pictures as arrays, arrays as pixels and alpha, and what a file can hold of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import PIL.Image

from restore.errors import ImageError
from restore.images.image import Array
from restore.images.profiles import rgb_from_cmyk
from restore.pixels import white

_LOCK = threading.Lock()
BAND = 1 << 20  # pixels that are fetched at once
_SMALL = 1 << 20  # bytes of pixels that are allocated without a question


def check_decoded_size(needed: int, stored: int, ratio: float) -> None:
    """Raises ValueError where `stored` bytes of a file cannot become the `needed` bytes that its header claims.

    ratio: how many bytes a byte can become at most. So nothing large is allocated for a small damaged file.
    """
    if needed > max(_SMALL, stored * ratio):
        raise ValueError(f"{stored} bytes cannot hold the {needed / 1e6:.0f} MB of pixels that its header claims")


@contextmanager
def without_pil_limit() -> Iterator[None]:
    """Pillow's limit of pixels off: it is one global number, and our own check has been made or follows."""
    with _LOCK:
        limit = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def split_picture(picture: PIL.Image.Image, icc: bytes | None) -> tuple[Array, Array | None]:
    """An 8-bit Pillow picture as (H,W,1 or 3) pixels and (H,W) alpha or None, both writable uint8.

    Palettes become RGB, or gray where all their entries are gray; CMYK becomes sRGB. Raises ImageError for
    modes that have no such form (Lab, 32-bit integers).
    """
    mode = picture.mode
    if mode == "CMYK":
        return rgb_from_cmyk(pil_to_array(picture), icc), None
    if mode in ("P", "PA"):
        picture = _expand_palette(picture)
    elif plain := {"1": "L", "YCbCr": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA"}.get(mode):
        picture = picture.convert(plain)
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"pixels of the kind {mode} are not supported; convert it to RGB first")
    return split_alpha(pil_to_array(picture))


def pil_to_array(picture: PIL.Image.Image) -> Array:
    """An 8-bit Pillow picture as (H,W) or (H,W,C), writable, without a second copy on the way.

    Pillow hands its pixels out as one string of many pieces, which for a large picture takes as much memory again
    and leaves the heap full of holes; so they are fetched a band of rows at a time.
    """
    width, height = picture.size
    channels = len(picture.getbands())
    array = np.empty((height, width) if channels == 1 else (height, width, channels), np.uint8)
    rows = max(1, BAND // max(1, width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        array[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return array


def _expand_palette(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A palette picture as L, LA, RGB or RGBA."""
    entries = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    gray = bool((entries == entries[:, :1]).all())
    if picture.mode == "PA" or "transparency" in picture.info:
        return picture.convert("RGBA").convert("LA" if gray else "RGBA")
    return picture.convert("RGB").convert("L" if gray else "RGB")


def split_alpha(array: Array) -> tuple[Array, Array | None]:
    """(H,W) or (H,W,1..4) as pixels and alpha, both contiguous."""
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] in (2, 4):
        return np.ascontiguousarray(array[..., :-1]), np.ascontiguousarray(array[..., -1])
    return np.ascontiguousarray(array), None


def scale_to_full_range(array: Array, bits: int) -> Array:
    """Samples of 1 to 16 `bits` spread over the whole range of their dtype."""
    top = (1 << bits) - 1
    most = int(white(array.dtype))
    if top == most:
        return array
    return np.asarray(np.rint(array.astype(np.float32) * np.float32(most / top)), array.dtype)


def squeeze_gray(array: Array) -> Array:
    """(H,W,1) as (H,W), for encoders that know gray by its two dimensions; contiguous."""
    return np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)


def array_to_pil(array: Array) -> PIL.Image.Image:
    """(H,W,1..4) uint8 as a Pillow picture of mode L, LA, RGB or RGBA."""
    return PIL.Image.fromarray(squeeze_gray(array))


def encode_picture(array: Array, kind: str, **options: object) -> bytes:
    """A file of one of Pillow's formats, of (H,W,1..4) uint8. Options that are None are left out."""
    out = BytesIO()
    array_to_pil(array).save(out, kind, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()
