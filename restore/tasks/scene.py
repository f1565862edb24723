"""A whole picture at a bounded size, and what is known there taken up at full size along the edges of the luma."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.tasks.base import Picture, Window
from restore.tasks.functional import luma, resize_area, to_array

ANALYSED = 192  # short side of what the network sees, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed
BAND_PIXELS = 1 << 20  # of the picture that are shrunk together

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(SMOOTH) (white at 1) as no edges.
REACH = 2
SMOOTH = 3e-4


def analysed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is looked at: `ANALYSED` pixels on the short side, its proportions kept."""
    scale = ANALYSED / min(height, width)
    return min(round(height * scale), LONGEST * ANALYSED), min(round(width * scale), LONGEST * ANALYSED)


def shrunk_luma(picture: Picture) -> np.ndarray:
    """BT.601 luma at `analysed_size`: (h,w) float32 on the host, white at 1; see `shrunk`."""
    return to_array(shrunk(lambda window: luma(picture.planes(window)), picture.size)[0, 0])


def shrunk_rgb(picture: Picture) -> np.ndarray:
    """RGB at `analysed_size`: (h,w,3) float32 on the host, white at 1; see `shrunk`."""
    return to_array(shrunk(picture.planes, picture.size)[0].permute(1, 2, 0))


def shrunk(planes: Callable[[Window], torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Planes of a picture at `analysed_size`, by area where it shrinks, else bicubic.

    Computed a band of rows at a time, on the device of the planes.

    Args:
        planes: gives those of a window, (1,C,h,w) floating point.
        size: height and width of the picture.

    Returns:
        (1,C,h,w).
    """
    (total, across), (height, width) = size, analysed_size(*size)
    rows = max(1, BAND_PIXELS // across)
    bands = [Window(top, 0, min(rows, total - top), across) for top in range(0, total, rows)]
    # Rows first shrink in width only; both interpolations are separable.
    narrow = torch.cat([_resized(planes(band), band.height, width) for band in bands], dim=2)
    return _resized(narrow, height, width)


def guided(luma: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chroma` (h,w,2) as slope * luma + offset, with slope and offset (h,w,2) that vary little (He et al. 2013)."""
    guide = luma[..., None]
    mean, mean_chroma = _box(luma)[..., None], _box(chroma)
    variance = _box(luma * luma)[..., None] - mean * mean
    slope = (_box(guide * chroma) - mean * mean_chroma) / (np.maximum(variance, 0) + np.float32(SMOOTH))
    return _box(slope), _box(mean_chroma - slope * mean)


def _resized(planes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if height <= planes.shape[-2] and width <= planes.shape[-1]:
        return resize_area(planes, (height, width))
    return F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)


def _box(values: np.ndarray) -> np.ndarray:
    side = 2 * REACH + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
