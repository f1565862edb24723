"""The result of restoring a picture. Does not import torch, for processes that only handle files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from restore.images import Image


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
        measured: as in `StepResult`.
        steps: where several tasks restored the picture, what each of them did.
    """

    image: Image
    mask: np.ndarray | None = None
    nothing: bool = False
    note: str = ""
    change: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    steps: tuple[StepResult, ...] = ()


def percent(share: float) -> str:
    """A share of a picture, from 0 to 1, for people."""
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
