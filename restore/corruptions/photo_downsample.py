"""Small pictures as they come: soft or sharp, made smaller in one of several ways, a little noise, saved as JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
from PIL.Image import Resampling

from restore.corruptions.base import Corrupted, check_share, pick
from restore.corruptions.downsample import SCALES, Downsample, DownsampleParams, cut_to_multiple
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.corruptions.jpeg_compression import JpegCompression, JpegCompressionParams
from restore.pixels import to_dtype, to_float

# Widened by the scale, so that nothing aliases.
KERNELS = {
    "area": Resampling.BOX,
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "lanczos": Resampling.LANCZOS,
}
# Without the widening: what `cv2.resize` and the texture units of graphics cards do. Fine patterns alias.
ALIASING = {"bilinear-aliased": cv2.INTER_LINEAR, "bicubic-aliased": cv2.INTER_CUBIC}
KERNEL_NAMES = (*KERNELS, *ALIASING)


def resize_pillow(image: np.ndarray, size: tuple[int, int], kernel: Resampling) -> np.ndarray:
    """Resizes by a filter of Pillow: float32 (H,W,C) -> (h,w,C), `size` (h,w)."""
    planes = [PIL.Image.fromarray(plane).resize(size[::-1], kernel) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _shrunk(image: np.ndarray, scale: int, kernel: str) -> np.ndarray:
    """float32 (H,W,C), sides multiples of `scale` -> (H // scale, W // scale, C)."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    if kernel in ALIASING:
        return cv2.resize(image, (width, height), interpolation=ALIASING[kernel]).reshape(height, width, -1)
    return resize_pillow(image, (height, width), KERNELS[kernel])


@dataclass(frozen=True)
class PhotoDownsampleParams:
    """Parameters of `PhotoDownsample`."""

    scale: int  # factor by which each side shrinks
    softness: float = 0.0  # standard deviation of a blur beforehand, in pixels of the small picture
    kernel: str = "bicubic"  # one of KERNEL_NAMES
    noise: GaussianNoiseParams | None = None  # noise and jpeg: what follows; None: nothing
    jpeg: JpegCompressionParams | None = None


@dataclass(frozen=True)
class PhotoDownsample:
    """Pictures made smaller as people and programs do it, after cropping them to a multiple of the scale.

    Args:
        scales: one of these is drawn.
        bicubic: share of pictures that are shrunk by bicubic interpolation and nothing else, as in papers; of the
            others some are soft, some noisy, most compressed as JPEG.

    Raises:
        UsageError: a scale is below 2, or a probability outside [0, 1].
    """

    scales: tuple[int, ...] = SCALES
    bicubic: float = 0.3

    def __post_init__(self) -> None:
        Downsample(self.scales)
        check_share(bicubic=self.bicubic)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> PhotoDownsampleParams:
        """Draws a scale and what else happens to a picture (H,W,C)."""
        scale = int(rng.choice(self.scales))
        if rng.random() < self.bicubic:
            return PhotoDownsampleParams(scale)
        small = (shape[0] // scale, shape[1] // scale, *shape[2:])
        soft, noisy, saved = rng.random(3) < (0.35, 0.5, 0.75)
        noise = GaussianNoise((0.0, 8.0), clip=1.0, gray_equal=1.0)
        return PhotoDownsampleParams(
            scale,
            softness=float(rng.uniform(0.2, 0.7)) if soft else 0.0,
            kernel=pick(KERNEL_NAMES, rng),
            noise=noise.sample(small, rng) if noisy else None,
            jpeg=JpegCompression((40, 98), twice=0.1).sample(small, rng) if saved else None,
        )

    def apply(self, image: np.ndarray, params: PhotoDownsampleParams) -> Corrupted:
        """(H,W,C) -> (H // scale, W // scale, C), same dtype; raises as `cut_to_multiple`."""
        if params == PhotoDownsampleParams(params.scale):
            return Downsample((params.scale,)).apply(image, DownsampleParams(params.scale))
        clean = to_float(self.target(image, params))
        if params.softness:
            clean = cv2.GaussianBlur(clean, (0, 0), params.softness * params.scale).reshape(clean.shape)
        small = np.clip(_shrunk(clean, params.scale, params.kernel), 0.0, 1.0)
        if params.noise is not None:
            small = GaussianNoise().apply(small, params.noise).image
        if params.jpeg is not None:
            small = JpegCompression().apply(small, params.jpeg).image
        return Corrupted(to_dtype(small, image.dtype))

    def target(self, image: np.ndarray, params: PhotoDownsampleParams) -> np.ndarray:
        """The picture cut to a multiple of the scale."""
        return cut_to_multiple(image, params.scale)
