"""The interface of corruptions: parameters are sampled, then applied by a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from restore.errors import UsageError

Params = TypeVar("Params")
T = TypeVar("T")


@dataclass(frozen=True)
class Corrupted:
    """A corrupted image and the ground truth of its damage; what does not apply is None.

    Args:
        image: the corrupted image, (h,w,C).
        mask: (h,w) bool, True where pixels are damaged.
        opacity: (h,w) float32 in [0, 1], opacity of an overlay at each pixel.
        colour: (h,w,C) float32, colour of that overlay, white at 1.
        hints: (h,w,4), RGB and alpha in the dtype of `image`: known colours of the clean picture where alpha is opaque.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    opacity: np.ndarray | None = None
    colour: np.ndarray | None = None
    hints: np.ndarray | None = None


class Corruption(Protocol[Params]):
    """An operator that damages a clean image.

    `sample` draws a frozen dataclass of parameters from a numpy Generator that the caller owns.
    `apply` is pure: equal images and equal parameters give equal bytes.
    """

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Params:
        """Draws parameters for an image of `shape` (H,W,C)."""
        ...

    def apply(self, image: np.ndarray, params: Params) -> Corrupted:
        """Damages `image` (H,W,C), uint8, uint16 or float with white at 1, according to `params`."""
        ...

    def target(self, image: np.ndarray, params: Params) -> np.ndarray:
        """Returns the clean image to restore to: cropped or resized where the corruption changes the geometry."""
        return image


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of `options`, each equally likely; much faster than `rng.choice` for short sequences."""
    return options[int(rng.integers(len(options)))]


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """A sample from the log-uniform distribution between `low` and `high`."""
    return float(low * (high / low) ** rng.random())


def check_range(least: float, most: float, *, above: bool = False, **ranges: tuple[float, float]) -> None:
    """Checks ranges (lowest, highest) by their names.

    Args:
        least, most: bounds of both ends.
        above: the lowest must be above `least`.
        ranges: the values.

    Raises:
        UsageError: a range is not in order, or out of bounds.
    """
    for name, (low, high) in ranges.items():
        if not least <= low <= high <= most or (above and low == least):
            start = "above" if above else "at least"
            raise UsageError(
                f"{name} must be a range from low to high, {start} {least:g} and at most {most:g}; got {low} to {high}"
            )


def check_share(**shares: float) -> None:
    """Checks probabilities by their names.

    Raises:
        UsageError: one is outside [0, 1].
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UsageError(f"{name} must be a probability from 0 to 1; got {share}")
