"""Film grain: noise that depends on brightness, is correlated between neighbours, and often gray."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share, log_uniform
from restore.pixels import luma, to_dtype, to_float


@dataclass(frozen=True)
class FilmGrainParams:
    """Parameters of film grain."""

    strength: float  # standard deviation at middle gray, on the 0-255 scale
    blur: float  # standard deviation in pixels of the blur of the grain
    colour: float  # from 0, equal grain in all channels, to 1, independent grain in each
    channels: tuple[float, float, float]  # factors of red, green and blue
    fade: float  # share of the grain that is gone in black and in white, from 0 to 1
    seed: int  # of the grain


@dataclass(frozen=True)
class FilmGrain(Corruption[FilmGrainParams]):
    """Blurred noise whose strength follows brightness, as scans of film have it (after Newson et al. 2017).

    Args:
        strength: (lowest, highest) standard deviation on the 0-255 scale, drawn on a logarithmic scale.
        blur: (lowest, highest) in pixels; a quarter of the grains has the lowest.
        coloured: share of the grains with colour, from 0 to 1.

    Raises:
        UsageError: a range is empty or out of bounds.
    """

    strength: tuple[float, float] = (2.0, 40.0)
    blur: tuple[float, float] = (0.0, 1.5)
    coloured: float = 0.3

    def __post_init__(self) -> None:
        check_range(0, 255, above=True, strength=self.strength)
        check_range(0, 100, blur=self.blur)
        check_share(coloured=self.coloured)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> FilmGrainParams:
        coloured = rng.random() < self.coloured
        red, green, blue = rng.uniform(0.7, 1.3, 3).tolist() if coloured else (1.0, 1.0, 1.0)
        return FilmGrainParams(
            strength=log_uniform(*self.strength, rng),
            blur=self.blur[0] if rng.random() < 0.25 else float(rng.uniform(*self.blur)),
            colour=float(rng.uniform(0.0, 1.0)) if coloured else 0.0,
            channels=(red, green, blue),
            fade=float(rng.uniform(0.0, 1.0)),
            seed=int(rng.integers(2**63)),
        )

    def apply(self, image: np.ndarray, params: FilmGrainParams) -> Corrupted:
        """(H,W,1 or 3) -> the same shape and dtype, within [0, 1]."""
        clean = to_float(image)
        rng = np.random.Generator(np.random.SFC64(params.seed))
        grain = _grain(rng, (*image.shape[:2], 1), params.blur)
        if image.shape[-1] == 3:
            if params.colour:
                own = _grain(rng, image.shape, params.blur)
                grain = (1 - params.colour) ** 0.5 * grain + params.colour**0.5 * own
            grain = grain * np.asarray(params.channels, np.float32)
        bright = np.clip(luma(clean), 0.0, 1.0)[..., None]
        strength = np.float32(params.strength / 255) * (1 - params.fade * (2 * bright - 1) ** 2)
        return Corrupted(to_dtype(np.clip(clean + strength * grain, 0.0, 1.0).astype(np.float32), image.dtype))


def _grain(rng: np.random.Generator, shape: tuple[int, ...], blur: float) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if blur < 0.2:  # less changes nothing on a grid of pixels
        return noise
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(3 * blur)) + 1, blur).astype(np.float32)
    blurred = cv2.sepFilter2D(noise, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101).reshape(shape)
    return blurred / np.float32((kernel**2).sum())  # its deviation, the product of both directions'
