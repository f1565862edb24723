"""Networks: any size, the declared numbers are true, a config is all it takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restore import weights
from restore.colour import to_lab
from restore.errors import UsageError, WeightsError
from restore.models import ARCHITECTURES, build, config_from_dict, register
from restore.models.ab_cells import ab_centres, cells_of, mean_ab
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.models.backbones import BACKBONES, encoder_tensors
from restore.models.blocks import pad_to_multiple
from restore.models.nafnet import NAFNetConfig
from restore.models.pretrained_unet import DISTRIBUTION, LOGIT_CELL, PretrainedUNetConfig
from restore.models.registry import Architecture
from restore.tasks import TASKS
from restore.tasks.base import load_task

CONFIGS = [
    ConvAutoencoderConfig(widths=(6, 8, 10), blocks=(1, 1, 1)),
    ConvAutoencoderConfig(widths=(8,), blocks=(2,), fold=1, scales=(2, 3, 4)),
    ConvAutoencoderConfig(widths=(6, 8), blocks=(1, 2), fold=2, scales=(1, 4)),
    ConvAutoencoderConfig(in_channels=1, out_channels=2, widths=(6, 8), blocks=(1, 1), fold=1, residual=False),
    NAFNetConfig(width=6, encoder_blocks=(1, 0), middle_blocks=1, decoder_blocks=(0, 1), window=4, scales=(1, 3)),
    NAFNetConfig(1, 2, 4, (1,), 1, (1,), fold=2, window=8, residual=False),
]
ARCHES = {
    ConvAutoencoderConfig: "conv-autoencoder",
    NAFNetConfig: "nafnet",
}
configs = pytest.mark.parametrize("config", CONFIGS)


def lively(config: ConvAutoencoderConfig | NAFNetConfig) -> Architecture:
    """A network whose every weight matters: residual branches and heads do not start small here."""
    torch.manual_seed(1)
    network = build(ARCHES[type(config)], config).double().eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.3)
    return network


@configs
@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_any_size(config, height, width):
    network = build(ARCHES[type(config)], config).eval()
    for scale in config.scales:
        with torch.inference_mode():
            output = network(torch.rand(2, config.in_channels, height, width), scale)
        assert output.shape == (2, config.out_channels, height * scale, width * scale)
        assert output.dtype == torch.float32


@configs
def test_radius_and_stride_are_true(config):
    """A changed pixel changes nothing farther away than `radius`; a shift by `stride` shifts the output."""
    network, scale = lively(config), config.scales[-1]
    side = 2 * network.radius + 8 * network.stride
    picture = torch.rand(1, config.in_channels, side, side, dtype=torch.float64)
    place = side // 2 // network.stride * network.stride + 1
    changed = picture.clone()
    changed[..., place, place] += 1.0
    with torch.inference_mode():
        difference = (network(changed, scale) - network(picture, scale)).abs().amax(dim=(0, 1))
        shifted = network(picture[..., network.stride :, network.stride :], scale)
        original = network(picture, scale)[..., network.stride * scale :, network.stride * scale :]
    touched = difference.nonzero() // scale
    assert len(touched) > 0
    assert (touched - place).abs().max() <= network.radius
    inner = slice(network.radius * scale, (side - network.radius - network.stride) * scale)
    torch.testing.assert_close(shifted[..., inner, inner], original[..., inner, inner])


@configs
def test_round_trip_through_a_file(config, tmp_path):
    """Header and tensors are all it takes: the network read back computes the same, to half precision."""
    network = build(ARCHES[type(config)], config)
    path = tmp_path / "weights.safetensors"
    weights.save(
        path, weights.Header("denoise", ARCHES[type(config)], dataclasses.asdict(config)), network.state_dict()
    )
    header, again = weights.load(path)
    assert config_from_dict(header.arch, header.config) == config
    planes = torch.rand(1, config.in_channels, 20, 17)
    with torch.inference_mode():
        torch.testing.assert_close(again(planes), network.eval().half().float()(planes), rtol=0, atol=1e-6)


UNET = PretrainedUNetConfig(widths=(6, 8, 10), spacing=24, heads=2)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 64)])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_pretrained_unet_takes_any_size(size, channels):
    network = build("pretrained-unet", UNET).eval()
    planes = torch.rand(2, channels, *size)
    with torch.inference_mode():
        colours, logits = network(planes), network(planes, None, DISTRIBUTION)
    assert colours.shape == (2, 2, *size)
    assert logits.shape == (2, len(ab_centres(24)), -(-size[0] // LOGIT_CELL), -(-size[1] // LOGIT_CELL))
    assert colours.dtype == logits.dtype == torch.float32
    assert colours.abs().max() < 1.2


def test_hints_count_where_features_are_alike():
    """No hints are as hints nowhere; a hint changes what is far away too, since attention has no end."""
    torch.manual_seed(0)
    network = build("pretrained-unet", UNET).eval()
    for layer in (network.attended, network.hinted):
        nn.init.normal_(layer.bias)
    planes = torch.zeros(1, 4, 64, 96)
    planes[:, 0] = torch.linspace(0, 1, 96)
    hinted = planes.clone()
    hinted[..., 1, 10:14, 10:14], hinted[..., 3, 10:14, 10:14] = 0.5, 1
    with torch.inference_mode():
        nowhere, somewhere = network(planes), network(hinted)
        assert torch.allclose(network(planes[:, :1]), nowhere, atol=1e-6)
    change = (somewhere - nowhere).abs()[0].amax(0)
    assert change[12, 12] > 0
    assert change[60, 90] > 0
    moved = hinted.clone()
    moved[:, 1] += 0.3 * (1 - moved[:, 3])  # colours where nobody gave any
    with torch.inference_mode():
        assert torch.equal(network(moved), somewhere)


@pytest.mark.parametrize("training", [False, True])
def test_folding_changes_nothing(training):
    """The encoder computes what the published one does with gray in all channels, batch normalisation and all."""
    torch.manual_seed(0)
    published = torchvision.models.mobilenet_v2()
    for module in published.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    network = build("pretrained-unet", UNET)
    tensors = encoder_tensors("mobilenet_v2", 7, published.state_dict())
    network.load_state_dict(network.state_dict() | tensors)
    network.train(training)  # gradients take another way on a CPU
    gray, backbone = torch.rand(1, 1, 64, 96), BACKBONES["mobilenet_v2"]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    with torch.inference_mode():
        theirs = published.eval().features[:18]((gray.expand(-1, 3, -1, -1) - mean) / std)
        ours = network.encoder(gray)
    # At the rim the published one pads with its own idea of gray.
    assert [found.shape[-1] for found in ours] == [24, 12, 6, 3]
    assert (ours[-1] - theirs).abs().mean() < 0.02 * theirs.abs().mean()
    with pytest.raises(WeightsError, match="not the weights of efficientnet_lite0"):
        encoder_tensors("efficientnet_lite0", 7, published.state_dict())
    with pytest.raises(WeightsError, match="too few"):
        encoder_tensors("mobilenet_v2", 7, dict(list(published.state_dict().items())[:60]))


def test_frozen_stages_do_not_learn():
    network = build("pretrained-unet", dataclasses.replace(UNET, frozen=2)).train()
    network(torch.rand(2, 1, 64, 64), None, DISTRIBUTION).square().mean().backward()
    learns = [any(p.grad is not None for p in stage.parameters()) for stage in network.encoder.stages]
    assert learns == [False, False, True, True, True, True, True]
    assert network.encoder.stem.weight.grad is None


@pytest.mark.parametrize("spacing", [12, 24])
def test_cells_make_up_their_colour(spacing):
    colours = np.random.default_rng(0).random((40, 50, 3))
    ab = torch.from_numpy(to_lab(colours)[..., 1:]).permute(2, 0, 1)[None]
    cells, shares = cells_of(ab, spacing)
    centres = torch.from_numpy(ab_centres(spacing))
    torch.testing.assert_close((centres[cells] * shares[..., None]).sum(1).permute(0, 3, 1, 2), ab, atol=1e-3, rtol=0)
    assert (shares >= 0).all()
    logits = torch.full((1, len(centres), 40, 50), -30.0).scatter_(1, cells, (shares + 1e-9).log())
    torch.testing.assert_close(mean_ab(logits, centres), ab, atol=1e-2, rtol=0)
    likeliest = centres[cells.gather(1, shares.argmax(1, keepdim=True))[:, 0]].permute(0, 3, 1, 2)
    assert (mean_ab(10 * logits, centres) - likeliest).abs().median() < 1


@pytest.mark.parametrize("task", sorted(TASKS))
def test_default_networks_are_light(task):
    """At most 0.8 MFLOP a pixel for denoise; super-resolve is held to 1.5 million parameters.

    All files together stay under 48 MB, at two bytes a parameter.
    """
    built = load_task(task)
    network = build(built.arch, built.config)
    parameters = sum(p.numel() for p in network.parameters())
    planes = {"inpaint": 4, "dewatermark": 7, "colorize": 1}.get(task) or built.config.in_channels
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, planes, 256, 256), network.scales[0])
    flops = counter.get_total_flops() / 256**2 / 1e6
    limits = {"denoise": (0.8, 8e6), "super-resolve": (2.5, 1.5e6)}
    assert flops <= limits.get(task, (3.0, 5e6))[0]
    assert parameters <= limits.get(task, (3.0, 5e6))[1]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (8, 8), (9, 1), (5, 13)])
def test_padding_reflects_or_replicates_and_keeps_the_picture(height, width):
    planes = torch.rand(1, 2, height, width)
    padded = pad_to_multiple(planes, 8)
    assert padded.shape[-1] % 8 == 0
    assert padded.shape[-2] % 8 == 0
    assert torch.equal(padded[..., :height, :width], planes)
    if width == 13:
        assert torch.equal(padded[..., :height, 13], planes[..., 11]), "reflection leaves out the edge itself"
    if (height, width) == (1, 1):
        assert torch.equal(padded, planes.expand_as(padded))


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4]])
def test_networks_are_exported_with_dynamic_sizes(config):
    """One exported program restores any size above the stride as the network itself does."""
    network, scale = build(ARCHES[type(config)], config).eval(), config.scales[-1]
    least = network.stride + 1
    sides = {2: torch.export.Dim("height", min=least, max=4096), 3: torch.export.Dim("width", min=least, max=4096)}
    example = torch.rand(1, config.in_channels, 37, 42)
    shapes = {"planes": sides, "scale": None}
    program = torch.export.export(network, (example, scale), dynamic_shapes=shapes).module()
    for height, width in ((37, 42), (least, 64), (96, 11), (16, 24)):
        planes = torch.rand(1, config.in_channels, height, width)
        torch.testing.assert_close(program(planes, scale), network(planes, scale), rtol=1e-5, atol=1e-5)


def test_a_name_means_one_architecture():
    known = dict(ARCHITECTURES)
    with pytest.raises(ValueError, match="taken"):
        register("conv-autoencoder", ConvAutoencoderConfig)(Architecture)
    assert known == ARCHITECTURES


def test_what_cannot_be_built():
    with pytest.raises(UsageError, match="unknown architecture 'conv-autoencode'; did you mean 'conv-autoencoder'"):
        build("conv-autoencode", {})
    with pytest.raises(UsageError, match="unknown setting of conv-autoencoder 'width'"):
        build("conv-autoencoder", {"width": 3})
    with pytest.raises(UsageError, match="unknown encoder 'mobilenet'; did you mean 'mobilenet_v2'"):
        build("pretrained-unet", {"encoder": "mobilenet"})
    for wrong in ({"stages": 3}, {"widths": (8, 8)}, {"spacing": 2}, {"heads": -1}):
        with pytest.raises(UsageError):
            build("pretrained-unet", wrong)
    for wrong in ({"widths": (8,), "blocks": (1, 1)}, {"widths": ()}, {"fold": 0}, {"scales": ()}, {"out_channels": 4}):
        with pytest.raises(UsageError):
            build("conv-autoencoder", wrong)
    for wrong in ({"encoder_blocks": (1,)}, {"window": 12}, {"width": 0}, {"scales": ()}, {"out_channels": 4}):
        with pytest.raises(UsageError):
            build("nafnet", wrong)
