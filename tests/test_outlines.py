"""Outlines and ringing that marks leave: gone in plain areas, while detail, and what no mark changed, stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.text import draw_text
from restore.pixels import to_uint8
from restore.tasks.dewatermark.outlines import REACH, reduce_ringing, smooth_outlines
from restore.tasks.dewatermark.plain_areas import match_plain_areas
from restore.tasks.dewatermark.task import DewatermarkHead
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


def compressed(clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A white mark on `clean`, its removal after JPEG, with ringing beside the rims, and the mask."""
    covered = letters()
    marked = clean + 0.5 * covered * (1 - clean)
    encoded = cv2.imencode(
        ".jpg", to_uint8(marked[0].permute(1, 2, 0).numpy())[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75]
    )
    decoded = torch.from_numpy(cv2.imdecode(encoded[1], cv2.IMREAD_COLOR)[..., ::-1] / np.float32(255))
    decoded = decoded.permute(2, 0, 1)[None]
    mask = (F.max_pool2d(covered, 7, 1, 3) > 0).float()
    restored = torch.where(mask > 0, (decoded - 0.5 * covered) / (1 - 0.5 * covered), decoded)
    return restored, decoded, mask


def test_ringing_in_the_sky_is_reduced():
    clean = sky()
    restored, marked, mask = compressed(clean)
    calm = reduce_ringing(restored, marked, mask)
    assert error(calm, clean) < 0.8 * error(restored, clean)
    outside = mask.expand_as(clean) == 0
    assert torch.equal(calm[outside], marked[outside])


def perfect(clean: torch.Tensor, covered: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is made of a perfect restoration of a white mark on `clean`, and the mask."""
    mask = (F.max_pool2d(covered, 7, 1, 3) > 0).float()
    return reduce_ringing(clean, clean + 0.5 * covered * (1 - clean), mask), mask


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def test_texture_is_no_ringing():
    """Grain, clouds and leaves that are in the mask as they are beside it stay."""
    blurred = cv2.GaussianBlur(noise(2)[0].permute(1, 2, 0).numpy(), (0, 0), 2)
    clouds = torch.from_numpy(blurred).permute(2, 0, 1)[None]
    for detail, share in ((0.02 * noise(2), 0.12), (0.1 * clouds, 0.25), (0.1 * noise(2), 1e-3)):
        clean = sky() + detail
        calm, mask = perfect(clean, letters())
        inside = (mask > 0).expand_as(clean)
        assert error(calm[inside], clean[inside]) < share * error(clean[inside], sky()[inside])


@pytest.mark.parametrize("height", [-0.4, -0.3, -0.2, 0.2])
def test_objects_keep_what_is_beside_them(height):
    """A wire across a mark stays, and leaves no halo."""
    clean = sky().clone()
    clean[..., 40:42, :] += height
    calm, _ = perfect(clean, letters())
    assert (calm - clean).abs().max() < 3 / 255


@pytest.mark.parametrize("period", [6, 11])
def test_dense_strokes_keep_the_grain(period):
    """Between strokes that leave little around to compare with, little is changed."""
    clean = sky() + 0.01 * noise(3)
    covered = torch.zeros(1, 1, SIZE, SIZE)
    for start in range(10, 80, period):
        covered[..., 10:86, start : start + period // 2] = 1.0
        if period > 6:  # a mesh
            covered[..., start : start + 1, 10:86] = 1.0
    calm, mask = perfect(clean, covered)
    inside = (mask > 0).expand_as(clean)
    assert error(calm[inside], clean[inside]) < 0.25 * 0.01


def test_the_head_reduces_ringing():
    clean = sky()
    restored, marked, mask = compressed(clean)
    head = DewatermarkHead()
    finished = head.postprocess(restored, marked, torch.cat([mask, torch.zeros(1, 4, SIZE, SIZE)], dim=1))
    without = match_plain_areas(smooth_outlines(restored, marked, mask), marked, mask)
    assert error(finished, clean) < 0.95 * error(without, clean)


both = pytest.mark.parametrize("correct", [smooth_outlines, reduce_ringing])


@both
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_any_size(correct, height, width, seed):
    """Finite for any size; without a mask, or without a change, everything stays."""
    generator = torch.Generator().manual_seed(seed)
    restored, marked = torch.rand(2, 2, 3, height, width, generator=generator)
    mask = (torch.rand(2, 1, height, width, generator=generator) > 0.3).float()
    assert correct(restored, marked, mask).isfinite().all()
    assert torch.equal(correct(restored, marked, torch.zeros_like(mask)), marked)
    assert torch.equal(correct(restored, restored, mask), restored)


@pytest.mark.parametrize(
    ("correct", "damaged", "reach", "tolerance"),
    [(smooth_outlines, removed, REACH, 1e-6), (reduce_ringing, compressed, DewatermarkHead.reach, 0.01 / 255)],
)
def test_reach(correct, damaged, reach, tolerance):
    """Pixels further away than the reach do not matter; those beside do."""
    middle = slice(SIZE // 2 - 8, SIZE // 2 + 8)
    values = damaged(sky())
    whole = correct(*values)[..., middle, middle]
    for far in (reach, 0):
        seen = slice(middle.start - far, middle.stop + far)
        part = correct(*(value[..., seen, seen] for value in values))
        assert torch.allclose(part[..., far : far + 16, far : far + 16], whole, atol=tolerance) == (far > 0)
