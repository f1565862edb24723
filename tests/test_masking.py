"""The two-branch networks: shapes of every stage, receptive field, inversion of blends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore.models import build
from restore.models.masking import FIND, TRAIN, MaskedAutoencoderConfig

CONFIG = MaskedAutoencoderConfig(widths=(6, 8), blocks=(1, 1), finder_widths=(4, 6, 8), finder_blocks=(1, 1, 1))
SHAPES = {  # planes in and out, by architecture and stage
    ("hole-autoencoder", ""): (4, 3),
    ("hole-autoencoder", FIND): (3, 1),
    ("hole-autoencoder", TRAIN): (7, 4),
    ("overlay-autoencoder", ""): (7, 3),
    ("overlay-autoencoder", FIND): (7, 1),
    ("overlay-autoencoder", TRAIN): (14, 5),
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
def test_receptive_field(arch, stage):
    """A changed pixel changes the output, but nowhere farther away than `radius`."""
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


@pytest.mark.parametrize("arch", ["hole-autoencoder", "overlay-autoencoder"])
def test_train_stage_matches_the_other_stages(arch):
    """TRAIN concatenates FIND and ""; samples that are not reconstructed pass unchanged."""
    network, inputs = build(arch, CONFIG), [SHAPES[arch, stage][0] for stage in (FIND, "")]
    finder_input, painter_input = (torch.rand(5, count, 16, 16) for count in inputs)
    with torch.inference_mode():
        together = network(torch.cat([finder_input, painter_input], dim=1), stage=TRAIN)
        found, reconstructed = network(finder_input, stage=FIND), network(painter_input)
    torch.testing.assert_close(together[:, :1], found)
    count = -(-5 // network.RECONSTRUCTION_INTERVAL)
    torch.testing.assert_close(together[:count, 1:4], reconstructed[:count])
    torch.testing.assert_close(together[count:, 1:4], painter_input[count:, :3])


def test_blend_is_inverted_by_coverage():
    """With a zero residual and full coverage the blend is inverted; with unknown opacity the picture stays."""
    network = build("overlay-autoencoder", CONFIG)
    head = network.painter.heads["1"]
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    folded = head.bias.view(4, -1)  # one bias for each place in a fold
    nn.init.zeros_(folded)
    nn.init.constant_(folded[3], 30.0)
    clean, colour, opacity = torch.rand(2, 3, 9, 7), torch.rand(2, 3, 1, 1), torch.tensor(0.6).expand(2, 1, 9, 7)
    picture = clean * (1 - opacity) + colour * opacity
    with torch.inference_mode():
        inverted = network(torch.cat([clean, picture, opacity], dim=1))
        unchanged = network(torch.cat([picture, picture, torch.ones_like(opacity)], dim=1))
    torch.testing.assert_close(inverted, clean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(unchanged, picture, atol=1e-5, rtol=1e-4)
