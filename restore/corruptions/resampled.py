"""Noise of another size: the picture was damaged first, and made smaller or larger after that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, log_uniform, pick
from restore.pixels import to_dtype, to_float

FACTOR = (0.5, 1.7)  # by which the sides were multiplied after the damage, drawn on a logarithmic scale
INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class ResampledParams:
    """Parameters of the damage, the (height, width) at which it happened, and one of INTERPOLATIONS."""

    inner: Any
    size: tuple[int, int]
    interpolation: str


@dataclass(frozen=True)
class Resampled(Corruption[ResampledParams]):
    """A damage that happened at another size of the picture.

    Resizing is linear, so what is resized is the difference that the damage makes: the picture itself keeps its
    details and its size, whatever the factor is, and only the damage becomes finer and weaker, or coarser and softer.
    """

    inner: Corruption[Any]

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> ResampledParams:
        """Draws a size and the damage of a picture (H,W,C) of it."""
        factor = log_uniform(*FACTOR, rng)
        height, width = (max(1, round(side / factor)) for side in shape[:2])
        inner = self.inner.sample((height, width, *shape[2:]), rng)
        return ResampledParams(inner, (height, width), pick(tuple(INTERPOLATIONS), rng))

    def apply(self, image: np.ndarray, params: ResampledParams) -> Corrupted:
        """(H,W,C) -> the same shape and dtype, within [0, 1]."""
        clean = np.clip(to_float(image), 0.0, 1.0)
        before = np.clip(_resized(clean, params.size, "linear" if params.interpolation == "area" else "cubic"), 0, 1)
        change = to_float(self.inner.apply(before, params.inner).image) - before
        damaged = clean + _resized(change, image.shape[:2], params.interpolation)
        return Corrupted(to_dtype(np.clip(damaged, 0.0, 1.0), image.dtype))


def _resized(image: np.ndarray, size: tuple[int, ...], interpolation: str) -> np.ndarray:
    resized = cv2.resize(image, (size[1], size[0]), interpolation=INTERPOLATIONS[interpolation])
    return np.asarray(resized).reshape(*size[:2], image.shape[-1])
