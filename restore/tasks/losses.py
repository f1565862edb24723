"""Pixel losses: functions of restored and clean planes (N,C,H,W) that return a loss for each value, same shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

PixelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CHARBONNIER_EPSILON = 1e-3  # white at 1
MIN_ERROR = 1 / 255  # added to the RMSE of a patch before the logarithm, so that nearly exact patches do not dominate


def charbonnier(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Absolute error, smooth at 0 (Charbonnier et al. 1994; for super-resolution, Lai et al. 2017)."""
    return ((restored - clean).square() + CHARBONNIER_EPSILON**2).sqrt()


def psnr(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Logarithm of the mean squared error of each patch, the same for all of its values (as NAFNet, Chen et al. 2022).

    It weights easy and hard patches equally, as the mean of PSNR over images does.
    """
    squares = (restored - clean).square()
    return (squares.mean((1, 2, 3), keepdim=True) + MIN_ERROR**2).log().expand_as(squares)


l1: PixelLoss = partial(F.l1_loss, reduction="none")
mse: PixelLoss = partial(F.mse_loss, reduction="none")
PIXEL_LOSSES: dict[str, PixelLoss] = {"l1": l1, "charbonnier": charbonnier, "mse": mse, "psnr": psnr}
