"""Tiles: they cover every pixel once, begin at multiples of the stride, and see what they need; and how many fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.inference import tiling
from restore.inference.tiling import (
    LARGEST,
    LARGEST_IF_HUGE,
    LARGEST_ON_CPU,
    RECOVERY,
    SIDES,
    SMALLEST,
    Item,
    Tile,
    TilePlanner,
    automatic_side,
    batches,
    plan_tiles,
)
from restore.models.registry import Architecture
from restore.tasks.base import Window

sizes = st.integers(1, 300)
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Network(Architecture):
    """Only what planning asks for."""

    stride, radius, scales = 8, 20, (1,)

    def values_a_pixel(self, scale: int) -> float:
        return 100.0


def coverage(tiles: list[Tile], height: int, width: int) -> np.ndarray:
    """How often each pixel is kept."""
    count = np.zeros((height, width), int)
    for tile in tiles:
        inner = tile.inner
        assert inner.height > 0 and inner.width > 0
        count[inner.top : inner.top + inner.height, inner.left : inner.left + inner.width] += 1
    return count


@settings(max_examples=150, deadline=None)
@given(
    height=sizes,
    width=sizes,
    tile=st.integers(1, 320),
    overlap=st.integers(0, 70),
    stride=st.sampled_from((1, 2, 3, 8)),
)
def test_plan(height, width, tile, overlap, stride):
    tiles = plan_tiles(height, width, tile, overlap, stride)
    assert (coverage(tiles, height, width) == 1).all()
    for one in tiles:
        outer, inner = one.outer, one.inner
        assert not any(start % stride for start in (outer.top, outer.left, inner.top, inner.left))
        assert max(inner.height, inner.width) < tile + stride
        bottom, right = outer.top + outer.height, outer.left + outer.width
        assert outer.top == 0 or inner.top - outer.top >= overlap
        assert outer.left == 0 or inner.left - outer.left >= overlap
        assert bottom == height or bottom - (inner.top + inner.height) >= overlap
        assert right == width or right - (inner.left + inner.width) >= overlap
        assert min(outer.top, outer.left) >= 0 and bottom <= height and right <= width
        # Where it does not end with the picture it ends at a multiple too: it is not padded there.
        assert bottom == height or bottom % stride == 0
        assert right == width or right % stride == 0


@settings(max_examples=50, deadline=None)
@given(height=sizes, width=sizes, tile=st.integers(20, 320), stride=st.sampled_from((1, 8)))
def test_pieces_are_equal(height, width, tile, stride):
    """None is a sliver: with so many pieces, none could be smaller by more than what rounding takes."""
    tiles = plan_tiles(height, width, tile, 0, stride)
    heights = {one.inner.height for one in tiles}
    assert len(heights) <= 2
    pieces = len({one.inner.top for one in tiles})
    assert max(heights) - min(heights) < stride * pieces


@settings(max_examples=50, deadline=None)
@given(height=sizes, width=sizes, first=st.integers(8, 200), second=st.integers(8, 100), overlap=st.integers(0, 50))
def test_tiles_are_subdivided(height, width, first, second, overlap):
    """As after a lack of memory: smaller tiles take the place of larger ones, pixel by pixel."""
    smaller = [
        tile
        for large in plan_tiles(height, width, first, overlap, 8)
        for tile in plan_tiles(height, width, second, overlap, 8, large.inner)
    ]
    assert (coverage(smaller, height, width) == 1).all()
    assert all(tile.outer.top % 8 == 0 and tile.inner.left % 8 == 0 for tile in smaller)


@dataclass(frozen=True)
class Sheet:
    """A picture of which nothing but the size matters."""

    size: tuple[int, int]


def items_of(tiles: list[Tile], size: tuple[int, int] = (300, 300)) -> list[Item[Sheet]]:
    sheet = Sheet(size)
    return [Item(sheet, tile) for tile in tiles]


@settings(max_examples=50, deadline=None)
@given(height=sizes, width=sizes, tile=st.integers(16, 200), pixels=st.integers(1, 60_000))
def test_batches(height, width, tile, pixels):
    items = items_of(plan_tiles(height, width, tile, 16, 8))
    groups = list(batches(items, pixels))
    assert sorted((one.tile.inner.top, one.tile.inner.left) for group in groups for one in group) == [
        (one.tile.inner.top, one.tile.inner.left) for one in items
    ]
    for group in groups:
        assert len({one.shape for one in group}) == 1
        together = sum(one.shape[0] * one.shape[1] for one in group)
        assert len(group) == 1 or together <= pixels


def test_batches_are_full_and_uniform():
    tiles = [Tile(Window(0, left, 10, 10), Window(0, left, 10, 10)) for left in range(0, 70, 10)]
    assert [len(group) for group in batches(items_of(tiles), 300)] == [3, 3, 1]
    mixed = [Item(Sheet((10, 70)), tile, (number % 2,)) for number, tile in enumerate(tiles)]
    assert [len(group) for group in batches(mixed, 300)] == [3, 1, 3]


@pytest.mark.parametrize(("device", "most"), [(CPU, LARGEST_ON_CPU), (GPU, LARGEST)])
def test_automatic_side(device, most):
    """The largest side that fits, with its overlaps; never beyond what helps, never below what makes sense."""
    assert automatic_side(10**9, 48, device) == most
    assert automatic_side(1, 48, device) == SMALLEST
    for side in SIDES:
        if side <= most:
            assert automatic_side((side + 96) ** 2, 48, device) == side
            assert automatic_side((side + 96) ** 2 - 1, 48, device) < side or side == SMALLEST


def test_tiles_of_huge_pictures_are_smaller(monkeypatch):
    """So that 100 megapixels and a tile fit into 2.5 GB."""
    monkeypatch.setattr("restore.inference.tiling.free_memory", lambda device: 1 << 40)
    sides = [max(tile.inner.height for tile in planner(CPU).plan(height, 8000)) for height in (8000, 8200)]
    assert LARGEST_IF_HUGE < sides[0] <= LARGEST_ON_CPU and sides[1] <= LARGEST_IF_HUGE
    assert max(tile.inner.height for tile in planner(CPU, 1280).plan(8200, 8000)) > LARGEST_IF_HUGE


def planner(device: torch.device, tile: int = 0) -> TilePlanner:
    return TilePlanner(Network(), 1, torch.float32, device, tile, 16)


@pytest.mark.parametrize("device", [CPU, GPU])
def test_free_memory_decides(device, monkeypatch):
    """Half of the memory, smaller tiles; what is computed at once takes the share of it that it may."""
    free = {}
    monkeypatch.setattr(tiling, "free_memory", lambda device: free["bytes"])
    sides = []
    for megabytes in (20_000, 400, 100, 20, 0):
        free["bytes"] = megabytes * 10**6
        chosen = planner(device)
        tiles = chosen.plan(6000, 6000)
        sides.append(max(tile.inner.height for tile in tiles))
        for group, _ in chosen.run(items_of(tiles, (6000, 6000)), len):
            needed = sum(one.shape[0] * one.shape[1] for one in group) * 100 * 4
            assert needed <= free["bytes"] or sides[-1] <= SMALLEST
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == 5


def test_gpu_batches_small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 10**10)
    largest = {}
    for device in (GPU, CPU):
        chosen = planner(device, 128)
        items = items_of(chosen.plan(1024, 1024), (1024, 1024))
        largest[device.type] = max(count for _, count in chosen.run(items, len))
    assert largest == {"cuda": 36, "cpu": 1}  # all that are not at the border


def test_recovery_after_out_of_memory(monkeypatch):
    """The device is tried again after a picture on the CPU, and larger tiles after many without trouble."""
    monkeypatch.setattr(tiling, "free_memory", lambda device: 10**10)
    chosen, full = planner(GPU, 256), [True]

    def compute(group):
        if full[0] and chosen.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")

    def picture() -> str:
        list(chosen.run(items_of(chosen.plan(500, 500), (500, 500)), compute))
        return chosen.device.type

    assert [picture(), picture()] == ["cpu", "cpu"]
    full[0] = False
    assert picture() == "cuda"
    full[0] = True
    assert [picture(), picture(), picture()] == ["cpu"] * 3, "the second time it rests longer"
    full[0] = False
    assert picture() == "cuda"

    chosen = planner(GPU, 256)

    def small(group):
        if max(group[0].shape) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")

    list(chosen.run(items_of(chosen.plan(500, 500), (500, 500)), small))
    sides = [max(tile.inner.height for tile in chosen.plan(500, 500)) for _ in range(RECOVERY)]
    assert sides[-1] > sides[0]
