"""What the training loop minimises for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.models.registry import Architecture
from restore.tasks.base import Case, Sample, Task, as_planes, restore_whole
from restore.tasks.distances import Distance
from restore.tasks.spec import Options

VALIDATED = 256  # pixels a side of what validation looks at, at most: quick, and enough to compare


class RestorationObjective:
    """Damage clean patches, restore them, compare: training data, loss and validation of a task.

    Raises UsageError if the damage and the config do not go together.
    """

    def __init__(self, task: Task, damage: Options, config: Any = None, patch: int | None = None) -> None:
        self.task, self.damage = task, damage
        self.name = task.spec.name
        self.arch = task.arch
        self.config = task.config_for(task.config if config is None else config, damage)
        self.patch = patch or task.patch
        self.variants = task.variants(damage)

    def clean_patch(self, variant: int) -> int:
        """Side of the clean patch for a batch of `variant`, in pixels."""
        kind = self.variants[variant]
        return self.patch * kind.head.scale * kind.slack

    def initial(self) -> dict[str, torch.Tensor]:
        """Weights that were trained elsewhere, to start from; what is not among them starts fresh."""
        return self.variants[0].head.initial(self.config)

    def coverage(self, variant: int) -> tuple[float, float] | None:
        """Share of a picture's short side that a clean patch covers, lowest and highest; None: pixels as they are."""
        return self.variants[variant].coverage

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One clean patch (H,W,3) as the planes of a `Sample`; all chance is drawn from `rng`."""
        kind = self.variants[variant]
        clean = self.task.prepare(clean, self.damage, rng)
        params = kind.corruption.sample(clean.shape, rng)
        damaged, target = kind.corruption.apply(clean, params), kind.corruption.target(clean, params)
        if kind.slack > 1:
            damaged, target = _cut(damaged, target, self.patch, rng)
        planes = {
            "corrupted": damaged.image,
            "clean": target,
            "mask": damaged.mask,
            "opacity": damaged.opacity,
            "colour": damaged.colour,
            "hints": kind.head.hints(damaged, target, rng),
        }
        return {
            name: as_planes(values.astype(np.float32)[..., None] if values.ndim == 2 else values)
            for name, values in planes.items()
            if values is not None
        }

    def loss(
        self, network: Architecture, batch: Mapping[str, torch.Tensor], variant: int, distance: Distance
    ) -> torch.Tensor:
        """The head's loss for a batch of `variant`."""
        sample = Sample(**batch)
        head = self.variants[variant].head
        return head.loss(head.run(network, head.seen(sample), head.training_stage), sample, distance)

    def validate(self, network: Architecture, pictures: Sequence[np.ndarray]) -> dict[str, float]:
        """Mean score of each case over `pictures`, always with the same damage.

        Over their centres; of tasks that take in a whole scene, over all of each, shrunk.
        """
        scores = {}
        for number, case in enumerate(self.task.cases(self.damage)):
            found = []
            for index, picture in enumerate(pictures):
                damaged, restored, clean = self._restored(network, case, picture, (number, index))
                found.append(case.value(restored, clean, damaged))
            scores[case.label] = float(np.nanmean(found))
        return scores

    def preview(self, network: Architecture, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corrupted, restored and clean centre of a picture, in the hardest case."""
        damaged, restored, clean = self._restored(network, self.task.cases(self.damage)[-1], picture, (0, 0))
        return np.broadcast_to(damaged.image, (*damaged.image.shape[:2], 3)), restored, clean

    def _restored(
        self, network: Architecture, case: Case, picture: np.ndarray, seed: tuple[int, int]
    ) -> tuple[Corrupted, np.ndarray, np.ndarray]:
        variant = case.variant
        rng = np.random.default_rng(seed)
        picture = _centre(picture, VALIDATED) if variant.coverage is None else _shrunk(picture, VALIDATED)
        params = variant.corruption.sample(picture.shape, rng)
        damaged = variant.corruption.apply(picture, params)
        given = damaged.mask if damaged.hints is None else damaged.hints
        mask = given if case.given else None
        restored = restore_whole(network, variant.head, damaged.image, self.task.spec.options(), mask)
        return damaged, restored, variant.corruption.target(picture, params)


def _cut(damaged: Corrupted, target: np.ndarray, side: int, rng: np.random.Generator) -> tuple[Corrupted, np.ndarray]:
    """A square of `side` pixels, anywhere in a damaged patch, and the same of its target."""
    top, left = (int(rng.integers(length - side + 1)) for length in target.shape[:2])
    square = slice(top, top + side), slice(left, left + side)
    maps = (values if values is None else values[square] for values in (damaged.mask, damaged.opacity, damaged.colour))
    return Corrupted(damaged.image[square], *maps), target[square]


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """All of (H,W,C), at a size where the short side is at most `side`."""
    scale = side / min(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    """The central part of (H,W,C), at most `side` in each direction."""
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return picture[top : top + side, left : left + side]
