"""Files made to take much time or memory, from a few bytes of code each; nothing binary is kept in the repository.

Each function returns the bytes of one file. `BOMBS` names them all.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import PIL.Image
import tifffile

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
GIGABYTE = 1 << 30


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(SMALL).save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def packed_zeros(count: int) -> bytes:
    """`count` zeros, deflated: about a thousandth of that. Full flushes make all blocks of a megabyte the same."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(bytes(count & 0xFFFFF)) + packer.flush()
    checksum = (count % 65521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * (count >> 20) + last + struct.pack(">I", checksum)


def png(width: int, height: int, body: bytes, extra: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def small_png(extra: bytes = b"") -> bytes:
    data = saved("PNG")
    return data[:33] + extra + data[33:]


def exif(entries: int, size: int, tag: int = 0x8298) -> bytes:
    """An EXIF block whose entries all point to one value of `size` bytes."""
    at = 8 + 2 + 12 * entries + 4
    rows = b"".join(struct.pack("<HHII", tag, 7, size, at) for _ in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + rows + bytes(4) + bytes(size)


def tiff(tags: dict[int, tuple[int, list[int]]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory; tags: number -> (3 SHORT or 4 LONG, values)."""
    start = 8 + 2 + 12 * len(tags) + 4
    rows, values = b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        body = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        where = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack("<I", start + len(values))
        rows += struct.pack("<HHI", tag, kind, len(numbers)) + where
        values += body if len(body) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + struct.pack("<I", following) + values + tail


def strips(side: int, count: int, compression: int, size: int = 10, bits: int = 8) -> bytes:
    """A TIFF that claims a picture of `side` x `side` in `count` strips, all of them the same few bytes."""
    return tiff(
        {
            256: (4, [side]),
            257: (4, [side]),
            258: (3, [bits]),
            259: (3, [compression]),
            262: (3, [1]),
            273: (4, [8] * count),
            277: (3, [1]),
            278: (4, [-(-side // count)]),
            279: (4, [size] * count),
        }
    )


def jpeg_of_size(width: int, height: int, kind: int = 0xC0) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(saved("JPEG", progressive=kind == 0xC2))
    at = data.index(bytes([0xFF, kind]))
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands there `count` times."""
    out = io.BytesIO()
    PIL.Image.fromarray(np.zeros((4000, 4000), np.uint8)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def webp_of_size(side: int) -> bytes:
    data = bytearray(saved("WEBP", exif=b"Exif\0\0II*\0"))
    assert data[12:16] == b"VP8X"
    data[24:27] = data[27:30] = (side - 1).to_bytes(3, "little")
    return bytes(data)


def avif_of_size(side: int) -> bytes:
    data = bytearray(saved("AVIF", speed=10))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", side, side)
    return bytes(data)


def jp2(width: int, height: int, tile: int | None = None) -> bytes:
    data = bytearray(imagecodecs.jpeg2k_encode(SMALL, codecformat="jp2"))
    header, size = data.index(b"ihdr") + 4, data.index(b"\xff\x4f\xff\x51") + 8
    data[header : header + 8] = struct.pack(">II", height, width)
    data[size : size + 8] = struct.pack(">II", width, height)
    data[size + 16 : size + 24] = struct.pack(">II", tile or width, tile or height)
    return bytes(data)


def icc(tags: int, size: int) -> bytes:
    """A gray profile whose tags all share one value."""
    header = struct.pack(">I4s", 132 + 12 * tags + size, b"lcms").ljust(12, b"\0") + b"mntrGRAYXYZ "
    header = header.ljust(36, b"\0") + b"acsp"
    rows = b"".join(struct.pack(">4sII", b"t%03d" % n, 132 + 12 * tags, size) for n in range(tags))
    return header.ljust(128, b"\0") + struct.pack(">I", tags) + rows + bytes(size)


def directories(count: int) -> bytes:
    """A TIFF of a long chain of directories that are called previews."""
    rows = b"".join(
        struct.pack("<HHHIIHHIII", 2, 254, 4, 1, 1, 256, 4, 1, 1, 8 + 30 * (n + 1) if n < count - 1 else 0)
        for n in range(count)
    )
    return b"II*\0" + struct.pack("<I", 8) + rows


def itxt(text: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text)


def ratio_bomb_tiff() -> bytes:
    """Strips of a small picture that unpack to a gigabyte each."""
    body = packed_zeros(GIGABYTE)
    out = io.BytesIO()
    tifffile.imwrite(out, SMALL, photometric="rgb", compression="zlib", rowsperstrip=40)
    data = bytearray(out.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = file.pages[0].tags
        offset, count = tags[273], tags[279]
    data += b"\0" * (len(data) % 2)
    struct.pack_into("<I", data, offset.valueoffset, len(data))
    struct.pack_into("<HI", data, count.offset + 2, 4, 1)
    struct.pack_into("<I", data, count.offset + 8, len(body))
    return bytes(data) + body


def tiled(side: int) -> bytes:
    tags = {256: 9, 257: 9, 258: 8, 259: 1, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 90}
    return tiff({tag: (4, [value]) for tag, value in tags.items()})


BOMBS: dict[str, Callable[[], bytes]] = {
    "exif of png, shared": lambda: small_png(chunk(b"eXIf", exif(20_000, 500_000))),
    "exif of jpeg, shared": lambda: saved("JPEG", exif=b"Exif\0\0" + exif(4_000, 16_000)),
    "exif of jpeg, maker notes": lambda: saved("JPEG", exif=b"Exif\0\0" + exif(4_000, 16_000, 0x927C)),
    "exif of webp, shared": lambda: saved("WEBP", exif=b"Exif\0\0" + exif(20_000, 500_000)),
    "exif of tiff, shared": lambda: exif(20_000, 500_000),
    "exif that points to itself": lambda: small_png(
        chunk(b"eXIf", b"II*\0" + struct.pack("<IH", 8, 300) + struct.pack("<HHII", 0x8769, 4, 1, 8) * 300 + bytes(4))
    ),
    "jpeg of 22000": lambda: jpeg_of_size(22_000, 22_000),
    "jpeg of 22000, progressive": lambda: jpeg_of_size(22_000, 22_000, 0xC2),
    "jpeg of 2000 scans": lambda: jpeg_of_scans(2_000),
    "jpeg of no height": lambda: jpeg_of_size(50, 0),
    "png of 100000": lambda: png(100_000, 100_000, b""),
    "png of 22000": lambda: png(22_000, 22_000, packed_zeros(1 << 16)),
    "png of 1 x 400 million": lambda: png(1, 400_000_000, packed_zeros(1 << 16)),
    "png of too many rows": lambda: png(50, 40, packed_zeros(4 * GIGABYTE)),
    "png with a profile of 1 GB": lambda: small_png(chunk(b"iCCP", b"p\0\0" + packed_zeros(GIGABYTE))),
    "png with a text of 1 GB": lambda: small_png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed_zeros(GIGABYTE))
        + chunk(b"zTXt", b"Raw profile type exif\0\0" + packed_zeros(GIGABYTE))
    ),
    "png of empty chunks": lambda: small_png(chunk(b"tIME", b"") * 150_000 + chunk(b"tEXt", b"") * 150_000),
    "png of empty pixels": lambda: saved("PNG")[:-12] + chunk(b"IDAT", b"") * 400_000 + chunk(b"IEND", b""),
    "png with slow xmp": lambda: small_png(itxt(b"<hdrgm:a>" * 100_000 + b" tiff:Orientation =" * 50_000)),
    "jpeg with slow xmp": lambda: saved("JPEG", xmp=(b"<hdrgm:a>" * 7_000)[:65_000]),
    "png with spaces in xmp": lambda: small_png(itxt(b"tiff:ImageWidth" + b" " * 1_000_000)),
    "tiff of 10-byte strips": lambda: strips(22_000, 22_000, 8),
    "tiff of 10-byte strips, lzw": lambda: strips(22_000, 22_000, 5),
    "tiff of 10-byte strips, packbits": lambda: strips(22_000, 22_000, 32773),
    "tiff of 10-byte strips, fax": lambda: strips(22_000, 22_000, 4, bits=1),
    "tiff of 10-byte strips, zstd": lambda: strips(22_000, 22_000, 50000),
    "tiff of 10-byte strips, jpeg": lambda: strips(22_000, 22_000, 7),
    "tiff of 10-byte strips, lzma": lambda: strips(22_000, 22_000, 34925),
    "tiff of one strip of 10 bytes": lambda: strips(22_000, 1, 8),
    "tiff with a strip of 1 GB": ratio_bomb_tiff,
    "tiff with a huge tile": lambda: tiled(60_000),
    "tiff of 20000 directories": lambda: directories(20_000),
    "tiff of 1000000 channels": lambda: tiff(
        {256: (4, [9]), 257: (4, [9]), 258: (3, [8]), 262: (3, [1]), 273: (4, [8]), 277: (4, [1 << 20]), 279: (4, [9])}
    ),
    "tiff with offsets of fractions and sizes of text": lambda: tiff(
        {
            256: (4, [9]),
            257: (4, [9]),
            258: (3, [8]),
            262: (3, [1]),
            273: (11, [0x41000000]),
            277: (3, [1]),
            279: (2, [57]),
        }
    ),
    "webp of 16000": lambda: webp_of_size(16_000),
    "avif of 60000": lambda: avif_of_size(60_000),
    "avif of 20000": lambda: avif_of_size(20_000),
    "jp2 of 20000": lambda: jp2(20_000, 20_000),
    "jp2 of tiles of a pixel": lambda: jp2(20_000, 20_000, 1),
    "jxl of 2^30": lambda: b"\xff\x0a" + (0b1111 << 1 | 0x3FFFFFFF << 3).to_bytes(12, "little"),
    "jxl of 16000": lambda: b"\xff\x0a" + (0b10 << 1 | 15_999 << 3 | 1 << 21).to_bytes(12, "little") + bytes(50),
    "qoi of 20000": lambda: b"qoif" + struct.pack(">IIBB", 20_000, 20_000, 4, 0) + bytes(7) + b"\1",
    "pgm of 20000": lambda: b"P5 20000 20000 255\n" + bytes(100),
    "ppm of text": lambda: b"P3 20000 20000 255\n" + b"0 " * 500_000,
    "bmp of 20000": lambda: saved("BMP")[:18] + struct.pack("<ii", 20_000, 20_000) + saved("BMP")[26:],
    "icc, shared": lambda: saved("PNG", icc_profile=icc(200, 1_000_000)),
}
