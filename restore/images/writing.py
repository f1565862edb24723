"""One way out: Image -> bytes -> a file that is whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from restore.errors import ImageError
from restore.images import codecs
from restore.images.failures import is_own, printable, reason
from restore.images.formats import FORMATS, SUFFIXES, WRITABLE
from restore.images.image import Image
from restore.images.jpeg import encode_jpeg
from restore.images.metadata import upright_exif, upright_xmp
from restore.images.png import COLOUR_CHUNKS, encode_png
from restore.images.profiles import true_profile
from restore.images.tiff import encode_tiff, is_big, write_bands
from restore.utils.atomic_write import write_atomic


def writable_suffix(image: Image, suffix: str) -> tuple[str, str | None]:
    """The suffix under which the pixels of `image` can be kept, and a sentence for the user where something changes.

    Pictures that a format does not hold (transparency, 16 bits, floating point, more pixels a side: see `FORMATS`)
    go to PNG, floating point to TIFF, HEIC to JPEG where that holds them. A format that holds the pixels, but not the
    metadata there are, is kept, and the sentence says so.

    Returns:
        The suffix to write under, and the sentence or None.

    Raises:
        ImageError: a suffix that is no picture's.
    """
    kind = _format_of(suffix)
    lack = _lack(image, kind)
    if lack is None:
        found = {"EXIF": image.exif, "XMP": image.xmp, "IPTC": image.iptc, "its colour profile": image.icc}
        lost = ", ".join(name for name, value in found.items() if value and not FORMATS[kind].metadata)
        return suffix, f"{FORMATS[kind].title} is written without {lost}" if lost else None
    if image.pixels.dtype == np.float32:
        other = ".tif"
    elif _lack(image, SUFFIXES[FORMATS[kind].instead]) is None:
        other = FORMATS[kind].instead
    else:
        other = ".png"
    return other, f"{lack}: written as {FORMATS[SUFFIXES[other]].title} instead"


def _lack(image: Image, kind: str) -> str | None:
    """What keeps `image` from being written as `kind`, or None."""
    can, dtype = FORMATS[kind], image.pixels.dtype
    if not can.dtypes:
        return f"{can.title} can be read but not written"
    if dtype not in can.dtypes:
        return f"{can.title} does not hold {'floating point pixels' if dtype.kind == 'f' else '16 bits a channel'}"
    if image.alpha is not None and not can.alpha:
        return f"{can.title} does not hold transparency"
    if max(image.size) > can.largest_side:
        return f"{can.title} does not hold more than {can.largest_side} pixels a side"
    return None


def _format_of(suffix: str) -> str:
    kind = SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ImageError(f"'{printable(suffix)}' is no picture suffix; use one of {' '.join(WRITABLE)}")
    return kind


def encode_image(
    image: Image, format: str | None = None, *, quality: int | None = None, metadata: bool = True
) -> bytes:
    """`image` as the bytes of a file.

    EXIF, XMP, IPTC, comments and resolution are written where the format has a place, with orientation 1 and the
    written size. The ICC profile is made to fit the channels, or left out (see `true_profile`).

    Args:
        image: is not changed, not even for a moment.
        format: a name in `FORMATS`; None is the one the picture came from.
        quality: 1 to 100, for JPEG, WebP, AVIF and JPEG XL. Without it a JPEG is written by the tables, subsampling
            and scans of the JPEG it came from, else at 95 in 4:4:4; WebP and JPEG XL are lossless where the input
            was lossless, else at the input's JPEG quality or 90; AVIF is at 95 or the same.
        metadata: False leaves all but the ICC profile and the colour chunks of PNG out: without those the pixels
            would show other colours.

    Raises:
        ImageError: the format cannot hold the picture (ask `writable_suffix` first) or encoding fails.
    """
    kind = format or image.format
    if kind not in FORMATS:
        known = ", ".join(name for name, can in FORMATS.items() if can.dtypes)
        raise ImageError(f"'{printable(kind)}' is no format that can be written; use one of {known}")
    if lack := _lack(image, kind):
        raise ImageError(f"{lack}; choose another format")
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"a quality of {quality} is out of range; use 1 to 100")
    try:
        return _WRITERS[kind](_true(image, image.size[1], metadata), quality)
    except ImageError:
        raise
    except Exception as error:
        if is_own(error):
            raise
        raise ImageError(f"cannot be written as {FORMATS[kind].title}: {reason(error)}") from error


_WRITERS: dict[str, Callable[[Image, int | None], bytes]] = {
    "png": encode_png,
    "jpeg": encode_jpeg,
    "webp": codecs.encode_webp,
    "tiff": encode_tiff,
    "bmp": codecs.encode_bmp,
    "avif": codecs.encode_avif,
    "jp2": codecs.encode_jp2,
    "jxl": codecs.encode_jxl,
    "qoi": codecs.encode_qoi,
    "pnm": codecs.encode_pnm,
}


def _true(image: Image, height: int, wanted: bool) -> Image:
    """`image` with what is true of pixels of its width and `height`; not `wanted`: only what their colours need."""
    image = replace(image, icc=true_profile(image.icc, image.pixels.shape[2]))
    if not wanted:
        chunks = tuple(chunk for chunk in image.png_chunks if chunk[0] in COLOUR_CHUNKS)
        return replace(image, exif=None, xmp=None, iptc=None, dpi=None, comment=None, png_chunks=chunks)
    width = image.size[0]
    return replace(image, exif=upright_exif(image.exif, width, height), xmp=upright_xmp(image.xmp, width, height))


def rows_note(image: Image, height: int) -> str | None:
    """A sentence for the user where `write_rows` does not keep all that `image` holds."""
    lost = image.exif and is_big((height, *image.array.shape[1:]), image.pixels.dtype)
    return "BigTIFF is written without EXIF, but for its title, dates and the like" if lost else None


def write_rows(
    image: Image, parts: Iterator[np.ndarray], height: int, file: BinaryIO, *, metadata: bool = True
) -> None:
    """Writes a TIFF that is too large for memory.

    Args:
        image: the first rows of the picture, and what else its file held.
        parts: (h,W,1..4) in the dtype and with the channels of `image`; from above, together the picture.
        height: of the picture.
        file: to write and read.
        metadata: as in `encode_image`.
    """
    write_bands(file, parts, height, _true(image, height, metadata))


def write_image(
    image: Image,
    path: Path,
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: bool = True,
    overwrite: bool = False,
) -> Path:
    """Writes `image` to `path`; the file appears under that name only when it is whole.

    The bytes go to a temporary file beside it (".NAME.RANDOM.restore-tmp"), reach the disk, and are renamed; on any
    error the temporary is removed.

    Args:
        image: what to write.
        path: where to.
        format: a name in `FORMATS`; None is by the suffix of `path`.
        quality: as in `encode_image`.
        metadata: as in `encode_image`.
        overwrite: without it an existing file is never replaced, not even one that appears meanwhile.

    Returns:
        `path`.

    Raises:
        ImageError: one line with the path, where the file exists, the folder does not, the disk is full and so on.
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
