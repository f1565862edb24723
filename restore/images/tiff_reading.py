"""Reading TIFF 6.0: one page of 8 or 16 bit or floating point, with alpha, uncompressed or compressed.

tifffile reads the structure and what zlib can unpack, OpenCV the other deep pixels, Pillow all 8-bit ones.
"""

from __future__ import annotations

import logging
from io import BytesIO

import cv2
import numpy as np
import tifffile
from PIL import TiffImagePlugin

from restore.errors import ImageError
from restore.images.metadata import exif_of_tiff
from restore.images.picture import Array, Image, SizeCheck
from restore.images.pil import divide, split, unlimited
from restore.pixels import white

# tifffile logs what is wrong with a file; we raise it. Without a handler Python would print it as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_NONE, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_CAMERA = (32803, 34892)  # colour filter array, linear raw
_ASSOCIATED = 1


def read_tiff(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A TIFF file and the orientation that is still to be applied.

    uint8 and uint16 stay, float16 to float64 become float32 with their values as they are. Raises
    ImageError for several pages and kinds of pixels without a place here, and what the codecs raise for
    damage.
    """
    with tifffile.TiffFile(BytesIO(data)) as file:
        number, page = _only_page(file)
        check_size(page.imagewidth, page.imagelength)
        if not page.dataoffsets:
            raise ValueError("where its pixels are is missing")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > len(data):
                raise ValueError(f"{offset + count - len(data)} bytes are missing")
        tags = page.tags
        stored = tags.valueof(274)
        orientation = stored if isinstance(stored, int) and 1 <= stored <= 8 else 1
        xmp, icc = _raw(tags.valueof(700)), _raw(tags.valueof(34675))
        if page.dtype is not None and page.dtype.itemsize > 1:
            pixels, alpha = _deep(data, page, number, page.dtype)
        else:
            pixels, alpha = _shallow(data, page, number, icc)
            orientation = 1  # Pillow has applied it
        exif = None if file.is_bigtiff else exif_of_tiff(data, page.offset)
        dpi = _dpi(page)
    return Image(pixels, alpha, "tiff", exif=exif, icc=icc, xmp=xmp, dpi=dpi), orientation


def _only_page(file: tifffile.TiffFile) -> tuple[int, tifffile.TiffPage]:
    """The one page that is a picture: previews (NewSubfileType bit 0) and masks (bit 2) are not."""
    every: list[tifffile.TiffPage] = []
    seen: set[int] = set()
    for page in file.pages:
        if page.offset in seen:  # tifffile would follow a circle for ever
            raise ValueError("its directories form a loop")
        seen.add(page.offset)
        every.append(page.aspage())
    if any(page.photometric in _CAMERA or 50706 in page.tags for page in every):
        raise ImageError("is a camera raw file, which is not supported; develop it to TIFF or PNG first")
    pages = [(n, page) for n, page in enumerate(every) if not page.is_reduced and not page.is_mask]
    count = len(pages)
    if count == 1 and file.is_imagej:  # one directory may stand for many pages
        count = int((file.imagej_metadata or {}).get("images", 1))
    if count == 1 and pages[0][1].imagedepth == 1:
        return pages[0]
    if count == 0:
        raise ImageError("holds previews only (a camera raw file?); develop it to TIFF or PNG first")
    raise ImageError(f"has {max(count, pages[0][1].imagedepth)} pages; save the page you want as a file of its own")


def _raw(value: object) -> bytes | None:
    return bytes(value) or None if isinstance(value, (bytes, tuple)) else None


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    try:
        scale = {2: 1.0, 3: 2.54}[int(page.tags.valueof(296, 2))]  # per inch, per centimetre
        across, down = (page.tags.valueof(tag) for tag in (282, 283))
        return across[0] / across[1] * scale, down[0] / down[1] * scale
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None


def _shallow(data: bytes, page: tifffile.TiffPage, number: int, icc: bytes | None) -> tuple[Array, Array | None]:
    if page.sampleformat != 1 and page.bitspersample == 8:
        raise ImageError("pixels with a sign are not supported; convert it to unsigned 8 bit first")
    picture = TiffImagePlugin.TiffImageFile(BytesIO(data))
    picture.seek(number)
    unlimited(picture.load, page.imagewidth * page.imagelength)
    return split(picture, icc)


def _deep(data: bytes, page: tifffile.TiffPage, number: int, dtype: np.dtype) -> tuple[Array, Array | None]:
    """16-bit and floating point pixels as (H,W,1 or 3) and alpha."""
    if (dtype.kind != "f" and dtype != np.uint16) or page.bitspersample != 8 * dtype.itemsize:
        raise ImageError(f"pixels of {page.bitspersample} bits ({dtype}) are not supported; convert it to 16 bit first")
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise ImageError("has deep pixels that are neither gray nor RGB; convert it to RGB first")
    samples, colours = page.samplesperpixel, 3 if page.photometric == _RGB else 1
    if not colours <= samples:
        raise ValueError(f"{samples} samples for a picture of {colours} channels")
    array = _unpacked(data, page, number)
    if page.planarconfig == 2 and samples > 1 and array.shape[0] == samples:
        array = np.moveaxis(array, 0, -1)
    array = array.reshape(page.imagelength, page.imagewidth, samples)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        array = array.astype(np.float32 if dtype.kind == "f" else np.uint16, copy=False)
    # Without a word about what it is, a fourth sample is alpha; declared unspecified, it is something else.
    extra = int(page.extrasamples[0]) if page.extrasamples else 2
    array = np.ascontiguousarray(array[..., : colours + (samples > colours and extra in (1, 2))])
    if page.photometric == _WHITE_IS_ZERO:
        array[..., 0] = array.dtype.type(white(array.dtype)) - array[..., 0]
    pixels, alpha = divide(array)
    if alpha is not None and extra == _ASSOCIATED:
        pixels = _unassociated(pixels, alpha)
    return pixels, alpha


def _unpacked(data: bytes, page: tifffile.TiffPage, number: int) -> Array:
    if page.compression == _NONE or (page.compression in (_DEFLATE, _OLD_DEFLATE) and page.predictor in (1, 2)):
        return np.asarray(page.asarray(maxworkers=1))
    # LZW and predictors on floats: tifffile would need imagecodecs; OpenCV has libtiff.
    pages: list[Array] = []
    if number == 0:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        pages = [] if found is None else [found]
    else:
        pages = list(cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[1])[number:]
    samples = page.samplesperpixel
    shape = (page.imagelength, page.imagewidth) + ((samples,) if samples > 1 else ())
    if not pages or pages[0].shape != shape or pages[0].dtype != page.dtype or page.planarconfig == 2:
        if pages:
            raise ImageError("its compression is not supported for such pixels; save it with deflate or uncompressed")
        raise ValueError("its pixels cannot be unpacked")
    array = pages[0]
    if samples >= 3:
        array = cv2.cvtColor(array, cv2.COLOR_BGR2RGB if samples == 3 else cv2.COLOR_BGRA2RGBA)
    return np.asarray(array)


def _unassociated(pixels: Array, alpha: Array) -> Array:
    """Pixels that were stored multiplied by alpha, divided by it; what is wholly transparent stays."""
    scale = white(pixels.dtype) / np.maximum(alpha.astype(np.float64), np.finfo(np.float32).tiny)[..., None]
    divided = np.where(alpha[..., None] > 0, pixels * scale, pixels)
    if pixels.dtype.kind != "f":
        divided = np.clip(np.rint(divided), 0, white(pixels.dtype))
    return divided.astype(pixels.dtype)
