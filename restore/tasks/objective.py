"""The training objective of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.models.registry import Architecture
from restore.tasks.base import Case, Sample, Task, identity, restore_whole
from restore.tasks.functional import array_to_planes
from restore.tasks.losses import PixelLoss
from restore.tasks.spec import Options

# dB. A picture that comes back exactly has an infinite PSNR, and one would decide which weights are the best; nobody
# sees what lies beyond, and VMAF caps there too.
SCORE_CAP = 60.0
VALIDATED = 256  # pixels a side of what validation looks at, at most: quick, and enough to compare


class RestorationObjective:
    """Training data, loss and validation of a task, on an instance of its `training_options`.

    Without a config, an architecture or a patch (side in pixels as the network sees it) those of the task are taken.

    Raises:
        UsageError: The damage and the config do not go together.
    """

    def __init__(
        self, task: Task, damage: Options, config: Any = None, patch: int | None = None, arch: str | None = None
    ) -> None:
        self.task, self.damage = task, damage
        self.name = task.spec.name
        self.arch = arch or task.arch
        self.config = task.config_for(task.config if config is None else config, damage)
        self.patch = patch or task.patch
        self.variants = task.training_pairs(damage)

    def clean_patch(self, variant: int) -> int:
        """Side of the clean patch for a batch of `variant`, in pixels."""
        kind = self.variants[variant]
        return math.ceil(self.patch * kind.head.scale * kind.slack)

    def initial(self) -> dict[str, torch.Tensor]:
        """Weights that were trained elsewhere, to start from, by name; what is not among them starts fresh."""
        return self.variants[0].head.initial(self.config)

    def coverage(self, variant: int) -> tuple[float, float] | None:
        """Share of a picture's short side that a clean patch covers, lowest and highest; None: pixels as they are."""
        return self.variants[variant].coverage

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One clean patch (H,W,3), or a pair of a clean and a corrupted one (H,W,6), as the planes of a `Sample`."""
        kind = self.variants[variant]
        if clean.shape[-1] > 3:
            damaged, target = Corrupted(clean[..., 3:]), clean[..., :3]
        else:
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
            name: array_to_planes(values.astype(np.float32)[..., None] if values.ndim == 2 else values)
            for name, values in planes.items()
            if values is not None
        }

    def loss(
        self, network: Architecture, batch: Mapping[str, torch.Tensor], variant: int, pixel_loss: PixelLoss
    ) -> torch.Tensor:
        """The head's loss for a batch of `variant`."""
        sample = Sample(**batch)
        head = self.variants[variant].head
        return head.loss(head.run(network, head.network_input(sample), head.training_stage), sample, pixel_loss)

    @property
    def options(self) -> dict[str, Any]:
        """The damage, by the name of the option."""
        return asdict(self.damage)

    def score(self, network: Architecture | None, picture: np.ndarray, number: int) -> dict[str, float]:
        """Score of each case in dB, at most `SCORE_CAP`, with the same damage for the same number.

        Of the picture's centre; of tasks that take in a whole scene, of all of it, shrunk. A pair (H,W,6) is a case of
        its own. Without a network: the score of the corrupted pictures as they are.
        """
        if picture.shape[-1] > 3:
            pair, case = _centre(picture, VALIDATED), self.task.cases(self.damage)[0]
            damaged = Corrupted(pair[..., 3:])
            return {"pairs": min(case.value(self._restore(network, case, damaged), pair[..., :3], damaged), SCORE_CAP)}
        scores = {}
        for place, case in enumerate(self.task.cases(self.damage)):
            damaged, restored, clean = self._restored(network, case, picture, (place, number))
            value = case.value(restored, clean, damaged)
            scores[case.label] = SCORE_CAP if value > SCORE_CAP else value  # NaN stays
        return scores

    def preview(self, network: Architecture, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corrupted, restored and clean centre of a picture, or of the clean one of a pair, in the hardest case."""
        picture = picture[..., :3]
        damaged, restored, clean = self._restored(network, self.task.cases(self.damage)[-1], picture, (0, 0))
        return np.broadcast_to(damaged.image, (*damaged.image.shape[:2], 3)), restored, clean

    def _restored(
        self, network: Architecture | None, case: Case, picture: np.ndarray, seed: tuple[int, int]
    ) -> tuple[Corrupted, np.ndarray, np.ndarray]:
        pair = case.pair
        rng = np.random.default_rng(seed)
        picture = _centre(picture, VALIDATED) if pair.coverage is None else _shrunk(picture, VALIDATED)
        params = pair.corruption.sample(picture.shape, rng)
        damaged = pair.corruption.apply(picture, params)
        return damaged, self._restore(network, case, damaged), pair.corruption.target(picture, params)

    def _restore(self, network: Architecture | None, case: Case, damaged: Corrupted) -> np.ndarray:
        """A corrupted picture restored; without a network as it is, at the size of the clean one."""
        if network is None:
            return identity(case.pair.head, np.broadcast_to(damaged.image, (*damaged.image.shape[:2], 3)))
        given = damaged.mask if damaged.hints is None else damaged.hints
        mask = given if case.given else None
        return restore_whole(network, case.pair.head, damaged.image, self.task.spec.options(), mask)


def _cut(damaged: Corrupted, target: np.ndarray, side: int, rng: np.random.Generator) -> tuple[Corrupted, np.ndarray]:
    top, left = (int(rng.integers(length - side + 1)) for length in target.shape[:2])
    square = slice(top, top + side), slice(left, left + side)
    maps = (values if values is None else values[square] for values in (damaged.mask, damaged.opacity, damaged.colour))
    return Corrupted(damaged.image[square], *maps), target[square]


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return picture[top : top + side, left : left + side]
