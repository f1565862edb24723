"""How a picture is cut into tiles that a network can take one by one or in batches, and how many of them fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from restore.devices import free_memory
from restore.models.registry import Architecture
from restore.tasks.base import Window

logger = logging.getLogger("restore")

# Sides of a tile to choose from, in pixels. Steps, so that a little more or less free memory changes nothing in the
# result. The smallest is mostly overlap; beyond the largest, tiles only cost memory.
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
SMALLEST, LARGEST = SIDES[0], SIDES[-1]
LARGEST_ON_CPU = 1024  # keeps 100 megapixels under 2.5 GB of memory, and larger ones are no quicker
MAX_BATCH_PIXELS = LARGEST**2  # likewise
MEMORY_SHARE = 0.4  # of the memory that is free

# Several small pictures at once keep a GPU busy; a CPU gains nothing from 128x128 pixels on.
BATCHING_DEVICES = {"cuda", "mps", "meta"}
MAX_BATCH_PICTURES = 16

# After a lack of memory: pictures without another one, after which twice as much is tried again. And how many pictures
# the CPU takes over, at first and at most, before the device is tried again; doubled each time it fails.
RECOVERY = 32
CPU_PICTURES = (1, 64)

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # CUDA and MPS; the CPU; cuDNN and cuBLAS


@dataclass(frozen=True)
class Tile:
    """outer: what the network sees. inner: the part of it that is kept; together these cover the picture once."""

    outer: Window
    inner: Window


class Sized(Protocol):
    """A picture of which tiles are cut; size: height and width."""

    @property
    def size(self) -> tuple[int, int]: ...


PictureT = TypeVar("PictureT", bound=Sized)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Item(Generic[PictureT]):
    """A tile of one of several pictures; tiles with equal keys may be computed in one batch."""

    picture: PictureT
    tile: Tile
    key: tuple[object, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.tile.outer.height, self.tile.outer.width


def plan_tiles(height: int, width: int, tile: int, overlap: int, stride: int) -> list[Tile]:
    """Cuts a picture into tiles.

    Origins are multiples of `stride`, so that every tile is divided into the same cells as the whole picture is;
    the last row and column end where the picture ends, and are padded as it is. A picture that needs several tiles is
    cut into parts of about one size.

    Args:
        height, width: of the picture, in pixels.
        tile: largest side of a tile in pixels, rounded up to a multiple of `stride`.
        overlap: pixels of surroundings that a tile sees on every side, rounded up likewise.
        stride: of the network.
    """
    return cut(Window(0, 0, height, width), height, width, tile, overlap, stride)


def cut(part: Window, height: int, width: int, tile: int, overlap: int, stride: int) -> list[Tile]:
    """`plan_tiles` for a part of a picture of (height, width); the part begins at multiples of `stride`."""
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


def batches(items: Iterable[Item[PictureT]], pixels: int) -> Iterator[list[Item[PictureT]]]:
    """Items of one shape and key in groups of at most `pixels` together (but at least one item)."""
    alike: dict[tuple[object, ...], list[Item[PictureT]]] = {}
    for item in items:
        alike.setdefault((item.shape, *item.key), []).append(item)
    for group in alike.values():
        height, width = group[0].shape
        count = max(1, pixels // (height * width))
        for start in range(0, len(group), count):
            yield group[start : start + count]


class TilePlanner:
    """Decides what is computed at once, by the memory that is free, and by what did not fit before.

    Args:
        network: its stride and its memory a pixel count.
        scale: of the restored picture.
        dtype: of the convolutions.
        device: where to compute.
        tile: side of a tile in pixels; 0: by free memory.
        overlap: what a tile sees beyond itself, in pixels.
    """

    def __init__(
        self, network: Architecture, scale: int, dtype: torch.dtype, device: torch.device, tile: int, overlap: int
    ) -> None:
        self.device, self.tile, self.overlap, self._stride = device, tile, overlap, network.stride
        self._wanted = device
        self._bytes_a_pixel = network.values_a_pixel(scale) * dtype.itemsize
        self._max_side: int | None = None
        self._max_pixels: int | None = None
        self._batch_pixels = 1
        self._untroubled = 0
        self._cpu_pictures, self._cpu_left = CPU_PICTURES[0], 0

    def plan(self, height: int, width: int) -> list[Tile]:
        """The tiles of a picture, by the memory that is free now."""
        self._recover()
        return self._plan(height, width)

    def batch_size(self, height: int, width: int) -> int:
        """How many pictures of this size are computed at once; 1 where more are no quicker, or do not fit."""
        if self.device.type not in BATCHING_DEVICES:
            return 1
        pixels = min(self._fitting(), self._max_pixels or MAX_BATCH_PIXELS)
        return max(1, min(MAX_BATCH_PICTURES, pixels // (height * width)))

    def run(
        self, items: Sequence[Item[PictureT]], compute: Callable[[list[Item[PictureT]]], ResultT]
    ) -> Iterator[tuple[list[Item[PictureT]], ResultT]]:
        """Calls `compute` for batches of `items`, in smaller ones, and then on the CPU, where memory runs out.

        Yields:
            Each batch with what `compute` returned. What has been computed is not computed again, unless the CPU
            takes over in the middle of a picture.

        Raises:
            MemoryError: not even the smallest tiles fit into the CPU's memory.
        """
        waiting = list(items)
        while waiting:
            groups = list(batches(waiting, self._batch_pixels))
            waiting = []
            for number, group in enumerate(groups):
                try:
                    result = compute(group)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    waiting = [item for later in groups[number:] for item in later]
                # Outside of the except block: by now the traceback is gone, and the tensors that it held.
                if waiting:
                    waiting = self._shrink(group, waiting)
                    break
                yield group, result

    def _shrink(self, failed: list[Item[PictureT]], waiting: list[Item[PictureT]]) -> list[Item[PictureT]]:
        """What to compute instead of `waiting`, after the batch `failed` did not fit; logs it.

        Fewer tiles at once, then tiles of half the side, then the CPU.
        """
        self._untroubled = 0
        (height, width), inner = failed[0].shape, failed[0].tile.inner
        side = max(inner.height, inner.width)
        self._batch_pixels = self._max_pixels = max(1, len(failed) * height * width // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(failed) > 1:
            logger.warning("out of memory on %s: going on with %d tiles at a time", self.device, len(failed) // 2)
            return waiting
        if side > SMALLEST:
            self._max_side = half = max(SMALLEST, side // 2)
            logger.warning("out of memory on %s: going on with tiles of %d pixels", self.device, half)
            return [
                Item(item.picture, smaller, item.key)
                for item in waiting
                for smaller in cut(item.tile.inner, *item.picture.size, half, self.overlap, self._stride)
            ]
        self.use_cpu()
        unfinished = {id(item.picture): item for item in waiting}.values()
        return [
            Item(item.picture, tile, item.key)  # anew: the tiles of a CPU are larger than those that are left
            for item in unfinished
            for tile in self._plan(*item.picture.size)
        ]

    def use_cpu(self) -> None:
        """Goes on with the CPU for some pictures, after which the device is tried again.

        Raises:
            MemoryError: it is the CPU whose memory is not enough.
        """
        if self.device.type == "cpu":
            raise MemoryError("not enough memory for the smallest tiles")
        logger.warning("out of memory on %s: going on with the CPU", self.device)
        self.device, self._max_side, self._max_pixels = torch.device("cpu"), None, None
        self._cpu_left = self._cpu_pictures
        self._cpu_pictures = min(2 * self._cpu_pictures, CPU_PICTURES[1])

    def _recover(self) -> None:
        """At the start of a picture: what did not fit once may fit by now."""
        if self.device != self._wanted:
            if self._cpu_left:
                self._cpu_left -= 1
                return
            self.device = self._wanted
        self._untroubled += 1
        if self._untroubled % RECOVERY == 0:
            self._max_side = None if self._max_side is None else 2 * self._max_side
            self._max_pixels = None if self._max_pixels is None else 2 * self._max_pixels

    def _plan(self, height: int, width: int) -> list[Tile]:
        fitting = self._fitting()
        # Several tiles at once keep a GPU busy; a CPU is busy with one.
        self._batch_pixels = 1 if self.device.type == "cpu" else min(fitting, self._max_pixels or MAX_BATCH_PIXELS)
        side = self.tile or automatic_side(fitting, self.overlap, self.device)
        return plan_tiles(height, width, min(side, self._max_side or side), self.overlap, self._stride)

    def _fitting(self) -> int:
        """Pixels that fit into the memory that is free now."""
        return int(free_memory(self.device) * MEMORY_SHARE / self._bytes_a_pixel)


def automatic_side(pixels: int, overlap: int, device: torch.device) -> int:
    """Side of the largest tile on `device` which, with `overlap` all around, has at most so many pixels."""
    most = LARGEST_ON_CPU if device.type == "cpu" else LARGEST
    return max((side for side in SIDES if side <= most and (side + 2 * overlap) ** 2 <= pixels), default=SMALLEST)


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type for a full GPU, but only words for a full main memory and for its libraries' errors."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _cuts(start: int, length: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """From `start` on, `length` pixels in equal pieces of at most `tile`; the last one may be shorter."""
    pieces = -(-length // _up(tile, stride))
    piece = _up(-(-length // pieces), stride)
    end = start + length
    return [(at, min(at + piece, end)) for at in range(start, end, piece)]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
