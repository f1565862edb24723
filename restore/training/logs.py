"""TensorBoard logs with preview grids, if TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.utils import make_grid

from restore.pixels import to_float

Row = tuple[np.ndarray, np.ndarray, np.ndarray]


class Log:
    """Curves and pictures of a run below `folder`; does nothing without a folder, or where TensorBoard is missing."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder)) if folder else None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A point on each curve."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def images(self, step: int, make: Callable[[], list[Row]]) -> None:
        """A grid of the rows (corrupted, restored, clean) that `make` gives, (H,W,3), in the size of the clean one."""
        rows = make() if self._writer else []
        if rows:
            side = max(max(picture.shape[:2]) for row in rows for picture in row)
            tiles = [_square(picture, row[2].shape[:2], side) for row in rows for picture in row]
            self._writer.add_image("corrupted, restored, clean", make_grid(torch.stack(tiles), nrow=3), step)

    def close(self) -> None:
        """Writes what is left."""
        if self._writer:
            self._writer.close()


def _square(picture: np.ndarray, shape: tuple[int, ...], side: int) -> torch.Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(np.clip(to_float(picture), 0, 1).transpose(2, 0, 1)))
    planes = torch.nn.functional.interpolate(planes[None], size=tuple(shape), mode="nearest")[0]
    return torch.nn.functional.pad(planes, (0, side - shape[1], 0, side - shape[0]))
