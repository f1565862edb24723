"""JPEG compression: blocks, ringing, blurred colours."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share
from restore.pixels import to_dtype, to_float

SHIFTED = 0.6  # share of the compressions whose grid of blocks does not start at the corner
SUBSAMPLED = 0.6  # share with 4:2:0 chroma
CELL = 16  # pixels, of the grid of blocks with colours at half the resolution


def through_jpeg(image: np.ndarray, quality: int, subsampled: bool) -> np.ndarray:
    """Compresses and decompresses (H,W,1 or 3) of any supported dtype: the same, with 8 bits of detail.

    Args:
        image: to compress.
        quality: 1 to 100.
        subsampled: 4:2:0 chroma, otherwise 4:4:4.
    """
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    levels = image if image.dtype == np.uint8 else to_dtype(to_float(image), np.uint8)
    gray = image.shape[-1] == 1
    # OpenCV's encoder takes BGR, and its chroma would be of other colours if it got RGB.
    _, code = cv2.imencode(".jpg", levels if gray else cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB)
    levels = np.asarray(decoded).reshape(image.shape)
    return levels if image.dtype == np.uint8 else to_dtype(to_float(levels), image.dtype)


@dataclass(frozen=True)
class JpegSave:
    """One compression: quality 1 to 100; `subsampled`: 4:2:0 chroma; rows and columns by which its grid is moved."""

    quality: int
    subsampled: bool
    shift: tuple[int, int]


@dataclass(frozen=True)
class JpegCompressionParams:
    """Parameters of `JpegCompression`: its compressions, in order."""

    saves: tuple[JpegSave, ...]


@dataclass(frozen=True)
class JpegCompression(Corruption[JpegCompressionParams]):
    """JPEG compression (ITU-T T.81), once or twice with another grid, as of a picture that was cropped in between.

    Args:
        quality: (lowest, highest).
        twice: share that is compressed again.

    Raises:
        UsageError: a range or probability is out of bounds.
    """

    quality: tuple[int, int] = (15, 98)
    twice: float = 0.15

    def __post_init__(self) -> None:
        check_range(1, 100, quality=self.quality)
        check_share(twice=self.twice)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> JpegCompressionParams:
        count = 2 if rng.random() < self.twice else 1
        return JpegCompressionParams(tuple(self._save(rng) for _ in range(count)))

    def _save(self, rng: np.random.Generator) -> JpegSave:
        moved = rng.random() < SHIFTED
        shift = (int(rng.integers(CELL)), int(rng.integers(CELL))) if moved else (0, 0)
        quality = int(rng.integers(*self.quality, endpoint=True))
        return JpegSave(quality, bool(rng.random() < SUBSAMPLED), shift)

    def apply(self, image: np.ndarray, params: JpegCompressionParams) -> Corrupted:
        """(H,W,1 or 3) -> the same shape and dtype, with 8 bits of detail."""
        damaged = image
        for save in params.saves:
            top, left = save.shift
            height, width = damaged.shape[:2]
            # What would lie above and to the left in the larger picture: here its mirror image.
            padded = cv2.copyMakeBorder(damaged, top, 0, left, 0, cv2.BORDER_REFLECT) if top or left else damaged
            padded = padded.reshape(height + top, width + left, image.shape[-1])
            damaged = np.ascontiguousarray(through_jpeg(padded, save.quality, save.subsampled)[top:, left:])
        return Corrupted(damaged)
