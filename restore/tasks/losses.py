"""How far a restored picture is from the clean one, value by value; training minimises a mean of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

PixelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SOFTNESS = 1e-3  # where Charbonnier turns from square to absolute, white at 1
UNSEEN = 1 / 255  # an error, white at 1, below which a picture is as good as it needs to be


def l1(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The absolute difference: far-off values pull no harder than near ones."""
    return (restored - clean).abs()


def charbonnier(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The absolute difference, smooth at zero (Charbonnier et al. 1994; for pictures, Lai et al. 2017)."""
    return ((restored - clean).square() + SOFTNESS**2).sqrt()


def mse(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The squared difference, of which PSNR is the logarithm."""
    return (restored - clean).square()


def psnr(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The logarithm of each patch's mean squared difference, for all of its values (as NAFNet, Chen et al. 2022).

    So patches that are easy to restore count as much as hard ones: what a mean of PSNR over pictures asks for.
    """
    squares = (restored - clean).square()
    return (squares.mean((1, 2, 3), keepdim=True) + UNSEEN**2).log().expand_as(squares)


PIXEL_LOSSES: dict[str, PixelLoss] = {"l1": l1, "charbonnier": charbonnier, "mse": mse, "psnr": psnr}
