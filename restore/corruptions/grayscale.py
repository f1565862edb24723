"""Removal of colour: the BT.601 luma of a picture, the damage that colorization undoes, and dots of what it was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share
from restore.pixels import luma, to_dtype, to_float, white

DOT_SIDES = (1, 9)  # range of the side of a dot in pixels, for a picture with a short side of `REFERENCE_SIDE`
REFERENCE_SIDE = 192  # pixels


@dataclass(frozen=True)
class Dot:
    """A square of one colour: its centre, from 0 to 1 down and across the picture, and its side, of the short side."""

    down: float
    across: float
    side: float


@dataclass(frozen=True)
class GrayscaleParams:
    """The dots of colour that are kept as hints; the luma itself has no parameters."""

    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Grayscale(Corruption[GrayscaleParams]):
    """Reduces a colour picture to its BT.601 luma, in one channel.

    Args:
        hints: (lowest, highest) number of dots of the true colours that are kept (Zhang et al. 2017); small numbers are
            more likely.
        none: share of pictures without any, from 0 to 1.

    Raises:
        UsageError: a range or probability is out of bounds.
    """

    hints: tuple[int, int] = (0, 0)
    none: float = 0.0

    def __post_init__(self) -> None:
        check_range(0, 10_000, hints=self.hints)
        check_share(none=self.none)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> GrayscaleParams:
        """Draws the places of dots, anywhere in a picture of `shape`."""
        low, high = self.hints
        if high == 0 or (self.none > 0 and rng.random() < self.none):
            return GrayscaleParams()
        count = int(math.exp(rng.uniform(math.log(low + 1), math.log(high + 2)))) - 1 if low < high else low
        sides = rng.integers(DOT_SIDES[0], DOT_SIDES[1], count, endpoint=True) / REFERENCE_SIDE
        places = rng.random((count, 2))
        return GrayscaleParams(
            tuple(Dot(float(y), float(x), float(s)) for (y, x), s in zip(places, sides, strict=True))
        )

    def apply(self, image: np.ndarray, params: GrayscaleParams) -> Corrupted:
        """(H,W,3) -> (H,W,1), same dtype, integers rounded to nearest; (H,W,1) keeps its values."""
        hints = dotted(image, params.dots) if params.dots else None
        if image.shape[-1] == 1:
            return Corrupted(image.copy(), hints=hints)
        return Corrupted(to_dtype(luma(to_float(image))[..., None], image.dtype), hints=hints)


def dotted(image: np.ndarray, dots: tuple[Dot, ...]) -> np.ndarray:
    """The mean colour of `image` (H,W,1 or 3) under each dot, opaque on transparent: (H,W,4) of its dtype."""
    height, width = image.shape[:2]
    hints = np.zeros((height, width, 4), image.dtype)
    for dot in dots:
        side = max(1, round(dot.side * min(height, width)))
        top = min(max(0, round(dot.down * height - side / 2)), max(0, height - side))
        left = min(max(0, round(dot.across * width - side / 2)), max(0, width - side))
        square = slice(top, top + side), slice(left, left + side)
        colour = to_float(image[square]).mean(axis=(0, 1))
        hints[square] = to_dtype(np.append(np.broadcast_to(colour, 3), 1.0), image.dtype)
    return hints


def opaque(hints: np.ndarray) -> np.ndarray:
    """Where hints (H,W,4) say a colour: (H,W) bool."""
    return hints[..., 3] > white(hints.dtype) / 2
