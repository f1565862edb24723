"""Outlines that marks leave: gone in plain areas, while detail, and what no mark changed, stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.text import draw_text
from restore.tasks.dewatermark.outlines import REACH, smooth_outlines
from restore.tasks.functional import luma

SIZE = 96


def letters() -> torch.Tensor:
    """How much of each pixel two letters cover, (1,1,H,W)."""
    drawn = draw_text("do", "sans", 56, 700) / np.float32(255)
    covered = np.zeros((SIZE, SIZE), np.float32)
    height, width = (min(SIZE, side) for side in drawn.shape[:2])
    covered[:height, :width] = drawn[:height, :width]
    return torch.from_numpy(covered)[None, None]


def removed(clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A white mark on `clean`, what its removal leaves if it takes too much for covered at the rim, and the mask."""
    covered = letters()
    marked = clean + 0.5 * covered * (1 - clean)
    believed = F.max_pool2d(covered, 3, 1, 1)
    rim = ((believed - covered) > 0.1).float()
    restored = clean + rim * torch.tensor([-0.08, 0.06, -0.12]).view(1, 3, 1, 1)
    mask = (F.max_pool2d(covered, 5, 1, 2) > 0).float()
    return restored, marked, mask


def sky() -> torch.Tensor:
    colour = torch.tensor([0.6, 0.8, 1.0]).view(1, 3, 1, 1)
    return (torch.linspace(0.35, 0.6, SIZE).view(1, 1, SIZE, 1) * colour).expand(1, 3, SIZE, SIZE)


def error(values: torch.Tensor, clean: torch.Tensor) -> float:
    return float((values - clean).square().mean().sqrt())


def test_outlines_in_the_sky_are_gone():
    clean = sky()
    restored, marked, mask = removed(clean)
    smooth = smooth_outlines(restored, marked, mask)
    assert error(smooth, clean) < 0.55 * error(restored, clean)
    outside = mask.expand_as(clean) == 0
    assert torch.equal(smooth[outside], marked[outside])
    elsewhere = torch.where(mask > 0, restored, torch.rand(restored.shape))  # what a network gives there is not used
    assert torch.equal(smooth_outlines(elsewhere, marked, mask), smooth)


def test_detail_keeps_its_brightness():
    """Among contrasts the brightness of a rim stays as it is; its colour is that of both sides."""
    gray = 0.2 + 0.3 * torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).expand(1, 3, -1, -1)
    restored, marked, mask = removed(gray)
    smooth = smooth_outlines(restored, marked, mask)
    assert torch.allclose(luma(smooth), luma(restored), atol=1e-5)
    assert (smooth - luma(smooth)).abs().mean() < 0.5 * (restored - luma(restored)).abs().mean()


def test_strong_marks_are_smoothed_among_more_contrast():
    """Opaque marks leave stronger outlines than faint ones; the same contrast hides the latter."""
    texture = 0.5 + 0.1 * torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).expand(1, 3, -1, -1)
    restored, marked, mask = removed(texture)
    changed = [
        float(luma(smooth_outlines(restored, restored + share * (marked - restored), mask) - restored).abs().mean())
        for share in (0.3, 1.0, 2.0)
    ]
    assert changed[0] < 1e-5 < changed[1] < changed[2]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_any_size(height, width, seed):
    """Finite for any size; without a mask, or without a change, everything stays."""
    generator = torch.Generator().manual_seed(seed)
    restored, marked = torch.rand(2, 2, 3, height, width, generator=generator)
    mask = (torch.rand(2, 1, height, width, generator=generator) > 0.3).float()
    assert smooth_outlines(restored, marked, mask).isfinite().all()
    assert torch.equal(smooth_outlines(restored, marked, torch.zeros_like(mask)), marked)
    assert torch.equal(smooth_outlines(restored, restored, mask), restored)


@pytest.mark.parametrize("far", [REACH, 0])
def test_reach(far):
    """Pixels more than `REACH` away do not matter; those beside do."""
    clean = sky()
    restored, marked, mask = removed(clean)
    middle = slice(SIZE // 2 - 8, SIZE // 2 + 8)
    seen = slice(middle.start - far, middle.stop + far)
    whole = smooth_outlines(restored, marked, mask)[..., middle, middle]
    part = smooth_outlines(*(values[..., seen, seen] for values in (restored, marked, mask)))
    inner = slice(far, far + 16)
    assert torch.allclose(part[..., inner, inner], whole, atol=1e-6) == (far == REACH)
