"""Bicubic downsampling, the standard degradation of super-resolution papers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from restore.corruptions.base import Corrupted
from restore.errors import ImageError, UsageError
from restore.pixels import to_dtype, to_float

SCALES = (2, 3, 4)


def resize_bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes by bicubic interpolation (Keys 1981, a = -0.5), antialiased when shrinking.

    Close to MATLAB's `imresize`, which the super-resolution literature uses.

    Args:
        image: (H,W,C) uint8, uint16 or floating point.
        size: height and width of the result.

    Returns:
        (h,w,C) in the same dtype; floating point values are not clipped.

    Raises:
        UsageError: unsupported dtype.
    """
    planes = torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1)))[None]
    out = F.interpolate(planes, size=size, mode="bicubic", antialias=True, align_corners=False)
    return to_dtype(np.ascontiguousarray(out[0].numpy().transpose(1, 2, 0)), image.dtype)


def cut_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """Crops `image` (H,W,C) at the bottom and right to sides that are multiples of `scale`.

    Raises:
        ImageError: a side is shorter than `scale` pixels.
    """
    height, width = image.shape[:2]
    if min(height, width) < scale:
        raise ImageError(f"a picture of {width}x{height} is too small to shrink {scale} times")
    return image[: height - height % scale, : width - width % scale]


@dataclass(frozen=True)
class DownsampleParams:
    """Parameters of `Downsample`."""

    scale: int  # factor by which each side shrinks


@dataclass(frozen=True)
class Downsample:
    """Bicubic downsampling by one of `scales`, after cropping the image to a multiple of it.

    Raises:
        UsageError: a scale below 2, or none.
    """

    scales: tuple[int, ...] = SCALES

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 2:
            raise UsageError(f"scales must be whole numbers of at least 2; got {self.scales}")

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> DownsampleParams:
        """Draws one of the scales, equally likely."""
        return DownsampleParams(scale=int(rng.choice(self.scales)))

    def apply(self, image: np.ndarray, params: DownsampleParams) -> Corrupted:
        """Downsamples (H,W,C) to (H // scale, W // scale, C), same dtype; raises as `cut_to_multiple`."""
        clean = self.target(image, params)
        return Corrupted(resize_bicubic(clean, (clean.shape[0] // params.scale, clean.shape[1] // params.scale)))

    def target(self, image: np.ndarray, params: DownsampleParams) -> np.ndarray:
        """Returns the image cropped to a multiple of the scale."""
        return cut_to_multiple(image, params.scale)
