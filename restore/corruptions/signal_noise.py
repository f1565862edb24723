"""Noise that grows with the signal: counted photons, and speckle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, log_uniform
from restore.pixels import to_dtype, to_float


@dataclass(frozen=True)
class PoissonNoiseParams:
    """photons: expected count where the picture is white. seed: of the noise."""

    photons: float
    seed: int


@dataclass(frozen=True)
class PoissonNoise(Corruption[PoissonNoiseParams]):
    """Each value is a count of photons, so its variance is its mean.

    photons: (fewest, most) where the picture is white, drawn on a logarithmic scale.

    Raises:
        UsageError: the range is empty or not above 0.
    """

    photons: tuple[float, float] = (30.0, 3000.0)

    def __post_init__(self) -> None:
        check_range(0, 1e6, above=True, photons=self.photons)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> PoissonNoiseParams:
        return PoissonNoiseParams(log_uniform(*self.photons, rng), int(rng.integers(2**63)))

    def apply(self, image: np.ndarray, params: PoissonNoiseParams) -> Corrupted:
        """(H,W,C) -> the same shape and dtype, within [0, 1]."""
        rng = np.random.Generator(np.random.SFC64(params.seed))
        counts = rng.poisson(np.clip(to_float(image), 0.0, 1.0) * params.photons)
        noisy = (counts / params.photons).astype(np.float32)
        return Corrupted(to_dtype(np.clip(noisy, 0.0, 1.0), image.dtype))


@dataclass(frozen=True)
class SpeckleNoiseParams:
    """deviation: standard deviation of the factor of each value. equal: one for all channels. seed: of the noise."""

    deviation: float
    equal: bool
    seed: int


@dataclass(frozen=True)
class SpeckleNoise(Corruption[SpeckleNoiseParams]):
    """Each value times a random factor around 1, as in coherent light, radar and ultrasound.

    Args:
        deviation: (lowest, highest) standard deviation of the factor, drawn uniformly.

    Raises:
        UsageError: a range or probability is out of bounds.
    """

    deviation: tuple[float, float] = (0.02, 0.25)

    def __post_init__(self) -> None:
        check_range(0, 1, deviation=self.deviation)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> SpeckleNoiseParams:
        return SpeckleNoiseParams(
            float(rng.uniform(*self.deviation)), bool(rng.random() < 0.5), int(rng.integers(2**63))
        )

    def apply(self, image: np.ndarray, params: SpeckleNoiseParams) -> Corrupted:
        """(H,W,C) -> the same shape and dtype, within [0, 1]."""
        rng = np.random.Generator(np.random.SFC64(params.seed))
        shape = (*image.shape[:2], 1 if params.equal else image.shape[-1])
        factor = 1 + np.float32(params.deviation) * rng.standard_normal(shape, dtype=np.float32)
        return Corrupted(to_dtype(np.clip(to_float(image) * factor, 0.0, 1.0), image.dtype))
