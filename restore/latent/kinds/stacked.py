"""Several layers, which may first be trained one at a time, each to reconstruct the outputs of the one before it
(Bengio et al. 2007)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder
from restore.latent.options import ModelOptions


class Layer(Kind):
    """Dense layer `number`, counted from the picture, as an autoencoder of its own; the layers below it stay.

    Args:
        options: Of the whole network.
        number: Which layer.
    """

    penalised = True  # the picture's reconstruction is of no use while only a part of the network has learnt

    def __init__(self, options: ModelOptions, number: int) -> None:
        super().__init__(options)
        self.number = number

    def loss(self, network: LatentAutoencoder, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """The error of this layer's reconstruction of its input (N,width)."""
        with torch.no_grad():
            below = (clean - network.mean).flatten(1)
            for layer in network.encoder[: self.number]:
                below = network.activate(layer(below))
        last = len(network.encoder) - 1
        above = network.encoder[self.number](below)
        decoded = network.decode_layer(last - self.number, above if self.number == last else network.activate(above))
        if self.number == 0:
            return F.mse_loss(decoded if network.config.linear else torch.sigmoid(decoded), clean.flatten(1))
        return F.mse_loss(network.activate(decoded), below)
