"""How results are scored, and the words that say so beside every figure.

Which measures a trial gets depends on what its damage carries: a mask, an opacity, or a head that
gives colours; no task is named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from restore.corruptions.base import Corrupted
from restore.evaluation.trials import Contender, Trial
from restore.metrics import ciede2000, colorfulness, mask_iou, masked_psnr, psnr, ssim
from restore.pixels import to_dtype, to_float

COVERED = 0.02  # opacity above which a pixel counts as lying under a mark


@dataclass(frozen=True)
class Result:
    """What a contender made of a trial. restored: as it came. seen, clean: 8-bit (H,W,3), as they are scored."""

    trial: Trial
    contender: Contender
    restored: np.ndarray
    seen: np.ndarray
    clean: np.ndarray


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


def measure(trial: Trial, contender: Contender, restored: np.ndarray) -> dict[str, float]:
    """The scores of a restored picture (H,W,C), by the keys of `MEASURES`.

    Raises UsageError if its shape is not that of the clean picture.
    """
    result = Result(trial, contender, restored, eight_bit(restored), eight_bit(trial.clean))
    return {known.key: known.value(result) for known in MEASURES if known.applies is None or known.applies(trial)}


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
    return f"PSNR and SSIM on {channel}, CIEDE2000 on RGB, all clipped and rounded to 8 bits; {border}; {given}"


def _settings(trial: Trial) -> dict[str, Any]:
    """Channel and border that the task's own score is bound to (see `metrics.psnr`)."""
    found: dict[str, Any] = getattr(trial.case.score, "keywords", {})
    return found


def _changed_outside(result: Result) -> float:
    mask = result.trial.damage.mask
    if mask is None or result.restored.shape != result.trial.damage.image.shape or mask.all():
        return math.nan
    changed = (result.restored != result.trial.damage.image).any(axis=-1)
    return 100.0 * float(changed[~mask].mean())


def _found_mask(result: Result) -> float:
    """IoU of the mask that the head found by itself: a context that has found one carries it as `mask` (H,W)."""
    trial = result.trial
    if result.contender.kind != "model" or trial.damage.mask is None:
        return math.nan
    image = trial.damage.image
    context = trial.head.analyse(np.broadcast_to(image, (*image.shape[:2], 3)), trial.options)
    found = getattr(context, "mask", None)
    return math.nan if found is None else mask_iou(np.asarray(found, bool), trial.damage.mask)


def _gain_under_mark(result: Result) -> float:
    opacity = result.trial.damage.opacity
    if opacity is None:
        return math.nan
    under = opacity > COVERED
    before = masked_psnr(eight_bit(result.trial.damage.image), result.clean, under)
    return masked_psnr(result.seen, result.clean, under) - before


def _harm(result: Result) -> float:
    """What the model does to the picture when nothing is wrong with it."""
    if result.contender.kind != "model":
        return math.nan
    clean = result.trial.clean
    again = result.contender.restore(replace(result.trial, damage=Corrupted(clean)))
    return psnr(eight_bit(again), result.clean)


def _ab_correlation(result: Result) -> float:
    """Pearson's correlation of CIELAB a and b, taken together, of the restored and the clean picture."""
    from skimage.color import rgb2lab

    first, second = (rgb2lab(to_float(x))[..., 1:] for x in (result.seen, result.clean))
    first, second = first - first.mean((0, 1)), second - second.mean((0, 1))
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return math.nan if size < 1e-6 else float((first * second).sum()) / size


def _has_mask(trial: Trial) -> bool:
    return trial.damage.mask is not None


def _has_opacity(trial: Trial) -> bool:
    return trial.damage.opacity is not None


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
    Measure("mask_iou", "IoU", ".3f", "of the mask found and the true one", _found_mask, _has_mask),
    Measure("gain_under_mark", "gain", "+.2f", f"dB where opacity > {COVERED}", _gain_under_mark, _has_opacity),
    Measure("harm", "harmless", ".2f", "PSNR of a restored clean picture, dB", _harm, _has_opacity),
    Measure(
        "colorfulness", "colours", ".1f", "Hasler and Suesstrunk 2003", lambda r: colorfulness(r.seen), _has_colours
    ),
    Measure("ab_correlation", "ab corr.", ".3f", "of CIELAB ab, a picture", _ab_correlation, _has_colours),
)
