"""What every corruption is: parameters are sampled, then applied by a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

Params = TypeVar("Params")


@dataclass(frozen=True)
class Corrupted:
    """A damaged picture and what is known of the damage; what does not apply is None.

    image: the damaged picture, (h,w,C). mask: (h,w) bool, True where the picture is lost.
    opacity: (h,w) float32 in [0, 1], how much of an overlay covers each pixel.
    colour: (h,w,C) float32 with white at 1, the colour of that overlay.
    hints: (h,w,4), RGB and alpha in the dtype of `image`: what is known of the clean picture, where alpha is opaque.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    opacity: np.ndarray | None = None
    colour: np.ndarray | None = None
    hints: np.ndarray | None = None


class Corruption(Protocol[Params]):
    """An operator that damages a clean image.

    `sample` draws a frozen dataclass of parameters from a numpy Generator that the caller owns;
    `apply` is pure: equal images and equal parameters give equal bytes, whatever ran before.
    """

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Params:
        """Parameters for a picture of `shape` (H,W,C)."""
        ...

    def apply(self, image: np.ndarray, params: Params) -> Corrupted:
        """`image` (H,W,C), uint8, uint16 or float with white at 1, damaged as `params` says."""
        ...

    def target(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The clean picture that the damaged one is to be restored to (cut where the damage cuts)."""
        ...
