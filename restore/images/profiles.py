"""ICC profiles (ICC.1:2022) that are true of the pixels they are written with.

The networks work on encoded values and leave them in the encoding of the file, so a profile is carried, not
applied. Only the number of channels can change, and then a profile is made that says the same of the new ones.
"""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

from restore.images.image import Array

_HEADER = 128  # ICC.1, 7.2
_RELATIVE_COLORIMETRIC, _BLACK_POINT_COMPENSATION = 1, 0x2000  # as LittleCMS numbers them
_SRGB: dict[str, Any] = {"whitepoint": (0.3127, 0.329), "primaries": (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)}
_CURVE = np.linspace(0, 65535, 1024).astype(np.uint16)  # where a tone curve is sampled


def colour_space(icc: bytes | None) -> str | None:
    """The colour space of a profile: 'RGB', 'GRAY', 'CMYK'...; None where it is no profile."""
    if not icc or len(icc) < _HEADER + 4 or icc[36:40] != b"acsp":
        return None
    return icc[16:20].decode("latin-1").strip()


def true_profile(icc: bytes | None, channels: int) -> bytes | None:
    """The profile to write with pixels of `channels` (1 gray, 3 RGB) channels; None where `icc` cannot be
    true.

    A profile of the fitting space is returned as it is. Of an RGB profile the lightness of its neutrals makes a gray
    profile; that of a gray profile, with the primaries of sRGB for colours that were not there before, an RGB profile.
    Anything else (CMYK, Lab, damaged) gives None, and readers assume sRGB.
    """
    space, wanted = colour_space(icc), "GRAY" if channels == 1 else "RGB"
    if icc is None or space is None or space == wanted:
        return icc if space else None
    if space not in ("GRAY", "RGB"):
        return None
    neutral = _CURVE[None] if space == "GRAY" else np.repeat(_CURVE[None, :, None], 3, 2)
    try:
        light = _transformed(neutral, icc, imagecodecs.cms_profile("xyz"), space.lower(), "xyz", np.float64)
        curve = np.clip(np.rint(light[0, :, 1] / light[0, -1, 1] * 65535), 0, 65535).astype(np.uint16)
        made = imagecodecs.cms_profile(wanted.lower(), transferfunction=curve, **(_SRGB if wanted == "RGB" else {}))
    except (RuntimeError, ValueError):
        return None
    return bytes(made[:24]) + icc[24:36] + bytes(made[36:])  # with the date of `icc`: always the same bytes


def _transformed(array: Array, icc: bytes, other: bytes, space: str, to: str, dtype: Any, **more: Any) -> Array:
    """`array` through LittleCMS, from the profile `icc` of `space` to `other` of the space `to`."""
    array = np.ascontiguousarray(array)
    done = imagecodecs.cms_transform(array, icc, other, colorspace=space, outcolorspace=to, outdtype=dtype, **more)
    return np.asarray(done)


def rgb_from_cmyk(inks: Array, icc: bytes | None) -> Array:
    """A CMYK picture in sRGB: by LittleCMS where it has a CMYK profile, else R = (1 - C)(1 - K) and so on.

    Relative colorimetric with black point compensation, so that paper is white and ink black.

    Args:
        inks: (H,W,4) uint8 or uint16, 0 is no ink.
        icc: the profile of the file; a damaged one counts as none.

    Returns:
        (H,W,3) in the same dtype.
    """
    if icc is not None and colour_space(icc) == "CMYK":
        how: dict[str, Any] = {"intent": _RELATIVE_COLORIMETRIC, "flags": _BLACK_POINT_COMPENSATION}
        try:
            return _transformed(inks, icc, imagecodecs.cms_profile("srgb"), "cmyk", "rgb", inks.dtype, **how)
        except (RuntimeError, ValueError):
            pass  # a damaged profile says nothing; the plain rule is what other readers fall back to
    most = np.uint32(np.iinfo(inks.dtype).max)
    white = most - inks[..., 3:]
    return (white - (inks[..., :3] * white + most // 2) // most).astype(inks.dtype)
