"""Training's geometric augmentation, and our operators inside albumentations pipelines."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

# Without this, importing albumentations asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from restore.corruptions.base import Corruption


def symmetries() -> A.D4:
    """The eight symmetries of the square, each equally likely."""
    return A.D4(p=1.0)


def mirror() -> A.HorizontalFlip:
    """Left and right exchanged, half of the time: the sky stays above."""
    return A.HorizontalFlip(p=0.5)


def augment(transform: A.BasicTransform, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`transform` applied to (H,W,C), with all its chance drawn from `rng` alone."""
    transform.set_random_state(rng, _python_random(rng))
    return np.ascontiguousarray(transform(image=image)["image"])


def as_albumentations(operator: Corruption[Any], p: float = 1.0) -> A.ImageOnlyTransform:
    """One of our operators as an albumentations transform, for a pipeline of your own.

    Images are (H,W,C); the mask, opacity and colour maps of the damage are not passed on. Chance
    comes from the pipeline, so `A.Compose([...], seed=0)` replays it.
    """
    return _OperatorTransform(operator, p=p)


class _OperatorTransform(A.ImageOnlyTransform):  # type: ignore[misc]
    def __init__(self, operator: Corruption[Any], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.operator = operator

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"drawn": self.operator.sample(tuple(params["shape"]), self.random_generator)}

    def apply(self, img: np.ndarray, drawn: Any, **params: Any) -> np.ndarray:
        return self.operator.apply(img, drawn).image

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ("operator",)


def _python_random(rng: np.random.Generator) -> Any:
    import random

    return random.Random(int(rng.integers(2**63)))
