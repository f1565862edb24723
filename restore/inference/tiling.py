"""How a picture is cut into tiles that a network can take one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

from restore.models.registry import Architecture
from restore.tasks.base import Window

SMALLEST = 64  # pixels a side: below that a tile is mostly overlap
LARGEST = 2048  # beyond that tiles only cost memory
SHARE = 0.4  # of the memory that is free


@dataclass(frozen=True)
class Tile:
    """outer: what the network sees. inner: the part of it that is kept; together these cover the picture once."""

    outer: Window
    inner: Window


def plan(height: int, width: int, tile: int, overlap: int, stride: int) -> Iterator[Tile]:
    """Tiles of about `tile` pixels a side, with `overlap` pixels of their surroundings on every side.

    Origins are multiples of `stride`, so that every tile is cut into the same cells as the whole
    picture is; the last row and column end where the picture ends, and are padded as it is.
    """
    tile, overlap = _up(tile, stride), _up(overlap, stride)
    rows, columns = _cuts(height, tile), _cuts(width, tile)
    for top, bottom in rows:
        for left, right in columns:
            upper, leftmost = max(0, top - overlap), max(0, left - overlap)
            lower, rightmost = min(height, bottom + overlap), min(width, right + overlap)
            yield Tile(
                outer=Window(upper, leftmost, lower - upper, rightmost - leftmost),
                inner=Window(top, left, bottom - top, right - left),
            )


def automatic_tile(network: Architecture, scale: int, dtype: torch.dtype, device: torch.device) -> int:
    """Side of the largest tile whose features fit into a good part of the free memory of `device`, in pixels."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    side = int((free * SHARE / (network.values_a_pixel(scale) * dtype.itemsize)) ** 0.5)
    return max(SMALLEST, min(LARGEST, side))


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    """`length` cut into pieces of `tile`, the last one shorter."""
    return [(start, min(start + tile, length)) for start in range(0, length, tile)]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
