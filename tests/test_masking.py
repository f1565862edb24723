"""The two-branch networks: shapes of every stage, receptive field, inversion of blends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore.errors import UsageError
from restore.models import build
from restore.models.masking import (
    FIND,
    JUDGE,
    TRAIN,
    HoleAutoencoderConfig,
    part_labels,
    pool_evidence,
)

SIZES = {"widths": (6, 8), "blocks": (1, 1), "finder_widths": (4, 6, 8), "finder_blocks": (1, 1, 1)}
JUDGED = HoleAutoencoderConfig(**SIZES, evidence=5)
PRINTS = replace(JUDGED, print_widths=(4, 6), print_blocks=(1, 1))
WHOLE = replace(PRINTS, painter_channels=7)
SHAPES = {  # planes in and out, by architecture and stage
    ("hole-autoencoder", ""): (7, 3),
    ("hole-autoencoder", FIND): (3, 1),
    ("hole-autoencoder", TRAIN): (10, 4),
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
        output = build(arch, SIZES)(torch.rand(2, inputs, height, width), stage=stage)
    assert output.shape == (2, outputs, height, width)
    assert output.dtype == torch.float32


@pytest.mark.parametrize(("arch", "stage"), [key for key in SHAPES if key[1] != TRAIN])
def test_receptive_field(arch, stage):
    """A changed pixel changes the output, but nowhere farther away than `radius`."""
    torch.manual_seed(1)
    network = build(arch, SIZES).double().eval()
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
    network, inputs = build(arch, SIZES), [SHAPES[arch, stage][0] for stage in (FIND, "")]
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
    network = build("overlay-autoencoder", SIZES)
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


@pytest.mark.parametrize("config", [JUDGED, PRINTS, WHOLE], ids=["one finder", "two finders", "all options"])
@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_judge_of_any_size(config, height, width):
    """FIND gives logits and evidence that is equal in squares; TRAIN what is said of each part, and 0 elsewhere."""
    torch.manual_seed(0)
    network = build("hole-autoencoder", config)
    with torch.inference_mode():
        found = network(torch.rand(2, 3, height, width), stage=FIND)
        trained = network(torch.rand(2, 10, height, width), stage=TRAIN)
    assert found.shape == (2, 6, height, width) and found[:, 1:].abs().max() <= 1
    odd = found[:, 1:, 1::2, 1::2]
    assert torch.equal(odd, found[:, 1:, ::2, ::2][..., : odd.shape[-2], : odd.shape[-1]])
    assert trained.shape == (2, 6, height, width)
    for one in trained:
        outside = torch.from_numpy(part_labels(one[0].numpy())) == 0
        assert (one[1:3, outside] == 0).all()


def test_a_second_finder_raises_the_first():
    """Where the second branch says nothing, or less, the logits are those of the first alone."""
    torch.manual_seed(0)
    both, picture = build("hole-autoencoder", PRINTS).eval(), torch.rand(1, 3, 23, 30)
    one = build("hole-autoencoder", replace(JUDGED, evidence=0)).eval()
    one.load_state_dict({name: both.state_dict()[name] for name in one.state_dict()})
    head = both.print_finder.heads["1"]
    nn.init.zeros_(head.weight)
    with torch.inference_mode():
        before = one(picture, stage=FIND)[:, :1]
        for bias in (-2.0, 0.0, 2.0):
            nn.init.constant_(head.bias, bias)
            torch.testing.assert_close(both(picture, stage=FIND)[:, :1], before + max(bias, 0))


@pytest.mark.parametrize(
    ("trained", "names"),
    [
        ("all", {"finder", "print_finder", "painter", "evidence", "part_judge", "picture_judge"}),
        ("prints", {"print_finder", "evidence", "part_judge", "picture_judge"}),
        ("judge", {"evidence", "part_judge", "picture_judge"}),
        ("painter", {"painter"}),
    ],
)
def test_what_is_not_trained_stays(trained, names):
    """A step of training changes the modules that `trained` names."""
    torch.manual_seed(0)
    network = build("hole-autoencoder", replace(PRINTS, trained=trained)).train()
    network(torch.rand(4, 10, 24, 24), stage=TRAIN).sum().backward()
    learnt = {name.partition(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert learnt == names
    with pytest.raises(UsageError, match="trained must be one of"):
        replace(PRINTS, trained="finder")


def test_only_wide_painters_see_what_covers_a_hole():
    """Planes that a network was not built for change nothing."""
    torch.manual_seed(0)
    planes = torch.rand(1, 7, 16, 16)
    hidden = planes * torch.tensor([1.0] * 4 + [0.0] * 3).view(1, 7, 1, 1)
    with torch.inference_mode():
        for channels, same in ((4, True), (7, False)):
            network = build("hole-autoencoder", replace(JUDGED, painter_channels=channels)).eval()
            assert torch.equal(network(planes), network(hidden)) == same
    with pytest.raises(UsageError, match="painter_channels must be 4 or 7"):
        replace(JUDGED, painter_channels=5)


def test_evidence_is_pooled_under_each_part():
    logits = np.full((9, 11), -4.0, np.float32)
    logits[0:4, 0:4], logits[6:9, 8:11], logits[8, 0] = 2.0, 4.0, 0.0  # the last is too low for a part
    labels = part_labels(logits)
    assert labels.max() == 2 and (labels > 0).sum() == 25
    evidence = torch.zeros(2, 5, 6)
    evidence[0, :2, :2], evidence[1, 3:, 4:] = 1.0, 0.5
    pooled = pool_evidence(torch.from_numpy(logits), evidence, torch.from_numpy(labels))[..., 0]
    assert pooled[:2].T.tolist() == [[1.0, 0.0], [0.0, 0.5]]
    assert pooled[2:4].T.tolist() == [[0.25, 0.25], [0.5, 0.5]]  # mean and highest logit, of 8
    whole = pooled[5:, 0].tolist()
    assert whole[:2] == pytest.approx([16 / 25, 0.5 * 9 / 25])
    assert whole[2:4] == pytest.approx([4 / 30, 0.5 * 4 / 30])
    network = build("hole-autoencoder", HoleAutoencoderConfig(**SIZES, evidence=2)).eval()
    with torch.inference_mode():
        said = network(pooled[None, ..., None], stage=JUDGE)
        again = network(
            pool_evidence(torch.from_numpy(logits * 0 - 4), evidence, torch.zeros(9, 11).long())[None], stage=JUDGE
        )
    assert said.shape == (1, 2, 2, 1) and said[0, 1, 0] == said[0, 1, 1] != said[0, 0, 0]
    assert again.isfinite().all(), "a picture without parts"
