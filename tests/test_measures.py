"""What is scored follows from what the damage carries."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore.corruptions.base import Corrupted
from restore.evaluation.evaluate import Model, all_methods
from restore.evaluation.protocols import measure, primary_measure, protocol
from restore.evaluation.trials import MIN_OPACITY, Entry, Method, Prediction, Trial, trials
from restore.images import read_image
from restore.metrics import psnr
from restore.pixels import to_dtype, to_float
from restore.tasks import TASKS
from restore.tasks.base import Analysis, Case, Head, Picture, TrainingPair, load_task


@dataclass(frozen=True)
class Stamp:
    """A toy damage with everything a damage can carry: a gray mark in the upper half, half of it opaque."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        return None

    def apply(self, image: np.ndarray, params: None) -> Corrupted:
        opacity = np.zeros(image.shape[:2], np.float32)
        opacity[: len(image) // 2] = 0.5
        marked = to_float(image) * (1 - opacity[..., None]) + 0.5 * opacity[..., None]
        return Corrupted(to_dtype(marked, image.dtype), mask=opacity > 0, opacity=opacity)

    def target(self, image: np.ndarray, params: None) -> np.ndarray:
        return image


class StampHead(Head):
    """Detects a mark in the top quarter, unless a mask is given; makes its pixels gray."""

    colours = masked = True

    def analyse(self, picture: Picture, options: Any, predict: Any, mask: np.ndarray | None = None) -> Analysis:
        detected = np.zeros(picture.size, bool)
        detected[: len(detected) // 4] = True
        return Analysis(detected if mask is None else mask)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: Any) -> torch.Tensor:
        return torch.full_like(planes, 0.5)


def stamped(clean: np.ndarray, **case: bool) -> Trial:
    stamp = Stamp()
    kind = Case("stamped", TrainingPair(stamp, StampHead()), psnr, **case)
    return Trial(kind, clean, stamp.apply(clean, None), None)


@pytest.fixture
def clean(clean_folder: Path) -> np.ndarray:
    return read_image(clean_folder / "cat.png").pixels


def test_measures_depend_on_the_damage(clean: np.ndarray, clean_folder: Path) -> None:
    trial = stamped(clean)

    def perfect(given: Trial) -> Prediction:
        return Prediction(clean, np.arange(72)[:, None].repeat(72, axis=1) < 18)

    def shy(given: Trial) -> Prediction:  # restores the mark, and changes one pixel outside
        restored = clean.copy()
        restored[-1, -1] = 0
        return Prediction(restored)

    scores = measure(trial, Method("perfect", "model", "", perfect), perfect(trial))
    assert scores["psnr"] == scores["psnr_inside"] == scores["gain"] == math.inf
    assert scores["changed_outside"] == 0
    assert scores["mask_iou"] == pytest.approx(0.5)
    assert scores["ab_correlation"] == pytest.approx(1)
    assert scores["colorfulness"] == scores["true_colours"] > 5
    assert scores["identical"] == 100
    assert math.isnan(scores["harm"])
    scores = measure(trial, Method("shy", "model", "", shy), shy(trial))
    assert scores["changed_outside"] == pytest.approx(100 / (36 * 72))
    assert scores["psnr_inside"] == math.inf
    assert scores["identical"] == 0
    assert 30 < scores["harm"] < math.inf
    assert math.isnan(scores["mask_iou"])
    scores = measure(trial, Method("none", "input", "", shy), Prediction(trial.damage.image))
    assert scores["gain"] == 0
    assert all(math.isnan(scores[key]) for key in ("harm", "identical", "mask_iou"))
    # and a plain damage has none of these
    task, damage = load_task("denoise"), TASKS["denoise"].trial_options()
    plain = next(iter(trials(Entry("x", clean_folder / "cat.png"), task, damage, 0)))
    assert set(measure(plain, Method("x", "input", "", perfect), perfect(plain))) == {"psnr", "ssim", "ciede2000"}


def test_gain_of_visible_marks(clean: np.ndarray) -> None:
    """Marks of low opacity do not count; without an opacity the mask does."""
    trial = stamped(clean)
    opacity = trial.damage.opacity
    assert opacity is not None
    opacity[18:36] = MIN_OPACITY / 2
    restored = trial.damage.image.copy()
    restored[:18] = clean[:18]
    method = Method("x", "baseline", "", lambda given: Prediction(restored))
    assert measure(trial, method, Prediction(restored))["gain"] == math.inf
    from_file = replace(trial, damage=replace(trial.damage, opacity=None, colour=None))
    assert measure(from_file, method, Prediction(restored))["gain"] == pytest.approx(10 * math.log10(2), abs=1.5)


def test_gray_pictures_have_no_correlation(clean: np.ndarray) -> None:
    """Rounding leaves a small standard deviation of ab in gray pictures."""
    gray = Prediction(clean[..., :1])
    trial = stamped(clean)
    assert math.isnan(measure(trial, Method("gray", "input", "", lambda given: gray), gray)["ab_correlation"])


@pytest.mark.parametrize("inside", [True, False])
def test_primary_measure_equals_the_score_of_the_case(inside: bool, clean: np.ndarray) -> None:
    trial = stamped(clean, inside=inside)
    prediction = Prediction(trial.damage.image)
    scores = measure(trial, Method("x", "input", "", lambda given: prediction), prediction)
    assert scores[primary_measure(trial)] == trial.case.value(trial.damage.image, clean, trial.damage)
    assert scores["psnr_inside"] == pytest.approx(scores["psnr"] - 10 * math.log10(2))
    assert ("ranked by PSNR inside the mask" in protocol(trial)) == inside


def test_detected_and_given_masks(clean: np.ndarray, denoiser: Path) -> None:
    """IoU is that of the detected mask; it is not measured where the mask is given."""
    model = Model(denoiser, load_task("denoise"), torch.device("cpu"), torch.float32)
    (method,) = (one for one in all_methods([model], []) if one.kind == "model")
    blind = stamped(clean)
    prediction = method.restore(blind)
    assert np.array_equal((prediction.pixels != blind.damage.image).any(axis=(1, 2)), np.arange(72) < 18)
    scores = measure(blind, method, prediction)
    assert scores["mask_iou"] == 0.5
    assert scores["identical"] == 0
    given = replace(blind, case=replace(blind.case, label="given", given=True))
    prediction = method.restore(given)
    assert np.array_equal((prediction.pixels != blind.damage.image).any(axis=(1, 2)), np.arange(72) < 36)
    assert not {"mask_iou", "identical", "harm"} & set(measure(given, method, prediction))
    assert "the true mask given" in protocol(given)
