"""What the loop needs of anything it trains. Tasks and the latent kinds give one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from restore.tasks.distances import Distance


class Objective(Protocol):
    """Training data, loss and validation of one network.

    name: goes into the header of the weights as the task. arch, config: what to build.
    patch: side of a patch as the network sees it. Each batch is of one of `variants`; all take part equally.
    """

    name: str
    arch: str
    config: Any
    patch: int

    @property
    def variants(self) -> Sequence[Any]:
        """The kinds of batches."""
        ...

    def clean_patch(self, variant: int) -> int:
        """Side of the clean patch for a batch of `variant`."""
        ...

    def initial(self) -> dict[str, torch.Tensor]:
        """Weights to start from, by name; what is not among them starts fresh."""
        ...

    def coverage(self, variant: int) -> tuple[float, float] | None:
        """Share of a picture's short side that a clean patch covers, lowest and highest; None: pixels as they are."""
        ...

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A clean uint8 patch (H,W,3) as named planes (C,h,w); all chance comes from `rng`."""
        ...

    def loss(self, network: Any, batch: Mapping[str, torch.Tensor], variant: int, distance: Distance) -> torch.Tensor:
        """A number to minimise, for a batch of planes (N,C,h,w); pixels are compared by `distance`."""
        ...

    def validate(self, network: Any, pictures: Sequence[np.ndarray]) -> dict[str, float]:
        """Scores by label, higher is better; their mean is what weights are chosen by."""
        ...

    def preview(self, network: Any, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corrupted, restored and clean (H,W,3), to look at."""
        ...
