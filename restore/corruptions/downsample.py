"""Downsampling: bicubic, the standard degradation of super-resolution papers, or as small pictures come."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from PIL.Image import Resampling

from restore.corruptions.base import Corrupted, Corruption, check_share, pick
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.corruptions.jpeg_compression import JpegCompression, JpegCompressionParams
from restore.errors import ImageError, UsageError
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


def resize_pillow(image: np.ndarray, size: tuple[int, int], kernel: Resampling) -> np.ndarray:
    """Resizes by a filter of Pillow: float32 (H,W,C) -> (h,w,C), `size` (h,w)."""
    planes = [PIL.Image.fromarray(plane).resize(size[::-1], kernel) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


@dataclass(frozen=True)
class DownsampleParams:
    """Parameters of `Downsample`; by default bicubic interpolation and nothing else."""

    scale: int  # factor by which each side shrinks
    softness: float = 0.0  # standard deviation of a blur beforehand, in pixels of the small picture
    kernel: str = "bicubic"  # one of KERNEL_NAMES
    noise: GaussianNoiseParams | None = None  # noise and jpeg: what follows; None: nothing
    jpeg: JpegCompressionParams | None = None


@dataclass(frozen=True)
class Downsample(Corruption[DownsampleParams]):
    """Makes a picture smaller by one of `scales`, after cropping it to a multiple of it.

    Args:
        scales: equally likely.
        bicubic: share of pictures that are shrunk by antialiased bicubic interpolation and nothing else, as in papers.
            The others are made smaller as people and programs do it: in several ways, some of them soft, some noisy,
            most compressed as JPEG.

    Raises:
        UsageError: a scale is below 2, there is none, or a probability is outside [0, 1].
    """

    scales: tuple[int, ...] = (2, 3, 4)
    bicubic: float = 1.0

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 2:
            raise UsageError(f"scales must be whole numbers of at least 2; got {self.scales}")
        check_share(bicubic=self.bicubic)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> DownsampleParams:
        """Draws a scale and what else happens to a picture (H,W,C)."""
        scale = int(rng.choice(self.scales))
        if self.bicubic == 1 or rng.random() < self.bicubic:
            return DownsampleParams(scale)
        small = (shape[0] // scale, shape[1] // scale, *shape[2:])
        soft, noisy, saved = rng.random(3) < (0.35, 0.5, 0.75)
        noise = GaussianNoise((0.0, 8.0), clip=1.0, gray_equal=1.0)
        return DownsampleParams(
            scale,
            softness=float(rng.uniform(0.2, 0.7)) if soft else 0.0,
            kernel=pick(KERNEL_NAMES, rng),
            noise=noise.sample(small, rng) if noisy else None,
            jpeg=JpegCompression((40, 98), twice=0.1).sample(small, rng) if saved else None,
        )

    def apply(self, image: np.ndarray, params: DownsampleParams) -> Corrupted:
        """(H,W,C) -> (H // scale, W // scale, C), same dtype; raises as `target`."""
        clean = self.target(image, params)
        size = clean.shape[0] // params.scale, clean.shape[1] // params.scale
        if params == DownsampleParams(params.scale):
            return Corrupted(resize_bicubic(clean, size))
        values = to_float(clean)
        if params.softness:
            values = cv2.GaussianBlur(values, (0, 0), params.softness * params.scale).reshape(values.shape)
        if params.kernel in ALIASING:
            small = cv2.resize(values, size[::-1], interpolation=ALIASING[params.kernel]).reshape(*size, -1)
        else:
            small = resize_pillow(values, size, KERNELS[params.kernel])
        small = np.clip(small, 0.0, 1.0)
        if params.noise is not None:
            small = GaussianNoise().apply(small, params.noise).image
        if params.jpeg is not None:
            small = JpegCompression().apply(small, params.jpeg).image
        return Corrupted(to_dtype(small, image.dtype))

    def target(self, image: np.ndarray, params: DownsampleParams) -> np.ndarray:
        """The picture cropped at the bottom and right to a multiple of the scale.

        Raises:
            ImageError: a side is shorter than the scale.
        """
        (height, width), scale = image.shape[:2], params.scale
        if min(height, width) < scale:
            raise ImageError(f"a picture of {width}x{height} is too small to shrink {scale} times")
        return image[: height - height % scale, : width - width % scale]
