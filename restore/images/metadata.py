"""EXIF and XMP that stay true of the pixels: upright, of the written size, without a stale thumbnail.

EXIF 2.32 (JEITA CP-3451E) blocks are changed in place: what is not changed keeps its bytes and its offset,
and so do maker notes, which refer to themselves by offset.
"""

from __future__ import annotations

import re
import struct

from restore.images.directories import (
    EXIF_POINTER,
    LONG,
    SHORT,
    Buffer,
    Entry,
    byte_order,
    compact,
    first_directory,
    integer,
    read_directory,
)
from restore.images.image import MOST_METADATA

ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_MAKER_NOTE, _USER_COMMENT = 0x927C, 0x9286
_BROKEN = (ValueError, struct.error, IndexError, KeyError, RecursionError)


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
    for drop in (frozenset[int](), frozenset({_MAKER_NOTE}), frozenset({_MAKER_NOTE, _USER_COMMENT})):
        try:
            smaller = compact(exif, drop=drop)
        except _BROKEN:
            return None
        if len(smaller) <= limit:
            return smaller
    return None


# What of a TIFF file's own directory describes the picture rather than how its pixels are stored: texts and
# dates, resolution, rating, and the titles Windows writes.
_DESCRIPTIVE = {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}


def exif_of_tiff(data: Buffer, directory: int) -> bytes | None:
    """The EXIF block of a TIFF file's directory, or None where it has nothing to say."""
    try:
        block = compact(data, first=directory, keep=lambda tag: tag in _DESCRIPTIVE)
        return block if read_directory(block, first_directory(block))[0] else None
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


_IPTC = 0x0404  # the image resource that holds IPTC-IIM (Photoshop File Formats, "Image Resource IDs")


def photoshop_segment(iptc: bytes) -> bytes:
    """An APP13 segment of a JPEG that holds an IPTC-IIM block."""
    body = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
