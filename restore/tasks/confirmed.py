"""Whether what was found in a picture is a mark over it, or a thing in it that looks like one.

A fence, a lattice or blurred lettering is as regular as a mark. Four figures tell them apart, none of them alone;
their weights are those of a logistic regression, fitted by `benchmarks/confirmation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.tasks.found import LEVELS

STRONGEST = 1e-3  # share of a picture's pixels, at most, that a finder's first word is taken from
CERTAIN = 4.0  # logit
FEW = 1e-3  # share of certain pixels that is as good as none
MOST_ALIKE = 0.995  # correlation that is as good as a perfect one
# One for each figure of `Evidence`, then what is added; above 0, a mark is likelier than not to be worth undoing.
WEIGHTS = (0.27, 0.75, 1.54, 2.64)
START = -3.27
BELIEVED = 2.0  # from which log odds on it is: about one clean picture in a hundred reaches them


@dataclass(frozen=True)
class Evidence:
    """What speaks for a mark.

    first: the mean of the highest logits of the finder's first look. certain: the logarithm of the share of what the
    second look found, knowing opacity and colour, that it is certain of. agreed: the intersection over union of both
    looks. related: how far what is seen beside the mark explains what is seen through it, as Fisher's z.
    """

    first: float
    certain: float
    agreed: float
    related: float

    @property
    def odds(self) -> float:
        """The logarithm of the odds that it is one, and worth undoing."""
        figures = (self.first, self.certain, self.agreed, self.related)
        return START + sum(weight * figure for weight, figure in zip(WEIGHTS, figures, strict=True))


def evidence(
    first: np.ndarray, first_mask: np.ndarray, second: np.ndarray, mask: np.ndarray, correlation: float
) -> Evidence:
    """Of the two looks' logits in `LEVELS`, (H,W) int8, and the masks that follow from them, (H,W) bool, not empty.

    correlation: of the blend that was found, see `Blend`.
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
    )
