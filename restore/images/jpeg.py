"""JPEG (ITU-T T.81): reading strictly, and writing the way the input was coded."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import PIL.Image
from PIL import JpegImagePlugin

from restore.errors import ImageError
from restore.images.image import MOST_METADATA, Array, Image, JpegCoding, SizeCheck
from restore.images.metadata import (
    exif_block,
    fitting_exif,
    photoshop_segment,
    stored_orientation,
    without_second_picture,
)
from restore.images.pixels import array_of, check_claim, picture_of, split

# T.81, table K.1: the luma table of quality 50 in libjpeg's scale.
# fmt: off
_LUMA_50 = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])
# fmt: on
_SEGMENT_ROOM = 65533
_XMP_ROOM = _SEGMENT_ROOM - 29
_EXIF_ROOM = _SEGMENT_ROOM - 6
DEFAULT_QUALITY = 95
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
    other = array_of(JpegImagePlugin.JpegImageFile(BytesIO(cut + _FILLER * 64 + b"\xff\xd9")))
    mine = array_of(JpegImagePlugin.JpegImageFile(BytesIO(cut + b"\xff\xd9")))
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
    frame = _frame(data)
    if len(frame.scans) > MOST_SCANS:
        raise ImageError(f"has more than {MOST_SCANS} scans, which no camera or program writes; save it anew")
    check_claim(width * height, len(data), _PIXELS_A_BYTE * (_ARITHMETIC if frame.kind > 0xC8 else 1))
    picture.load()
    if whole and _tail_is_missing(data, picture, frame):
        raise ValueError("the end of the picture is missing")
    info = picture.info
    icc, exif, xmp, notes = info.get("icc_profile"), exif_block(info.get("exif")), info.get("xmp"), []
    pixels, alpha = split(picture, icc)
    orientation = stored_orientation(exif, xmp)
    if picture.mode == "CMYK":
        notes.append("its CMYK colours are written as RGB")
    if "mpoffset" in info or b"hdrgm:" in (xmp or b""):
        notes.append("holds a second picture (a gain map, a depth map or a frame), which is left out")
        xmp = without_second_picture(xmp)
    iptc = info.get("photoshop", {}).get(0x0404)
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


def _quality(table: list[int]) -> int:
    """The quality on libjpeg's scale whose luma table is nearest to `table`."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    standard = np.clip((_LUMA_50 * scale + 50) // 100, 1, 255)
    return int(np.abs(standard - np.array(table)).sum(axis=1).argmin()) + 1


@dataclass(frozen=True)
class _Frame:
    """The first picture of a file: its SOF marker, where its scans start, where its end marker is (-1: none)."""

    kind: int
    scans: list[int]
    end: int


# In coded data a 0xFF that starts a marker is followed by anything but 0 (a stuffed byte), RSTn or a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _frame(data: bytes) -> _Frame:
    """What the segments say up to the end of the first picture, or to one scan more than are allowed."""
    at, kind, scans = 2, 0, list[int]()
    while at + 4 <= len(data) and len(scans) <= MOST_SCANS:
        if data[at] != 0xFF or data[at + 1] == 0xD9:
            break
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 + length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not kind:
            kind = marker
        if marker == 0xDA:
            scans.append(at)
            found = _MARKER.search(data, at)
            at = found.start() if found else len(data)
    return _Frame(kind, scans, at if data[at : at + 2] == b"\xff\xd9" else -1)


# Anything but zeros: what a decoder reads for pixels that are missing.
_FILLER = bytes((89 * i + 41) % 251 for i in range(512))


def _tail_is_missing(data: bytes, picture: PIL.Image.Image, frame: _Frame) -> bool:
    """Whether a file that was cut, and then closed by an end marker, has left its last pixels mid-gray.

    libjpeg only warns, and neither Pillow nor imagecodecs passes the warning on. Where the last pixel is that gray,
    the file is decoded again with filler before the end marker: if the pixels change, they were filler. Progressive
    files are not checked (they lose detail, no rows).
    """
    last = np.asarray(picture.crop((picture.width - 1, picture.height - 1, *picture.size))).astype(int)
    if np.abs(last - 128).max() > 1 or frame.kind not in (0xC0, 0xC1) or len(frame.scans) != 1 or frame.end < 0:
        return False
    again = JpegImagePlugin.JpegImageFile(BytesIO(data[: frame.end] + _FILLER + b"\xff\xd9"))
    return not np.array_equal(array_of(again), array_of(picture))


def encode_jpeg(
    array: Array,
    image: Image,
    quality: int | None,
    *,
    exif: bytes | None,
    icc: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
    texts: bool,
) -> bytes:
    """A JPEG of (H,W,1) or (H,W,3) uint8.

    Without `quality`: by the tables, subsampling and scans of the JPEG `image` came from, else at 95 in
    4:4:4. With it: the standard tables, the subsampling of the input, or 4:4:4 from 90 on and 4:2:0 below.
    Metadata that does not fit a JPEG segment (64 KB) is shortened or left out. texts: whether IPTC and the comment
    of `image` are written.
    """
    options: dict[str, object] = {"quality": quality or DEFAULT_QUALITY, "subsampling": 0}
    coding = image.jpeg
    if coding is not None and len(coding.tables) >= min(array.shape[2], 2):
        options["subsampling"] = coding.subsampling
        options["progressive"] = coding.progressive
        if quality is None:
            options["qtables"] = [list(table) for table in coding.tables[: array.shape[2]]]
            del options["quality"]
    elif quality is None and image.quality is not None:
        options["quality"] = image.quality  # a gray or CMYK JPEG that has become colour
    elif quality is not None and quality < 90:
        options["subsampling"] = 2
    if exif := fitting_exif(exif, _EXIF_ROOM):
        options["exif"] = b"Exif\0\0" + exif
    if icc and len(icc) < 255 * (_SEGMENT_ROOM - 14):
        options["icc_profile"] = icc
    if xmp and len(xmp) <= _XMP_ROOM:
        options["xmp"] = xmp
    if dpi and max(dpi) < 65535:
        options["dpi"] = dpi
    if texts and image.iptc and len(image.iptc) < _SEGMENT_ROOM - 64:
        options["extra"] = photoshop_segment(image.iptc)
    if texts and image.comment and len(image.comment) < _SEGMENT_ROOM:
        options["comment"] = image.comment
    picture = picture_of(array)
    try:
        return _saved(picture, options)
    except OSError:
        if not options.pop("progressive", False):
            raise
        return _saved(picture, options)  # Pillow's buffer is too small for very detailed progressive pictures


def _saved(picture: PIL.Image.Image, options: dict[str, object]) -> bytes:
    out = BytesIO()
    picture.save(out, "JPEG", **options)
    return out.getvalue()
