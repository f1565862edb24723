"""What the training loop minimises for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from restore.models.registry import Architecture
from restore.pixels import to_float
from restore.tasks.base import Sample, Task, restore_whole
from restore.tasks.spec import Options

OUTPUT_BORDER = 256  # validation crops are at most this large: quick, and enough to compare


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
        return self.patch * self.variants[variant].head.scale

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One clean patch (H,W,3) as the planes of a `Sample`; all chance is drawn from `rng`."""
        corruption = self.variants[variant].corruption
        clean = self.task.prepare(clean, self.damage, rng)
        params = corruption.sample(clean.shape, rng)
        damaged = corruption.apply(clean, params)
        planes = {
            "corrupted": damaged.image,
            "clean": corruption.target(clean, params),
            "mask": damaged.mask,
            "opacity": damaged.opacity,
            "colour": damaged.colour,
        }
        return {name: _planes(values) for name, values in planes.items() if values is not None}

    def loss(self, network: Architecture, batch: Mapping[str, torch.Tensor], variant: int) -> torch.Tensor:
        """The head's loss for a batch of `variant`."""
        sample = Sample(**batch)
        head = self.variants[variant].head
        return head.loss(head.run(network, sample.corrupted), sample)

    def validate(self, network: Architecture, pictures: Sequence[np.ndarray]) -> dict[str, float]:
        """Mean score of each case over `pictures` (their centres), always with the same damage."""
        scores = {}
        for number, case in enumerate(self.task.cases(self.damage)):
            found = []
            for index, picture in enumerate(pictures):
                _, restored, clean = self._restored(network, case.variant, picture, (number, index))
                found.append(case.score(restored, clean))
            scores[case.label] = float(np.mean(found))
        return scores

    def preview(self, network: Architecture, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corrupted, restored and clean centre of a picture, in the hardest case."""
        return self._restored(network, self.task.cases(self.damage)[-1].variant, picture, (0, 0))

    def _restored(
        self, network: Architecture, variant: Any, picture: np.ndarray, seed: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        picture = _centre(picture, OUTPUT_BORDER)
        params = variant.corruption.sample(picture.shape, rng)
        corrupted = variant.corruption.apply(picture, params).image
        restored = restore_whole(network, variant.head, corrupted, self.task.spec.options())
        return corrupted, restored, variant.corruption.target(picture, params)


def _planes(values: np.ndarray) -> torch.Tensor:
    """(H,W) or (H,W,C) as (C,H,W) float32."""
    values = values[..., None] if values.ndim == 2 else values
    return torch.from_numpy(np.ascontiguousarray(to_float(values).transpose(2, 0, 1)))


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    """The central part of (H,W,C), at most `side` in each direction."""
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return picture[top : top + side, left : left + side]
