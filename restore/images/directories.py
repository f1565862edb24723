"""TIFF directories (TIFF 6.0, section 2), the structure of EXIF blocks and of TIFF files alike.

Values are copied as raw bytes, so that no type, text encoding or maker note changes. Parsed here, because Pillow,
tifffile and libexif write EXIF anew and move its values, after which a maker note that refers to itself by offset
is lost (`test_maker_notes_keep_their_place`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
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

    Entries of an unknown type or with a value outside the block are left out.

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
        if size and at + size <= len(block) and wanted(tag):
            total += size
            if total > MOST_METADATA:
                raise ValueError("the values of a TIFF directory are too large")
            entries.append(Entry(tag, kind, count, bytes(block[at : at + size]), position))
    return entries, link


def pack_directory(entries: Iterable[Entry], position: int, order: str) -> bytes:
    """A directory and its values, to be placed at `position` (even); it links to no other."""
    rows = sorted(entries, key=lambda entry: entry.tag)
    directory = bytearray(struct.pack(order + "H", len(rows)))
    values = bytearray()
    after = position + 2 + 12 * len(rows) + 4
    for entry in rows:
        directory += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count)
        if len(entry.data) <= 4:
            directory += entry.data.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", after + len(values))
            values += entry.data + b"\0" * (len(entry.data) % 2)
    return bytes(directory + b"\0\0\0\0" + values)


def compact(
    block: Buffer,
    *,
    first: int | None = None,
    keep: Callable[[int], bool] = lambda _: True,
    drop: frozenset[int] = frozenset(),
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
        out.extend(pack_directory(entries.values(), position, order))
        return position

    start = add(first_directory(block) if first is None else first, 0)
    struct.pack_into(order + "I", out, 4, start)
    return bytes(out)
