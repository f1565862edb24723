"""Codes that change little when the picture does: the squared Frobenius norm of the encoder's Jacobian is added
(Rifai et al. 2011)."""

from __future__ import annotations

import torch

from restore.latent.kinds.base import Kind
from restore.latent.networks import LatentAutoencoder


def exact_norm(network: LatentAutoencoder, code: torch.Tensor) -> torch.Tensor:
    """(N,): the squared norm for an encoder of one dense layer and a sigmoid, in closed form."""
    weight = network.encoder[0].get_parameter("weight")
    return (code * (1 - code)).square() @ weight.square().sum(1)


def estimated_norm(pictures: torch.Tensor, code: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """(N,): Hutchinson's estimate, |v J|^2 for a normal v, for any encoder; can be differentiated again.

    Args:
        pictures: (N,C,S,S), of which `code` was computed with gradients.
        code: (N,code).
        draw: The only source of chance.
    """
    direction = torch.randn(code.shape, generator=draw).to(code.device)
    (back,) = torch.autograd.grad(code, pictures, direction, create_graph=True)
    return back.flatten(1).square().sum(1)


class Contractive(Kind):
    """Exact where the encoder is one layer, else estimated by one random direction a picture."""

    penalised = True

    def loss(self, network: LatentAutoencoder, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Error and penalty."""
        with torch.enable_grad():  # the estimate is made of gradients, in validation too
            pictures = clean.clone().requires_grad_()
            code = network.encoded(pictures)
            single = len(network.encoder) == 1 and not network.down
            norm = exact_norm(network, code) if single else estimated_norm(pictures, code, draw)
        return self.error(network, code, clean) + self.weight(0.01) * norm.mean()
