"""Only the largest units of each code are kept, in training and after (Makhzani and Frey 2013)."""

from __future__ import annotations

import torch

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder, kept_largest


class KSparse(Kind):
    """Sparse by construction: nothing to weigh."""

    def code(self, network: LatentAutoencoder, encoded: torch.Tensor) -> torch.Tensor:
        """`encoded` with all but the largest units at zero."""
        return kept_largest(encoded, network.config.active)
