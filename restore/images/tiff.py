"""TIFF 6.0 and BigTIFF by tifffile and imagecodecs: one page of up to 16 bits or floating point, with alpha."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import tifffile

from restore.errors import ImageError
from restore.images.image import MOST_METADATA, Array, Image, SizeCheck
from restore.images.metadata import (
    BYTE,
    EXIF_POINTER,
    GPS_POINTER,
    UNDEFINED,
    Buffer,
    Entry,
    byte_order,
    exif_of_tiff,
    first_directory,
    integer,
    read_directory,
    stored_orientation,
)
from restore.images.pixels import check_decoded_size, scale_to_full_range, split_alpha, split_picture, squeeze_gray
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


class TiffReader(AbstractContextManager["TiffReader"]):
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
        self._dtype = _check(page, data, check_size)
        self._icc, self._xmp = _raw(page.tags.valueof(34675)), _raw(page.tags.valueof(700))
        stored = page.tags.valueof(274)
        known = isinstance(stored, int) and 1 <= stored <= 8
        self.orientation = stored if known else stored_orientation(None, self._xmp)
        self.notes: list[str] = []

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
        stated = tags.valueof(296, 2) in (2, 3) and 282 in tags and 283 in tags  # in inches or centimetres
        return Image(
            pixels,
            alpha,
            "tiff",
            exif=exif_of_tiff(self._data, self._page.offset),
            icc=self._icc,
            xmp=self._xmp,
            dpi=self._page.get_resolution("inch") if stated else None,
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


def _check(page: tifffile.TiffPage, data: Buffer, check_size: SizeCheck) -> np.dtype:
    """The dtype of a page whose pixels can be read whole.

    Raises ImageError for kinds of pixels without a place here, and ValueError for what tifffile would take as it comes
    or fill with black: tags that are cut off or hold several numbers, strips or tiles that are missing or too small.
    """
    if not isinstance(page.bitspersample, int):
        raise ImageError("has channels of different depths, which are not supported; convert it to 8 or 16 bit first")
    if odd := [name for name in _NUMBERS if not isinstance(getattr(page, name), int)]:
        raise ValueError(f"several values for its {odd[0]}")
    check_size(page.imagewidth, page.imagelength)
    kind, dtype, bits, samples = int(page.photometric), page.dtype, page.bitspersample, page.samplesperpixel
    if dtype is None or (dtype.kind != "f" and dtype not in (np.bool_, np.uint8, np.uint16)):
        raise ImageError(f"pixels of {bits} bits ({dtype}) are not supported; convert it to unsigned 8 or 16 bit first")
    if kind not in _COLOURS or (kind in (_PALETTE, _YCBCR) and dtype.itemsize > 1):
        raise ImageError(f"has {bits}-bit pixels that are neither gray nor RGB; convert it to RGB first")
    if kind == _CMYK and dtype.kind == "f":
        raise ImageError("has floating point CMYK pixels, which are not supported; convert it to RGB first")
    if samples < _COLOURS[kind]:
        raise ValueError(f"{samples} samples for a picture of {_COLOURS[kind]} channels")
    stated: dict[int, bool] = {}
    entries, _ = read_directory(data, page.offset, lambda tag: tag in _CHECKED and stated.setdefault(tag, True))
    if cut := stated.keys() - {entry.tag for entry in entries}:
        raise ValueError(f"the value of tag {min(cut)} is missing")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not all(isinstance(number, int) for segment in segments for number in segment):
        raise ValueError("the places of its strips or tiles are no whole numbers")
    if len(segments) < math.prod(page.chunked) or any(count == 0 for _, count in segments):
        raise ValueError("some of its strips or tiles are missing")
    missing = max(offset + count for offset, count in segments) - len(data)
    if missing > 0:
        raise ValueError(f"{missing} bytes are missing")
    stored = min(sum(count for _, count in segments), len(data))
    needed = page.imagewidth * page.imagelength * samples * bits // 8
    check_decoded_size(needed, stored, _RATIOS.get(int(page.compression), _BOUNDLESS))
    if page.is_tiled:  # one tile of a small picture may be huge
        check_decoded_size(page.tilewidth * page.tilelength * samples * bits // 8, needed, 64)
    return dtype


def _raw(value: object) -> bytes | None:
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    found = bytes(value) if isinstance(value, (bytes, tuple)) else b""
    return found if 0 < len(found) <= MOST_METADATA else None


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
        array = scale_to_full_range(
            array.astype(np.uint8 if dtype == np.bool_ else dtype, copy=False), page.bitspersample
        )
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
        if page.colormap is None or len(page.colormap) != 3:
            raise ValueError("its palette is missing")
        picture = PIL.Image.fromarray(pixels[..., 0])
        picture.putpalette((np.asarray(page.colormap) >> 8).astype(np.uint8).T.tobytes())
        pixels = split_picture(picture, None)[0]
    elif kind == _CMYK:
        pixels = rgb_from_cmyk(pixels, icc)
        notes.append("its CMYK colours are written as RGB")
    elif kind == _YCBCR and int(page.compression) in _RAW_YCBCR:
        pixels = np.array(PIL.Image.fromarray(pixels, "YCbCr").convert("RGB"))
    if alpha is not None and extra == _ASSOCIATED:
        pixels = _unassociated(pixels, alpha)
    return split_alpha(pixels)[0], alpha


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
_CHECKED = _STRUCTURE - {273, 279, 324, 325}  # strips and tiles are counted, and may be millions


def encode_tiff(image: Image, _: int | None = None) -> bytes:
    """A TIFF of uint8, uint16 or float32. Raises ImageError beyond 4 GB."""
    array = image.array
    if is_big(array.shape, array.dtype):
        raise ImageError("TIFF holds at most 4 GB; write PNG or 8 bit instead")
    _write(out := BytesIO(), image, squeeze_gray(array), array.shape, rowsperstrip=_rows_of_strip(array))
    return out.getvalue()


def is_big(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a picture is written as a BigTIFF: one that takes more than classic TIFF's 4 GB, were it not packed."""
    return math.prod(shape) * dtype.itemsize > _CLASSIC


def write_bands(file: BinaryIO, bands: Iterator[Array], height: int, image: Image) -> None:
    """Writes a TIFF in tiles; beyond 4 GB a BigTIFF, which keeps of EXIF the texts and dates of its first directory.

    Args:
        file: to write and read.
        bands: (h,W,1..4), from above; together they are the picture.
        height: of the picture.
        image: the first of its rows, and what else to write.
    """
    _write(file, image, _tiles(bands), (height, *image.array.shape[1:]), tile=(_TILE, _TILE))


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


def append_page(file: BytesIO, image: Image, *, metadata: bool = True) -> None:
    """Writes `image` as a further page of a TIFF file; of its metadata the profile and the resolution.

    Raises ImageError beyond 4 GB.
    """
    array = image.array
    if len(file.getbuffer()) + array.nbytes > _CLASSIC:
        raise ImageError("TIFF holds at most 4 GB; split the file, or write 8 bit instead")
    icc, dpi = true_profile(image.icc, image.pixels.shape[2]), image.dpi if metadata else None
    image = replace(image, icc=icc, dpi=dpi, exif=None, xmp=None, iptc=None)
    _write(file, image, squeeze_gray(array), array.shape, append=True, rowsperstrip=_rows_of_strip(array))


def _rows_of_strip(array: Array) -> int:
    height: int = array.shape[0]
    return min(height, max(1, height * _STRIP // array.nbytes))


def _write(
    file: BinaryIO,
    image: Image,
    pixels: Array | Iterator[Array],
    shape: tuple[int, ...],
    *,
    append: bool = False,
    **layout: Any,
) -> None:
    """Writes a deflated page with ICC, XMP, IPTC, EXIF and GPS.

    An EXIF block is a TIFF file without pixels: it becomes the start of the file, so that every offset in it stays
    right, and tifffile appends the pixels under a directory that repeats its first one; tifffile itself writes no EXIF.
    """
    own = {700: (BYTE, image.xmp), 33723: (UNDEFINED, image.iptc), 34675: (UNDEFINED, image.icc)}
    tags: list[Any] = [(tag, kind, len(value), value, True) for tag, (kind, value) in own.items() if value]
    channels, dtype, exif = shape[2], image.pixels.dtype, image.exif
    big, order, link = is_big(shape, dtype), byte_order(exif or b"II*\0"), 0
    if not isinstance(pixels, np.ndarray):
        layout.update(shape=shape if channels > 1 else shape[:2], dtype=dtype)
    if image.dpi:
        layout.update(resolution=image.dpi, resolutionunit="inch")
    if exif:
        entries, link = read_directory(exif, first_directory(exif))
        layout = {**_stated_resolution(entries, order), **layout}
        # tifffile takes pointers by name only, and leaves out what it writes itself.
        names = {} if big else {EXIF_POINTER: "ExifTag", GPS_POINTER: "GPSTag"}
        kept = [entry for entry in entries if entry.tag not in _STRUCTURE | own.keys()]
        tags += [(names.get(one.tag, one.tag), one.kind, one.count, one.data, True) for one in kept]
        if not big:
            file.write(exif)
    file.seek(0)
    append = append or bool(exif and not big)
    with tifffile.TiffWriter(file, append=append, bigtiff=big, byteorder=order) as writer:
        writer.write(
            pixels,
            photometric="rgb" if channels >= 3 else "minisblack",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            planarconfig="contig" if channels > 1 else None,
            compression="zlib",
            compressionargs={"level": _EFFORT},
            # Differences between neighbours pack better (section 14); on floats few readers know the predictor.
            predictor=dtype.kind != "f",
            metadata=None,
            software=False,
            maxworkers=1,
            extratags=tags,
            **layout,
        )
    if exif and not big:  # the file's first page is the second directory
        file.seek(link)
        start = file.read(4)
        file.seek(4)
        file.write(start)


def _stated_resolution(entries: list[Entry], order: str) -> dict[str, Any]:
    """What EXIF says of it, where that is possible."""
    wanted = ((282, 5, 1), (283, 5, 1), (296, 3, 1))
    stated = {one.tag: one for one in entries if (one.tag, one.kind, one.count) in wanted}
    if len(stated) == 3:
        a, b, c, d = struct.unpack(order + "4I", stated[282].data + stated[283].data)
        if b and d and (unit := integer(stated[296], order)) in (1, 2, 3):
            return {"resolution": ((a, b), (c, d)), "resolutionunit": unit}
    return {}
