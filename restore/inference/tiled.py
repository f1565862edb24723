"""A network on a device, over pictures of any size: in tiles, as many at once as there is memory for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from restore.inference.engine import is_out_of_memory
from restore.inference.room import Room
from restore.inference.tiling import Tile
from restore.tasks.base import Window

logger = logging.getLogger("restore")

Planes = Callable[[Window], torch.Tensor]  # what the network sees of a tile, (C,h,w)


class Runs(Protocol):
    """An `Engine`, or what stands for one."""

    def run(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        """As `Engine.run`."""
        ...


class Tiled:
    """The `Look` of a restorer: out of memory, its tiles shrink, and then the CPU takes over."""

    def __init__(self, engine: Runs, room: Room) -> None:
        self.engine, self.room = engine, room

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """(C,h,w) in one piece -> (C',h*scale,w*scale), float32, on the CPU.

        Raises MemoryError if that does not fit, not even into the CPU's memory.
        """
        try:
            return self.engine.run(planes[None], self.room.device, stage)[0]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.room.device.type == "cpu":
                raise MemoryError("not enough memory to look at the whole picture") from error
            logger.warning("out of memory on %s: going on with the CPU", self.room.device)
            self.room.device = torch.device("cpu")
            return self.whole(planes, stage)

    def tiles(self, size: tuple[int, int], planes: Planes, stage: str = "") -> Iterator[tuple[Window, torch.Tensor]]:
        """Windows that cover a picture of `size` (height, width) once, with the output for each."""
        for tile, output in self.each(size, planes, stage):
            top, left = tile.inner.top - tile.outer.top, tile.inner.left - tile.outer.left
            yield tile.inner, output[:, top : top + tile.inner.height, left : left + tile.inner.width]

    def without(
        self, size: tuple[int, int], planes: Planes, stage: str = "", wanted: Callable[[Tile], bool] | None = None
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """`each` for heads that are done with the network: tiles, and outputs that hold nothing."""
        for tile in self.room.plan(*size):
            if wanted is None or wanted(tile):
                yield tile, torch.empty(0)

    def each(
        self,
        size: tuple[int, int],
        planes: Planes,
        stage: str = "",
        wanted: Callable[[Tile], bool] | None = None,
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """The tiles of a picture that are `wanted` (all, if None), with the output for what each sees.

        Raises MemoryError where not even the smallest tiles fit into the CPU's memory.
        """
        waiting = self.room.plan(*size)
        while waiting:
            waiting = [tile for tile in waiting if wanted is None or wanted(tile)]
            groups = list(self.room.batches(waiting))
            waiting = []
            for number, group in enumerate(groups):
                try:
                    seen = [planes(tile.outer) for tile in group]
                    batch = seen[0][None] if len(seen) == 1 else torch.stack(seen)
                    outputs = list(self.engine.run(batch, self.room.device, stage))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    left = [tile for later in groups[number:] for tile in later]
                    waiting = self.room.shrink(group, left, *size)
                    break
                yield from zip(group, outputs, strict=True)
