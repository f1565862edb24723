"""Writing TIFF 6.0, around the EXIF block."""

from __future__ import annotations

import struct
import sys
import zlib

import numpy as np

from restore.errors import ImageError
from restore.images.directories import (
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Entry,
    byte_order,
    first_directory,
    pack_directory,
    read_directory,
)
from restore.images.picture import Array

_STRIP = 1 << 20
_EFFORT = 4  # of 9; 6 takes two to four times as long and saves 0 to 5 % (measured on 8, 16 bit and float)
_DEFLATE = 8
_BLACK_IS_ZERO, _RGB = 1, 2
# Tags that say how pixels are stored; those of an EXIF block are another picture's.
# fmt: off
_STRUCTURE = frozenset({
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324, 325,
    330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 34675,
})
# fmt: on


def encode_tiff(
    array: Array,
    *,
    exif: bytes | None,
    icc: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """A TIFF of (H,W,1..4) uint8, uint16 or float32, deflated, with ICC, XMP, EXIF and GPS.

    By hand, because an EXIF block is a TIFF file without pixels: it becomes the start of the file, so every
    offset in it stays right, and the strips and a first directory that names them follow. Pillow writes no
    deep colour, tifffile no EXIF, and zlib lets other threads run where Pillow's TIFF encoder does not.
    Raises ImageError beyond 4 GB, where classic TIFF ends.
    """
    native = b"II*\0" if sys.byteorder == "little" else b"MM\0*"
    file = bytearray(exif if exif else native + bytes(4))
    order = byte_order(bytes(file[:4]))
    entries = []
    if exif:
        entries = [e for e in read_directory(exif, first_directory(exif))[0] if e.tag not in _STRUCTURE]
    height, width, channels = array.shape
    rows = max(1, _STRIP // (width * channels * array.itemsize))
    # Differences between neighbours pack better (section 14); on floats few readers know the predictor.
    predictor = 1 if array.dtype.kind == "f" else 2
    offsets, counts = [], []
    for top in range(0, height, rows):
        strip = array[top : top + rows]
        if predictor == 2:
            strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
        packed = zlib.compress(strip.astype(f"{order}{strip.dtype.str[1:]}").data, _EFFORT)
        file += b"\0" * (len(file) % 2)
        offsets.append(len(file))
        counts.append(len(packed))
        file += packed

    def add(tag: int, kind: int, *values: int) -> None:
        letter = {SHORT: "H", LONG: "I", RATIONAL: "I"}[kind]
        count = len(values) // 2 if kind == RATIONAL else len(values)
        entries.append(Entry(tag, kind, count, struct.pack(f"{order}{len(values)}{letter}", *values)))

    if len(file) + len(icc or b"") + len(xmp or b"") > 0xFFF00000:
        raise ImageError("TIFF holds at most 4 GB; write PNG or 8 bit instead")
    add(256, LONG, width)
    add(257, LONG, height)
    add(258, SHORT, *[array.itemsize * 8] * channels)
    add(259, SHORT, _DEFLATE)
    add(262, SHORT, _RGB if channels >= 3 else _BLACK_IS_ZERO)
    add(273, LONG, *offsets)
    add(274, SHORT, 1)
    add(277, SHORT, channels)
    add(278, LONG, rows)
    add(279, LONG, *counts)
    add(284, SHORT, 1)
    add(317, SHORT, predictor)
    add(339, SHORT, *[3 if array.dtype.kind == "f" else 1] * channels)
    if channels in (2, 4):
        add(338, SHORT, 2)  # unassociated alpha
    if dpi and not any(entry.tag in (282, 283, 296) for entry in entries):
        add(282, RATIONAL, round(dpi[0] * 100), 100)
        add(283, RATIONAL, round(dpi[1] * 100), 100)
        add(296, SHORT, 2)
    if xmp:
        entries.append(Entry(700, BYTE, len(xmp), xmp))
    if icc:
        entries.append(Entry(34675, UNDEFINED, len(icc), icc))
    file += b"\0" * (len(file) % 2)
    struct.pack_into(order + "I", file, 4, len(file))
    return bytes(file + pack_directory(entries, len(file), order))
