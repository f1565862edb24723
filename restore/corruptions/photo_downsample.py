"""Small pictures as they come: soft or sharp, made smaller in one of several ways, a little noise, saved as JPEG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, check_share
from restore.corruptions.downsample import SCALES, Downsample, DownsampleParams, cut_to_multiple
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.corruptions.jpeg_compression import JpegCompression, JpegCompressionParams
from restore.errors import ImageError
from restore.pixels import to_dtype, to_float


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(0.0, 1 - np.abs(x)))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys 1981, a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
    return ((x >= -0.5) & (x < 0.5)).astype(float)


# Name -> the kernel at unit scale and how far it reaches.
KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "area": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}

# The same without the widening: what `cv2.resize` and the texture units of graphics cards do. Fine patterns alias.
ALIASING = {"bilinear-aliased": cv2.INTER_LINEAR, "bicubic-aliased": cv2.INTER_CUBIC}
KERNEL_NAMES = (*KERNELS, *ALIASING)


@lru_cache(maxsize=64)
def _taps(kernel: str, scale: int) -> np.ndarray:
    """What a small pixel takes of the large ones around its middle, the kernel widened by `scale`."""
    function, reach = KERNELS[kernel]
    side = int(np.ceil(reach * scale))
    offsets = np.arange(-side, side) + 0.5 if scale % 2 == 0 else np.arange(-side, side + 1).astype(float)
    weights = function(offsets / scale)
    return np.asarray(weights / weights.sum(), np.float32)


def _shrunk(image: np.ndarray, scale: int, kernel: str) -> np.ndarray:
    """float32 (H,W,C), sides multiples of `scale` -> (H // scale, W // scale, C)."""
    if kernel in ALIASING:
        size = (image.shape[1] // scale, image.shape[0] // scale)
        return np.asarray(cv2.resize(image, size, interpolation=ALIASING[kernel])).reshape(*size[::-1], -1)
    taps = _taps(kernel, scale)
    # The middle of a small pixel lies on a large one where `scale` is odd, else between two: there the filter's
    # anchor is the one after the middle.
    anchor = len(taps) // 2
    filtered = cv2.sepFilter2D(image, -1, taps, taps, anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
    first = scale // 2
    return np.ascontiguousarray(filtered.reshape(image.shape)[first::scale, first::scale])


@dataclass(frozen=True)
class PhotoDownsampleParams:
    """Parameters of `PhotoDownsample`.

    Args:
        scale: factor by which each side shrinks.
        softness: standard deviation of a blur beforehand, in pixels of the small picture.
        kernel: one of KERNEL_NAMES.
        noise, jpeg: what follows; None: nothing.
    """

    scale: int
    softness: float = 0.0
    kernel: str = "bicubic"
    noise: GaussianNoiseParams | None = None
    jpeg: JpegCompressionParams | None = None


@dataclass(frozen=True)
class PhotoDownsample:
    """Pictures made smaller as people and programs do it, after cropping them to a multiple of the scale.

    Args:
        scales: one of these is drawn.
        bicubic: share of pictures that are shrunk by bicubic interpolation and nothing else, as in papers; of the
            others some are soft, some noisy, most compressed as JPEG.
        sigma: (lowest, highest) level of the noise on the 0-255 scale.
        quality: (lowest, highest) of JPEG.

    Raises:
        UsageError: a scale is below 2, or a probability outside [0, 1].
    """

    scales: tuple[int, ...] = SCALES
    bicubic: float = 0.3
    sigma: tuple[float, float] = (0.0, 8.0)
    quality: tuple[int, int] = (40, 98)

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
        noise = GaussianNoise(self.sigma, clip=1.0, gray_equal=1.0)
        return PhotoDownsampleParams(
            scale,
            softness=float(rng.uniform(0.2, 0.7)) if soft else 0.0,
            kernel=KERNEL_NAMES[int(rng.integers(len(KERNEL_NAMES)))],
            noise=noise.sample(small, rng) if noisy else None,
            jpeg=JpegCompression(self.quality, twice=0.1).sample(small, rng) if saved else None,
        )

    def apply(self, image: np.ndarray, params: PhotoDownsampleParams) -> Corrupted:
        """(H,W,C) -> (H // scale, W // scale, C), same dtype.

        Raises:
            ImageError: the picture is smaller than the scale.
        """
        if params == PhotoDownsampleParams(params.scale):
            return Downsample((params.scale,)).apply(image, DownsampleParams(params.scale))
        clean = to_float(self.target(image, params))
        if 0 in clean.shape[:2]:
            height, width = image.shape[:2]
            raise ImageError(f"a picture of {width}x{height} is too small to shrink {params.scale} times")
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
