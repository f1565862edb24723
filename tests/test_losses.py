"""What training minimises: each distance against what it says it is."""

import math

import pytest
import torch

from restore.tasks.losses import PIXEL_LOSSES


@pytest.mark.parametrize("distance", PIXEL_LOSSES.values(), ids=PIXEL_LOSSES)
def test_pull_towards_the_clean_picture(distance):
    """A value for each value, least where nothing is wrong; a step against the gradient lessens it."""
    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    values = distance(restored, clean)
    assert values.shape == clean.shape
    values.mean().backward()
    assert restored.grad is not None
    nearer = restored.detach() - 1e-3 * restored.grad.sign()
    assert distance(nearer, clean).mean() < values.mean()
    assert distance(clean, clean).mean() < distance(nearer, clean).mean()


def test_psnr_counts_patches_alike():
    """Half of the error is worth 20 log10(2) dB, on a patch that came back well as on one that did not."""
    clean = torch.zeros(2, 3, 8, 8)
    error = torch.ones_like(clean) * torch.tensor([0.05, 0.4]).view(2, 1, 1, 1)
    gains = []
    for patch in range(2):
        better = error.clone()
        better[patch] /= 2
        gains.append(float((PIXEL_LOSSES["psnr"](error, clean) - PIXEL_LOSSES["psnr"](better, clean)).mean()))
    halved = 2 * math.log(2) / 2  # of one patch in two
    assert gains == pytest.approx([halved, halved], rel=0.02)
