"""Additive white Gaussian noise, the standard degradation of denoising papers (e.g. DnCNN, Zhang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share
from restore.pixels import is_gray, to_dtype, to_float


@dataclass(frozen=True)
class GaussianNoiseParams:
    """Parameters of `GaussianNoise`."""

    sigma: float  # standard deviation on the 0-255 scale
    seed: int  # of the noise values
    # Round and clip to the dtype of the image, as files store it; otherwise the result is float32 and exceeds [0, 1],
    # as papers score it
    clip: bool
    gray_equal: bool = False  # add the same noise to all channels of a gray image in RGB, as in gray scans saved as RGB


@dataclass(frozen=True)
class GaussianNoise(Corruption[GaussianNoiseParams]):
    """White Gaussian noise, independent for each channel.

    Args:
        sigma: (low, high), range of the standard deviation on the 0-255 scale, sampled uniformly.
        clip: probability that the noisy image is clipped and rounded.
        gray_equal: probability that a gray image in RGB gets the same noise in every channel.

    Raises:
        UsageError: an empty range, or a probability outside [0, 1].
    """

    sigma: tuple[float, float] = (0.0, 55.0)
    clip: float = 0.0
    gray_equal: float = 0.0

    def __post_init__(self) -> None:
        check_range(0, 1000, sigma=self.sigma)
        check_share(clip=self.clip, gray_equal=self.gray_equal)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> GaussianNoiseParams:
        return GaussianNoiseParams(
            sigma=float(rng.uniform(*self.sigma)),
            seed=int(rng.integers(2**63)),
            clip=bool(rng.random() < self.clip),
            gray_equal=bool(rng.random() < self.gray_equal),
        )

    def apply(self, image: np.ndarray, params: GaussianNoiseParams) -> Corrupted:
        """Adds noise to (H,W,C): the dtype of `image` if `params.clip`, else unclipped float32."""
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
