"""What the loop needs of anything it trains. Tasks and the latent kinds give one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from restore.tasks.losses import PixelLoss


class Objective(Protocol):
    """Training data, loss and validation of one network. `name` goes into the header of the weights as the task.

    patch: side of a patch as the network sees it, in pixels.
    """

    name: str
    arch: str
    config: Any
    patch: int

    @property
    def variants(self) -> Sequence[Any]:
        """The kinds of batches; every batch is of one, and all take part equally."""
        return (None,)

    @property
    def options(self) -> Mapping[str, Any]:
        """What else shapes the batches, by the name of the option: a resumed run has to agree."""
        ...

    def clean_patch(self, variant: int) -> int:
        """Side of the clean patch for a batch of `variant`, in pixels."""
        return self.patch

    def initial(self) -> dict[str, torch.Tensor]:
        """Weights to start from, by name; what is not among them starts fresh."""
        return {}

    def coverage(self, variant: int) -> tuple[float, float] | None:
        """Share of a picture's short side that a clean patch covers, lowest and highest; None: pixels as they are."""
        return None

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Planes (C,h,w) by name of one training example; `rng` is the only source of chance.

        clean: (H,W,3) in uint8; of a pair (H,W,6), the corrupted patch behind the clean one.
        """
        ...

    def loss(
        self, network: Any, batch: Mapping[str, torch.Tensor], variant: int, pixel_loss: PixelLoss
    ) -> torch.Tensor:
        """A number to minimise, for a batch of planes (N,C,h,w) by name."""
        ...

    def score(self, network: Any, picture: np.ndarray, number: int) -> dict[str, float]:
        """Scores of a validation picture (H,W,3) in uint8, or (H,W,6) of a pair; without a network, of doing nothing.

        The same number gives the same damage. By label, finite or NaN (not defined here), higher is better; weights are
        chosen by the mean. Empty where doing nothing has no score.
        """
        ...

    def preview(self, network: Any, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corrupted, restored and clean (H,W,3), to look at."""
        ...
