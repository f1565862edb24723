"""One way in: a path or bytes -> Image, or an ImageError of one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from restore.errors import ImageError
from restore.images.failures import CODEC_ERRORS, printable, reason
from restore.images.jpeg import read_jpeg
from restore.images.metadata import upright_exif, upright_xmp
from restore.images.modern import read_avif, read_bmp, read_heic, read_webp
from restore.images.picture import Array, Image, SizeCheck
from restore.images.png import SIGNATURE, read_png
from restore.images.profiles import true_profile
from restore.images.tiff_reading import read_tiff

_READERS: dict[str, Callable[[bytes, SizeCheck], tuple[Image, int]]] = {
    "png": read_png,
    "jpeg": read_jpeg,
    "webp": read_webp,
    "tiff": read_tiff,
    "bmp": read_bmp,
    "avif": read_avif,
    "heic": read_heic,
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ELSEWHERE = (
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_KNOWN = "PNG, JPEG, WebP, TIFF, BMP, AVIF or HEIC"


def read_image(source: Path | str | bytes, *, name: str | None = None, max_megapixels: float = 500) -> Image:
    """The picture in a file, upright, in its own depth.

    `source`: a path, or the bytes of a file. `name`: what errors call it. The format is taken from the
    content, not from the suffix. A picture of more than `max_megapixels` million pixels is refused before
    it is decoded.

    Pixels are (H,W,1) for gray and (H,W,3) for RGB: uint8; uint16 for 16-bit PNG and TIFF (and 10- or
    12-bit AVIF, spread over 16 bits); float32 for floating point TIFF, with the values as they are. Bilevel
    pictures become 0 and 255, palettes their colours, CMYK sRGB (through its ICC profile where it has one).
    Other profiles are kept beside the unchanged pixels.

    Raises ImageError, its text one line with the name, for files that are missing, damaged, incomplete,
    animated, of several pages, too large, or no picture. Damage in a JPEG's or lossy WebP's pixels that
    leaves them decodable cannot be seen: those formats carry no checksum.
    """
    shown = printable(name or ("the input" if isinstance(source, bytes) else source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"{shown}: {reason(error)}") from error
    kind = ""
    try:
        kind = _format(data)
        image, orientation = _READERS[kind](data, _size_check(max_megapixels))
        return _upright(image, orientation)
    except ImageError as error:
        raise ImageError(f"{shown}: {error}") from None
    except MemoryError as error:
        raise ImageError(f"{shown}: {reason(error)}") from error
    except CODEC_ERRORS as error:
        raise ImageError(
            f"{shown}: is a damaged or incomplete {kind.upper()} file ({reason(error)}); get a whole copy"
        ) from error


def _format(data: bytes) -> str:
    """The format by the first bytes. Raises ImageError where it is none of ours."""
    if not data:
        raise ImageError("the file is empty; get a whole copy of it")
    if data.startswith(SIGNATURE):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[:2] == b"BM" and len(data) > 18 and data[14] in (12, 16, 40, 52, 56, 64, 108, 124):  # size of its header
        return "bmp"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(max(int.from_bytes(data[:4], "big"), 16), 512)]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        if data[8:12] in _HEIC_BRANDS:
            return "heic"
    for start, other in _ELSEWHERE:
        if data.startswith(start):
            raise ImageError(f"is a {other} file, which is not supported; convert it to PNG, JPEG or TIFF first")
    raise ImageError(f"is no picture this program reads ({_KNOWN})")


def _size_check(max_megapixels: float) -> SizeCheck:
    def check(width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"a size of {width} x {height}")
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                f"{width} x {height} is {width * height / 1e6:.0f} megapixels, more than the"
                f" {max_megapixels:g} allowed; scale it down or raise the limit"
            )

    return check


def _upright(image: Image, orientation: int) -> Image:
    pixels = turned(image.pixels, orientation)
    alpha = None if image.alpha is None else turned(image.alpha, orientation)
    height, width, channels = pixels.shape
    return replace(
        image,
        pixels=pixels,
        alpha=alpha,
        exif=upright_exif(image.exif, width, height),
        xmp=upright_xmp(image.xmp, width, height),
        icc=true_profile(image.icc, channels),
        dpi=_resolution(image.dpi, orientation),
    )


def _resolution(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """(across, down) of the upright picture; None where the file says nothing that can be."""
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
