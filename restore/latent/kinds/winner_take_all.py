"""Lifetime sparsity: each unit is kept for the few pictures of a batch that excite it most (Makhzani and Frey 2015)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder, kept_largest


class WinnerTakeAll(Kind):
    """Sparse in training only; afterwards all units are kept."""

    def code(self, network: LatentAutoencoder, encoded: torch.Tensor) -> torch.Tensor:
        """The positive part of `encoded`, with all but the winners of each column at zero."""
        winners = max(1, round(self.options.winners * len(encoded)))
        return kept_largest(F.relu(encoded).t(), winners).t()
