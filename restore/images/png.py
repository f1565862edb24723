"""PNG (third edition, W3C 2023): pixels by libpng (imagecodecs), metadata from the chunks.

The chunks are read here, because Pillow refuses a file for a damaged or large text that has nothing to do with the
pixels, and knows neither cICP nor 16 bits a channel (`test_png_metadata_that_pillow_refuses`).
"""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np

from restore.errors import ImageError
from restore.images.image import MOST_METADATA, Image, SizeCheck
from restore.images.metadata import exif_block, stored_orientation
from restore.images.pixels import check_decoded_size, split_alpha, squeeze_gray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp"
COLOUR_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"eXIf", b"iCCP", b"pHYs", *COLOUR_CHUNKS, *_TEXT}
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_MOST_CHUNKS = 5000
_DEFLATE = 1032  # the most that a byte of it can become

Chunk = tuple[bytes, bytes]


def _chunks(data: bytes) -> tuple[list[Chunk], int, list[str]]:
    """The chunks of `_KEPT`, how many bytes of packed pixels there are, and notes on what was left out.

    Checksums of the chunks that hold pixels are left to libpng. Raises ValueError where the file is cut.
    """
    chunks: list[Chunk] = []
    notes: list[str] = []
    packed, kept, at = 0, 0, len(SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            packed += length
            chunks += [(name, b"")] if chunks and chunks[-1][0] != name else []
        elif name in _KEPT and ((kept := kept + length) > MOST_METADATA or len(chunks) == _MOST_CHUNKS):
            kept -= length
            notes.append(f"{length / 1e6:.0f} MB of {name.decode()} are left out")
        elif name in _KEPT:
            body = data[at + 8 : at + 8 + length]
            if zlib.crc32(body, zlib.crc32(name)) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big"):
                chunks.append((name, body))
            elif name[0] & 32 == 0 or name == b"tRNS":  # lower case: ancillary
                raise ValueError(f"chunk {name.decode()} fails its checksum")
            else:
                notes.append(f"damaged metadata ({name.decode()}) are left out")
        at += 12 + length
        if name == b"IEND" and at <= len(data):
            return chunks, packed, notes[:3]
    raise ValueError("its end is missing")


def read_png(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A PNG file and the orientation that is still to be applied.

    Raises ImageError for an animation, ValueError and what imagecodecs raises for damage.
    """
    chunks, packed, notes = _chunks(data)
    first = dict(reversed(chunks))
    if len(first.get(b"IHDR", b"")) != 13:
        raise ValueError("its header is missing")
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", first[b"IHDR"])
    check_size(width, height)
    names = [name for name, _ in chunks]
    if b"acTL" in first:
        # The picture in IDAT is a frame only where an fcTL stands before it.
        before = names[: names.index(b"IDAT")] if b"IDAT" in names else []
        frames = int.from_bytes(first[b"acTL"][:4], "big") + (b"fcTL" not in before)
        if frames > 1:
            raise ImageError(f"is an animated PNG of {frames} frames; extract the frame you want first")
    bits = depth * {_GRAY_ALPHA: 2, _RGB: 3, _RGB_ALPHA: 4}.get(kind, 1)
    rows = height * (1 + (width * bits + 7) // 8)
    check_decoded_size(rows, packed, _DEFLATE)
    if packed > 2 * rows + (1 << 16):  # libpng would unpack all of it to see that it is too much
        raise ValueError(f"{packed} bytes of packed pixels for a picture of {rows}")
    array = imagecodecs.png_decode(data)
    if array.shape[:2] != (height, width) or array.dtype not in (np.uint8, np.uint16):
        raise ValueError("its pixels do not fit its header")
    if kind == _PALETTE and array.ndim == 3:
        palette = first.get(b"PLTE", b"")
        if palette[::3] == palette[1::3] == palette[2::3]:
            array = np.ascontiguousarray(array[..., [0, 3][: array.shape[2] - 2]])
    exif, xmp = exif_block(first.get(b"eXIf")), None
    texts = [chunk for chunk in chunks if chunk[0] in _TEXT]
    for chunk in list(texts):
        keyword, _, text = chunk[1].partition(b"\0")
        if chunk[0] == b"iTXt" and keyword == _XMP:
            xmp = xmp or _international(text)
            texts.remove(chunk)
        elif keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
            exif = exif or _legacy_exif(chunk[0], text)
            texts.remove(chunk)
    image = Image(
        *split_alpha(array),
        "png",
        exif=exif,
        icc=_unpacked(first[b"iCCP"].partition(b"\0")[2][1:]) if b"iCCP" in first else None,
        xmp=xmp,
        dpi=_dpi(first.get(b"pHYs")),
        png_chunks=(*(chunk for chunk in chunks if chunk[0] in COLOUR_CHUNKS), *texts),
        notes=tuple(notes),
    )
    return image, stored_orientation(exif, xmp)


def _unpacked(packed: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(packed, MOST_METADATA)
    except zlib.error:
        return None


def _international(text: bytes) -> bytes | None:
    """The text of an iTXt chunk (section 11.3.3.4) after its keyword."""
    body = text[2:].split(b"\0", 2)
    if len(text) < 2 or len(body) < 3:
        return None
    return _unpacked(body[2]) if text[0] else body[2]


def _legacy_exif(name: bytes, text: bytes) -> bytes | None:
    """EXIF as ImageMagick wrote it before eXIf existed: hexadecimal text after a name and a length."""
    try:
        unpacked = _unpacked(text[1:]) if name == b"zTXt" else text
        return exif_block(bytes.fromhex("".join((unpacked or b"").decode("ascii").split()[2:])))
    except ValueError:
        return None


def _dpi(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) != 9 or chunk[8] != 1:  # 1: pixels per metre
        return None
    across, down = struct.unpack(">II", chunk[:8])
    return across * 0.0254, down * 0.0254


def encode_png(image: Image, _: int | None = None) -> bytes:
    """A PNG of uint8 or uint16 with its metadata in chunks."""
    kept, icc = image.png_chunks, image.icc
    extra = [chunk for chunk in kept if chunk[0] in COLOUR_CHUNKS and not (icc and chunk[0] == b"sRGB")]  # 11.3.2.3
    if icc:
        extra.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if image.dpi:
        extra.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in image.dpi), 1)))
    if image.exif:
        extra.append((b"eXIf", image.exif))
    if image.xmp:
        extra.append((b"iTXt", _XMP + b"\0\0\0\0\0" + image.xmp))
    extra += [chunk for chunk in kept if chunk[0] in _TEXT]
    # 4, FILTERED, all filters: as small as Pillow's default in half its time, on photographs, text and a scan.
    data = memoryview(imagecodecs.png_encode(squeeze_gray(image.array), level=4, strategy=1, filter=0xF8))
    after_header = len(SIGNATURE) + 25
    packed = (
        struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
        for name, body in extra
    )
    return b"".join((data[:after_header], *packed, data[after_header:]))
