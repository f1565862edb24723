"""Additive white Gaussian noise, the standard model of denoising papers (e.g. DnCNN, Zhang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.corruptions.base import Corrupted
from restore.errors import UsageError
from restore.pixels import is_gray, to_dtype, to_float


@dataclass(frozen=True)
class GaussianNoiseParams:
    """sigma: standard deviation on the 0-255 scale. seed: of the noise itself.

    clip: round and clip to the dtype of the picture, as a file holds it; otherwise the result is
    float32 and goes beyond [0, 1], as papers score it. gray_equal: a gray picture in colour form
    gets equal noise in all channels, as gray scans saved as RGB have it.
    """

    sigma: float
    seed: int
    clip: bool
    gray_equal: bool = False


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise, independent for each channel.

    sigma: (low, high) on the 0-255 scale, drawn uniformly. clip: the probability that the noisy
    picture is clipped and rounded (0 never, 1 always). gray_equal: the probability that a gray
    picture in colour form gets the same noise in every channel.
    Raises UsageError for a range that is no range, or a probability outside [0, 1].
    """

    sigma: tuple[float, float] = (0.0, 55.0)
    clip: float = 0.0
    gray_equal: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.sigma
        if not 0 <= low <= high <= 1000:
            raise UsageError(f"sigma must be a range within 0 to 1000, low to high; got {low} to {high}")
        for name in ("clip", "gray_equal"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a probability from 0 to 1; got {getattr(self, name)}")

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> GaussianNoiseParams:
        """Draws a level, a seed, and the kind of noise; the shape plays no part."""
        return GaussianNoiseParams(
            sigma=float(rng.uniform(*self.sigma)),
            seed=int(rng.integers(2**63)),
            clip=bool(rng.random() < self.clip),
            gray_equal=bool(rng.random() < self.gray_equal),
        )

    def apply(self, image: np.ndarray, params: GaussianNoiseParams) -> Corrupted:
        """(H,W,C) -> (H,W,C): the dtype of `image` if `params.clip`, else unclipped float32."""
        height, width, channels = image.shape
        equal = params.gray_equal and is_gray(image)
        noise = np.random.Generator(np.random.SFC64(params.seed)).standard_normal(
            (height, width, 1 if equal else channels), dtype=np.float32
        )
        noise *= np.float32(params.sigma / 255.0)
        noisy = to_float(image) + noise
        if not params.clip:
            return Corrupted(noisy)
        return Corrupted(to_dtype(np.clip(noisy, 0.0, 1.0), image.dtype))

    def target(self, image: np.ndarray, params: GaussianNoiseParams) -> np.ndarray:
        """The picture itself."""
        return image
