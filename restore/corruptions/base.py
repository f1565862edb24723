"""The interface of corruptions: parameters are sampled, then applied by a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

Params = TypeVar("Params")


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
        """Returns the clean image to restore to; cropped or resized where the corruption changes the geometry."""
        ...
