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
from restore.inference.restored import MaskedImage, Pending, Restored, StepResult, percent, root_mean_square_change
from restore.inference.restorer import Deferred, Restorer
from restore.pixels import to_dtype, to_float
from restore.tasks import TASKS, TaskSpec
from restore.tasks.steps import check_steps, step_with_input


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
        return self.steps[0].batch_size(image)

    def enqueue(self, pictures: Sequence[MaskedImage]) -> list[Pending]:
        works = [_Work(image, mask, image) for image, mask in pictures]
        for work in works if len(self.steps) > 1 else ():
            if work.image.pixels.dtype == np.uint8:
                work.image = with_dtype(work.image, np.dtype(np.uint16))
        for spec, step in zip(self.specs, self.steps, strict=True):
            going = [work for work in works if work.error is None and not self._skip(work, spec, step)]
            begun = step.enqueue([(work.image, self._given(work, spec)) for work in going])
            for work, pending in zip(going, begun, strict=True):
                try:
                    work.add(spec, step, self.accept(spec, work.image, pending.result()))
                except Exception as error:  # must not affect the other pictures
                    work.error = error
        return [Deferred(work.finish) for work in works]

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Says what would be done. Later steps see what earlier ones make of the picture, so all of it is computed."""
        return replace(self.enqueue([(image, mask)])[0].result(), image=image)

    def _given(self, work: _Work, spec: TaskSpec) -> np.ndarray | None:
        given = work.given
        return given if given is not None and spec is step_with_input(self.specs, hints=given.ndim == 3) else None

    def _skip(self, work: _Work, spec: TaskSpec, step: Restorer) -> bool:
        """Whether a picture is done with a step that need not restore it."""
        try:
            known = self.skip_step(spec, step, work.image)
            if known is not None:
                work.add(spec, step, known)
        except Exception as error:  # must not affect the other pictures
            work.error = error
            return True
        return known is not None

    def skip_step(self, spec: TaskSpec, step: Restorer, image: Image) -> Restored | None:
        """The result of a step for a picture that need not be restored as a whole to know it: here None."""
        return None

    def accept(self, spec: TaskSpec, before: Image, after: Restored) -> Restored:
        """What becomes of the result `after` of a step for the picture `before`: here it is kept."""
        return replace(after, note=after.note.replace("--aggressive", f"--{spec.name}-aggressive"))


@dataclass(eq=False)
class _Work:
    """A picture on its way through the steps: its mask or hints, and what they have made of it, or its error."""

    original: Image
    given: np.ndarray | None
    image: Image
    mask: np.ndarray | None = None
    steps: tuple[StepResult, ...] = ()
    error: Exception | None = None

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
        image = with_dtype(self.image, self.original.pixels.dtype)
        change = root_mean_square_change(self.original.pixels, image.pixels)
        nothing = np.array_equal(self.original.pixels, image.pixels)
        return Restored(self.original if nothing else image, self.mask, nothing, note, change, steps=self.steps)


def with_dtype(image: Image, dtype: np.dtype) -> Image:
    """`image` with its pixels and alpha in another dtype; 8 bits become 16 and come back exactly."""
    if image.pixels.dtype == dtype:
        return image
    alpha = None if image.alpha is None else to_dtype(to_float(image.alpha), dtype)
    return replace(image, pixels=to_dtype(to_float(image.pixels), dtype), alpha=alpha)


def _spec(step: Restorer) -> TaskSpec:
    if step.header is None:
        raise UsageError("a pipeline takes restorers that restore.load made")
    return TASKS[step.header.task]
