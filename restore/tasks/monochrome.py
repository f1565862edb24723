"""Gray and sepia pictures told from those in colours, and pictures shrunk to a bounded size."""

from __future__ import annotations

from collections.abc import Callable
from math import atan2, degrees, hypot

import numpy as np
import torch
import torch.nn.functional as F

from restore.colour import has_colours, to_lab
from restore.tasks.base import Picture, Window
from restore.tasks.functional import luma, resize_area, to_array

ANALYSED = 192  # short side of the shrunk picture, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed
BAND_PIXELS = 1 << 20  # of the picture that are shrunk together

# Of 255: how far the channels of gray pictures that went through JPEG, WebP or a scanner may be apart.
GRAY_TOLERANCE = 3.0
COLOURED_SHARE = 0.001  # share of the pixels that may be further apart than that

# Sepia prints: the RMS deviation of a*b* from its mean in each of BINS ranges of L* is below TINTED and below
# TINT_SHARE of the mean chroma, and the mean hue lies within WARM, in degrees.
TINTED, BINS = 3.0, 16
TINT_SHARE = 0.25
WARM = (30.0, 110.0)


def is_monochrome(picture: Picture) -> bool:
    """Whether a picture is gray, or a sepia print."""
    return not has_colours(picture.array, GRAY_TOLERANCE, COLOURED_SHARE) or is_sepia(picture)


def is_sepia(picture: Picture) -> bool:
    """Whether a picture is a sepia print: gray but for a warm tint, that goes with the lightness.

    In each of `BINS` ranges of lightness all pixels then have about the same a*b*. It was so for 87 % of gray pictures
    printed in six tints with noise or JPEG, and for 0.7 % of 677 training pictures: skies at dusk, sand, old paper.
    """
    lab = to_lab(np.clip(shrunk_rgb(picture), 0, 1)).reshape(-1, 3)
    place = np.clip(lab[:, 0] * (BINS / 100), 0, BINS - 1).astype(np.intp)
    count = np.bincount(place, minlength=BINS).clip(min=1)
    usual = np.stack([np.bincount(place, ab, BINS) / count for ab in lab[:, 1:].T], axis=-1)[place]
    off = float(np.sqrt(np.square(lab[:, 1:] - usual).sum(axis=-1).mean()))
    a, b = lab[:, 1:].mean(axis=0)
    warm = WARM[0] <= degrees(atan2(b, a)) <= WARM[1]
    return warm and off < min(TINTED, TINT_SHARE * hypot(a, b))


def analysed_size(height: int, width: int, side: int = ANALYSED) -> tuple[int, int]:
    """Height and width at which a picture is looked at: `side` pixels on the short side, its proportions kept."""
    scale = side / min(height, width)
    return min(round(height * scale), LONGEST * side), min(round(width * scale), LONGEST * side)


def shrunk_luma(picture: Picture, side: int = ANALYSED) -> np.ndarray:
    """BT.601 luma at `analysed_size`: (h,w) float32 on the host, white at 1; see `shrunk`."""
    return to_array(shrunk(lambda window: luma(picture.planes(window)), picture.size, side)[0, 0])


def shrunk_rgb(picture: Picture) -> np.ndarray:
    """RGB at `analysed_size`: (h,w,3) float32 on the host, white at 1; see `shrunk`."""
    return to_array(shrunk(picture.planes, picture.size)[0].permute(1, 2, 0))


def shrunk(planes: Callable[[Window], torch.Tensor], size: tuple[int, int], side: int = ANALYSED) -> torch.Tensor:
    """Planes (1,C,h,w) of a picture of `size` at `analysed_size`, by area where it shrinks, else bicubic.

    Computed a band of rows at a time, on the device of what `planes` gives for a window, (1,C,h,w).
    """
    (total, across), (height, width) = size, analysed_size(*size, side)
    rows = max(1, BAND_PIXELS // across)
    bands = [Window(top, 0, min(rows, total - top), across) for top in range(0, total, rows)]
    # Rows first shrink in width only; both interpolations are separable.
    narrow = torch.cat([_resized(planes(band), band.height, width) for band in bands], dim=2)
    return _resized(narrow, height, width)


def _resized(planes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if height <= planes.shape[-2] and width <= planes.shape[-1]:
        return resize_area(planes, (height, width))
    return F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
