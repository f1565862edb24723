"""Pictures as they come from elsewhere: made smaller and compressed again after the damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, Params
from restore.corruptions.downsample import resize_bicubic
from restore.corruptions.jpeg_compression import through_jpeg
from restore.errors import UsageError
from restore.pixels import to_dtype, to_float

INTERPOLATIONS = ("area", "linear", "bicubic")
_LOST = 0.1  # a pixel of the smaller picture is lost if more than this share of its area was


@dataclass(frozen=True)
class ReencodedParams(Generic[Params]):
    """inner: of the damage. size: (height, width) after resizing, None for as it is.

    interpolation: one of INTERPOLATIONS. quality: of JPEG, None for no compression.
    subsampled: 4:2:0 chroma; otherwise 4:4:4.
    """

    inner: Params
    size: tuple[int, int] | None = None
    interpolation: str = "area"
    quality: int | None = None
    subsampled: bool = True


def _resized(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H,W,C) at `size` (h,w) in the same dtype; floats within [0, 1] stay within."""
    if image.dtype.kind == "f" and image.dtype.itemsize == 2:  # OpenCV does not resize half precision
        return to_dtype(_resized(to_float(image), size, interpolation), image.dtype)
    if interpolation == "bicubic":
        small = resize_bicubic(image, size)
    else:
        kind = cv2.INTER_AREA if interpolation == "area" else cv2.INTER_LINEAR
        small = cv2.resize(image, size[::-1], interpolation=kind).reshape(*size, image.shape[-1])
    if image.dtype.kind == "f":  # integers clip overshoot and rounding errors by themselves
        np.clip(small, min(0.0, image.min()), max(1.0, image.max()), out=small)
    return np.asarray(small)


@dataclass(frozen=True)
class Reencoded(Generic[Params]):
    """`inner`, after which a share of the pictures is resized, or saved as JPEG, or both (a third each).

    So that a network does not learn exact constants as the fingerprint of a damage: files found
    elsewhere have none. inner: a damage that keeps the size of the picture. share: probability.
    scale: (low, high), the factor of both sides. quality: (low, high) of JPEG.
    Raises UsageError for a probability or range that makes no sense.
    """

    inner: Corruption[Params]
    share: float = 0.5
    scale: tuple[float, float] = (0.5, 1.0)
    quality: tuple[int, int] = (70, 95)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"share is a probability from 0 to 1; got {self.share}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scale must be a range above 0 and up to 1, low to high; got {self.scale}")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise UsageError(f"quality must be a range within 1 to 100, low to high; got {self.quality}")

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> ReencodedParams[Params]:
        """Draws the damage, then whether and how the picture (H,W,C) is encoded again."""
        inner = self.inner.sample(shape, rng)
        if rng.random() >= self.share:
            return ReencodedParams(inner)
        kind = int(rng.integers(3))
        scale = rng.uniform(*self.scale)
        return ReencodedParams(
            inner,
            size=(max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))) if kind != 1 else None,
            interpolation=INTERPOLATIONS[int(rng.integers(3))],
            quality=int(rng.integers(*self.quality, endpoint=True)) if kind != 0 else None,
            subsampled=bool(rng.random() < 0.7),
        )

    def apply(self, image: np.ndarray, params: ReencodedParams[Params]) -> Corrupted:
        """(H,W,C) -> (h,w,C), same dtype; mask, opacity and colour go along.

        Of a pixel that was lost in part, more than a tenth makes it lost.
        """
        found = self.inner.apply(image, params.inner)
        damaged, mask, opacity, colour = found.image, found.mask, found.opacity, found.colour
        if params.size is not None:
            damaged = _resized(damaged, params.size, params.interpolation)
            if mask is not None:
                part = mask[..., None].astype(np.float32)
                mask = _resized(part, params.size, "area")[..., 0] > _LOST
            if opacity is not None:
                opacity = _resized(opacity[..., None], params.size, params.interpolation)[..., 0]
            if colour is not None:
                colour = _resized(colour, params.size, params.interpolation)
        if params.quality is not None:
            damaged = through_jpeg(damaged, params.quality, params.subsampled)
        return Corrupted(damaged, mask, opacity, colour)

    def target(self, image: np.ndarray, params: ReencodedParams[Params]) -> np.ndarray:
        """The target of the damage, resized alike but not compressed."""
        clean = self.inner.target(image, params.inner)
        return clean if params.size is None else _resized(clean, params.size, params.interpolation)
