"""JPEG (ITU-T T.81): reading strictly, and writing the way the input was coded."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import PIL.Image
from PIL import JpegImagePlugin

from restore.errors import ImageError
from restore.images.image import MOST_METADATA, Array, Image, JpegCoding, SizeCheck
from restore.images.metadata import (
    IPTC,
    exif_block,
    fitting_exif,
    photoshop_segment,
    stored_orientation,
    without_second_picture,
)
from restore.images.pixels import check_decoded_size, encode_picture, pil_to_array, split_picture

_SEGMENT_ROOM = 65533
DEFAULT_QUALITY = 95
END_MISSING = "the end of the picture is missing"
MOST_SCANS = 100  # usual progressive files have about ten; each takes as long as a whole picture
_PIXELS_A_BYTE = 512  # a bit for each block of 8 x 8, the least of a Huffman-coded scan
_ARITHMETIC = 64  # how much less an arithmetic coder may take


def salvaged_jpeg(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """What can be decoded of a JPEG file whose end is missing, as `read_jpeg`; the rest is gray, as `notes` tells.

    Raises what Pillow raises where nothing can be decoded.
    """
    try:
        return read_jpeg(data, check_size)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
    cut = data.rstrip(b"\xff")
    cut = cut[:-2] if cut.endswith(b"\xff\xd9") else cut
    image, orientation = read_jpeg(cut + b"\xff\xd9", check_size, whole=False)
    # What changes with the bytes after the cut was not in the file.
    other = pil_to_array(JpegImagePlugin.JpegImageFile(BytesIO(cut + _FILLER * 64 + b"\xff\xd9")))
    mine = pil_to_array(JpegImagePlugin.JpegImageFile(BytesIO(cut + b"\xff\xd9")))
    differs = (mine != other).reshape(len(mine), -1).any(axis=1)
    rows = int(differs.argmax()) if differs.any() else len(mine)
    rest = "coarser or gray" if image.jpeg is not None and image.jpeg.progressive else "gray"
    note = (
        f"truncated: {rows} of {len(mine)} rows ({100 * rows / len(mine):.0f} %) could be decoded, the rest is {rest}"
    )
    return replace(image, notes=(note, *image.notes)), orientation


def read_jpeg(data: bytes, check_size: SizeCheck, *, whole: bool = True) -> tuple[Image, int]:
    """A JPEG file and the orientation that is still to be applied; with `whole`, no pixel of it may be missing.

    Phones append previews, depth and gain maps after the photograph (MPO, CIPA DC-007; Ultra HDR): the first
    picture is the photograph and the only one read. Raises what Pillow raises for damage.
    """
    # The class itself, not PIL.Image.open: it skips the switch to MPO and the global size limit.
    picture = JpegImagePlugin.JpegImageFile(BytesIO(data))
    width, height = picture.size
    check_size(width, height)
    start = picture.fp.tell() if picture.fp else 0  # of the first scan; there 0xFF, but before 0 and RSTn, is a marker
    end = data.find(b"\xff\xd9", start)
    scans = 1 + data.count(b"\xff\xda", start, end if end >= 0 else len(data))
    if scans > MOST_SCANS:
        raise ImageError(f"has more than {MOST_SCANS} scans, which no camera or program writes; save it anew")
    header = re.search(rb"\xff([\xc0-\xcf])..\x08" + re.escape(struct.pack(">HH", height, width)), data[:start], re.S)
    arithmetic = header is not None and header[1] > b"\xc8"
    check_decoded_size(width * height, len(data), _PIXELS_A_BYTE * (_ARITHMETIC if arithmetic else 1))
    try:
        picture.load()
    except OSError as error:
        raise ValueError(END_MISSING) if str(error).startswith("image file is truncated") else error from None
    if whole and scans == 1 and not arithmetic and end >= 0 and _tail_is_missing(data[:end], picture):
        raise ValueError(END_MISSING)
    info = picture.info
    icc, exif, xmp, notes = info.get("icc_profile"), exif_block(info.get("exif")), info.get("xmp"), []
    pixels, alpha = split_picture(picture, icc)
    orientation = stored_orientation(exif, xmp)
    if picture.mode == "CMYK":
        notes.append("its CMYK colours are written as RGB")
    if "mpoffset" in info or b"hdrgm:" in (xmp or b""):
        notes.append("holds a second picture (a gain map, a depth map or a frame), which is left out")
        xmp = without_second_picture(xmp)
    iptc = info.get("photoshop", {}).get(IPTC)
    tables = picture.quantization
    image = Image(
        pixels,
        alpha,
        "jpeg",
        exif=exif,
        icc=icc,
        xmp=xmp,
        quality=_quality(tables[min(tables)]) if tables else None,
        jpeg=_coding(picture),
        lossless=False,
        dpi=info.get("dpi"),
        iptc=iptc if isinstance(iptc, bytes) and len(iptc) <= MOST_METADATA else None,
        comment=info.get("comment") or None,
        notes=tuple(notes),
    )
    return image, orientation


def _coding(picture: JpegImagePlugin.JpegImageFile) -> JpegCoding | None:
    if picture.mode not in ("L", "RGB"):
        return None  # the tables of CMYK say nothing about RGB
    components = picture.layer[: 1 if picture.mode == "L" else 2]
    tables = tuple(tuple(picture.quantization[component[3]]) for component in components)
    return JpegCoding(
        tables,
        max(JpegImagePlugin.get_sampling(picture), 0),  # -1: rarer than 4:2:0, so none of its detail is lost
        bool(picture.info.get("progressive")),
    )


@cache
def _standard_tables() -> Array:
    """(100,64): the luma tables that libjpeg writes for the qualities 1 to 100."""
    flat = np.zeros((8, 8, 1), np.uint8)
    files = [BytesIO(encode_picture(flat, "JPEG", quality=quality)) for quality in range(1, 101)]
    return np.array([JpegImagePlugin.JpegImageFile(file).quantization[0] for file in files])


def _quality(table: list[int]) -> int:
    """The quality on libjpeg's scale whose luma table is nearest to `table`."""
    return int(np.abs(_standard_tables() - np.array(table)).sum(axis=1).argmin()) + 1


# Anything but zeros: what a decoder reads for pixels that are missing.
_FILLER = bytes((89 * i + 41) % 251 for i in range(512))


def _tail_is_missing(data: bytes, picture: PIL.Image.Image) -> bool:
    """Whether a file that was cut, and then closed by an end marker, has left its last pixels mid-gray.

    libjpeg only warns, and neither Pillow nor imagecodecs passes the warning on. Where the last pixel is that gray,
    the file is decoded again with filler before the end marker: if the pixels change, they were filler.

    Args:
        data: the file up to the end marker of its first picture, which is in one scan of Huffman codes. (Files of
            several are not checked: they lose detail, no rows.)
        picture: the file, decoded.
    """
    last = np.asarray(picture.crop((picture.width - 1, picture.height - 1, *picture.size))).astype(int)
    if np.abs(last - 128).max() > 1:
        return False
    again = JpegImagePlugin.JpegImageFile(BytesIO(data + _FILLER + b"\xff\xd9"))
    return not np.array_equal(pil_to_array(again), pil_to_array(picture))


def encode_jpeg(image: Image, quality: int | None) -> bytes:
    """A JPEG of (H,W,1) or (H,W,3) uint8.

    Without `quality`: by the tables, subsampling and scans of the JPEG `image` came from, else at 95 in
    4:4:4. With it: the standard tables, the subsampling of the input, or 4:4:4 from 90 on and 4:2:0 below.
    Metadata that does not fit a JPEG segment (64 KB) is shortened or left out.
    """
    array, coding = image.pixels, image.jpeg
    options: dict[str, object] = {"quality": quality or DEFAULT_QUALITY, "subsampling": 0}
    if coding is not None and len(coding.tables) >= min(array.shape[2], 2):
        options.update(subsampling=coding.subsampling, progressive=coding.progressive)
        if quality is None:
            options.update(qtables=[list(table) for table in coding.tables[: array.shape[2]]], quality=None)
    elif quality is None:
        options["quality"] = image.quality or DEFAULT_QUALITY  # a gray or CMYK JPEG that has become colour
    elif quality < 90:
        options["subsampling"] = 2

    def fitting(value: bytes | None, room: int = _SEGMENT_ROOM - 64) -> bytes | None:
        return value if value and len(value) <= room else None

    exif, iptc = fitting_exif(image.exif, _SEGMENT_ROOM - 6), fitting(image.iptc)
    options.update(
        exif=exif and b"Exif\0\0" + exif,
        icc_profile=fitting(image.icc, 254 * (_SEGMENT_ROOM - 14)),
        xmp=fitting(image.xmp),
        dpi=image.dpi if image.dpi and max(image.dpi) < 65535 else None,
        extra=iptc and photoshop_segment(iptc),
        comment=fitting(image.comment),
    )
    try:
        return encode_picture(array, "JPEG", **options)
    except OSError:
        if not options.pop("progressive", False):
            raise
        return encode_picture(
            array, "JPEG", **options
        )  # Pillow's buffer is too small for very detailed progressive pictures
