"""Where a training run stands beside doing nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore.training.objective import Objective

WORSE = "worse than the input, train longer or start with `--init default`"


class Standing:
    """Says how scores of the validation pictures stand beside those of the damaged pictures as they are."""

    def __init__(self, objective: Objective, pictures: Sequence[np.ndarray]) -> None:
        self._objective, self._pictures = objective, pictures
        self._untouched: dict[str, float] | None = None

    def __call__(self, scores: dict[str, float]) -> str:
        """`scores` as `Objective.validate` gives them, in words; empty where doing nothing has no such scores."""
        if self._untouched is None and scores:
            self._untouched = self._objective.untouched(self._pictures)
        if not scores or self._untouched is None or self._untouched.keys() != scores.keys():
            return ""
        before, after = (float(np.mean(list(values.values()))) for values in (self._untouched, scores))
        worse = "" if after > before else f": {WORSE}"
        return f"as they are {before:.2f} dB, restored {after:.2f} dB{worse}"
