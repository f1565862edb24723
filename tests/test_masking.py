"""The two-branch networks: shapes of every stage, a true radius, and the blend that is undone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore.models import build
from restore.models.masking import FIND, TRAIN, MaskedAutoencoderConfig, undo_blend

CONFIG = MaskedAutoencoderConfig(widths=(6, 8), blocks=(1, 1), finder_widths=(4, 6, 8), finder_blocks=(1, 1, 1))
SHAPES = {  # planes in and out, by architecture and stage
    ("hole-autoencoder", ""): (4, 3),
    ("hole-autoencoder", FIND): (3, 1),
    ("hole-autoencoder", TRAIN): (7, 4),
    ("overlay-autoencoder", ""): (3, 3),
    ("overlay-autoencoder", FIND): (3, 5),
    ("overlay-autoencoder", TRAIN): (3, 11),
}


@pytest.mark.parametrize(("arch", "stage"), SHAPES)
@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_shapes(arch, stage, height, width):
    inputs, outputs = SHAPES[arch, stage]
    with torch.inference_mode():
        output = build(arch, CONFIG)(torch.rand(2, inputs, height, width), stage=stage)
    assert output.shape == (2, outputs, height, width)
    assert output.dtype == torch.float32


@pytest.mark.parametrize(("arch", "stage"), [key for key in SHAPES if key[1] != TRAIN])
def test_radius_is_true(arch, stage):
    """A changed pixel changes nothing farther away than `radius`, and something."""
    torch.manual_seed(1)
    network = build(arch, CONFIG).double().eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.2)
    side = 2 * network.radius + 4 * network.stride
    picture = torch.rand(1, SHAPES[arch, stage][0], side, side, dtype=torch.float64)
    changed = picture.clone()
    changed[..., side // 2, side // 2] += 0.5
    with torch.inference_mode():
        difference = (network(changed, stage=stage) - network(picture, stage=stage)).abs().amax(dim=(0, 1))
    touched = difference.nonzero()
    assert len(touched) > 1
    assert (touched - side // 2).abs().max() <= network.radius


def test_a_known_blend_is_undone():
    clean, colour = torch.rand(2, 3, 9, 7), torch.rand(2, 3, 9, 7)
    opacity = torch.rand(2, 1, 9, 7) * 0.8
    torch.testing.assert_close(undo_blend(clean * (1 - opacity) + colour * opacity, opacity, colour), clean)


def test_the_painter_does_not_bend_what_the_finder_says():
    """Opacity and colour are trained to be true, and get no gradient from what is made of them afterwards."""
    network = build("overlay-autoencoder", CONFIG)
    network(torch.rand(1, 3, 16, 16), stage=TRAIN)[:, 8:].sum().backward()
    assert not any(weight.grad is not None and weight.grad.any() for weight in network.finder.parameters())
    assert any(weight.grad.any() for weight in network.painter.parameters())
