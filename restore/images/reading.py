"""One way in: a path or bytes -> Image, or an ImageError of one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import PIL.Image

from restore.errors import ImageError, TooLargeError, UsageError
from restore.images import codecs
from restore.images.failures import is_own, printable, reason
from restore.images.formats import FORMATS, detect, is_tiff
from restore.images.image import MAX_PIXELS, MOST_METADATA, Array, Image, SizeCheck
from restore.images.jpeg import read_jpeg, salvaged_jpeg
from restore.images.metadata import upright_exif, upright_xmp
from restore.images.pixels import without_pil_limit
from restore.images.png import read_png
from restore.images.profiles import true_profile
from restore.images.tiff import CameraRawError, TiffReader, read_tiff

_PIXELS_A_BYTE = 1 << 18  # more than JPEG 2000 and AVIF reach for a picture of one colour
_LARGE = 1 << 12  # bytes of metadata from which on their loss is worth a note


class _SizeFoundError(RuntimeError):
    """Carries a size out of a reader, before it decodes; no reader takes it for damage (`is_own`)."""


_READERS: dict[str, Callable[[bytes, SizeCheck], tuple[Image, int]]] = {
    "png": read_png,
    "jpeg": read_jpeg,
    "webp": codecs.read_webp,
    "raw": codecs.read_raw,
    "bmp": codecs.read_bmp,
    "avif": codecs.read_avif,
    "heic": codecs.read_heic,
    "jp2": codecs.read_jp2,
    "jxl": codecs.read_jxl,
    "qoi": codecs.read_qoi,
    "pnm": codecs.read_pnm,
}


def read_image(
    source: Path | str | bytes,
    *,
    name: str | None = None,
    max_megapixels: float | None = None,
    page: int | None = None,
    salvage: bool = False,
) -> Image:
    """The picture in a file, upright, in its own depth.

    Pixels are (H,W,1) for gray and (H,W,3) for RGB: uint8; uint16 for files of 9 to 16 bits, spread over 16;
    float32 for floating point TIFF, with the values as they are. Bilevel pictures become 0 and 255, palettes their
    colours, CMYK sRGB (through its ICC profile where it has one). Other profiles are kept beside the unchanged
    pixels. What else the file holds and the picture does not is in `notes`.

    Damage in a JPEG's or lossy WebP's pixels that leaves them decodable cannot be seen: those formats carry no
    checksum.

    Args:
        source: a path, or the bytes of a file. The format is taken from the content, not from the suffix.
        name: what errors call it.
        max_megapixels: a picture of more million pixels is refused before it is decoded; None: `default_limit`.
        page: which page of a TIFF file to read, from 0; None: a file of several pages is refused.
        salvage: take what can be decoded of a JPEG whose end is missing; how much that is stands in `notes`.

    Raises:
        ImageError: its text one line with the name, for files that are missing, damaged, incomplete, animated, of
            several pages, too large, or no picture.
    """
    shown = printable(name or ("the input" if isinstance(source, bytes) else source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"{shown}: {reason(error)}") from error
    return decoded(data, shown, size_check(max_megapixels), page, salvage)


def decoded(data: bytes, shown: str, check_size: SizeCheck, page: int | None = None, salvage: bool = False) -> Image:
    """The picture in `data`, which errors call `shown`. Raises ImageError, and what `check_size` raises."""
    with one_line(shown):
        kind = detect(data)
    with one_line(shown, kind):
        if kind == "tiff":
            return _upright(*_tiff_or_raw(data, check_size, page))
        if kind == "jpeg" and salvage:
            return _upright(*salvaged_jpeg(data, check_size))
        return _upright(*_READERS[kind](data, check_size))


@contextmanager
def one_line(shown: str, kind: str = "") -> Iterator[None]:
    """Makes an ImageError of one line of what is raised while a file of a format is read. shown: its name in errors."""
    try:
        yield
    except ImageError as error:
        raise type(error)(f"{shown}: {error}") from None
    except MemoryError as error:
        raise ImageError(f"{shown}: {reason(error)}") from error
    except Exception as error:
        if is_own(error):
            raise
        title, text = FORMATS[kind].title, reason(error)
        if isinstance(error, NotImplementedError) or (isinstance(error, OSError) and "support" in text.lower()):
            raise ImageError(f"{shown}: a kind of {title} that is not read ({text}); convert it first") from error
        advice = "get a whole copy, or --salvage what is there" if kind == "jpeg" else "get a whole copy"
        raise ImageError(f"{shown}: is a damaged or incomplete {title} file ({text}); {advice}") from error


def _tiff_or_raw(data: bytes, check_size: SizeCheck, page: int | None) -> tuple[Image, int]:
    """A page of a TIFF file; most camera raws are such files too."""
    try:
        if data[8:10] == b"CR":  # Canon's: its pages are previews that are not marked as such
            raise CameraRawError
        return read_tiff(data, check_size, page)
    except CameraRawError as found:
        try:
            return codecs.read_raw(data, check_size)
        except TooLargeError:
            raise
        except ImageError as error:
            raise ImageError(f"{found}, or {error}" if str(found) else str(error)) from error


@contextmanager
def open_tiff(path: Path, check_size: SizeCheck | None = None) -> Iterator[TiffReader | None]:
    """A TIFF file for reading a few rows at a time; None where it is another kind of file.

    Raises ImageError and OSError, and what `check_size` raises; None: `size_check()`.
    """
    with open(path, "rb") as file:
        if not is_tiff(file.read(4)):
            yield None
            return
        file.seek(0)  # where tifffile takes the start to be
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            with one_line(printable(path), "tiff"):
                reader = TiffReader(file, data, check_size or size_check(), 0)
            with reader:
                yield reader


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the picture in a file as it is stored, without decoding it.

    A stored orientation may swap the two when the picture is read, and a readable header is no promise
    that the rest is whole.

    Raises:
        ImageError: naming the file, where the header cannot be read, or claims more pixels than a file of this size
            can hold in any format.
    """
    width, height = header_size(path) or _stated(path)
    if width * height > 1e6 and width * height > _PIXELS_A_BYTE * path.stat().st_size:
        raise ImageError(f"{printable(path)}: its header claims {width} x {height} pixels; get a whole copy")
    return height, width


def header_size(source: Path | BytesIO) -> tuple[int, int] | None:
    """(width, height) by the header of a file; None where Pillow cannot read it: JPEG XL, some kinds of TIFF."""
    try:
        # Pillow's limit would warn of large ones; the caller who decodes has a limit of his own.
        with without_pil_limit(), PIL.Image.open(source) as picture:
            return picture.size
    except Exception:
        return None


def _stated(path: Path) -> tuple[int, int]:
    def found(width: int, height: int) -> None:
        raise _SizeFoundError(width, height)

    try:
        with open_tiff(path, found) as reader:
            if reader is None:
                decoded(path.read_bytes(), printable(path), found)
    except _SizeFoundError as size:
        return size.args[0], size.args[1]
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{printable(path)}: {reason(error)}") from error
    raise ImageError(f"{printable(path)}: its size cannot be read")


def size_check(max_megapixels: float | None = None) -> SizeCheck:
    """A function of width and height that raises TooLargeError for more pixels than allowed; None: `default_limit`."""
    limit = default_limit() if max_megapixels is None else max_megapixels

    def check(width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"a size of {width} x {height}")
        if width * height > limit * 1e6:
            raise TooLargeError(
                f"{width} x {height} is {width * height / 1e6:.6g} megapixels, more than the"
                f" {limit:g} allowed; scale it down, or raise the limit with --max-pixels"
            )

    return check


def default_limit() -> float:
    """Million pixels that a picture may have: 500, or what the environment variable `MAX_PIXELS` says (in pixels)."""
    text = os.environ.get(MAX_PIXELS, "5e8")
    try:
        return float(text) / 1e6
    except ValueError:
        raise UsageError(f"{MAX_PIXELS}={printable(text)}: is no number of pixels, such as 3e9") from None


def _upright(image: Image, orientation: int) -> Image:
    height, width, channels = image.pixels.shape
    if orientation > 4:
        height, width = width, height
    exif, xmp = upright_exif(image.exif, width, height), upright_xmp(image.xmp, width, height)
    icc = true_profile(image.icc, channels) if len(image.icc or b"") <= MOST_METADATA else None
    kept = {"EXIF": (image.exif, exif, _LARGE), "XMP": (image.xmp, xmp, _LARGE)}
    kept["colour profile"] = (image.icc, icc, MOST_METADATA)
    lost = [name for name, (before, after, size) in kept.items() if len(before or b"") > size and not after]
    return replace(
        image,
        pixels=turned(image.pixels, orientation),
        alpha=None if image.alpha is None else turned(image.alpha, orientation),
        dpi=_resolution(image.dpi, orientation),
        exif=exif,
        xmp=xmp,
        icc=icc,
        notes=(*image.notes, f"its {' and '.join(lost)} is too large or damaged: left out") if lost else image.notes,
    )


def _resolution(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """(across, down) of the upright picture; None where the file states nothing possible."""
    if dpi is None or not all(0.01 < value < 1e6 for value in dpi):
        return None
    across, down = (float(value) for value in dpi)
    return (down, across) if orientation > 4 else (across, down)


def turned(array: Array, orientation: int) -> Array:
    """(H,W,...) from a stored EXIF orientation 1..8 (EXIF 2.32, 4.6.4 A) to upright, contiguous."""
    if orientation > 4:
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
