"""Tiles of pictures: their positions, batches of them, and their size by the memory that is free."""

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

# Automatic sides of tiles in pixels. Discrete, so that small variations of free memory do not change the result. The
# smallest is mostly overlap; beyond the largest, tiles only need more memory.
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048)
SMALLEST, LARGEST = SIDES[0], SIDES[-1]
LARGEST_ON_CPU = 1280  # 1024 is 4 % slower, 1536 4 % faster
# The same for pictures of more pixels, which keeps 100 megapixels below 2.5 GB of memory.
HUGE_PICTURE, LARGEST_IF_HUGE = 64_000_000, 1024
MAX_BATCH_PIXELS = LARGEST**2  # likewise
MEMORY_SHARE = 0.4  # of the free memory

# Batches of small pictures keep a GPU busy; a CPU gains nothing from 128x128 pixels on.
BATCHING_DEVICES = {"cuda", "mps", "meta"}
MAX_BATCH_PICTURES = 16

# After memory was exhausted: number of pictures after which the limits are doubled again; and how many pictures the CPU
# restores before the device is tried again, at first and at most (doubled each time).
RECOVERY = 32
CPU_PICTURES = (1, 64)

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # CUDA and MPS; the CPU; cuDNN and cuBLAS


@dataclass(frozen=True)
class Tile:
    """A tile: the network gets `outer`, and its result for `inner` is kept; these partition the picture."""

    outer: Window
    inner: Window


class Sized(Protocol):
    """A picture that is cut into tiles; size: height and width."""

    @property
    def size(self) -> tuple[int, int]: ...


PictureT = TypeVar("PictureT", bound=Sized)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Item(Generic[PictureT]):
    """A tile of one of several pictures; those of equal shapes and keys may be computed in one batch."""

    picture: PictureT
    tile: Tile
    key: tuple[object, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the network input."""
        return self.tile.outer.height, self.tile.outer.width


def plan_tiles(height: int, width: int, tile: int, overlap: int, stride: int, part: Window | None = None) -> list[Tile]:
    """Cuts a picture into tiles.

    Origins are multiples of `stride`, so that strided layers sample every tile at the same positions as the whole
    picture; the last row and column end with the picture, and are padded as it is. The tiles have about the same size.

    Args:
        height, width: of the picture, in pixels.
        tile: largest side of a tile in pixels, rounded up to a multiple of `stride`.
        overlap: pixels that are added to a tile on every side, rounded up likewise.
        stride: of the network.
        part: what to cut, which starts at multiples of `stride`; None: all of it.
    """
    part = part or Window(0, 0, height, width)
    overlap = _round_up(overlap, stride)
    tiles = []
    for top, bottom in _split(part.top, part.height, tile, stride):
        for left, right in _split(part.left, part.width, tile, stride):
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
    """Groups items of equal shape and key, of at most so many pixels unless it is a single one."""
    groups: dict[tuple[object, ...], list[Item[PictureT]]] = {}
    for item in items:
        groups.setdefault((item.shape, *item.key), []).append(item)
    for group in groups.values():
        height, width = group[0].shape
        count = max(1, pixels // (height * width))
        for start in range(0, len(group), count):
            yield group[start : start + count]


class TilePlanner:
    """Chooses tiles and batches by the free memory, and shrinks them when memory is exhausted.

    Args:
        network, scale, dtype: give stride and memory a pixel.
        device: where to compute.
        tile: side of a tile in pixels; 0: by free memory.
        overlap: pixels that are added to a tile on every side.
    """

    def __init__(
        self, network: Architecture, scale: int, dtype: torch.dtype, device: torch.device, tile: int, overlap: int
    ) -> None:
        self.device, self.tile, self.overlap, self._stride = device, tile, overlap, network.stride
        self._preferred_device, self._whole = device, network.whole
        self._bytes_a_pixel = network.values_a_pixel(scale) * dtype.itemsize
        self._max_side: int | None = None
        self._max_pixels: int | None = None
        self._batch_pixels = 1
        self._since_failure = 0
        self._cpu_pictures, self._cpu_left = CPU_PICTURES[0], 0

    def plan(self, height: int, width: int) -> list[Tile]:
        """Chooses the tiles of a picture by the memory that is free now."""
        self._recover()
        return self._plan(height, width)

    def batch_size(self, height: int, width: int) -> int:
        """How many pictures of this size to compute at once; 1 where more are not faster or do not fit."""
        if self.device.type not in BATCHING_DEVICES:
            return 1
        pixels = min(self._fitting(), self._max_pixels or MAX_BATCH_PIXELS)
        return max(1, min(MAX_BATCH_PICTURES, pixels // (height * width)))

    def run(
        self, items: Sequence[Item[PictureT]], compute: Callable[[list[Item[PictureT]]], ResultT]
    ) -> Iterator[tuple[list[Item[PictureT]], ResultT]]:
        """Calls `compute` for batches of `items`; if memory is exhausted, in smaller ones, and finally on the CPU.

        Yields:
            Each batch with the result of `compute`. Nothing is computed twice, unless the CPU takes over in the middle
            of a picture.

        Raises:
            MemoryError: the smallest tiles do not fit into main memory.
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
                # Outside of the except block, since the traceback would keep the tensors alive.
                if waiting:
                    waiting = self._shrink(group, waiting)
                    break
                yield group, result

    def _shrink(self, failed: list[Item[PictureT]], waiting: list[Item[PictureT]]) -> list[Item[PictureT]]:
        """Replaces the items `waiting` after the batch `failed` did not fit, and logs it.

        First by smaller batches, then by tiles of half the side, then by tiles on the CPU.
        """
        self._since_failure = 0
        (height, width), inner = failed[0].shape, failed[0].tile.inner
        side = max(inner.height, inner.width)
        self._batch_pixels = self._max_pixels = max(1, len(failed) * height * width // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(failed) > 1:
            logger.warning("out of memory on %s: continuing with %d tiles at a time", self.device, len(failed) // 2)
            return waiting
        if side > SMALLEST:
            self._max_side = half = max(SMALLEST, side // 2)
            logger.warning("out of memory on %s: continuing with tiles of %d pixels", self.device, half)
            return [
                Item(item.picture, smaller, item.key)
                for item in waiting
                for smaller in plan_tiles(*item.picture.size, half, self.overlap, self._stride, item.tile.inner)
            ]
        self.use_cpu()
        unfinished = {id(item.picture): item for item in waiting}.values()
        return [
            Item(item.picture, tile, item.key)  # from the start, since the CPU uses other tiles
            for item in unfinished
            for tile in self._plan(*item.picture.size)
        ]

    def use_cpu(self) -> None:
        """Continues on the CPU for some pictures, after which the device is tried again.

        Raises:
            MemoryError: the CPU is in use already.
        """
        if self.device.type == "cpu":
            raise MemoryError("not enough memory for the smallest tiles")
        logger.warning("out of memory on %s: continuing on the CPU", self.device)
        self.device, self._max_side, self._max_pixels = torch.device("cpu"), None, None
        self._cpu_left = self._cpu_pictures
        self._cpu_pictures = min(2 * self._cpu_pictures, CPU_PICTURES[1])

    def _recover(self) -> None:
        if self.device != self._preferred_device:
            if self._cpu_left:
                self._cpu_left -= 1
                return
            self.device = self._preferred_device
        self._since_failure += 1
        if self._since_failure % RECOVERY == 0:
            self._max_side = None if self._max_side is None else 2 * self._max_side
            self._max_pixels = None if self._max_pixels is None else 2 * self._max_pixels

    def _plan(self, height: int, width: int) -> list[Tile]:
        fitting = self._fitting()
        # Batches of tiles keep a GPU busy; a CPU is busy with one.
        self._batch_pixels = 1 if self.device.type == "cpu" else min(fitting, self._max_pixels or MAX_BATCH_PIXELS)
        side = self.tile or automatic_side(fitting, self.overlap, self.device, height * width)
        if self._whole and not self.tile and height * width <= fitting:
            side = max(height, width)
        return plan_tiles(height, width, min(side, self._max_side or side), self.overlap, self._stride)

    def _fitting(self) -> int:
        return int(free_memory(self.device) * MEMORY_SHARE / self._bytes_a_pixel)


def automatic_side(pixels: int, overlap: int, device: torch.device, picture: int = 0) -> int:
    """The largest of `SIDES` whose tile, with `overlap` on every side, has at most `pixels` pixels.

    picture: pixels of the picture that is cut.
    """
    most = LARGEST if device.type != "cpu" else LARGEST_IF_HUGE if picture > HUGE_PICTURE else LARGEST_ON_CPU
    return max((side for side in SIDES if side <= most and (side + 2 * overlap) ** 2 <= pixels), default=SMALLEST)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is exhausted; for main memory and for libraries torch has only messages."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _split(start: int, length: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of equal pieces of at most `tile` pixels; the last one may be shorter."""
    pieces = -(-length // _round_up(tile, stride))
    piece = _round_up(-(-length // pieces), stride)
    end = start + length
    return [(at, min(at + piece, end)) for at in range(start, end, piece)]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
