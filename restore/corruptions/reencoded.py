"""Resizing and JPEG compression after another corruption, as in images that were shared and saved again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share, pick
from restore.corruptions.downsample import resize_bicubic
from restore.corruptions.jpeg_compression import through_jpeg
from restore.pixels import to_dtype, to_float

INTERPOLATIONS = ("area", "linear", "bicubic")
_MASKED_SHARE = 0.1  # of the area of a resized pixel, above which it counts as damaged


@dataclass(frozen=True)
class ReencodedParams:
    """Parameters of `Reencoded`."""

    inner: Any  # of the corruption that is applied first
    size: tuple[int, int] | None = None  # height and width after resizing; None: not resized
    interpolation: str = "area"  # one of `INTERPOLATIONS`
    quality: int | None = None  # of JPEG, 1 to 100; None: not compressed
    subsampled: bool = True  # 4:2:0 chroma subsampling; otherwise 4:4:4


def _resized(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resizes (H,W,C) to `size` (h,w) in the same dtype; floats within [0, 1] stay within."""
    if image.dtype.kind == "f" and image.dtype.itemsize == 2:  # OpenCV does not resize half precision
        return to_dtype(_resized(to_float(image), size, interpolation), image.dtype)
    if interpolation == "bicubic":
        small = resize_bicubic(image, size)
    else:
        kind = cv2.INTER_AREA if interpolation == "area" else cv2.INTER_LINEAR
        small = cv2.resize(image, size[::-1], interpolation=kind).reshape(*size, image.shape[-1])
    if image.dtype.kind == "f":  # for integers the conversion has clipped overshoot
        np.clip(small, min(0.0, image.min()), max(1.0, image.max()), out=small)
    return np.asarray(small)


@dataclass(frozen=True)
class Reencoded(Corruption[ReencodedParams]):
    """Applies `inner`, then resizes, compresses, or both (a third each) a share of the images.

    Otherwise a network would learn exactly constant colours as the signature of damage, which shared files lack.

    Args:
        inner: a corruption that keeps the size of the image.
        share: probability of re-encoding.
        scale: (low, high), range of the resizing factor, within (0, 1].
        quality: (low, high), range of the quality of JPEG, 1 to 100.

    Raises:
        UsageError: a probability or range outside of these limits.
    """

    inner: Corruption[Any]
    share: float = 0.5
    scale: tuple[float, float] = (0.5, 1.0)
    quality: tuple[int, int] = (70, 95)

    def __post_init__(self) -> None:
        check_share(share=self.share)
        check_range(0, 1, above=True, scale=self.scale)
        check_range(1, 100, quality=self.quality)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> ReencodedParams:
        """Draws the parameters of `inner`, then whether and how the image (H,W,C) is re-encoded."""
        inner = self.inner.sample(shape, rng)
        if rng.random() >= self.share:
            return ReencodedParams(inner)
        kind = int(rng.integers(3))
        scale = rng.uniform(*self.scale)
        return ReencodedParams(
            inner,
            size=(max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))) if kind != 1 else None,
            interpolation=pick(INTERPOLATIONS, rng),
            quality=int(rng.integers(*self.quality, endpoint=True)) if kind != 0 else None,
            subsampled=bool(rng.random() < 0.7),
        )

    def apply(self, image: np.ndarray, params: ReencodedParams) -> Corrupted:
        """Damages and re-encodes: (H,W,C) -> (h,w,C), same dtype; mask, opacity and colour are resized as well."""
        first = self.inner.apply(image, params.inner)
        damaged, mask, opacity, colour = first.image, first.mask, first.opacity, first.colour
        if params.size is not None:
            damaged = _resized(damaged, params.size, params.interpolation)
            if mask is not None:
                weights = mask[..., None].astype(np.float32)
                mask = _resized(weights, params.size, "area")[..., 0] > _MASKED_SHARE
            if opacity is not None:
                opacity = _resized(opacity[..., None], params.size, params.interpolation)[..., 0]
            if colour is not None:
                colour = _resized(colour, params.size, params.interpolation)
        if params.quality is not None:
            damaged = through_jpeg(damaged, params.quality, params.subsampled)
        return Corrupted(damaged, mask, opacity, colour)

    def target(self, image: np.ndarray, params: ReencodedParams) -> np.ndarray:
        """Returns the target of `inner`, resized likewise but not compressed."""
        clean = self.inner.target(image, params.inner)
        return clean if params.size is None else _resized(clean, params.size, params.interpolation)
