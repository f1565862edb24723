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
from restore.evaluation.protocols import leading, measure, protocol
from restore.evaluation.trials import COVERED, Entry, Method, Prediction, Trial, trials
from restore.images import read_image
from restore.metrics import psnr
from restore.pixels import to_dtype, to_float
from restore.tasks import TASKS
from restore.tasks.base import Analysis, Case, Head, TrainingPair, load_task


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
    """Takes a quarter of what it sees for a mark, unless it is told better; paints that gray."""

    colours = True

    def analyse(self, image: np.ndarray, options: Any, look: Any, mask: np.ndarray | None = None) -> Analysis:
        found = np.zeros(image.shape[:2], bool)
        found[: len(image) // 4] = True
        return Analysis(found if mask is None else mask)

    def finish(self, output: Any, pixels: np.ndarray, context: Any, window: Any) -> np.ndarray:
        return np.full_like(pixels, 0.5)


def stamped(clean: np.ndarray, **case: bool) -> Trial:
    stamp = Stamp()
    kind = Case("stamped", TrainingPair(stamp, StampHead()), psnr, **case)
    return Trial(kind, clean, stamp.apply(clean, None), None)


@pytest.fixture
def clean(clean_folder: Path) -> np.ndarray:
    return read_image(clean_folder / "cat.png").pixels


def test_measures_follow_what_the_damage_carries(clean: np.ndarray, clean_folder: Path) -> None:
    trial = stamped(clean)

    def perfect(given: Trial) -> Prediction:
        return Prediction(clean, np.arange(72)[:, None].repeat(72, axis=1) < 18)

    def shy(given: Trial) -> Prediction:  # mends, and darkens one pixel that was whole
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


def test_gain_is_measured_where_a_mark_shows(clean: np.ndarray) -> None:
    """A mark too faint to see is none, and the mask of a file stands in where there is no opacity."""
    trial = stamped(clean)
    opacity = trial.damage.opacity
    assert opacity is not None
    opacity[18:36] = COVERED / 2
    mended = trial.damage.image.copy()
    mended[:18] = clean[:18]
    method = Method("x", "baseline", "", lambda given: Prediction(mended))
    assert measure(trial, method, Prediction(mended))["gain"] == math.inf
    from_file = replace(trial, damage=replace(trial.damage, opacity=None, colour=None))
    assert measure(from_file, method, Prediction(mended))["gain"] == pytest.approx(10 * math.log10(2), abs=1.5)


def test_a_gray_picture_has_no_correlation(clean: np.ndarray) -> None:
    """Rounding leaves a trace of colour in CIELAB's ab of gray; it means nothing."""
    gray = Prediction(clean[..., :1])
    trial = stamped(clean)
    assert math.isnan(measure(trial, Method("gray", "input", "", lambda given: gray), gray)["ab_correlation"])


@pytest.mark.parametrize("inside", [True, False])
def test_what_the_task_goes_by_is_what_its_case_says(inside: bool, clean: np.ndarray) -> None:
    trial = stamped(clean, inside=inside)
    answer = Prediction(trial.damage.image)
    scores = measure(trial, Method("x", "input", "", lambda given: answer), answer)
    assert scores[leading(trial)] == trial.case.value(trial.damage.image, clean, trial.damage)
    assert scores["psnr_inside"] == pytest.approx(scores["psnr"] - 10 * math.log10(2))
    assert ("goes by PSNR inside the mask" in protocol(trial)) == inside


def test_a_model_says_what_it_found_and_is_told_what_the_case_gives(clean: np.ndarray, denoiser: Path) -> None:
    """IoU is that of the mask it restored by; where the mask is given there is nothing to find."""
    model = Model(denoiser, load_task("denoise"), torch.device("cpu"), torch.float32)
    (method,) = (one for one in all_methods([model], []) if one.kind == "model")
    blind = stamped(clean)
    answer = method.restore(blind)
    assert np.array_equal((answer.pixels != blind.damage.image).any(axis=(1, 2)), np.arange(72) < 18)
    scores = measure(blind, method, answer)
    assert scores["mask_iou"] == 0.5
    assert scores["identical"] == 0
    given = replace(blind, case=replace(blind.case, label="given", given=True))
    answer = method.restore(given)
    assert np.array_equal((answer.pixels != blind.damage.image).any(axis=(1, 2)), np.arange(72) < 36)
    assert not {"mask_iou", "identical", "harm"} & set(measure(given, method, answer))
    assert "the true mask given" in protocol(given)
