"""How results are scored, and the words that say so beside every figure.

Which measures a trial gets depends on what its damage carries: a mask, an opacity, or a head that
gives colours; no task is named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from restore.corruptions.base import Corrupted
from restore.evaluation.trials import COVERED, Method, Prediction, Trial
from restore.metrics import chroma_share, ciede2000, colorfulness, hue_hits, mask_iou, masked_psnr, psnr, ssim
from restore.pixels import to_dtype, to_float

COLOURLESS = 0.05  # standard deviation of ab; what rounding leaves of a gray picture's is smaller


@dataclass(frozen=True)
class Result:
    """What a method made of a trial. answer: as it came. seen, clean: 8-bit (H,W,3), as they are scored."""

    trial: Trial
    method: Method
    answer: Prediction
    seen: np.ndarray
    clean: np.ndarray

    @cached_property
    def unprovoked(self) -> np.ndarray:
        """What the method does to the picture when nothing is wrong with it, as it comes."""
        return self.method.restore(replace(self.trial, damage=Corrupted(self.trial.clean))).pixels


@dataclass(frozen=True)
class Measure:
    """A number for a result. form: how it is printed. value: NaN where undefined.

    applies: to which trials, or None for all.
    """

    key: str
    title: str
    form: str
    about: str
    value: Callable[[Result], float]
    applies: Callable[[Trial], bool] | None = None


def measure(trial: Trial, method: Method, answer: Prediction) -> dict[str, float]:
    """The scores of a method's answer, by the keys of `MEASURES`.

    Raises UsageError if the shape of its pixels is not that of the clean picture.
    """
    result = Result(trial, method, answer, eight_bit(answer.pixels), eight_bit(trial.clean))
    return {known.key: known.value(result) for known in MEASURES if known.applies is None or known.applies(trial)}


def leading(trial: Trial) -> str:
    """The key of the measure that the task goes by, which is what `Case.value` gives."""
    return "psnr_inside" if trial.case.inside and _has_mask(trial) else "psnr"


def eight_bit(image: np.ndarray) -> np.ndarray:
    """(H,W,1 or 3), any dtype -> (H,W,3) uint8, clipped and rounded to nearest, as a file holds it."""
    pixels = to_dtype(to_float(image), np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def protocol(trial: Trial) -> str:
    """Channel, rounding, border and noise clipping, in one line."""
    how = _settings(trial)
    channel = "BT.601 luma" if how.get("luma") else "RGB"
    border = f"{how['border']} border pixels cut" if how.get("border") else "no border cut"
    image = trial.damage.image
    if trial.params is None:
        given = "corrupted pictures as in their files"
    elif image.dtype.kind == "f" and trial.clean.dtype.kind != "f":
        given = "corrupted pictures unclipped float"
    else:
        given = f"corrupted pictures clipped and rounded to {image.dtype}"
    goal = "goes by PSNR inside the mask; " if leading(trial) == "psnr_inside" else ""
    given_hints = trial.damage.hints is not None
    told = "" if trial.told is None else f"; the {'hints' if given_hints else 'true mask'} given to the model"
    how_scored = f"PSNR and SSIM on {channel}, CIEDE2000 on RGB, all clipped and rounded to 8 bits"
    return f"{goal}{how_scored}; {border}; {given}{told}"


def _settings(trial: Trial) -> dict[str, Any]:
    """Channel and border that the task's own score is bound to (see `metrics.psnr`)."""
    found: dict[str, Any] = getattr(trial.case.score, "keywords", {})
    return found


def _changed_outside(result: Result) -> float:
    mask, restored, damaged = result.trial.damage.mask, result.answer.pixels, result.trial.damage.image
    if mask is None or restored.shape != damaged.shape or mask.all():
        return math.nan
    return 100.0 * float((restored != damaged).any(axis=-1)[~mask].mean())


def _found_mask(result: Result) -> float:
    found, true = result.answer.mask, result.trial.damage.mask
    return math.nan if found is None or true is None else mask_iou(np.asarray(found, bool), true)


def _gain(result: Result) -> float:
    covered = np.asarray(result.trial.covered)
    after = masked_psnr(result.seen, result.clean, covered)
    return after - masked_psnr(eight_bit(result.trial.damage.image), result.clean, covered)


def _harm(result: Result) -> float:
    """NaN where there was none: a mean of infinities would say nothing of the pictures that were harmed."""
    if result.method.kind != "model":
        return math.nan
    harmed = psnr(eight_bit(result.unprovoked), result.clean)
    return harmed if math.isfinite(harmed) else math.nan


def _identical(result: Result) -> float:
    if result.method.kind != "model":
        return math.nan
    return 100.0 * np.array_equal(result.unprovoked, result.trial.clean)


def _ab_correlation(result: Result) -> float:
    """Pearson's correlation of CIELAB a and b, taken together, of two pictures; NaN if one has but one colour."""
    from skimage.color import rgb2lab

    first, second = (rgb2lab(to_float(x))[..., 1:] for x in (result.seen, result.clean))
    first, second = first - first.mean((0, 1)), second - second.mean((0, 1))
    spreads = [math.sqrt(float((ab**2).sum(axis=-1).mean())) for ab in (first, second)]
    if min(spreads) < COLOURLESS:
        return math.nan
    return float((first * second).sum(axis=-1).mean()) / (spreads[0] * spreads[1])


def _has_mask(trial: Trial) -> bool:
    return trial.damage.mask is not None


def _blind(trial: Trial) -> bool:
    return _has_mask(trial) and not trial.case.given


def _has_colours(trial: Trial) -> bool:
    return trial.head.colours


MEASURES = (
    Measure("psnr", "PSNR", ".2f", "dB", lambda r: r.trial.case.score(r.seen, r.clean)),
    Measure(
        "ssim",
        "SSIM",
        ".4f",
        "11x11 Gaussian window, sigma 1.5 (Wang et al. 2004)",
        lambda r: ssim(r.seen, r.clean, **_settings(r.trial)),
    ),
    Measure("ciede2000", "CIEDE2000", ".2f", "mean; lower is better", lambda r: ciede2000(r.seen, r.clean)),
    Measure(
        "psnr_inside",
        "inside",
        ".2f",
        "PSNR inside the mask, dB",
        lambda r: masked_psnr(r.seen, r.clean, np.asarray(r.trial.damage.mask)),
        _has_mask,
    ),
    Measure("changed_outside", "outside", ".3f", "pixels changed outside the mask, %", _changed_outside, _has_mask),
    Measure("mask_iou", "IoU", ".3f", "of the mask found and the true one", _found_mask, _blind),
    Measure(
        "gain",
        "gain",
        "+.2f",
        f"dB over the damaged picture where the mask, or an opacity over {COVERED}, is",
        _gain,
        _has_mask,
    ),
    Measure("identical", "kept", ".1f", "clean pictures left bit-identical, %", _identical, _blind),
    Measure("harm", "harm", ".2f", "PSNR of the other clean pictures, restored, dB", _harm, _blind),
    Measure(
        "colorfulness", "colours", ".1f", "Hasler and Suesstrunk 2003", lambda r: colorfulness(r.seen), _has_colours
    ),
    Measure(
        "true_colours", "true", ".1f", "colours of the clean picture", lambda r: colorfulness(r.clean), _has_colours
    ),
    Measure(
        "hue_hits",
        "hue",
        ".3f",
        "share of pixels of chroma over 15 that have one over 10 and a hue within 30 degrees",
        lambda r: hue_hits(r.seen, r.clean),
        _has_colours,
    ),
    Measure(
        "chroma_share",
        "chroma",
        ".2f",
        "mean CIELAB chroma, of the clean picture's",
        lambda r: chroma_share(r.seen, r.clean),
        _has_colours,
    ),
    Measure("ab_correlation", "ab corr.", ".3f", "of CIELAB ab, a picture", _ab_correlation, _has_colours),
)
