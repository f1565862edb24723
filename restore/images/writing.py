"""One way out: Image -> bytes -> a file that is whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from restore.errors import ImageError
from restore.images.failures import CODEC_ERRORS, printable, reason
from restore.images.finding import SUFFIXES
from restore.images.jpeg import LARGEST_SIDE, encode_jpeg
from restore.images.metadata import upright_exif, upright_xmp
from restore.images.modern import WEBP_LARGEST_SIDE, encode_avif, encode_bmp, encode_webp
from restore.images.picture import Image
from restore.images.png import encode_png
from restore.images.profiles import true_profile
from restore.images.tiff_writing import encode_tiff
from restore.utils.atomic_write import write_atomic

_TITLES = {"jpeg": "JPEG", "webp": "WebP", "heic": "HEIC"}
_LARGEST_SIDES = {"jpeg": LARGEST_SIDE, "webp": WEBP_LARGEST_SIDE}


def writable_suffix(image: Image, suffix: str) -> tuple[str, str | None]:
    """The suffix under which all of `image` can be kept, and a sentence for the user where it is not
    `suffix`.

    JPEG and BMP hold no alpha, all but PNG and TIFF no 16 bits, all but TIFF no floating point, JPEG and
    WebP no sides beyond 65500 and 16383 pixels, and HEIC is read only: such pictures go to PNG, floating
    point to TIFF, HEIC to JPEG where that holds them. Raises ImageError for a suffix that is no picture's.
    """
    kind = _format_of(suffix)
    lack = _lack(image, kind)
    if lack is None:
        return suffix, None
    if image.pixels.dtype == np.float32:
        other = ".tif"
    elif kind == "heic" and _lack(image, "jpeg") is None:
        other = ".jpg"
    else:
        other = ".png"
    return other, f"{lack}: written as {_title(SUFFIXES[other])} instead"


def _lack(image: Image, kind: str) -> str | None:
    """What keeps `image` from being written as `kind`, or None."""
    title, dtype = _title(kind), image.pixels.dtype
    if dtype == np.float32 and kind != "tiff":
        return f"{title} does not hold floating point pixels"
    if dtype == np.uint16 and kind not in ("png", "tiff"):
        return f"{title} does not hold 16 bits a channel"
    if image.alpha is not None and kind in ("jpeg", "bmp"):
        return f"{title} does not hold transparency"
    if max(image.size) > (side := _LARGEST_SIDES.get(kind, 1 << 30)):
        return f"{title} does not hold more than {side} pixels a side"
    return "HEIC can be read but not written" if kind == "heic" else None


def _title(kind: str) -> str:
    return _TITLES.get(kind, kind.upper())


def _format_of(suffix: str) -> str:
    kind = SUFFIXES.get(suffix.lower())
    if kind is None:
        known = " ".join(known for known, kind in SUFFIXES.items() if kind != "heic")
        raise ImageError(f"'{printable(suffix)}' is no picture suffix; use one of {known}")
    return kind


def encode_image(
    image: Image, format: str | None = None, *, quality: int | None = None, metadata: bool = True
) -> bytes:
    """`image` as the bytes of a file of `format` (png, jpeg, webp, tiff, bmp, avif); None: its own.

    `quality` 1..100 is for JPEG, WebP and AVIF. Without it a JPEG is written by the tables, subsampling and
    scans of the JPEG it came from, else at 95 in 4:4:4; WebP is lossless where the input was lossless, else
    at the input's JPEG quality or 90; AVIF is at 95 or the same.

    EXIF, XMP and resolution are written where the format has a place (BMP: resolution only), with
    orientation 1 and the written size. `metadata=False` leaves them out and keeps the ICC profile: without
    it the pixels would show other colours. The profile is made to fit the channels, or left out (see
    `true_profile`).

    Of a large PNG no copy is made: red and blue change places in its own memory until it is encoded.

    Raises ImageError where the format cannot hold the picture (ask `writable_suffix` first) or encoding
    fails.
    """
    kind = format or image.format
    if kind not in SUFFIXES.values():
        raise ImageError(
            f"'{printable(kind)}' is no format that can be written; use png, jpeg, webp, tiff, bmp or avif"
        )
    if lack := _lack(image, kind):
        raise ImageError(f"{lack}; choose another format")
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"a quality of {quality} is out of range; use 1 to 100")
    try:
        return _encoded(image, kind, quality, metadata)
    except ImageError:
        raise
    except CODEC_ERRORS as error:
        raise ImageError(f"cannot be written as {_title(kind)}: {reason(error)}") from error


def _encoded(image: Image, kind: str, quality: int | None, metadata: bool) -> bytes:
    array, (width, height) = image.array, image.size
    exif = upright_exif(image.exif, width, height) if metadata else None
    xmp = upright_xmp(image.xmp, width, height) if metadata else None
    icc = true_profile(image.icc, image.pixels.shape[2])
    dpi = image.dpi if metadata else None
    if kind == "png":
        return encode_png(array, exif=exif, icc=icc, xmp=xmp, dpi=dpi, colour=image.png_colour)
    if kind == "tiff":
        return encode_tiff(array, exif=exif, icc=icc, xmp=xmp, dpi=dpi)
    if kind == "jpeg":
        return encode_jpeg(array, image, quality, exif=exif, icc=icc, xmp=xmp, dpi=dpi)
    if kind == "bmp":
        return encode_bmp(array, dpi)
    found = {"exif": exif, "xmp": xmp}
    # WebP and AVIF store gray as colour (AVIF: where it has alpha), and a gray profile would not fit that.
    icc = icc if kind == "avif" and array.shape[2] == 1 else true_profile(icc, 3)
    named = {name: value for name, value in {**found, "icc_profile": icc}.items() if value}
    return (encode_webp if kind == "webp" else encode_avif)(array, image, quality, named)


def write_image(
    image: Image,
    path: Path,
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: bool = True,
    overwrite: bool = False,
) -> Path:
    """Writes `image` to `path` and returns it; the file appears under that name only when it is whole.

    `format` None: by the suffix of `path`; `quality` and `metadata` as in `encode_image`. Without
    `overwrite` an existing file is never replaced, not even one that appears meanwhile. The bytes go to a
    temporary file beside it (".NAME.RANDOM.restore-tmp"), reach the disk, and are renamed; on any error the
    temporary is removed.

    Raises ImageError, one line with the path, where the file exists, the folder does not, the disk is full,
    ...
    """
    path = Path(path)
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists")
        data = encode_image(image, format or _format_of(path.suffix), quality=quality, metadata=metadata)
        write_atomic(data, path, overwrite=overwrite)
    except ImageError as error:
        raise ImageError(f"{printable(path)}: {error}") from error.__cause__
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"{printable(path)}: cannot be written: {reason(error)}") from error
    return path
