"""TIFF 6.0 and BigTIFF by tifffile and imagecodecs: one page of up to 16 bits or floating point, with alpha."""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import islice

import numpy as np
import PIL.Image
import tifffile

from restore.errors import ImageError
from restore.images.directories import (
    BYTE,
    UNDEFINED,
    Entry,
    byte_order,
    first_directory,
    pack_directory,
    read_directory,
)
from restore.images.image import MOST_METADATA, Array, Image, SizeCheck
from restore.images.metadata import exif_of_tiff
from restore.images.pixels import check_claim, divide, spread
from restore.images.profiles import rgb_from_cmyk, true_profile
from restore.pixels import white

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_CAMERA = (32803, 34892)  # colour filter array, linear raw
_ASSOCIATED, _UNASSOCIATED = 1, 2
# The most that a byte can become; the other codecs, of images or with back references, have no such bound.
_RATIOS = {1: 1.01, 5: 2800, 8: 1032, 32946: 1032, 32773: 64, 6: 1536, 7: 1536}
_BOUNDLESS = 1 << 16
_RAW_YCBCR = (1, 5, 8, 32946, 32773)  # compressions after which YCbCr is still YCbCr
_MOST_PAGES = 1000


class CameraRawError(ImageError):
    """The file is what a camera writes without developing it."""


def read_tiff(data: bytes, check_size: SizeCheck, number: int | None = None) -> tuple[Image, int]:
    """A page of a TIFF file and the orientation that is still to be applied.

    uint8 and uint16 stay, fewer bits are spread over 8 or 16, float16 to float64 become float32 with their values
    as they are. number: of the page, from 0; None for the only page of a file. Raises ImageError for several pages
    where `number` is None, and for kinds of pixels without a place here, and what the codecs raise for damage.
    """
    with tifffile.TiffFile(BytesIO(data)) as file:
        pages = _pages(file)
        if len(pages) > 1 and number is None:
            raise ImageError(f"has {len(pages)} pages; read_image(..., page=0) reads one of them")
        if number is not None and not 0 <= number < len(pages):
            raise ImageError(f"has {len(pages)} pages, and none of number {number}")
        page = pages[number or 0]
        _check_numbers(page)
        check_size(page.imagewidth, page.imagelength)
        _check_directory(data, page, big=file.is_bigtiff)
        _check_segments(page, len(data))
        tags = page.tags
        stored = tags.valueof(274)
        icc = _raw(tags.valueof(34675))
        notes: list[str] = []
        pixels, alpha = _pixels(page, icc, notes)
        if file.is_bigtiff and 34665 in tags:
            notes.append("EXIF of BigTIFF is left out")
        image = Image(
            pixels,
            alpha,
            "tiff",
            exif=None if file.is_bigtiff else exif_of_tiff(data, page.offset),
            icc=icc,
            xmp=_raw(tags.valueof(700)),
            dpi=_dpi(page),
            iptc=_raw(tags.valueof(33723)),
            notes=tuple(notes),
            pages=len(pages),
        )
    return image, stored if isinstance(stored, int) and 1 <= stored <= 8 else 1


def _pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages that are pictures: previews (NewSubfileType bit 0) and masks (bit 2) are not."""
    every: list[tifffile.TiffPage] = []
    seen: set[int] = set()
    for page in islice(file.pages, _MOST_PAGES):
        if page.offset in seen:  # tifffile would follow a circle for ever
            raise ValueError("its directories form a loop")
        seen.add(page.offset)
        every.append(page.aspage())
    if any(page.photometric in _CAMERA or 50706 in page.tags for page in every):
        raise CameraRawError("is a camera raw file")
    pages = [page for page in every if not page.is_reduced and not page.is_mask]
    count = len(pages)
    if count == 1 and file.is_imagej:  # one directory may stand for many pages
        count = int((file.imagej_metadata or {}).get("images", 1))
    if count == 0:
        raise CameraRawError("holds previews only (a camera raw file?); develop it to TIFF or PNG first")
    if count > len(pages) or pages[0].imagedepth > 1:
        count = max(count, pages[0].imagedepth)
        raise ImageError(f"is a stack of {count} pages in one; save the page you want as a file of its own")
    return pages


_NUMBERS = (
    *("imagewidth", "imagelength", "imagedepth", "samplesperpixel", "compression", "photometric", "planarconfig"),
    *("predictor", "rowsperstrip", "tilewidth", "tilelength", "tiledepth"),
)


def _check_numbers(page: tifffile.TiffPage) -> None:
    """Raises ValueError where a tag that is one number holds several; tifffile takes them as they come."""
    if not isinstance(page.bitspersample, int):
        raise ImageError("has channels of different depths, which are not supported; convert it to 8 or 16 bit first")
    for name in _NUMBERS:
        if not isinstance(getattr(page, name), int):
            raise ValueError(f"several values for its {name}")


def _check_directory(data: bytes, page: tifffile.TiffPage, *, big: bool) -> None:
    """Raises ValueError where a tag that says how the pixels are stored is cut off; tifffile reads on without it."""
    order = page.parent.byteorder
    (count,), row = struct.unpack_from(order + ("Q" if big else "H"), data, page.offset), 20 if big else 12
    start = page.offset + (8 if big else 2)
    if start + row * count + (8 if big else 4) > len(data):
        raise ValueError("a directory is cut")
    stated = np.ndarray(count, order + "u2", data, start, row)
    if cut := _STRUCTURE.intersection(stated.tolist()).difference(page.tags.keys()):
        raise ValueError(f"the value of tag {min(cut)} is missing")


def _check_segments(page: tifffile.TiffPage, size: int) -> None:
    """Raises ValueError where strips or tiles are missing or too small; tifffile would fill those with black."""
    pixels = page.imagewidth * page.imagelength
    if not page.is_tiled and page.rowsperstrip:
        expected = -(-page.imagelength // page.rowsperstrip)
    else:
        sides = ((page.imagewidth, page.tilewidth), (page.imagelength, page.tilelength))
        expected = int(np.prod([-(-whole // part) for whole, part in sides if part]))
    expected *= page.samplesperpixel if page.planarconfig == 2 else 1
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(segments) < expected or any(count == 0 for _, count in segments):
        raise ValueError("some of its strips or tiles are missing")
    missing = max(offset + count for offset, count in segments) - size
    if missing > 0:
        raise ValueError(f"{missing} bytes are missing")
    stored = min(sum(count for _, count in segments), size)
    needed = pixels * page.samplesperpixel * page.bitspersample // 8
    check_claim(needed, stored, _RATIOS.get(int(page.compression), _BOUNDLESS))
    if page.is_tiled:  # one tile of a small picture may be huge
        check_claim(page.tilewidth * page.tilelength * page.samplesperpixel * page.bitspersample // 8, needed, 64)


def _raw(value: object) -> bytes | None:
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    found = bytes(value) if isinstance(value, (bytes, tuple)) else b""
    return found if 0 < len(found) <= MOST_METADATA else None


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    try:
        scale = {2: 1.0, 3: 2.54}[int(page.tags.valueof(296, 2))]  # per inch, per centimetre
        across, down = (page.tags.valueof(tag) for tag in (282, 283))
        return across[0] / across[1] * scale, down[0] / down[1] * scale
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None


def _pixels(page: tifffile.TiffPage, icc: bytes | None, notes: list[str]) -> tuple[Array, Array | None]:
    """The pixels as (H,W,1 or 3), and alpha."""
    kind, dtype, bits = int(page.photometric), page.dtype, page.bitspersample
    if dtype is None or (dtype.kind != "f" and dtype not in (np.bool_, np.uint8, np.uint16)):
        raise ImageError(f"pixels of {bits} bits ({dtype}) are not supported; convert it to unsigned 8 or 16 bit first")
    if kind not in _COLOURS or (kind in (_PALETTE, _YCBCR) and dtype.itemsize > 1):
        raise ImageError(f"has {bits}-bit pixels that are neither gray nor RGB; convert it to RGB first")
    samples, colours = page.samplesperpixel, _COLOURS[kind]
    if samples < colours:
        raise ValueError(f"{samples} samples for a picture of {colours} channels")
    array = np.asarray(page.asarray(maxworkers=1))
    if page.planarconfig == 2 and samples > 1 and array.shape[0] == samples:
        array = np.moveaxis(array, 0, -1)
    array = array.reshape(page.imagelength, page.imagewidth, samples)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            array = array.astype(np.float32, copy=False)
    elif kind != _PALETTE:
        array = spread(array.astype(np.uint8 if dtype == np.bool_ else dtype, copy=False), bits)
    # Without a word about what it is, one sample more is alpha; declared unspecified, it is something else.
    extra = int(page.extrasamples[0]) if page.extrasamples else _UNASSOCIATED
    has_alpha = samples > colours and extra in (_ASSOCIATED, _UNASSOCIATED)
    if samples > colours + has_alpha:
        notes.append(f"of its {samples} channels, those that are neither colour nor transparency are left out")
    alpha = np.ascontiguousarray(array[..., colours]) if has_alpha else None
    pixels = np.ascontiguousarray(array[..., :colours])
    if kind == _WHITE_IS_ZERO:
        pixels = pixels.dtype.type(white(pixels.dtype)) - pixels
    elif kind == _PALETTE:
        pixels = _unfolded(page, pixels[..., 0])
    elif kind == _CMYK:
        if dtype.kind == "f":
            raise ImageError("has floating point CMYK pixels, which are not supported; convert it to RGB first")
        pixels = rgb_from_cmyk(pixels, icc)
        notes.append("its CMYK colours are written as RGB")
    elif kind == _YCBCR and int(page.compression) in _RAW_YCBCR:
        pixels = np.array(PIL.Image.fromarray(pixels, "YCbCr").convert("RGB"))
    if alpha is not None and extra == _ASSOCIATED:
        pixels = _unassociated(pixels, alpha)
    return divide(pixels)[0], alpha


def _unfolded(page: tifffile.TiffPage, indices: Array) -> Array:
    """The colours of a palette, gray where all of its are gray."""
    if page.colormap is None or len(page.colormap) != 3:
        raise ValueError("its palette is missing")
    palette = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
    gray = bool((palette == palette[:, :1]).all())
    return np.asarray(np.ascontiguousarray(palette[:, :1] if gray else palette)[indices])


def _unassociated(pixels: Array, alpha: Array) -> Array:
    """Pixels that were stored multiplied by alpha, divided by it; what is wholly transparent stays."""
    scale = white(pixels.dtype) / np.maximum(alpha.astype(np.float64), np.finfo(np.float32).tiny)[..., None]
    divided = np.where(alpha[..., None] > 0, pixels * scale, pixels)
    if pixels.dtype.kind != "f":
        divided = np.clip(np.rint(divided), 0, white(pixels.dtype))
    return divided.astype(pixels.dtype)


_STRIP = 1 << 20  # bytes
_EFFORT = 4  # of 9; 6 takes two to four times as long and saves 0 to 5 % (measured on 8, 16 bit and float)
# Tags that say how pixels are stored; those of an EXIF block are another picture's.
# fmt: off
_STRUCTURE = frozenset({
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324, 325,
    330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34675,
})
# fmt: on


def encode_tiff(
    array: Array,
    *,
    exif: bytes | None,
    icc: bytes | None,
    xmp: bytes | None,
    iptc: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """A TIFF of (H,W,1..4) uint8, uint16 or float32, deflated, with ICC, XMP, IPTC, EXIF and GPS.

    An EXIF block is a TIFF file without pixels: it becomes the start of the file, so that every offset in it stays
    right, tifffile appends the pixels, and one directory is made of the two; tifffile itself writes no EXIF.
    Raises ImageError beyond 4 GB, where classic TIFF ends.
    """
    if array.nbytes > 0xF0000000:
        raise ImageError("TIFF holds at most 4 GB; write PNG or 8 bit instead")
    out = BytesIO(exif or b"")
    with tifffile.TiffWriter(out, append=bool(exif)) as writer:
        _write_pixels(writer, array, dpi)
    file = bytearray(out.getvalue())
    order = byte_order(bytes(file[:4]))
    described: list[Entry] = []
    at = first_directory(bytes(file[:8]))
    if exif:
        described, link = read_directory(exif, at)
        described = [entry for entry in described if entry.tag not in _STRUCTURE]
        (at,) = struct.unpack_from(order + "I", file, link)
    known = {entry.tag for entry in described} | (set() if dpi else {282, 283, 296})
    structure, _ = read_directory(memoryview(file), at)  # type: ignore[arg-type]
    entries = described + [entry for entry in structure if entry.tag not in known]
    for tag, kind, value in ((700, BYTE, xmp), (33723, UNDEFINED, iptc), (34675, UNDEFINED, icc)):
        if value:
            entries.append(Entry(tag, kind, len(value), value))
    file += b"\0" * (len(file) % 2)
    struct.pack_into(order + "I", file, 4, len(file))
    return bytes(file + pack_directory(entries, len(file), order))


def append_page(file: BytesIO, image: Image, *, metadata: bool = True) -> None:
    """Writes `image` as a further page of a TIFF file; of its metadata the profile and the resolution.

    Raises ImageError beyond 4 GB.
    """
    array = image.array
    if len(file.getbuffer()) + array.nbytes > 0xF0000000:
        raise ImageError("TIFF holds at most 4 GB; split the file, or write 8 bit instead")
    profile = true_profile(image.icc, image.pixels.shape[2])
    file.seek(0)
    with tifffile.TiffWriter(file, append=True) as writer:
        _write_pixels(writer, array, image.dpi if metadata else None, icc=profile)


def _write_pixels(
    writer: tifffile.TiffWriter, array: Array, dpi: tuple[float, float] | None, *, icc: bytes | None = None
) -> None:
    height, width, channels = array.shape
    writer.write(
        array[..., 0] if channels == 1 else array,
        photometric="rgb" if channels >= 3 else "minisblack",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig="contig" if channels > 1 else None,
        rowsperstrip=min(height, max(1, _STRIP // (width * channels * array.itemsize))),
        compression="zlib",
        compressionargs={"level": _EFFORT},
        # Differences between neighbours pack better (section 14); on floats few readers know the predictor.
        predictor=array.dtype.kind != "f",
        resolution=dpi,
        resolutionunit="inch" if dpi else None,
        iccprofile=icc,
        metadata=None,
        software=False,
        maxworkers=1,
    )
