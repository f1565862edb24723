"""EXIF and XMP that stay true of the pixels: upright, of the written size, without a stale thumbnail.

EXIF 2.32 (JEITA CP-3451E) blocks and TIFF files are made of the same directories (TIFF 6.0, section 2). A block is
changed in place: what is not changed keeps its bytes and its offset, and so do maker notes, which refer to themselves
by offset; Pillow, tifffile and libexif write EXIF anew (`test_maker_notes_keep_their_place`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

from restore.images.image import MOST_METADATA

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x8769, 0x8825, 0xA005
# Where other directories hang: those in the first one, then those in the EXIF directory.
_POINTERS = ((EXIF_POINTER, GPS_POINTER), (INTEROP_POINTER,), ())

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BIG_ONLY = (16, 17, 18)  # kinds of BigTIFF
Buffer = bytes | bytearray | memoryview | mmap
BYTE, SHORT, LONG, UNDEFINED = 1, 3, 4, 7
ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_MAKER_NOTE, _USER_COMMENT = 0x927C, 0x9286
_BROKEN = (ValueError, struct.error, IndexError, KeyError, RecursionError)


@dataclass(frozen=True)
class Entry:
    """One tag: its raw value in the byte order of the block, and where the entry itself lies."""

    tag: int
    kind: int
    count: int
    data: bytes
    position: int = 0


def byte_order(block: Buffer) -> Literal["<", ">"]:
    """As struct writes it. Raises ValueError where `block` starts no TIFF structure."""
    orders: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
    if (order := orders.get(bytes(block[:4]))) is None:
        raise ValueError("not a TIFF structure")
    return order


def integer(entry: Entry, order: str) -> int:
    """The first value of an entry of whole numbers."""
    return int(struct.unpack_from(order + {2: "H", 8: "Q"}.get(_SIZES[entry.kind], "I"), entry.data)[0])


def first_directory(block: Buffer) -> int:
    """Where the first directory of a classic TIFF structure starts."""
    return int(struct.unpack_from(byte_order(block) + "I", block, 4)[0])


def read_directory(
    block: Buffer, offset: int, wanted: Callable[[int], bool] = lambda _: True
) -> tuple[list[Entry], int]:
    """The wanted entries of the directory at `offset`, and where its link to the next directory lies.

    Entries of an unknown type or with a value outside the block are left out, also where they are wanted.

    Raises:
        ValueError: the directory is not inside the block, or its values are together larger than
            `MOST_METADATA`, as where thousands of entries share one value.
        struct.error: likewise.
    """
    order = byte_order(block)
    number, pointer = ("Q", "Q") if block[2] == 43 or block[3] == 43 else ("H", "I")  # BigTIFF, or classic
    start, row, room = offset + struct.calcsize(number), 4 + 2 * struct.calcsize(pointer), struct.calcsize(pointer)
    count = struct.unpack_from(order + number, block, offset)[0] if offset >= 8 and start <= len(block) else len(block)
    link = start + row * count
    if link + room > len(block):
        raise ValueError("a TIFF directory lies outside its block")
    entries, total = [], 0
    for position in range(start, link, row):
        tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", block, position)
        size, at = _SIZES.get(kind, 0) * count, position + row - room
        if size > room:
            (at,) = struct.unpack_from(order + pointer, block, at)
        if wanted(tag) and size and at + size <= len(block):
            total += size
            if total > MOST_METADATA:
                raise ValueError("the values of a TIFF directory are too large")
            entries.append(Entry(tag, kind, count, bytes(block[at : at + size]), position))
    return entries, link


def compact(
    block: Buffer,
    *,
    first: int | None = None,
    keep: Callable[[int], bool] = lambda _: True,
    drop: Collection[int] = (),
) -> bytes:
    """A new block of the first directory (or the one at `first`) with its EXIF, GPS and interoperability ones.

    What no entry refers to (thumbnails, gaps) is left out.

    Args:
        block: a TIFF structure, such as a whole file; with `first` also a BigTIFF.
        first: offset of the directory to begin with.
        keep: whether a tag of the first directory is kept.
        drop: tags that are left out everywhere.

    Raises:
        ValueError: the block is broken or too large.
        struct.error: the block is broken.
    """
    order = byte_order(block)
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0")

    def add(offset: int, level: int) -> int:
        def wanted(tag: int) -> bool:
            return tag not in drop and (level > 0 or keep(tag) or tag in _POINTERS[0])

        entries = {}  # by tag: a directory that is named a hundred times is copied once
        for entry in read_directory(block, offset, wanted)[0]:
            if entry.tag in entries:
                continue
            if entry.tag in _POINTERS[level]:
                child = struct.pack(order + "I", add(integer(entry, order), level + 1))
                entry = Entry(entry.tag, LONG, 1, child)
            if entry.kind not in _BIG_ONLY:
                entries[entry.tag] = entry
        out.extend(b"\0" * (len(out) % 2))
        position = len(out)
        rows, values, after = bytearray(), bytearray(), position + 2 + 12 * len(entries) + 4
        for entry in sorted(entries.values(), key=lambda entry: entry.tag):
            inside = (
                entry.data.ljust(4, b"\0") if len(entry.data) <= 4 else struct.pack(order + "I", after + len(values))
            )
            rows += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count) + inside.ljust(4, b"\0")
            values += b"" if len(entry.data) <= 4 else entry.data + b"\0" * (len(entry.data) % 2)
        out.extend(struct.pack(order + "H", len(entries)) + rows + bytes(4) + values)
        return position

    start = add(first_directory(block) if first is None else first, 0)
    struct.pack_into(order + "I", out, 4, start)
    return bytes(out)


def exif_block(raw: bytes | None) -> bytes | None:
    """`raw` from its TIFF header on, or None where there is none; containers put a prefix before it."""
    if not raw:
        return None
    for start in (0, 6, 4, 10):  # bare; "Exif\0\0" (JPEG); the offset field of ISO/IEC 23008-12; both
        if raw[start : start + 4] in (b"II*\0", b"MM\0*"):
            return bytes(raw[start:])
    return None


def stored_orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation 1..8 (EXIF 2.32, 4.6.4 A) by EXIF, or where that states none, by XMP; else 1."""
    try:
        if exif:
            entries, _ = read_directory(exif, first_directory(exif), lambda tag: tag == ORIENTATION)
            values = [integer(entry, byte_order(exif)) for entry in entries]
            if stated := [value for value in values if 1 <= value <= 8]:
                return stated[0]
    except _BROKEN:
        pass
    found = re.search(rb"""\btiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])\s*["'<]""", xmp or b"")
    return int(found[1]) if found else 1


def upright_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """`exif` for a picture of this size: orientation 1, pixel dimensions right, no embedded thumbnail.

    None where there was none, where it is larger than `MOST_METADATA`, or cannot be parsed: a block that is not
    understood may hold a wrong orientation.
    """
    if not exif or len(exif) > MOST_METADATA:
        return None
    try:
        block = bytearray(exif)
        order = byte_order(exif)
        entries, link = read_directory(exif, first_directory(exif))
        sizes = {ORIENTATION: 1, _WIDTH: width, _HEIGHT: height}
        for entry in entries:
            if entry.tag in sizes:
                _put(block, order, entry, sizes[entry.tag])
        for pointer in [entry for entry in entries if entry.tag == EXIF_POINTER][:1]:
            for inner in read_directory(exif, integer(pointer, order))[0]:
                if inner.tag in (_PIXEL_WIDTH, _PIXEL_HEIGHT):
                    _put(block, order, inner, width if inner.tag == _PIXEL_WIDTH else height)
        _cut_thumbnail(block, order, link)
        tidy = bytes(block)
        read_directory(tidy, first_directory(tidy))  # a thumbnail that overlapped it would have blanked it
        return tidy
    except _BROKEN:
        return None


def without_orientation(exif: bytes) -> bytes:
    """`exif`, of the same length, with its orientation under a number that nobody reads."""
    block = bytearray(exif)
    for entry in read_directory(exif, first_directory(exif), lambda tag: tag == ORIENTATION)[0]:
        struct.pack_into(byte_order(exif) + "H", block, entry.position, ORIENTATION + 1)
    return bytes(block)


def _put(block: bytearray, order: str, entry: Entry, value: int) -> None:
    if entry.kind not in (SHORT, LONG) or entry.count != 1:
        return
    kind = LONG if value > 0xFFFF else entry.kind
    struct.pack_into(order + "HH", block, entry.position, entry.tag, kind)
    packed = struct.pack(order + ("H" if kind == SHORT else "I"), value).ljust(4, b"\0")
    block[entry.position + 8 : entry.position + 12] = packed


def _cut_thumbnail(block: bytearray, order: str, link: int) -> None:
    """Unlinks and blanks the second directory, the thumbnail: it shows the picture before restoration."""
    (offset,) = struct.unpack_from(order + "I", block, link)
    struct.pack_into(order + "I", block, link, 0)
    if not offset:
        return
    try:
        entries, end = read_directory(bytes(block), offset)
    except _BROKEN:
        return
    values = {e.tag: integer(e, order) for e in entries if e.kind in (SHORT, LONG)}
    block[offset : end + 4] = bytes(end + 4 - offset)
    start, length = values.get(_THUMBNAIL, 0), values.get(_THUMBNAIL_LENGTH, 0)
    if 8 <= start < start + length <= len(block):
        if start + length == len(block):
            del block[start:]
        else:
            block[start : start + length] = bytes(length)


def fitting_exif(exif: bytes | None, limit: int) -> bytes | None:
    """`exif` in at most `limit` bytes: without gaps, then without maker note and comment, then not at all."""
    if exif is None or len(exif) <= limit:
        return exif
    for drop in ((), (_MAKER_NOTE,), (_MAKER_NOTE, _USER_COMMENT)):
        try:
            smaller = compact(exif, drop=drop)
        except _BROKEN:
            return None
        if len(smaller) <= limit:
            return smaller
    return None


# What of a TIFF file's own directory describes the picture rather than how its pixels are stored: texts and
# dates, resolution, rating, and the titles Windows writes.
_RESOLUTION = {282, 283, 296}
_DESCRIPTIVE = _RESOLUTION | {269, 270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}


def exif_of_tiff(data: Buffer, directory: int) -> bytes | None:
    """The EXIF block of a TIFF file's directory, or None where it has nothing to say."""
    try:
        block = compact(data, first=directory, keep=lambda tag: tag in _DESCRIPTIVE)
        entries, _ = read_directory(block, first_directory(block))
        return block if any(entry.tag not in _RESOLUTION for entry in entries) else None  # tifffile always writes that
    except _BROKEN:
        return None


def upright_xmp(xmp: bytes | None, width: int, height: int) -> bytes | None:
    """`xmp` with tiff:Orientation 1 and the pixel dimensions of the written picture, where it states them.

    None where it is larger than `MOST_METADATA`.
    """
    if not xmp or len(xmp) > MOST_METADATA:
        return None
    values = {
        b"tiff:Orientation": 1,
        b"tiff:ImageWidth": width,
        b"tiff:ImageLength": height,
        b"exif:PixelXDimension": width,
        b"exif:PixelYDimension": height,
    }
    for name, value in values.items():
        written = rb"\g<1>" + str(value).encode() + rb"\g<2>"
        xmp = re.sub(rb"(\b" + name + rb"""\s{0,9}=\s{0,9}["']\s{0,9})\d{1,9}(\s{0,9}["'])""", written, xmp)
        xmp = re.sub(rb"(<" + name + rb">\s{0,9})\d{1,9}(\s{0,9}</" + name + rb">)", written, xmp)
    return xmp


# XMP that speaks of a second picture in the file: Adobe's, Apple's and Google's gain maps, depth maps, motion photos.
_SECOND_PICTURE = rb"(?:hdrgm|HDRGainMap|GContainer|Container|GDepth|GImage|GCamera|apdi)"


def without_second_picture(xmp: bytes | None) -> bytes | None:
    """`xmp` without what it says of a gain map or another picture in the same file.

    A packet of more than 64 KB, which JPEG has no place for, is left out: the search would take long.
    """
    if not xmp or len(xmp) > 0xFFFF:
        return None
    element = rb"<(" + _SECOND_PICTURE + rb":\w{1,60})(?:\s[^<>]*)?(?:/>|>.{0,9999}?</\1\s*>)"
    xmp = re.sub(element, b"", xmp, flags=re.DOTALL)
    return re.sub(rb"\s" + _SECOND_PICTURE + rb""":\w{1,60}\s?=\s?(?:"[^"]*"|'[^']*')""", b"", xmp)


IPTC = 0x0404  # the image resource that holds IPTC-IIM (Photoshop File Formats, "Image Resource IDs")


def photoshop_segment(iptc: bytes) -> bytes:
    """An APP13 segment of a JPEG that holds an IPTC-IIM block."""
    body = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHI", IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
