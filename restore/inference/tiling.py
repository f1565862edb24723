"""How a picture is cut into tiles that a network can take one by one, or several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from restore.tasks.base import Window


@dataclass(frozen=True)
class Tile:
    """outer: what the network sees. inner: the part of it that is kept; together these cover the picture once."""

    outer: Window
    inner: Window


def plan(height: int, width: int, tile: int, overlap: int, stride: int) -> list[Tile]:
    """Tiles of at most about `tile` pixels a side, with `overlap` pixels of their surroundings on every side.

    Both are rounded up to multiples of `stride`. Origins are multiples of it, so that every tile is cut into the
    same cells as the whole picture is; the last row and column end where the picture ends, and are
    padded as it is. A picture that needs several tiles is cut into parts of about one size.
    """
    return cut(Window(0, 0, height, width), height, width, tile, overlap, stride)


def cut(part: Window, height: int, width: int, tile: int, overlap: int, stride: int) -> list[Tile]:
    """`plan` for a part of a picture of (height, width); the part begins at multiples of `stride`."""
    overlap = _up(overlap, stride)
    tiles = []
    for top, bottom in _cuts(part.top, part.height, tile, stride):
        for left, right in _cuts(part.left, part.width, tile, stride):
            upper, leftmost = max(0, top - overlap), max(0, left - overlap)
            lower, rightmost = min(height, bottom + overlap), min(width, right + overlap)
            tiles.append(
                Tile(
                    outer=Window(upper, leftmost, lower - upper, rightmost - leftmost),
                    inner=Window(top, left, bottom - top, right - left),
                )
            )
    return tiles


def batches(tiles: Iterable[Tile], pixels: int) -> Iterator[list[Tile]]:
    """The tiles in groups of one outer shape, of at most `pixels` together (but at least one tile)."""
    by_shape: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        by_shape.setdefault((tile.outer.height, tile.outer.width), []).append(tile)
    for (height, width), alike in by_shape.items():
        count = max(1, pixels // (height * width))
        for start in range(0, len(alike), count):
            yield alike[start : start + count]


def _cuts(start: int, length: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """From `start` on, `length` pixels in equal pieces of at most `tile`; the last one may be shorter."""
    pieces = -(-length // _up(tile, stride))
    piece = _up(-(-length // pieces), stride)
    end = start + length
    return [(at, min(at + piece, end)) for at in range(start, end, piece)]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
