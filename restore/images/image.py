"""One picture in memory, with what its file said and writing needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image

from restore.errors import ImageError
from restore.pixels import to_uint8

Array = np.ndarray
SizeCheck = Callable[[int, int], None]  # (width, height); raises ImageError for too many pixels

NOTEBOOK_SIDE = 1600  # pixels
MAX_PIXELS = "RESTORE_MAX_PIXELS"  # an environment variable, which the processes of devices and of training inherit
MOST_METADATA = 8 << 20  # bytes of each of EXIF, XMP, ICC, IPTC and texts; what is larger is left out

DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was coded, so that its successor is coded the same way.

    `tables`: the luma and (in colour) the chroma quantisation table, 64 numbers each in natural order;
    `subsampling`: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; `progressive`: in several scans.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool


@dataclass(frozen=True, eq=False)
class Image:
    """A picture as its file holds it; the EXIF orientation is already applied to the pixels.

    pixels: (H,W,1) gray or (H,W,3) RGB in uint8, uint16 or float32 (white at 1, not clipped).
    alpha: (H,W) in the dtype of `pixels`, or None. Not premultiplied.
    format: the format of the file it came from, a name in `FORMATS`.
    exif: an EXIF 2.32 block from its TIFF header on (no "Exif" prefix), orientation 1, no thumbnail.
    icc: an ICC.1 profile that is true of `pixels`. xmp: an XMP packet in UTF-8.
    quality: the quality 1..100 a JPEG was written with, estimated from its quantisation tables.
    jpeg: how a JPEG was coded. lossless: whether the file kept its pixels exactly.
    dpi: pixels per inch, across and down. iptc: an IPTC-IIM block. comment: of a JPEG.
    png_chunks: raw PNG chunks, of colour (what the values mean) and of text.
    notes: what of the file is not in this picture, sentences for the user.
    pages: how many the file has, of which this is one.

    Raises ImageError for pixels of another shape or dtype.
    """

    pixels: Array
    alpha: Array | None = None
    format: str = "png"
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    quality: int | None = None
    jpeg: JpegCoding | None = None
    lossless: bool = True
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    notes: tuple[str, ...] = ()
    pages: int = 1

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ImageError(f"a picture must have the shape (H,W,1) or (H,W,3), not {shape}")
        if dtype not in DTYPES:
            raise ImageError(f"pixels of type {dtype} are not supported; use uint8, uint16 or float32")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != dtype):
            raise ImageError(f"alpha of {self.alpha.shape} {self.alpha.dtype} does not fit pixels of {shape} {dtype}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def megapixels(self) -> float:
        """Width x height in millions."""
        return self.size[0] * self.size[1] / 1e6

    @property
    def array(self) -> Array:
        """Pixels with alpha joined: (H,W,C) with C = 1 gray, 2 gray+alpha, 3 RGB, 4 RGBA.

        Without alpha this is `pixels` itself, not a copy; nor is it where both are parts of one array.
        """
        if self.alpha is None:
            return self.pixels
        whole = self.pixels.base
        if (
            isinstance(whole, np.ndarray)
            and whole is self.alpha.base
            and whole.shape[2:] == (self.pixels.shape[2] + 1,)
        ):
            parts = ((self.pixels, whole[..., :-1]), (self.alpha, whole[..., -1]))
            if all(mine.__array_interface__ == part.__array_interface__ for mine, part in parts):
                return whole
        return np.concatenate([self.pixels, self.alpha[..., None]], axis=2)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """`np.asarray(image)` is `array`."""
        return np.array(self.array, dtype, copy=True) if copy or dtype else self.array

    def _repr_png_(self) -> bytes:
        """What a notebook shows: 8 bit, every n-th pixel where a side is over `NOTEBOOK_SIDE`."""
        step = -(-max(self.size) // NOTEBOOK_SIDE)
        array = to_uint8(self.array[::step, ::step])
        out = BytesIO()
        PIL.Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(out, "PNG", icc_profile=self.icc)
        return out.getvalue()

    def with_array(self, array: Array) -> Image:
        """The same metadata around new pixels, of any size and depth.

        Shape: (H,W) or (H,W,1) gray, (H,W,2) gray+alpha, (H,W,3) RGB, (H,W,4) RGBA, in uint8, uint16 or
        float32. Alpha is what `array` holds: three channels in, no alpha out. Raises ImageError for
        anything else.
        """
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or not 1 <= array.shape[2] <= 4:
            raise ImageError(f"an array of shape {array.shape} is not a picture; use (H,W) or (H,W,1..4)")
        if array.shape[2] in (2, 4):
            return replace(self, pixels=array[..., :-1], alpha=array[..., -1])
        return replace(self, pixels=array, alpha=None)
