"""What restores pictures, and its results. Does not import torch, for processes that only handle files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from restore.images import Image
from restore.pixels import white

MaskedImage = tuple[Image, "np.ndarray | None"]  # with a mask (H,W) bool, or hints (H,W,4), if there are any

CHANGE_PIXELS = 1 << 16  # of a large picture, that tell by how much it has changed: few, since a GPU waits meanwhile


@dataclass(frozen=True)
class StepResult:
    """What one task of several found in a picture, and did.

    Args:
        task: its name.
        done: whether it changed the picture.
        note: what it found, for people.
        change: as in `Restored`, of this task alone.
        mask_share: part of the pixels that it restored, 0 to 1; None for tasks that do not look for damage.
        areas: number of connected areas of these pixels; None likewise.
        measured: what else was measured, by name, such as the noise that `auto` decides by.
    """

    task: str
    done: bool
    note: str
    change: float | None = None
    mask_share: float | None = None
    areas: int | None = None
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """As JSON, with six digits after the point."""
        return cast(dict[str, Any], _rounded(asdict(self)))


@dataclass(frozen=True)
class Restored:
    """The result of restoring a picture.

    Args:
        image: the restored picture.
        mask: (H,W) bool of the pixels that may have changed; None where all may. Of several tasks: of the pixels that
            those that look for damage have restored.
        nothing: there was nothing to restore, and every pixel is the input's.
        note: what a person should know, such as why nothing was restored, or how much noise was removed.
        change: root mean square difference to the input, on the 0-255 scale; None for a picture of another size.
        confidence: how likely what was detected is damage, 0 to 1; None where nothing was detected or a mask given.
        measured: as in `StepResult`.
        steps: where several tasks restored the picture, what each of them did.
    """

    image: Image
    mask: np.ndarray | None = None
    nothing: bool = False
    note: str = ""
    change: float | None = None
    confidence: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    steps: tuple[StepResult, ...] = ()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def percent(share: float) -> str:
    """A share of a picture, from 0 to 1, for people."""
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def root_mean_square_change(before: np.ndarray, after: np.ndarray) -> float | None:
    """Root mean square difference to `before`; None for other shapes."""
    if before.shape != after.shape:
        return None
    change = Change(*before.shape[:2])
    change.add(before, after)
    return change.value()


class Change:
    """Root mean square difference on the 0-255 scale, on a regular grid of large pictures, which come in parts."""

    def __init__(self, height: int, width: int) -> None:
        self._step = max(1, int((height * width / CHANGE_PIXELS) ** 0.5))
        self._row, self._sum, self._count = 0, 0.0, 0

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """The next rows (h,W,C)."""
        rows = slice(-self._row % self._step, None, self._step)
        difference = np.subtract(before[rows, :: self._step], after[rows, :: self._step], dtype=np.float32)
        difference /= np.float32(white(before.dtype))
        self._row, self._count = self._row + len(before), self._count + difference.size
        self._sum += float(np.vdot(difference, difference))

    def value(self) -> float:
        """Of all rows that were added."""
        return 255 * math.sqrt(self._sum / self._count)


class Pending(Protocol):
    """The result for a picture that a device may still be computing."""

    def result(self) -> Restored:
        """Waits for the device; raises what is wrong with this picture. May be called once, in any thread."""
        ...


class Processor(Protocol):
    """Restores pictures in batches; one with a `Restorer`'s `stream` also those too large for memory."""

    def batch_size(self, image: Image) -> int:
        """How many pictures of the size of `image` to give to `enqueue` at once; 1 where more are not faster."""
        ...

    def enqueue(self, pictures: Sequence[MaskedImage]) -> Sequence[Pending]:
        """Starts to restore pictures, in shared batches, without waiting for a GPU. One thread at a time may call it.

        Args:
            pictures: each with its mask (H,W) bool, or its hints (H,W,4) where the task takes those, or None.

        Returns:
            One `Pending` for each; an error of one picture is raised by its `Pending` only.
        """
        ...


@dataclass(frozen=True)
class Stream:
    """A picture that is restored in parts (h,W,1 or 3) from above; how much changed so far, and what to say of that."""

    parts: Iterator[np.ndarray]
    change: Change
    describe: Callable[[float], str]
