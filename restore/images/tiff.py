"""TIFF 6.0 and BigTIFF by tifffile and imagecodecs: one page of up to 16 bits or floating point, with alpha."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import chain, islice
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import tifffile

from restore.errors import ImageError
from restore.images.directories import (
    BYTE,
    UNDEFINED,
    Buffer,
    Entry,
    byte_order,
    first_directory,
    pack_directory,
    read_directory,
)
from restore.images.image import MOST_METADATA, Array, Image, Metadata, SizeCheck
from restore.images.metadata import exif_of_tiff, stored_orientation
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
    with TiffReader(BytesIO(data), data, check_size, number) as reader:
        return reader.image(*reader.pixels()), reader.orientation


class TiffReader:
    """A picture of a TIFF file, which can be read by rows.

    Args:
        file: the file.
        data: its bytes, or a map of them.
        check_size: as for `read_tiff`, and so are the errors.
        number: of the page, as for `read_tiff`.
    """

    def __init__(self, file: BinaryIO, data: Buffer, check_size: SizeCheck, number: int | None = None) -> None:
        self._data, self._file = data, tifffile.TiffFile(file)
        pages = _pages(self._file)
        self.page_count = len(pages)
        if len(pages) > 1 and number is None:
            raise ImageError(f"has {len(pages)} pages; save the page you want as a file of its own (in Python: page=0)")
        if number is not None and not 0 <= number < len(pages):
            raise ImageError(f"has {len(pages)} pages, and none of number {number}")
        self._page = page = pages[number or 0]
        _check_numbers(page)
        check_size(page.imagewidth, page.imagelength)
        self._dtype = _check_kind(page)
        _check_directory(data, page, big=self._file.is_bigtiff)
        _check_segments(page, len(data))
        self._icc, self._xmp = _raw(page.tags.valueof(34675)), _raw(page.tags.valueof(700))
        stored = page.tags.valueof(274)
        known = isinstance(stored, int) and 1 <= stored <= 8
        self.orientation = stored if known else stored_orientation(None, self._xmp)
        self.notes: list[str] = []

    def __enter__(self) -> TiffReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self._page.imagelength, self._page.imagewidth

    def fits_rows(self, pixels: int) -> bool:
        """Whether it is upright, the only page, has so many pixels, and rows can be had without unpacking much more."""
        page, (height, width) = self._page, self.size
        rows = 1 if self._is_plain else page.tilelength if page.is_tiled else min(page.rowsperstrip or height, height)
        unpacked = rows * width * page.samplesperpixel * self._dtype.itemsize
        return (
            self.page_count == 1 and self.orientation == 1 and height * width >= pixels and unpacked <= _MOST_UNPACKED
        )

    def pixels(self, top: int = 0, bottom: int | None = None) -> tuple[Array, Array | None]:
        """The rows from `top` to before `bottom` (None: all) as (H,W,1 or 3), and their alpha."""
        self.notes.clear()
        if bottom is None:
            return _pixels(self._page, np.asarray(self._page.asarray(maxworkers=1)), self._icc, self.notes)
        return _pixels(self._page, self._rows(top, bottom), self._icc, self.notes)

    def image(self, pixels: Array, alpha: Array | None) -> Image:
        """`pixels` with what else the file holds."""
        tags = self._page.tags
        return Image(
            pixels,
            alpha,
            "tiff",
            exif=exif_of_tiff(self._data, self._page.offset),
            icc=self._icc,
            xmp=self._xmp,
            dpi=_dpi(self._page),
            iptc=_raw(tags.valueof(33723)),
            notes=tuple(self.notes),
            pages=self.page_count,
        )

    @property
    def _is_plain(self) -> bool:
        """Whether the rows lie one behind the other as they are."""
        page = self._page
        return page.is_contiguous and page.predictor == 1 and page.fillorder == 1

    def _rows(self, top: int, bottom: int) -> Array:
        """Samples as stored: (planes,rows,W,samples of a plane)."""
        page, file, (height, width) = self._page, self._page.parent.filehandle, self.size
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        rows = np.empty((planes, bottom - top, width, page.samplesperpixel // planes), self._dtype)
        if self._is_plain:
            stored, row = self._dtype.newbyteorder(page.parent.byteorder), rows[0, 0].nbytes
            for plane in range(planes):
                file.seek(page.dataoffsets[0] + (plane * height + top) * row)
                rows[plane] = np.frombuffer(file.read(rows[0].nbytes), stored).reshape(rows[0].shape)
            return rows
        high = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
        across, down = -(-width // page.tilewidth) if page.is_tiled else 1, -(-height // high)
        for plane in range(planes):
            for index in range((plane * down + top // high) * across, (plane * down - (-bottom // high)) * across):
                file.seek(page.dataoffsets[index])
                packed = file.read(page.databytecounts[index])
                part, (_, _, y, x, _), _ = page.decode(
                    packed, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
                )
                assert part is not None  # its bytes are there
                first = max(y, top)
                part = part[0, first - y : bottom - y, : width - x]
                rows[plane, first - top : first - top + len(part), x : x + part.shape[1]] = part
        return rows


def _pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages that are pictures: previews (NewSubfileType bit 0) and masks (bit 2) are not."""
    every: list[tifffile.TiffPage] = []
    seen: set[int] = set()
    for page in islice(file.pages, _MOST_PAGES + 1):
        if page.offset in seen:  # tifffile would follow a circle for ever
            raise ValueError("its directories form a loop")
        seen.add(page.offset)
        every.append(page.aspage())
    if len(every) > _MOST_PAGES:
        raise ImageError(f"has more than {_MOST_PAGES} pages; split the file")
    if any(page.photometric in _CAMERA or 50706 in page.tags for page in every):
        raise CameraRawError
    pages = [page for page in every if not page.is_reduced and not page.is_mask]
    count = len(pages)
    if count == 1 and file.is_imagej:  # one directory may stand for many pages
        count = int((file.imagej_metadata or {}).get("images", 1))
    if count == 0:
        raise CameraRawError("holds previews only")
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


def _check_kind(page: tifffile.TiffPage) -> np.dtype:
    """The dtype. Raises ImageError for pixels that have no place here, and ValueError where channels are missing."""
    kind, dtype, bits = int(page.photometric), page.dtype, page.bitspersample
    if dtype is None or (dtype.kind != "f" and dtype not in (np.bool_, np.uint8, np.uint16)):
        raise ImageError(f"pixels of {bits} bits ({dtype}) are not supported; convert it to unsigned 8 or 16 bit first")
    if kind not in _COLOURS or (kind in (_PALETTE, _YCBCR) and dtype.itemsize > 1):
        raise ImageError(f"has {bits}-bit pixels that are neither gray nor RGB; convert it to RGB first")
    if kind == _CMYK and dtype.kind == "f":
        raise ImageError("has floating point CMYK pixels, which are not supported; convert it to RGB first")
    if page.samplesperpixel < _COLOURS[kind]:
        raise ValueError(f"{page.samplesperpixel} samples for a picture of {_COLOURS[kind]} channels")
    return dtype


def _check_directory(data: Buffer, page: tifffile.TiffPage, *, big: bool) -> None:
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


def _pixels(page: tifffile.TiffPage, array: Array, icc: bytes | None, notes: list[str]) -> tuple[Array, Array | None]:
    """The samples of some rows, in any of tifffile's shapes, as (H,W,1 or 3), and alpha."""
    kind, dtype = int(page.photometric), array.dtype.newbyteorder("=")
    samples, colours = page.samplesperpixel, _COLOURS[kind]
    if page.planarconfig == 2 and samples > 1 and array.shape[0] == samples:
        array = np.moveaxis(array, 0, -1)
    array = array.reshape(-1, page.imagewidth, samples)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            array = array.astype(np.float32, copy=False)
    elif kind != _PALETTE:
        array = spread(array.astype(np.uint8 if dtype == np.bool_ else dtype, copy=False), page.bitspersample)
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


_MOST_UNPACKED = 256 << 20  # bytes, for a row
_STRIP, _TILE = 1 << 20, 512  # bytes; pixels a side
_CLASSIC = 0xF0000000  # bytes of pixels up to which a TIFF is no BigTIFF
_EFFORT = 4  # of 9; 6 takes two to four times as long and saves 0 to 5 % (measured on 8, 16 bit and float)
# Tags that say how pixels are stored; those of an EXIF block are another picture's.
# fmt: off
_STRUCTURE = frozenset({
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324, 325,
    330, 338, 339, 347, 513, 514, 529, 530, 531, 532,
})
# fmt: on


def encode_tiff(array: Array, metadata: Metadata) -> bytes:
    """A TIFF of (H,W,1..4) uint8, uint16 or float32 with `metadata`. Raises ImageError beyond 4 GB."""
    if is_big(array.shape, array.dtype):
        raise ImageError("TIFF holds at most 4 GB; write PNG or 8 bit instead")
    out = BytesIO()
    pixels = array[..., 0] if array.shape[2] == 1 else array
    _write(out, pixels, array.shape, array.dtype, metadata, rows=_rows_of_strip(array))
    return out.getvalue()


def is_big(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a picture is written as a BigTIFF: one that takes more than classic TIFF's 4 GB, were it not packed."""
    return math.prod(shape) * dtype.itemsize > _CLASSIC


def write_bands(
    file: BinaryIO,
    bands: Iterator[Array],
    shape: tuple[int, ...],
    dtype: np.dtype,
    metadata: Metadata,
) -> None:
    """Writes a TIFF in tiles; beyond 4 GB a BigTIFF, which keeps of EXIF the texts and dates of its first directory.

    Args:
        file: to write and read.
        bands: (h,W,1..4), from above; together they are the picture.
        shape: (H,W,1..4) of the picture.
        dtype: uint8, uint16 or float32.
        metadata: what else to write.
    """
    _write(file, _tiles(bands), shape, dtype, metadata, tile=(_TILE, _TILE))


def _tiles(bands: Iterator[Array]) -> Iterator[Array]:
    """The tiles of a picture in their order; those at the right and the bottom are smaller."""
    band = next(bands)
    for following in chain(bands, [band[:0]]):
        last = len(following) == 0
        whole = len(band) if last else len(band) // _TILE * _TILE
        for top in range(0, whole, _TILE):
            for left in range(0, band.shape[1], _TILE):
                yield band[top : min(top + _TILE, whole), left : left + _TILE]
        band = np.concatenate([band[whole:], following])


def _write(
    file: BinaryIO,
    pixels: Array | Iterator[Array],
    shape: tuple[int, ...],
    dtype: np.dtype,
    metadata: Metadata,
    *,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
) -> None:
    """Writes a deflated TIFF with ICC, XMP, IPTC, EXIF and GPS.

    An EXIF block is a TIFF file without pixels: it becomes the start of the file, so that every offset in it stays
    right, tifffile appends the pixels, and one directory is made of the two; tifffile itself writes no EXIF.
    """
    exif, order, big = metadata.exif, byte_order(metadata.exif or b"II*\0"), is_big(shape, dtype)
    described = read_directory(exif, first_directory(exif))[0] if exif else []
    described = [entry for entry in described if entry.tag not in _STRUCTURE | {700, 33723, 34675}]
    for tag, kind, value in (
        (700, BYTE, metadata.xmp),
        (33723, UNDEFINED, metadata.iptc),
        (34675, UNDEFINED, metadata.icc),
    ):
        if value:
            described.append(Entry(tag, kind, len(value), value))
    if exif and not big:
        file.write(exif)
        file.seek(0)
    extra = [(entry.tag, entry.kind, entry.count, entry.data, True) for entry in described] if big else None
    with tifffile.TiffWriter(file, append=bool(exif and not big), bigtiff=big, byteorder=order) as writer:
        stored = dtype.newbyteorder(order)
        _write_pixels(writer, pixels, shape, stored, metadata.dpi, extratags=extra, tile=tile, rowsperstrip=rows)
    if big:
        return
    file.flush()
    with file.getbuffer() if isinstance(file, BytesIO) else mmap(file.fileno(), 0, access=ACCESS_READ) as written:
        at, end = first_directory(written), len(written)
        if exif:
            (at,) = struct.unpack_from(order + "I", written, read_directory(written, at)[1])
        known = {entry.tag for entry in described} | (set() if metadata.dpi else {282, 283, 296})
        described += [entry for entry in read_directory(written, at)[0] if entry.tag not in known]
    end += end % 2
    file.seek(4)
    file.write(struct.pack(order + "I", end))
    file.seek(end)
    file.write(pack_directory(described, end, order))


def append_page(file: BytesIO, image: Image, *, metadata: bool = True) -> None:
    """Writes `image` as a further page of a TIFF file; of its metadata the profile and the resolution.

    Raises ImageError beyond 4 GB.
    """
    array = image.array
    if len(file.getbuffer()) + array.nbytes > _CLASSIC:
        raise ImageError("TIFF holds at most 4 GB; split the file, or write 8 bit instead")
    profile, dpi = true_profile(image.icc, image.pixels.shape[2]), image.dpi if metadata else None
    file.seek(0)
    with tifffile.TiffWriter(file, append=True) as writer:
        pixels = array[..., 0] if array.shape[2] == 1 else array
        rows = _rows_of_strip(array)
        _write_pixels(writer, pixels, array.shape, array.dtype, dpi, iccprofile=profile, rowsperstrip=rows)


def _rows_of_strip(array: Array) -> int:
    height: int = array.shape[0]
    return min(height, max(1, height * _STRIP // array.nbytes))


def _write_pixels(
    writer: tifffile.TiffWriter,
    pixels: Array | Iterator[Array],
    shape: tuple[int, ...],
    dtype: np.dtype,
    dpi: tuple[float, float] | None,
    **more: Any,
) -> None:
    channels = shape[2]
    writer.write(
        pixels,
        shape=shape if channels > 1 else shape[:2],
        dtype=dtype,
        photometric="rgb" if channels >= 3 else "minisblack",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig="contig" if channels > 1 else None,
        compression="zlib",
        compressionargs={"level": _EFFORT},
        # Differences between neighbours pack better (section 14); on floats few readers know the predictor.
        predictor=dtype.kind != "f",
        resolution=dpi,
        resolutionunit="inch" if dpi else None,
        metadata=None,
        software=False,
        maxworkers=1,
        **more,
    )
