"""Measures and the description of the protocol that is printed with every table.

The measures of a trial depend on the ground truth of its damage (mask, opacity) and on its head, not on task names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from restore.corruptions.base import Corrupted
from restore.evaluation.trials import MIN_OPACITY, Method, Prediction, Trial
from restore.metrics import (
    chroma_share,
    ciede2000,
    colorfulness,
    hue_hits,
    mask_iou,
    masked_psnr,
    psnr,
    rgb_to_ab,
    ssim,
)
from restore.pixels import to_rgb, to_uint8

MIN_CHROMA_DEVIATION = 0.05  # standard deviation of CIELAB ab, more than rounding causes in a gray picture


@dataclass(frozen=True)
class Result:
    """The result of a method for a trial; `restored` and `clean` 8-bit (H,W,3), as they are scored."""

    trial: Trial
    method: Method
    prediction: Prediction
    restored: np.ndarray
    clean: np.ndarray

    @cached_property
    def restored_clean(self) -> np.ndarray:
        """The unmodified result of the method for the clean picture."""
        return self.method.restore(replace(self.trial, damage=Corrupted(self.trial.clean))).pixels


@dataclass(frozen=True)
class Measure:
    """A measure of results."""

    key: str  # in JSON and CSV
    title: str  # in tables
    form: str  # format specification of its values
    about: str  # description for the notes below a table
    value: Callable[[Result], float]  # computes it; NaN where it is undefined
    applies: Callable[[Trial], bool] | None = None  # whether a trial has it; None: all trials have it


def measure(trial: Trial, method: Method, prediction: Prediction) -> dict[str, float]:
    """Computes all measures that apply to a trial, by the keys of `MEASURES`.

    Raises:
        UsageError: the shape of the result is not that of the clean picture.
    """
    result = Result(trial, method, prediction, eight_bit(prediction.pixels), eight_bit(trial.clean))
    return {known.key: known.value(result) for known in MEASURES if known.applies is None or known.applies(trial)}


def primary_measure(trial: Trial) -> str:
    """The key of the measure that ranks methods, equal to `Case.value`."""
    return "psnr_inside" if trial.case.inside and _has_mask(trial) else "psnr"


def eight_bit(image: np.ndarray) -> np.ndarray:
    """Converts (H,W,1 or 3) of any dtype to (H,W,3) uint8, clipped and rounded to nearest."""
    return to_rgb(to_uint8(image))


def protocol(trial: Trial) -> str:
    """Describes channel, rounding, border and noise clipping in one line."""
    settings = _settings(trial)
    channel = "BT.601 luma" if settings.get("luma") else "RGB"
    border = f"{settings['border']} border pixels cut" if settings.get("border") else "no border cut"
    image = trial.damage.image
    if trial.params is None:
        given = "corrupted pictures as in their files"
    elif image.dtype.kind == "f" and trial.clean.dtype.kind != "f":
        given = "corrupted pictures unclipped float"
    else:
        given = f"corrupted pictures clipped and rounded to {image.dtype}"
    primary = "ranked by PSNR inside the mask; " if primary_measure(trial) == "psnr_inside" else ""
    kind = "true mask" if trial.damage.hints is None else "hints"
    mask = "" if trial.given_mask is None else f"; the {kind} given to the model"
    scores = f"PSNR and SSIM on {channel}, CIEDE2000 on RGB, all clipped and rounded to 8 bits"
    return f"{primary}{scores}; {border}; {given}{mask}"


def _settings(trial: Trial) -> dict[str, Any]:
    """The arguments of `metrics.psnr` (luma, border) that are bound in the score of the case."""
    return getattr(trial.case.score, "keywords", {})


def _changed_outside(result: Result) -> float:
    mask, restored, damaged = result.trial.damage.mask, result.prediction.pixels, result.trial.damage.image
    if mask is None or restored.shape != damaged.shape or mask.all():
        return math.nan
    return 100.0 * float((restored != damaged).any(axis=-1)[~mask].mean())


def _mask_iou(result: Result) -> float:
    detected, true = result.prediction.mask, result.trial.damage.mask
    return math.nan if detected is None or true is None else mask_iou(np.asarray(detected, bool), true)


def _gain(result: Result) -> float:
    mask = np.asarray(result.trial.visible_damage)
    after = masked_psnr(result.restored, result.clean, mask)
    return after - masked_psnr(eight_bit(result.trial.damage.image), result.clean, mask)


def _harm(result: Result) -> float:
    """NaN for pictures that stay identical, since their infinite PSNR would hide the others in the mean."""
    if result.method.kind != "model":
        return math.nan
    value = psnr(eight_bit(result.restored_clean), result.clean)
    return value if math.isfinite(value) else math.nan


def _identical(result: Result) -> float:
    if result.method.kind != "model":
        return math.nan
    return 100.0 * np.array_equal(result.restored_clean, result.trial.clean)


def _ab_correlation(result: Result) -> float:
    """Pearson's correlation of CIELAB ab of both pictures, both channels together; NaN if one has a single colour."""
    first, second = (rgb_to_ab(picture) for picture in (result.restored, result.clean))
    first, second = first - first.mean((0, 1)), second - second.mean((0, 1))
    deviations = [math.sqrt(float((ab**2).sum(axis=-1).mean())) for ab in (first, second)]
    if min(deviations) < MIN_CHROMA_DEVIATION:
        return math.nan
    return float((first * second).sum(axis=-1).mean()) / (deviations[0] * deviations[1])


def _has_mask(trial: Trial) -> bool:
    return trial.damage.mask is not None


def _blind(trial: Trial) -> bool:
    return _has_mask(trial) and not trial.case.given


def _has_colours(trial: Trial) -> bool:
    return trial.head.colours


MEASURES = (
    Measure("psnr", "PSNR", ".2f", "dB", lambda r: r.trial.case.score(r.restored, r.clean)),
    Measure(
        "ssim",
        "SSIM",
        ".4f",
        "11x11 Gaussian window, sigma 1.5 (Wang et al. 2004)",
        lambda r: ssim(r.restored, r.clean, **_settings(r.trial)),
    ),
    Measure("ciede2000", "CIEDE2000", ".2f", "mean; lower is better", lambda r: ciede2000(r.restored, r.clean)),
    Measure(
        "psnr_inside",
        "inside",
        ".2f",
        "PSNR inside the mask, dB",
        lambda r: masked_psnr(r.restored, r.clean, np.asarray(r.trial.damage.mask)),
        _has_mask,
    ),
    Measure("changed_outside", "outside", ".3f", "pixels changed outside the mask, %", _changed_outside, _has_mask),
    Measure("mask_iou", "IoU", ".3f", "of the detected and the true mask", _mask_iou, _blind),
    Measure(
        "gain",
        "gain",
        "+.2f",
        f"dB over the damaged picture inside the mask, or where the opacity is over {MIN_OPACITY}",
        _gain,
        _has_mask,
    ),
    Measure("identical", "kept", ".1f", "clean pictures left bit-identical, %", _identical, _blind),
    Measure("harm", "harm", ".2f", "PSNR of the other clean pictures after restoring, dB", _harm, _blind),
    Measure(
        "colorfulness", "colours", ".1f", "Hasler and Suesstrunk 2003", lambda r: colorfulness(r.restored), _has_colours
    ),
    Measure(
        "true_colours", "true", ".1f", "colours of the clean picture", lambda r: colorfulness(r.clean), _has_colours
    ),
    Measure(
        "hue_hits",
        "hue",
        ".3f",
        "share of pixels of chroma over 15 that have one over 10 and a hue within 30 degrees",
        lambda r: hue_hits(r.restored, r.clean),
        _has_colours,
    ),
    Measure(
        "chroma_share",
        "chroma",
        ".2f",
        "mean CIELAB chroma, of the clean picture's",
        lambda r: chroma_share(r.restored, r.clean),
        _has_colours,
    ),
    Measure("ab_correlation", "ab corr.", ".3f", "of CIELAB ab", _ab_correlation, _has_colours),
)
