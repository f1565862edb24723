"""ICC profiles (ICC.1:2022) that are true of the pixels they are written with.

The networks work on encoded values and leave them in the encoding of the file, so a profile is carried, not
applied. Only the number of channels can change, and then the profile is rewritten to say the same of the
new ones.
"""

from __future__ import annotations

import struct
from functools import cache

import imagecodecs
import numpy as np

from restore.images.image import MOST_METADATA, Array

_HEADER = 128  # ICC.1, 7.2
_RELATIVE_COLORIMETRIC, _BLACK_POINT_COMPENSATION = 1, 0x2000  # as LittleCMS numbers them


def colour_space(icc: bytes | None) -> str | None:
    """The colour space of a profile: 'RGB', 'GRAY', 'CMYK'...; None where it is no profile."""
    if not icc or len(icc) < _HEADER + 4 or icc[36:40] != b"acsp":
        return None
    return icc[16:20].decode("latin-1").strip()


def true_profile(icc: bytes | None, channels: int) -> bytes | None:
    """The profile to write with pixels of `channels` (1 gray, 3 RGB) channels; None where `icc` cannot be
    true.

    A profile of the fitting space is returned as it is. An RGB profile whose three channels share one tone
    curve becomes a gray profile with that curve (equal channels are neutral in it, so both say the same); a
    gray profile becomes an RGB profile with its curve and the primaries of sRGB, for colours that were not
    there before. Anything else (CMYK, Lab, RGB by look-up tables, damaged) gives None, and readers assume
    sRGB.
    """
    space, wanted = colour_space(icc), "GRAY" if channels == 1 else "RGB"
    if icc is None or space is None or space == wanted:
        return icc if space else None
    try:
        return {"RGB": _gray_from_rgb, "GRAY": _rgb_from_gray}[space](icc)
    except (KeyError, struct.error):
        return None


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, _HEADER)
    rows = [struct.unpack_from(">4sII", icc, _HEADER + 4 + 12 * i) for i in range(min(count, 200))]
    if sum(size for _, _, size in rows) > 2 * MOST_METADATA:  # entries that share one value
        raise KeyError("tags")
    return {name: icc[offset : offset + size] for name, offset, size in rows}


def _assemble(icc: bytes, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display profile of `space` with these tags and the rest of the header of `icc`."""
    if icc[20:24] != b"XYZ ":  # curves over Lab mean lightness, not light
        raise KeyError("connection space")
    rows, data = bytearray(), bytearray()
    start = _HEADER + 4 + 12 * len(tags)
    for name, value in tags.items():
        rows += struct.pack(">4sII", name, start + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    header = bytearray(icc[:_HEADER])
    struct.pack_into(">I", header, 0, start + len(data))
    header[12:20] = b"mntr" + space
    header[84:100] = bytes(16)  # the checksum of the old profile
    return bytes(header + struct.pack(">I", len(tags)) + rows + data)


def _common(tags: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: tags[name] for name in (b"desc", b"cprt", b"wtpt", b"chad") if name in tags}


def _gray_from_rgb(icc: bytes) -> bytes:
    tags = _tags(icc)
    curve = tags[b"rTRC"]
    if b"A2B0" in tags or not curve == tags[b"gTRC"] == tags[b"bTRC"]:
        raise KeyError("one curve")
    return _assemble(icc, b"GRAY", {**_common(tags), b"kTRC": curve})


def _rgb_from_gray(icc: bytes) -> bytes:
    tags, primaries = _tags(icc), _tags(_srgb())
    curve = tags[b"kTRC"]
    colours = {name: primaries[name] for name in (b"rXYZ", b"gXYZ", b"bXYZ")}
    return _assemble(icc, b"RGB ", {**_common(tags), **colours, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


@cache
def _srgb() -> bytes:
    return bytes(imagecodecs.cms_profile("srgb"))


def rgb_from_cmyk(inks: Array, icc: bytes | None) -> Array:
    """A CMYK picture in sRGB: by LittleCMS where it has a CMYK profile, else R = (1 - C)(1 - K) and so on.

    Relative colorimetric with black point compensation, so that paper is white and ink black.

    Args:
        inks: (H,W,4) uint8 or uint16, 0 is no ink.
        icc: the profile of the file; a damaged one counts as none.

    Returns:
        (H,W,3) in the same dtype.
    """
    inks = np.ascontiguousarray(inks)
    if icc is not None and colour_space(icc) == "CMYK":
        try:
            converted = imagecodecs.cms_transform(
                inks,
                icc,
                _srgb(),
                colorspace="cmyk",
                outcolorspace="rgb",
                outdtype=inks.dtype,
                intent=_RELATIVE_COLORIMETRIC,
                flags=_BLACK_POINT_COMPENSATION,
            )
            return np.asarray(converted)
        except (RuntimeError, ValueError):
            pass  # a damaged profile says nothing; the plain rule is what other readers fall back to
    most = np.uint32(np.iinfo(inks.dtype).max)
    white = most - inks[..., 3:]
    return (white - (inks[..., :3] * white + most // 2) // most).astype(inks.dtype)
