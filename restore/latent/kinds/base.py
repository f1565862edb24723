"""What all kinds share: reconstruct, compare, and perhaps a penalty."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from restore.latent.networks import LatentAutoencoder
from restore.latent.options import ModelOptions


class Kind:
    """The plain autoencoder; other kinds change what goes in, what the code may be, or what is added.

    Args:
        options: Of the network and its penalty.
    """

    penalised = False  # whether weights are chosen by the whole loss instead of the reconstruction

    def __init__(self, options: ModelOptions) -> None:
        self.options = options

    def seen(self, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """What the encoder gets for pictures (N,C,S,S) in [0,1]."""
        return clean

    def loss(self, network: LatentAutoencoder, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """A number to minimise.

        Args:
            network: What learns.
            clean: Pictures (N,C,S,S) in [0,1].
            draw: The only source of chance.
        """
        code = self.code(network, network.encoded(self.seen(clean, draw)))
        return self.error(network, code, clean) + self.penalty(network, clean, code)

    def code(self, network: LatentAutoencoder, encoded: torch.Tensor) -> torch.Tensor:
        """The code (N,code) in training, from the encoder's outputs."""
        return encoded

    def penalty(self, network: LatentAutoencoder, clean: torch.Tensor, code: torch.Tensor) -> torch.Tensor | float:
        """What is added to the error of the reconstruction."""
        return 0.0

    def error(self, network: LatentAutoencoder, code: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Mean squared error or binary cross-entropy a value of what `code` decodes to."""
        decoded = network.logits(code)
        if network.config.loss == "bce":
            return F.binary_cross_entropy_with_logits(decoded, clean)
        return F.mse_loss(decoded if network.config.linear else torch.sigmoid(decoded), clean)

    def weight(self, default: float) -> float:
        """The weight of the penalty."""
        return default if self.options.weight is None else self.options.weight
