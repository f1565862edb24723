"""Pipelines: several restorers one after the other, with one decoding before and one encoding after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from restore.errors import UsageError
from restore.images import Image
from restore.inference.inputs import InputAdapter
from restore.inference.restored import Restored, StepResult, percent, root_mean_square_change
from restore.inference.restorer import Pending, Restorer
from restore.tasks import TASKS, TaskSpec
from restore.tasks.steps import check_steps, taker

FINER = 257  # 255 * 257 = 65535: 8 bits become 16 and come back exactly


class Pipeline(InputAdapter):
    """Restores images by several restorers, one after the other; as `Restorer`, one thread at a time may call it.

    Images of 8 bits have 16 between the steps, so that only the result is rounded to 8.

    Args:
        steps: the restorers, in their order, made by `restore.load`.

    Raises:
        UsageError: two restorers of one task, one that looks for damage after one that enlarges, or one that
            `restore.load` did not make.
    """

    def __init__(self, steps: Sequence[Restorer]) -> None:
        self.steps = tuple(steps)
        self.specs = tuple(_spec(step) for step in self.steps)
        check_steps(self.specs)
        self.hinted = any(spec.hints for spec in self.specs)
        self.masked = any(spec.masks for spec in self.specs)

    @property
    def scale(self) -> int:
        """By how much the sides of an image become longer."""
        return int(np.prod([step.head.scale for step in self.steps]))

    @property
    def device(self) -> torch.device:
        """Where the first step computes."""
        return self.steps[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions of the first step."""
        return self.steps[0].dtype

    def batch_size(self, image: Image) -> int:
        """How many pictures of this size to give to `enqueue` at once; 1 where more are not faster."""
        return self.steps[0].batch_size(image)

    def enqueue(self, pictures: Sequence[tuple[Image, np.ndarray | None]]) -> list[Pending]:
        """Restores pictures, in shared batches of tiles; an error of one picture is raised by its `Pending` only.

        Args:
            pictures: each with its mask (H,W) bool, or hints (H,W,4), or None.
        """
        works = [_Work(image, mask, finer(image) if len(self.steps) > 1 else image) for image, mask in pictures]
        for spec, step in zip(self.specs, self.steps, strict=True):
            going = [work for work in works if work.error is None and not self._skip(work, spec, step)]
            begun = step.enqueue([(work.image, work.given_to(spec, self.specs)) for work in going])
            for work, pending in zip(going, begun, strict=True):
                try:
                    work.add(spec, step, self.judged(spec, work.image, pending.result()))
                except Exception as error:  # must not affect the other pictures
                    work.error = error
        return [Pending(work.finish) for work in works]

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Says what would be done. Later steps see what earlier ones make of the picture, so all of it is computed."""
        return replace(self.enqueue([(image, mask)])[0].result(), image=image)

    def _skip(self, work: _Work, spec: TaskSpec, step: Restorer) -> bool:
        """Whether a picture is done with a step that need not restore it."""
        try:
            known = self.healthy(spec, step, work.image)
            if known is not None:
                work.add(spec, step, known)
        except Exception as error:  # must not affect the other pictures
            work.error = error
            return True
        return known is not None

    def healthy(self, spec: TaskSpec, step: Restorer, image: Image) -> Restored | None:
        """The result of a step for a picture that need not be restored as a whole to know it: here None."""
        return None

    def judged(self, spec: TaskSpec, before: Image, after: Restored) -> Restored:
        """What becomes of the result `after` of a step for the picture `before`: here it is kept."""
        return replace(after, note=after.note.replace("--aggressive", f"--{spec.name}-aggressive"))


@dataclass(eq=False)
class _Work:
    """A picture on its way through the steps.

    Args:
        original: the picture.
        given: its mask (H,W) bool, or hints (H,W,4), if the user gave them.
        image: what the steps have made of it.
        mask: (H,W) bool, what the steps that look for damage have restored; None where there are none.
        steps: what each of them did.
        error: why it cannot be restored.
    """

    original: Image
    given: np.ndarray | None
    image: Image
    mask: np.ndarray | None = None
    steps: tuple[StepResult, ...] = ()
    error: Exception | None = None

    def given_to(self, spec: TaskSpec, specs: Sequence[TaskSpec]) -> np.ndarray | None:
        """The mask or hints for a step."""
        return self.given if self.given is not None and spec is taker(specs, hints=self.given.ndim == 3) else None

    def add(self, spec: TaskSpec, step: Restorer, result: Restored) -> None:
        """Takes the result of a step over."""
        note, share, areas = result.note, None, None
        if spec.masks and result.mask is not None:
            share = float(result.mask.mean())
            areas = cv2.connectedComponents(result.mask.astype(np.uint8))[0] - 1 if share else 0
            self.mask = result.mask if self.mask is None else self.mask | result.mask
        done = spec.file_suffix(step.options)
        if areas:
            found = f"{areas} area{'s' if areas > 1 else ''} ({percent(share or 0)}) {done}"
            note = f"{found}; {note}" if note else found
        note = note or ("nothing found" if result.nothing else done)
        changed = not result.nothing
        self.steps += (StepResult(spec.name, changed, note, result.change, share, areas, result.measured),)
        self.image = result.image

    def finish(self) -> Restored:
        """The result; raises the error of this picture, if any."""
        if self.error is not None:
            raise self.error
        note = "; ".join(f"{step.task}: {step.note}" for step in self.steps)
        image = coarser(self.image, self.original.pixels.dtype)
        change = root_mean_square_change(self.original.pixels, image.pixels)
        nothing = np.array_equal(self.original.pixels, image.pixels)
        return Restored(self.original if nothing else image, self.mask, nothing, note, change, steps=self.steps)


def finer(image: Image) -> Image:
    """`image` with 16 bits instead of 8; others as they are."""
    if image.pixels.dtype != np.uint8:
        return image
    pixels, alpha = (None if part is None else part * np.uint16(FINER) for part in (image.pixels, image.alpha))
    assert pixels is not None
    return replace(image, pixels=pixels, alpha=alpha)


def coarser(image: Image, dtype: np.dtype) -> Image:
    """The reverse of `finer`, rounded, where `dtype` is of 8 bits."""
    if image.pixels.dtype == dtype:
        return image
    pixels, alpha = (
        None if part is None else ((part.astype(np.uint32) + FINER // 2) // FINER).astype(np.uint8)
        for part in (image.pixels, image.alpha)
    )
    assert pixels is not None
    return replace(image, pixels=pixels, alpha=alpha)


def _spec(step: Restorer) -> TaskSpec:
    if step.header is None:
        raise UsageError("a pipeline takes restorers that restore.load made")
    return TASKS[step.header.task]
