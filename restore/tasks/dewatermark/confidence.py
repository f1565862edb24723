"""Whether what was found in a picture is a mark over it, or a thing in it that looks like one.

A fence, a lattice or blurred lettering is as regular as a mark. Five figures tell them apart, none of them alone;
their weights are those of a logistic regression, fitted by `benchmarks/confirmation.py`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np

from restore.tasks.mask_detection import LEVELS

STRONGEST_SHARE = 1e-3  # share of a picture's pixels, at most, that the first pass is judged by
CERTAIN_LOGIT = 4.0
FEW = 1e-3  # share of certain pixels that is as good as none
MAX_CORRELATION = 0.995  # correlation that is as good as a perfect one
DISTANCE, SIGMA = 4, 0.8  # pixels: what lies that far apart is compared across a border, smoothed by that sigma
# One for each figure of `Evidence`, then what is added; above 0, a mark is likelier than not to be worth undoing.
WEIGHTS = (0.57, 0.48, 1.78, 2.74, 1.70)
START = -7.40
# Log odds from which on a mark is removed: about one clean picture in a thousand reaches them. And from which on with
# `--aggressive`, for pictures that are known to have a mark.
CONFIDENT_LOG_ODDS, AGGRESSIVE_LOG_ODDS = 3.2, 0.0


@dataclass(frozen=True)
class Evidence:
    """What speaks for a mark.

    Args:
        first: mean of the highest logits of the first pass.
        certain: logarithm of the share of the mask that the second pass is certain of.
        agreed: intersection over union of the masks of both passes.
        related: how well what is seen beside the mark explains what is seen through it, as Fisher's z.
        erased: logarithm of how much less contrast there is across the border once the mark is removed: a thing
            that belongs to the picture keeps its border, if in other colours.
    """

    first: float
    certain: float
    agreed: float
    related: float
    erased: float

    @property
    def log_odds(self) -> float:
        """The logarithm of the odds that it is one, and worth undoing."""
        return START + float(np.dot(WEIGHTS, astuple(self)))


def watermark_confidence(
    first: np.ndarray, first_mask: np.ndarray, second: np.ndarray, mask: np.ndarray, correlation: float, erased: float
) -> Evidence:
    """The evidence of both passes of the finder.

    Args:
        first, second: quantised logits, (H,W) int8.
        first_mask, mask: the masks that follow from them, (H,W) bool, not empty.
        correlation: of the estimated blend, see `Blend`.
        erased: see `Evidence`.
    """
    said = first[first_mask]
    count = min(said.size, max(1, round(STRONGEST_SHARE * first.size)))
    strongest = np.partition(said, said.size - count)[said.size - count :]
    certain = float((second[mask] >= CERTAIN_LOGIT * LEVELS).mean())
    agreed = np.count_nonzero(first_mask & mask) / np.count_nonzero(first_mask | mask)
    return Evidence(
        float(strongest.mean()) / LEVELS,
        float(np.log(certain + FEW)),
        agreed,
        float(np.arctanh(np.clip(correlation, 0, MAX_CORRELATION))),
        erased,
    )


def contrast_across(mask: np.ndarray, pixels: np.ndarray) -> float:
    """How much (h,w,3) float32 differs across the border of `mask` (h,w) bool, summed over all places along it."""
    smooth, total = cv2.GaussianBlur(pixels, (0, 0), SIGMA), 0.0
    for inside, values in ((mask, smooth), (mask.T, smooth.swapaxes(0, 1))):
        crossed = inside[DISTANCE:] != inside[:-DISTANCE]
        total += float(np.abs(values[DISTANCE:][crossed] - values[:-DISTANCE][crossed]).sum())
    return total
