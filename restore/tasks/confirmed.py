"""Whether what was found in a picture is a mark over it, or a thing in it that looks like one.

A fence, a lattice or blurred lettering is as regular as a mark. Five figures tell them apart, none of them alone;
their weights are those of a logistic regression, fitted by `benchmarks/confirmation.py`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np

from restore.tasks.found import LEVELS

STRONGEST = 1e-3  # share of a picture's pixels, at most, that a finder's first word is taken from
CERTAIN = 4.0  # logit
FEW = 1e-3  # share of certain pixels that is as good as none
MOST_ALIKE = 0.995  # correlation that is as good as a perfect one
APART, SMOOTHED = 4, 0.8  # pixels: what lies that far apart is compared across a border, smoothed by that sigma
# One for each figure of `Evidence`, then what is added; above 0, a mark is likelier than not to be worth undoing.
WEIGHTS = (0.57, 0.48, 1.78, 2.74, 1.70)
START = -7.40
# From which log odds on it is believed: about one clean picture in a thousand reaches them. And from which on by the
# eager, who know that there is a mark.
BELIEVED, EAGER = 3.2, 0.0


@dataclass(frozen=True)
class Evidence:
    """What speaks for a mark.

    first: the mean of the highest logits of the finder's first look. certain: the logarithm of the share of what the
    second look found, knowing opacity and colour, that it is certain of. agreed: the intersection over union of both
    looks. related: how far what is seen beside the mark explains what is seen through it, as Fisher's z. erased: the
    logarithm of how much less contrast there is across its border once it is undone: a thing stays one, if in other
    colours.
    """

    first: float
    certain: float
    agreed: float
    related: float
    erased: float

    @property
    def odds(self) -> float:
        """The logarithm of the odds that it is one, and worth undoing."""
        return START + float(np.dot(WEIGHTS, astuple(self)))


def evidence(
    first: np.ndarray, first_mask: np.ndarray, second: np.ndarray, mask: np.ndarray, correlation: float, erased: float
) -> Evidence:
    """Of the two looks' logits in `LEVELS`, (H,W) int8, and the masks that follow from them, (H,W) bool, not empty.

    correlation: of the blend that was found, see `Blend`. erased: see `Evidence`.
    """
    said = first[first_mask]
    count = min(said.size, max(1, round(STRONGEST * first.size)))
    strongest = np.partition(said, said.size - count)[said.size - count :]
    certain = float((second[mask] >= CERTAIN * LEVELS).mean())
    agreed = np.count_nonzero(first_mask & mask) / np.count_nonzero(first_mask | mask)
    return Evidence(
        float(strongest.mean()) / LEVELS,
        float(np.log(certain + FEW)),
        agreed,
        float(np.arctanh(np.clip(correlation, 0, MOST_ALIKE))),
        erased,
    )


def contrast_across(mask: np.ndarray, pixels: np.ndarray) -> float:
    """How much (h,w,3) float32 differs across the border of `mask` (h,w) bool, summed over all places along it."""
    smooth, total = cv2.GaussianBlur(pixels, (0, 0), SMOOTHED), 0.0
    for inside, values in ((mask, smooth), (mask.T, smooth.swapaxes(0, 1))):
        crossed = inside[APART:] != inside[:-APART]
        total += float(np.abs(values[APART:][crossed] - values[:-APART][crossed]).sum())
    return total
