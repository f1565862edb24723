"""How much of a picture is computed at once: by free memory, and less after something did not fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch

from restore.devices import free_memory
from restore.inference.tiling import Tile, batches, cut, plan
from restore.models.registry import Architecture

logger = logging.getLogger("restore")

# Sides of a tile to choose from, in pixels. Steps, so that a little more or less free memory changes nothing in the
# result. The smallest is mostly overlap; beyond the largest tiles only cost memory.
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
SMALLEST, LARGEST = SIDES[0], SIDES[-1]
LARGEST_ON_CPU = 1024  # keeps 100 megapixels under 2.5 GB of memory, and larger ones are no quicker
AT_ONCE = LARGEST**2  # pixels of a batch, likewise
SHARE = 0.4  # of the memory that is free

# Several small pictures at once keep a GPU busy. On a CPU they gain nothing from 128x128 pixels on, and of 64x64
# the network's third is lost again in a folder with as few threads as there are cores.
SHARING = {"cuda", "mps"}
PICTURES_AT_ONCE = 16


class Room:
    """What a device has room for. Remembers what it had no room for, so that a folder does not run into it again.

    device: where to compute; it becomes the CPU when the device had no room for the smallest tile. tile: side of
    a tile in pixels (0: by free memory). overlap: what a tile sees beyond itself.
    """

    def __init__(
        self, network: Architecture, scale: int, dtype: torch.dtype, device: torch.device, tile: int, overlap: int
    ) -> None:
        self.device, self.tile, self.overlap, self._stride = device, tile, overlap, network.stride
        self._bytes_a_pixel = network.values_a_pixel(scale) * dtype.itemsize
        self._most_side: int | None = None
        self._most_pixels: int | None = None
        self._at_once = 1

    def plan(self, height: int, width: int) -> list[Tile]:
        """The tiles of a picture, by the memory that is free now."""
        fitting = self._fitting()
        # Several tiles at once keep a GPU busy; a CPU is busy with one.
        self._at_once = 1 if self.device.type == "cpu" else min(fitting, self._most_pixels or AT_ONCE)
        side = self.tile or automatic_side(fitting, self.overlap, self.device)
        return plan(height, width, min(side, self._most_side or side), self.overlap, self._stride)

    def pictures(self, height: int, width: int) -> int:
        """How many pictures of this size are computed at once; 1 where more are no quicker, or do not fit."""
        if self.device.type not in SHARING:
            return 1
        pixels = min(self._fitting(), self._most_pixels or AT_ONCE)
        return max(1, min(PICTURES_AT_ONCE, pixels // (height * width)))

    def batches(self, tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
        """The tiles in groups that are computed at once."""
        return batches(tiles, self._at_once)

    def shrink(self, failed: Sequence[Tile], waiting: Sequence[Tile], height: int, width: int) -> list[Tile]:
        """What to do instead of `waiting`, after the batch `failed` did not fit; logs it.

        Fewer tiles at once, then tiles of half the side, then the CPU. Raises MemoryError where nothing is left.
        """
        one, side = failed[0].outer, max(failed[0].inner.height, failed[0].inner.width)
        self._at_once = self._most_pixels = len(failed) * one.height * one.width // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(failed) > 1:
            logger.warning("out of memory on %s: going on with %d tiles at a time", self.device, len(failed) // 2)
            return list(waiting)
        if side > SMALLEST:
            self._most_side = half = max(SMALLEST, side // 2)
            logger.warning("out of memory on %s: going on with tiles of %d pixels", self.device, half)
            return [
                smaller
                for tile in waiting
                for smaller in cut(tile.inner, height, width, half, self.overlap, self._stride)
            ]
        if self.device.type != "cpu":
            logger.warning("out of memory on %s: going on with the CPU", self.device)
            self.device, self._most_side = torch.device("cpu"), None
            return self.plan(height, width)  # anew: its tiles are larger than those that are left
        raise MemoryError("not enough memory for the smallest tiles")

    def _fitting(self) -> int:
        """Pixels that fit into the memory that is free now."""
        return int(free_memory(self.device) * SHARE / self._bytes_a_pixel)


def automatic_side(pixels: int, overlap: int, device: torch.device) -> int:
    """Side of the largest tile on `device` which, with `overlap` all around, has at most so many pixels."""
    most = LARGEST_ON_CPU if device.type == "cpu" else LARGEST
    return max((side for side in SIDES if side <= most and (side + 2 * overlap) ** 2 <= pixels), default=SMALLEST)
