"""Plain areas after the removal of a mark: tints and noise are gone, while edges, lines and texture stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.text import draw_text
from restore.tasks.dewatermark.plain_areas import CELL, REACH, fit_planes, match_plain_areas

SIZE = 160
TINT = torch.tensor([-0.03, 0.01, 0.04]).view(1, 3, 1, 1)


def letters() -> torch.Tensor:
    """How much of each pixel thin letters cover, (1,1,H,W)."""
    drawn = draw_text("do 7", "uni", 60, 400) / np.float32(255)
    covered = np.zeros((SIZE, SIZE), np.float32)
    height, width = (min(SIZE - 40, side) for side in drawn.shape[:2])
    covered[40 : 40 + height, 20 : 20 + width] = drawn[:height, :width]
    return torch.from_numpy(covered)[None, None]


def sky(noise: float = 0.5) -> torch.Tensor:
    """Slopes in both directions, with noise of so many levels: (1,3,H,W)."""
    across, down = torch.linspace(0, 0.1, SIZE), torch.linspace(0, 0.25, SIZE).view(-1, 1)
    colour = torch.tensor([0.3, 0.5, 0.6]).view(1, 3, 1, 1)
    grain = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * noise / 255
    return colour + across + down + grain


def removed(clean: torch.Tensor, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What removal leaves of a white mark, a tint and `noise` of so many levels; the marked picture; and the mask."""
    covered = letters()
    mask = (covered > 0).float()
    marked = clean + 0.5 * covered * (1 - clean)
    grain = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * noise / 255
    return clean + mask * (TINT + grain), marked, mask


def error(values: torch.Tensor, clean: torch.Tensor, where: torch.Tensor) -> float:
    return float(((values - clean).square() * where).sum().div(3 * where.sum()).sqrt() * 255)


def test_tints_of_letters_in_a_sky_are_gone():
    """Though the sky changes by more from one end of a letter to the other."""
    clean = sky()
    restored, marked, mask = removed(clean)
    matched = match_plain_areas(restored, marked, mask)
    assert error(restored, clean, mask) > 7
    assert error(matched, clean, mask) < 2
    outside = mask.expand_as(clean) == 0
    assert torch.equal(matched[outside], marked[outside])
    elsewhere = torch.where(mask > 0, restored, torch.rand(restored.shape))  # what a network gives there is not used
    assert torch.equal(match_plain_areas(elsewhere, marked, mask), matched)


def test_noise_is_no_more_than_beside():
    clean = sky(noise=1.5)
    restored, marked, mask = removed(clean, noise=2.5)
    matched = match_plain_areas(restored, marked, mask)
    assert error(matched, sky(0), mask) < 0.8 * error(restored - mask * TINT, sky(0), mask)


def line(amplitude: float) -> torch.Tensor:
    """A thin line across the letters, of so many levels."""
    drawn = torch.zeros(1, 1, SIZE, SIZE)
    drawn[..., 70, :] = amplitude / 255
    return drawn


@pytest.mark.parametrize("background", [0.0, -0.25])
def test_what_was_restored_well_stays(background):
    """What of the scene a mark lies on, and a texture, are not taken for errors; nor is the noise of a sky.

    Lines that are fainter than what the mark changed stay at three quarters of their contrast at least.
    """
    edge = sky() + background
    edge[..., :, 70:] += 0.3
    hidden, texture = sky() + background - 0.2 * letters(), sky(noise=12.0) + background
    for clean in (edge, hidden, texture, sky() + background):
        _, marked, mask = removed(clean)
        assert error(match_plain_areas(clean, marked, mask), clean, mask) < 1
    for amplitude in (15, -20, 30):
        plain, drawn = sky() + background, line(amplitude)
        _, marked, mask = removed(plain + drawn)
        kept = match_plain_areas(plain + drawn, marked, mask) - match_plain_areas(plain, removed(plain)[1], mask)
        where = (drawn.abs() * mask > 0).expand_as(kept)
        assert (kept[where] / drawn.expand_as(kept)[where]).mean() > 0.75


def test_wide_marks_are_not_bent():
    """Far from what is beside a mark, a slope is not taken for an error."""
    clean = sky()
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 30:130, 30:130] = 1
    matched = match_plain_areas(clean, clean + 0.4 * mask * (1 - clean), mask)
    assert error(matched, clean, mask) < 0.3


@pytest.mark.parametrize("height", [40, 41])
def test_planes_are_found_from_some_of_their_pixels(height):
    down, across = torch.arange(height).view(-1, 1) / 100, torch.arange(52) / 200
    plane = torch.stack([0.2 + across + down, 0.5 - down + 0 * across, 0.1 + 2 * across + 0 * down])[None]
    known = (torch.rand(1, 1, height, 52, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    fit = fit_planes(torch.where(known > 0, plane, torch.zeros(())), known)
    inner = (..., slice(CELL, height - 2 * CELL), slice(CELL, -CELL))
    assert (fit.values - plane)[inner].abs().max() < 0.01
    assert (fit.variance.sqrt()[inner] < 0.02).all()
    assert 0.5 < fit.known[..., 20, 20].item() < 0.7


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_any_size(height, width, seed):
    """Finite for any size; without a mask everything stays."""
    generator = torch.Generator().manual_seed(seed)
    restored, marked = torch.rand(2, 2, 3, height, width, generator=generator)
    mask = (torch.rand(2, 1, height, width, generator=generator) > 0.3).float()
    assert match_plain_areas(restored, marked, mask).isfinite().all()
    assert torch.equal(match_plain_areas(restored, marked, torch.zeros_like(mask)), marked)


@pytest.mark.parametrize("far", [REACH, 0])
def test_reach(far):
    """Pixels more than `REACH` away hardly matter; those beside do."""
    clean = sky()
    restored, marked, mask = removed(clean, noise=2.0)
    top, left, side = 72, 56, 16
    seen = slice(top - far, top + side + far), slice(left - far, left + side + far)
    whole = match_plain_areas(restored, marked, mask)[..., top : top + side, left : left + side]
    part = match_plain_areas(*(values[(..., *seen)] for values in (restored, marked, mask)))
    inner = part[..., far : far + side, far : far + side]
    assert torch.allclose(inner, whole, atol=1e-4) == (far > 0)
