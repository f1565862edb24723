"""Classification of detections: a watermark over the image, or an object of the scene that resembles one.

Fences, lattices and blurred lettering are as regular as watermarks. A logistic regression of five features tells them
apart; `benchmarks/confirmation.py` fits its weights.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np

from restore.tasks.mask_detection import LEVELS

STRONGEST_SHARE = 1e-3  # of the pixels of an image, at most, whose logits in the first pass are averaged
CERTAIN_LOGIT = 4.0
MIN_CERTAIN_SHARE = 1e-3  # added to the share of certain pixels before its logarithm is taken
MAX_CORRELATION = 0.995  # to which the correlation is clipped before Fisher's transformation
DISTANCE, SIGMA = 4, 0.8  # pixels: distance of the pixels compared across a border, and smoothing before
# Of the logistic regression, a weight for each feature of `Evidence`. Positive log odds: removal likely pays off.
WEIGHTS = (0.98, 0.18, 1.55, 1.98, 1.37)
INTERCEPT = -10.65
# Log odds from which on a mark is removed: 5 of 878 clean images reach them. With `--aggressive`, for
# images that are known to have a mark, the second.
CONFIDENT_LOG_ODDS, AGGRESSIVE_LOG_ODDS = 1.6, 0.0


@dataclass(frozen=True)
class Evidence:
    """The features of a detection, higher for watermarks."""

    first: float  # mean of the highest logits of the first pass
    certain: float  # logarithm of the share of the mask with high logits in the second pass
    agreed: float  # intersection over union of the masks of both passes
    related: float  # correlation of the colours inside and outside of the border, see `Blend`, as Fisher's z
    # Logarithm of the ratio of the contrast across the border before and after removal: objects of the scene keep their
    # border, in other colours
    erased: float

    @property
    def log_odds(self) -> float:
        """Log odds that this is a watermark, and that its removal improves the image."""
        return INTERCEPT + float(np.dot(WEIGHTS, astuple(self)))


def watermark_confidence(
    first: np.ndarray, first_mask: np.ndarray, second: np.ndarray, mask: np.ndarray, correlation: float, erased: float
) -> Evidence:
    """Computes the features of a detection from both passes of the segmentation branch.

    Args:
        first, second: quantised logits, (H,W) int8.
        first_mask, mask: the masks that follow from them, (H,W) bool, not empty.
        correlation: of the estimated blend, see `Blend`.
        erased: see `Evidence`.
    """
    logits = first[first_mask]
    count = min(logits.size, max(1, round(STRONGEST_SHARE * first.size)))
    strongest = np.partition(logits, logits.size - count)[logits.size - count :]
    certain = float((second[mask] >= CERTAIN_LOGIT * LEVELS).mean())
    agreed = np.count_nonzero(first_mask & mask) / np.count_nonzero(first_mask | mask)
    return Evidence(
        float(strongest.mean()) / LEVELS,
        float(np.log(certain + MIN_CERTAIN_SHARE)),
        agreed,
        float(np.arctanh(np.clip(correlation, 0, MAX_CORRELATION))),
        erased,
    )


def contrast_across(mask: np.ndarray, pixels: np.ndarray) -> float:
    """Sums the contrast across the border of a mask (h,w) bool over (h,w,3) float32.

    These are the absolute differences of all pixels `DISTANCE` apart in a row or column with the border in between.
    """
    smooth, total = cv2.GaussianBlur(pixels, (0, 0), SIGMA), 0.0
    for inside, values in ((mask, smooth), (mask.T, smooth.swapaxes(0, 1))):
        crossed = inside[DISTANCE:] != inside[:-DISTANCE]
        total += float(np.abs(values[DISTANCE:][crossed] - values[:-DISTANCE][crossed]).sum())
    return total
