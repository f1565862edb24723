"""Muon: its matrices are turned, thin ones and biases are AdamW's, and networks learn by it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore.training.optimizers import SMALLEST, Muon, optimizer, orthogonal


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99), half=st.booleans())
def test_singular_values_become_nearly_one(rows, columns, seed, half):
    """And the directions stay: the nearest orthogonal matrix, whatever the scale of the gradient."""
    rng = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(side, side, generator=rng))[0] for side in (rows, columns))
    rank = min(rows, columns)
    values = 0.2 + torch.rand(rank, generator=rng)
    matrix = 1e-3 * left[:, :rank] @ torch.diag(values) @ right[:rank]
    turned = orthogonal(matrix[None], torch.bfloat16 if half else torch.float32)[0]
    assert turned.shape == matrix.shape
    found = torch.linalg.svdvals(turned)
    assert 0.6 < found.min() <= found.max() < 1.35
    cosine = (turned * (left[:, :rank] @ right[:rank])).sum() / (turned.norm() * rank**0.5)
    assert cosine > 0.95


def test_thin_matrices_and_biases_are_adamws():
    """To the bit what torch's AdamW makes of them; the wide matrix beside them goes another way."""
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Conv2d(4, SMALLEST, 3), nn.Conv2d(SMALLEST, 3, 1)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    both = [optimizer(name, net, 1e-2, fused=False, half=False) for name, net in (("muon", ours), ("adamw", theirs))]
    for _ in range(3):
        planes = torch.randn(2, 4, 8, 8)
        for net, chosen in zip((ours, theirs), both, strict=True):
            for weight in net.parameters():
                weight.grad = torch.full_like(weight, float(planes.sum()))
            chosen.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        same = torch.allclose(mine, other, atol=1e-6)
        assert same == (name != "0.weight"), name


def test_matrices_of_one_shape_do_not_mix():
    """They are turned together, and each as it would be alone."""
    torch.manual_seed(0)
    gradients = [torch.randn(SMALLEST, 40), torch.randn(SMALLEST, 40)]
    weights = [nn.Parameter(torch.zeros(SMALLEST, 40)) for _ in range(2)]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    Muon(weights, 0.1, half=False).step()
    alone = nn.Parameter(torch.zeros(SMALLEST, 40))
    alone.grad = gradients[1].clone()
    Muon([alone], 0.1, half=False).step()
    torch.testing.assert_close(weights[1], alone)
    assert not torch.allclose(weights[0], weights[1])


@pytest.mark.parametrize(("name", "half"), [("muon", False), ("muon", True), ("adamw", False)])
def test_a_network_learns(name, half):
    """To shift pictures by a pixel and swap their channels: the error falls to a tenth within 150 steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 3, 1))
    chosen = optimizer(name, net, 5e-3, fused=False, half=half)
    errors = []
    for _ in range(150):
        planes = torch.rand(4, 3, 16, 16)
        loss = (net(planes) - planes.roll((1, 1), (2, 3)).flip(1))[..., 1:, 1:].square().mean()
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        errors.append(loss.item())
    assert errors[-1] < 0.1 * errors[0]


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_the_encoder_may_learn_more_slowly(name):
    """Its parameters get their share of the learning rate; without one all are a single group."""
    network = nn.ModuleDict({"encoder": nn.Conv2d(1, 2, 1), "head": nn.Conv2d(2, 1, 1)})
    groups = optimizer(name, network, 1e-2, fused=False, half=False, encoder_lr=0.1).param_groups
    assert [(group["share"], len(group["params"])) for group in groups] == [(1.0, 2), (0.1, 2)]
    assert {id(one) for one in groups[1]["params"]} == {id(one) for one in network["encoder"].parameters()}
    assert len(optimizer(name, network, 1e-2, fused=False, half=False).param_groups) == 1
