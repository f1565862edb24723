"""Geometric augmentation for training, and an adapter from `Corruption` to albumentations."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np

# Without this, importing albumentations queries the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from restore.corruptions.base import Corruption


def symmetries() -> A.D4:
    """Returns a transform that applies one of the eight symmetries of the square, each equally likely."""
    return A.D4(p=1.0)


def mirror() -> A.HorizontalFlip:
    """Returns a horizontal flip with probability 0.5, for tasks in which up and down are not interchangeable."""
    return A.HorizontalFlip(p=0.5)


def augment(transform: A.BasicTransform, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies an albumentations transform to (H,W,C), uint8 or float32; all its randomness comes from `rng`."""
    transform.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return np.ascontiguousarray(transform(image=image)["image"])


def as_albumentations(operator: Corruption[Any], p: float = 1.0) -> A.ImageOnlyTransform:
    """Wraps a corruption as an albumentations transform of images (H,W,C), applied with probability `p`.

    Randomness comes from the pipeline, so `A.Compose([...], seed=0)` is reproducible. Mask, opacity and colour of the
    damage are discarded.
    """
    return _OperatorTransform(operator, p=p)


class _OperatorTransform(A.ImageOnlyTransform):  # type: ignore[misc]
    def __init__(self, operator: Corruption[Any], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.operator = operator

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"sampled": self.operator.sample(tuple(params["shape"]), self.random_generator)}

    def apply(self, img: np.ndarray, sampled: Any, **params: Any) -> np.ndarray:
        return self.operator.apply(img, sampled).image

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ("operator",)
