"""Colour by CIELAB and by BT.601 luma: what a gray picture keeps of its colours, and what it lost.

CIELAB after CIE 15:2004 with the white of D65, over sRGB after IEC 61966-2-1. Values outside [0, 1] are
taken on by odd symmetry of sRGB's curve, not clipped: colours that no sRGB pixel has come out outside [0, 1].
Pictures are float, (H,W,C), white at 1.
"""

from __future__ import annotations

import numpy as np

from restore.pixels import BT601, Array, white

# IEC 61966-2-1, linear sRGB to CIE XYZ with Y of white at 1; the rows add up to the white of D65.
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
FROM_LINEAR = (TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)  # of white all three are 1
TO_LINEAR = np.linalg.inv(TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)

EDGE = 6 / 29  # CIE 15: where the cube root gives way to a straight line
STEPS = 10  # of halving the range of L*, which leaves 0.05 of its 100
BAND = 1 << 20  # pixels that are looked at together


def to_lab(image: Array) -> Array:
    """CIE L*a*b* of sRGB pixels: L* from 0 to 100, a* and b* within about 110 of 0.

    Shape: (H,W,3) -> (H,W,3), float32.
    """
    light = to_linear(image.astype(np.float32)) @ FROM_LINEAR.T
    line = light / np.float32(3 * EDGE**2) + np.float32(4 / 29)  # near black and below
    x, y, z = np.moveaxis(np.where(light > EDGE**3, np.cbrt(light), line), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def from_lab(lab: Array) -> Array:
    """sRGB pixels of CIE L*a*b*; colours that sRGB does not have lie outside [0, 1].

    Shape: (H,W,3) -> (H,W,3), float32.
    """
    light, a, b = np.moveaxis(lab.astype(np.float32), -1, 0)
    y = (light + 16) / 116
    xyz = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    expanded = np.where(xyz > EDGE, xyz**3, np.float32(3 * EDGE**2) * (xyz - np.float32(4 / 29)))
    return from_linear(expanded @ TO_LINEAR.T)


def luma_of(image: Array) -> Array:
    """BT.601 luma, exactly the value of gray pixels, and the same wherever in an array a pixel lies.

    Shape: (H,W,3) -> (H,W), the dtype of `image`, which is floating point.
    """
    red, green, blue = (image[..., channel] for channel in range(3))
    return red + BT601[1] * (green - red) + BT601[2] * (blue - red)


def chroma_of(image: Array) -> Array:
    """R-Y and B-Y, with Y the BT.601 luma: all of a pixel but its luma. Shape: (H,W,3) -> (H,W,2)."""
    luma = luma_of(image)
    return np.stack([image[..., 0] - luma, image[..., 2] - luma], axis=-1)


def with_luma(luma: Array, ab: Array) -> Array:
    """The sRGB pixels of a given BT.601 luma and CIE a*b*: found by their lightness, which the luma does not give.

    A saturated red is far darker in luma than in L*, so that the two cannot simply be taken for each other.
    Shape: (H,W) with white at 1, (H,W,2) -> (H,W,3), float32, not clipped.
    """
    low, high = np.zeros_like(luma), np.full_like(luma, 100)
    for _ in range(STEPS):
        light = (low + high) / 2
        dark = luma_of(from_lab(np.concatenate([light[..., None], ab], axis=-1))) < luma
        low, high = np.where(dark, light, low), np.where(dark, high, light)
    return from_lab(np.concatenate([(low + high)[..., None] / 2, ab], axis=-1))


def in_gamut(luma: Array, chroma: Array) -> Array:
    """Pixels of BT.601 luma `luma` and as much of their chroma (R-Y, B-Y) as stays within [0, 1].

    The chroma shrinks towards gray, so that the luma stays; luma outside [0, 1] is left gray.
    Shape: (H,W) with white at 1, (H,W,2) -> (H,W,3), float32.
    """
    red, blue = chroma[..., 0], chroma[..., 1]
    green = (red * np.float32(BT601[0]) + blue * np.float32(BT601[2])) * np.float32(-1 / BT601[1])
    tiny = np.float32(1e-9)
    above = np.maximum(np.maximum(red, green), np.maximum(blue, tiny))
    below = np.maximum(np.maximum(-red, -green), np.maximum(-blue, tiny))
    share = np.clip(np.minimum((1 - luma) / above, luma / below), 0, 1)
    return np.stack([luma + share * red, luma + share * green, luma + share * blue], axis=-1)


def has_colours(image: Array, levels: float, share: float) -> bool:
    """Whether more than `share` of the pixels have channels more than `levels` of 255 apart.

    Looks at a band of rows at a time, and no further than it takes. Shape: (H,W,1 or 3), any dtype.
    """
    if image.shape[-1] == 1 or image.strides[-1] == 0:
        return False
    left = share * image.shape[0] * image.shape[1]
    limit = levels * white(image.dtype) / 255
    for band in bands(image):
        red, green, blue = (band[..., channel] for channel in range(3))
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        left -= np.count_nonzero(spread > limit)
        if left < 0:
            return True
    return False


def bands(image: Array) -> list[Array]:
    """(H,W,C) as views of a few rows each, so that what is made of them stays small."""
    rows = max(1, BAND // image.shape[1])
    return [image[top : top + rows] for top in range(0, image.shape[0], rows)]


def to_linear(values: Array) -> Array:
    """Light of sRGB values, any shape, float32."""
    size = np.abs(values)
    light = np.where(size <= 0.04045, size / np.float32(12.92), ((size + 0.055) / 1.055) ** np.float32(2.4))
    return np.asarray(np.copysign(light, values))


def from_linear(light: Array) -> Array:
    """The inverse of `to_linear`."""
    size = np.abs(light)
    curved = np.where(size <= 0.0031308, size * np.float32(12.92), 1.055 * size ** np.float32(1 / 2.4) - 0.055)
    return np.asarray(np.copysign(curved, light))
