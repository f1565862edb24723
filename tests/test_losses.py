"""Pixel losses."""

import math

import pytest
import torch

from restore.tasks.losses import PIXEL_LOSSES


@pytest.mark.parametrize("pixel_loss", PIXEL_LOSSES.values(), ids=PIXEL_LOSSES)
def test_gradient_points_to_the_clean_planes(pixel_loss):
    """Element-wise, minimal for equal planes, and a step against the gradient decreases it."""
    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    values = pixel_loss(restored, clean)
    assert values.shape == clean.shape
    values.mean().backward()
    assert restored.grad is not None
    nearer = restored.detach() - 1e-3 * restored.grad.sign()
    assert pixel_loss(nearer, clean).mean() < values.mean()
    assert pixel_loss(clean, clean).mean() < pixel_loss(nearer, clean).mean()


def test_psnr_weights_patches_equally():
    """Halving the error decreases the loss equally for a good and a bad patch."""
    clean = torch.zeros(2, 3, 8, 8)
    error = torch.ones_like(clean) * torch.tensor([0.05, 0.4]).view(2, 1, 1, 1)
    gains = []
    for patch in range(2):
        better = error.clone()
        better[patch] /= 2
        gains.append(float((PIXEL_LOSSES["psnr"](error, clean) - PIXEL_LOSSES["psnr"](better, clean)).mean()))
    halved = 2 * math.log(2) / 2  # of one patch in two
    assert gains == pytest.approx([halved, halved], rel=0.02)
