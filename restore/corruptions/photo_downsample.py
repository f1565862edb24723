"""Small pictures as they come: soft or sharp, made smaller in one of several ways, a little noise, saved as JPEG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from restore.corruptions.base import Corrupted
from restore.corruptions.downsample import SCALES, Downsample, DownsampleParams, cut_to_multiple
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.corruptions.jpeg_compression import JpegCompression, JpegCompressionParams
from restore.errors import ImageError, UsageError
from restore.pixels import to_dtype, to_float


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(x))


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


@lru_cache(maxsize=64)
def _weights(length: int, scale: int, kernel: str) -> np.ndarray:
    """(length // scale, length): what each small pixel takes of each large one, the kernel widened by `scale`."""
    function, reach = KERNELS[kernel]
    centres = (np.arange(length // scale) + 0.5) * scale - 0.5
    weights = function((np.arange(length)[None, :] - centres[:, None]) / scale)
    del reach
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class PhotoDownsampleParams:
    """scale: by how much each side shrinks. softness: blur beforehand, standard deviation in small pixels.

    kernel: one of KERNELS. noise, jpeg: what follows, None for nothing.
    """

    scale: int
    softness: float = 0.0
    kernel: str = "bicubic"
    noise: GaussianNoiseParams | None = None
    jpeg: JpegCompressionParams | None = None
