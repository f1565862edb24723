"""Removal of colour: the BT.601 luma of a picture, the damage that colorization undoes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.corruptions.base import Corrupted
from restore.pixels import luma, to_dtype, to_float


@dataclass(frozen=True)
class GrayscaleParams:
    """Nothing to choose: a picture has one luma."""


@dataclass(frozen=True)
class Grayscale:
    """A colour picture becomes its BT.601 luma, one channel, as JPEG and television weigh it."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> GrayscaleParams:
        """Draws nothing."""
        return GrayscaleParams()

    def apply(self, image: np.ndarray, params: GrayscaleParams) -> Corrupted:
        """(H,W,3) -> (H,W,1), same dtype, integers rounded to nearest; (H,W,1) keeps its values."""
        if image.shape[-1] == 1:
            return Corrupted(image.copy())
        return Corrupted(to_dtype(luma(to_float(image))[..., None], image.dtype))

    def target(self, image: np.ndarray, params: GrayscaleParams) -> np.ndarray:
        """The picture itself."""
        return image
