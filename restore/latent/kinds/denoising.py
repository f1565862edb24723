"""Reconstruct the clean picture from a damaged one (Vincent et al. 2008)."""

from __future__ import annotations

import torch

from restore.latent.data import moved
from restore.latent.kinds.base import Kind


def damaged(clean: torch.Tensor, damage: str, amount: float, draw: torch.Generator) -> torch.Tensor:
    """Pictures (N,C,S,S) in [0,1], damaged each in its own way.

    Args:
        clean: The pictures.
        damage: noise (Gaussian), dropout (pixels at 0), bars (one at 1 across each picture, lying or standing), or
            move (shifted, turned and zoomed: the code learns not to depend on it).
        amount: Standard deviation, share of pixels, or share of the side.
        draw: The only source of chance.
    """
    count, _, side, _ = clean.shape
    if damage == "noise":
        return clean + amount * torch.randn(clean.shape, generator=draw)
    if damage == "move":
        return moved(clean, amount, draw)
    if damage == "dropout":
        return clean * (torch.rand((count, 1, side, side), generator=draw) >= amount)
    thick = min(side, max(1, round(amount * side)))
    first = torch.randint(side - thick + 1, (count, 1), generator=draw)
    line = torch.arange(side)
    inside = (line >= first) & (line < first + thick)
    lying = torch.rand((count, 1, 1, 1), generator=draw) < 0.5
    return torch.where(torch.where(lying, inside[:, None, :, None], inside[:, None, None, :]), 1.0, clean)


class Denoising(Kind):
    """The encoder sees damage, the loss does not."""

    def seen(self, clean: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """`clean`, damaged."""
        return damaged(clean.cpu(), self.options.damage, self.options.amount, draw).to(clean.device)
