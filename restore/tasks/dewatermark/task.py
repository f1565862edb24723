"""dewatermark: semi-transparent marks, and the head that detects and removes them.

The mask is detected in the whole image in two passes: opacity and colour of the mark are estimated from the result of
the first, and are an input of the second. Copies of a repeated mark are reconciled with each other. Inside of the mask
the blend is inverted, and the network corrects the remaining error; in plain areas outlines that are left are
interpolated, ringing beside them is reduced, and the rest is matched to what is around. Pixels outside of the mask stay
bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.corruptions.drawing.logos import Logo, make_logo
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.errors import UsageError
from restore.images import find_images, read_image
from restore.models.masking import FIND, TRAIN, MaskedAutoencoderConfig
from restore.pixels import to_float
from restore.tasks.base import Analysis, Case, Head, Picture, Predictor, Sample, Task, TrainingPair, Window
from restore.tasks.dewatermark import outlines, plain_areas
from restore.tasks.dewatermark.alpha import OPACITY_RANGE, OVERSHOOT, Blend, estimate_alpha, estimate_parts
from restore.tasks.dewatermark.confidence import (
    AGGRESSIVE_LOG_ODDS,
    CONFIDENT_LOG_ODDS,
    Evidence,
    contrast_across,
    watermark_confidence,
)
from restore.tasks.dewatermark.repetition import reconcile_copies
from restore.tasks.losses import PixelLoss
from restore.tasks.mask_detection import (
    LOWEST,
    UNCERTAIN,
    HysteresisThreshold,
    detect_logits,
    dilate,
    mask_from_logits,
    mask_loss,
    masked_mean,
    probability,
)
from restore.tasks.spec import TASKS, MaskOptions, WatermarkOptions, WatermarkTraining

SHORT_SIDES = (256, 640)  # pixels, of the images that training patches stand for: sizes of marks follow from it
FIRST_PASS = HysteresisThreshold(low=-1.0, high=4.5, min_pixels=40, min_share=5e-4)
SECOND_PASS = HysteresisThreshold(low=-1.0, high=2.0, min_share=5e-4)
# Logits from which on pixels are used to estimate the opacity, strictest first: soft edges would make it too low.
INSIDE_LOGITS = (2.0, 1.0, 0.0)
EDGE = 1  # pixels by which the detected mask is dilated, for soft edges
# A given mask counts as wider than the marks if at most this share of it is detected as such, and their blend is this
# many times as strong as that along the border of all of it.
LOOSE, CLEARER = 0.8, 1.1
LEAST_LEFT = 0.01  # share of a given mask that is left unchanged, from which on it is said
CONTEXT = 128  # pixels around a given mask that are looked at
# Probabilities of dilating the training mask by 0, 1, 2 and 3 pixels.
DILATION_SHARES = (0.25, 0.4, 0.25, 0.1)
EPSILON = 1e-6  # contrast, against a division by 0
# Bias of the estimated opacity in training, and standard deviations of the estimated opacity and colour.
OPACITY_BIAS, OPACITY_ERROR, COLOUR_ERROR = 0.05, 0.12, 0.04


@dataclass(frozen=True)
class Marks(Analysis):
    """Marks inside of the mask.

    Args:
        blends: opacity and colour of most of the marks, and then of parts of another colour; empty if unknown.
        labels: (H,W) uint8 on the computing device: n where the nth blend applies, 0 outside of the mask.
    """

    blends: tuple[Blend, ...] = ()
    labels: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def at(cls, labels: np.ndarray, blends: Sequence[Blend], device: torch.device) -> Marks:
        """Marks at `labels` (H,W) uint8, not all 0, with opacities that have the bias of those of training."""
        biased = tuple(
            replace(blend, opacity=max(OPACITY_RANGE[0], 1 - (1 - blend.opacity) * math.exp(OPACITY_BIAS)))
            for blend in blends
        )
        return cls(labels > 0, blends=biased, labels=torch.from_numpy(labels).to(device))


@dataclass(frozen=True)
class Detection:
    """What was detected.

    Args:
        mask: (H,W) bool, not empty.
        logits: (H,W) int8, quantised, that it follows from.
        blend: of most of it.
        evidence: that it is a watermark.
    """

    mask: np.ndarray
    logits: np.ndarray
    blend: Blend
    evidence: Evidence


class DewatermarkHead(Head[MaskOptions, Marks]):
    """Detects the marks, unless their mask is given, and restores the pixels inside."""

    masked = True
    # With `reduce_ringing` in between it would be 28 pixels more, but these count little: in 191 places of the test
    # sets what is 28 pixels away changes no result by more than a thousandth of a level.
    reach = outlines.REACH + plain_areas.REACH
    turns = (0, 2)  # errors along the rim of a mark differ from view to view, and average out
    training_stage = TRAIN

    def analyse(
        self, picture: Picture, options: MaskOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Marks:
        if mask is not None:
            blend = estimate_alpha(picture.rgb, mask)
            within = _marks_within(picture, mask, blend, predict)
            if within is None:
                return _marks(picture, mask, blend, options.grow)
            marks = _marks(picture, *within, options.grow + EDGE, limit=dilate(mask, options.grow))
            assert marks.mask is not None
            left = np.count_nonzero(mask & ~marks.mask) / np.count_nonzero(mask)
            note = f"the mask is wider than what was found in it: {100 * left:.0f} % of it is left unchanged"
            return replace(marks, note=note if left >= LEAST_LEFT else "")
        nothing = Marks(np.zeros(picture.size, bool))
        detected = detect_marks(picture, predict, self)
        if detected is None or (log_odds := detected.evidence.log_odds) < AGGRESSIVE_LOG_ODDS:
            return nothing
        if log_odds < CONFIDENT_LOG_ODDS and not options.aggressive:
            return replace(nothing, note=UNCERTAIN, confidence=probability(log_odds))
        found = reconcile_copies(picture.rgb, detected.mask, detected.logits, detected.blend, picture.device)
        marks = _marks(picture, found, detected.blend, options.grow + EDGE)
        return replace(marks, confidence=probability(log_odds))

    def context(self, analysis: Marks, window: Window) -> torch.Tensor | None:
        """The blend in a window: 5 channels.

        The opacity inside of the mask (0 outside; 1 if the blend is unknown); then, everywhere, opacity and opacity
        times colour (0 if the blend is unknown, so that inverting it changes nothing).
        """
        if analysis.labels is None:
            return None
        rows, columns = window.slices
        labels = analysis.labels[None, rows, columns]
        size, device = labels.shape[1:], labels.device
        planes = _blend_planes(analysis.blends[0] if analysis.blends else None, size, device)
        for number, blend in enumerate(analysis.blends[1:], 2):
            planes = torch.where(labels == number, _blend_planes(blend, size, device), planes)
        return torch.cat([(labels > 0) * (planes[:1] if analysis.blends else 1.0), planes])

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return torch.cat([planes, planes, torch.zeros_like(planes[:, :1])], dim=1)
        opacity, blend = context.split((1, 4), dim=1)
        return torch.cat([_invert(planes, blend), planes, opacity], dim=1)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return output
        mask = (context[:, :1] > 0).to(output)
        smooth = outlines.smooth_outlines(output, planes, mask)
        smooth = outlines.reduce_ringing(smooth, planes, mask)
        return plain_areas.match_plain_areas(smooth, planes, mask)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each branch the image with an estimated blend inverted, and the opacity: (h,w,8) float32.

        The estimate has errors as in use, and is sometimes missing; the mask may be dilated.
        """
        assert damaged.mask is not None
        pixels = to_float(damaged.image)
        estimate = _noisy_estimate(damaged, rng)
        known = estimate if rng.random() < 0.5 else None
        blend = estimate if rng.random() < 0.9 else None
        mask = dilate(damaged.mask, int(rng.choice(len(DILATION_SHARES), p=DILATION_SHARES)))
        opacity = np.full(mask.shape, 0.0 if known is None else known.opacity, np.float32)
        strength = mask * np.float32(1.0 if blend is None else blend.opacity)
        inverted = [pixels if one is None else one.invert(pixels) for one in (known, blend)]
        return np.concatenate([inverted[0], opacity[..., None], inverted[1], strength[..., None]], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        hints = sample.hints
        return torch.cat([sample.corrupted, hints[:, :7], sample.corrupted, hints[:, 7:]], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """Segmentation loss of the mask, plus the losses of opacity and restored pixels inside of it."""
        assert sample.hints is not None
        assert sample.mask is not None
        assert sample.opacity is not None
        logits, restored, opacity = prediction.split((1, 3, 1), dim=1)
        inside, known = (sample.hints[:, 7:] > 0).float(), (sample.hints[:, 7:] < 1).float()
        return (
            mask_loss(logits, sample.mask)
            + masked_mean(pixel_loss(restored, sample.clean), inside)
            + masked_mean((opacity - sample.opacity).abs(), inside * known)
        )


def _marks(
    picture: Picture, mask: np.ndarray, blend: Blend | None, grow: int, limit: np.ndarray | None = None
) -> Marks:
    """The marks of a mask (H,W) bool, not empty, that is dilated by `grow` pixels once their colours are known.

    limit: (H,W) bool, beyond which it is not dilated.
    """
    labels, blends = dilate(mask, grow).astype(np.uint8), tuple[Blend, ...]()
    if blend is not None:
        parts, others = estimate_parts(picture.rgb, mask, blend)
        for number in range(1, 1 + len(others)):
            labels[dilate(parts == number, grow)] = number + 1
        blends = (blend, *others)
    return Marks.at(labels if limit is None else labels * limit, blends, picture.device)


def _marks_within(
    picture: Picture, area: np.ndarray, blend: Blend | None, predict: Predictor
) -> tuple[np.ndarray, Blend] | None:
    """Detects marks within a given mask that is wider than they are, such as one that was painted over them loosely.

    Args:
        picture: with the marks.
        area: (H,W) bool, the given mask.
        blend: estimated by it; along a border that is not the mark's, what is estimated is weaker.
        predict: as in `Head.analyse`.

    Returns:
        Their mask (H,W) bool, and their blend; None where the given mask serves better.
    """
    window = _surroundings(area)
    seen, inside = Picture(picture.array[window], picture.pixels[window], picture.device), area[window]

    def detect(known: Blend | None, threshold: HysteresisThreshold) -> tuple[np.ndarray, Blend | None]:
        logits = np.where(inside, _find(seen, predict, known), np.int8(LOWEST))
        found = _estimated_blend(seen, logits, threshold)
        clear = found is not None and found.strength >= CLEARER * (0.0 if blend is None else blend.strength)
        return logits, found if clear else None

    _, first = detect(None, FIRST_PASS)
    if first is None:
        return None
    logits, second = detect(first, SECOND_PASS)
    mask = mask_from_logits(logits, SECOND_PASS)
    if second is None or np.count_nonzero(mask) > LOOSE * np.count_nonzero(inside):
        return None
    whole = np.zeros_like(area)
    whole[window] = reconcile_copies(seen.rgb, mask, logits, second, picture.device) & inside
    return whole, second


def _surroundings(area: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of a mask (H,W) bool, not empty, and `CONTEXT` more."""
    rows, columns = (np.flatnonzero(area.any(axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - CONTEXT), rows[-1] + 1 + CONTEXT),
        slice(max(0, columns[0] - CONTEXT), columns[-1] + 1 + CONTEXT),
    )


def detect_marks(picture: Picture, predict: Predictor, head: DewatermarkHead) -> Detection | None:
    """Detects marks in two passes; None if nothing was detected."""
    first = _find(picture, predict, None)
    blend = _estimated_blend(picture, first, FIRST_PASS)
    if blend is None:
        return None
    second = _find(picture, predict, blend)
    mask = mask_from_logits(second, SECOND_PASS)
    if not mask.any():
        return None
    blend = _estimated_blend(picture, second, SECOND_PASS) or blend
    evidence = watermark_confidence(
        first,
        mask_from_logits(first, FIRST_PASS),
        second,
        mask,
        blend.correlation,
        _contrast_removed(picture, mask, blend, predict, head),
    )
    return Detection(mask, second, blend, evidence)


def _find(picture: Picture, predict: Predictor, blend: Blend | None) -> np.ndarray:
    """The quantised logits (H,W) int8 of one pass, that is told the blend of the marks; None: unknown."""
    logits, _ = detect_logits(picture, predict, FIND, partial(_finder_input, blend=blend))
    return logits


def _contrast_removed(
    picture: Picture, mask: np.ndarray, blend: Blend, predict: Predictor, head: DewatermarkHead
) -> float:
    """Log ratio of the contrast across the border of `mask` before and after removal, see `Evidence`."""
    marks = Marks.at(dilate(mask, EDGE).astype(np.uint8), (blend,), picture.device)
    assert marks.mask is not None
    before = after = EPSILON

    def planes(window: Window) -> torch.Tensor:
        context = head.context(marks, window)
        return head.preprocess(picture.planes(window), None if context is None else context[None])[0]

    for window, output in predict.tiles(picture.size, planes):
        pixels, inside = to_float(picture.rgb[window.slices]), mask[window.slices]
        restored = output.permute(1, 2, 0).cpu().numpy()
        before += contrast_across(inside, pixels)
        after += contrast_across(inside, np.where(marks.mask[window.slices][..., None], restored, pixels))
    return math.log(before / after)


def _estimated_blend(picture: Picture, levels: np.ndarray, threshold: HysteresisThreshold) -> Blend | None:
    """The blend estimated from the strictest mask for which that is possible."""
    for low in INSIDE_LOGITS:
        inside = mask_from_logits(levels, replace(threshold, low=low))
        if inside.any() and (blend := estimate_alpha(picture.rgb, inside)) is not None:
            return blend
    return None


def _finder_input(planes: torch.Tensor, blend: Blend | None) -> torch.Tensor:
    known = _blend_planes(blend, planes.shape[-2:], planes.device)[None]
    return torch.cat([planes, _invert(planes, known), known[:, :1].expand(len(planes), -1, -1, -1)], dim=1)


def _blend_planes(blend: Blend | None, size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Opacity, and opacity times colour, constant over `size` (h,w): (4,h,w) float32; 0 if unknown."""
    values = [0.0] * 4 if blend is None else [blend.opacity, *(blend.opacity * value for value in blend.colour)]
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None].expand(-1, *size)


def _invert(planes: torch.Tensor, blend: torch.Tensor) -> torch.Tensor:
    """`Blend.invert` in torch: RGB (N,3,h,w), blend (N,4,h,w) as of `_blend_planes` -> (N,3,h,w)."""
    opacity, overlay = blend.split((1, 3), dim=1)
    inverted = ((planes - overlay) / (1 - opacity)).clamp(-OVERSHOOT, 1 + OVERSHOOT)
    return torch.where(opacity > 0, inverted, planes)


def _noisy_estimate(damaged: Corrupted, rng: np.random.Generator) -> Blend:
    """The blend of a training patch with random errors; a random blend if the patch has no marks."""
    assert damaged.mask is not None
    assert damaged.opacity is not None
    assert damaged.colour is not None
    opacities = damaged.opacity[damaged.mask]
    if opacities.any():  # the mask of a resized mark may have pixels of opacity 0
        opacity, colour = float(np.quantile(opacities, 0.9)), np.average(damaged.colour[damaged.mask], 0, opacities)
    else:
        opacity = float(rng.uniform(0.15, 0.8))
        colour = np.full(3, rng.random() > 0.3) if rng.random() < 0.5 else rng.random(3)
    opacity = 1 - (1 - opacity) * float(np.exp(rng.normal(OPACITY_BIAS, OPACITY_ERROR)))
    red, green, blue = np.clip(colour + rng.normal(0, COLOUR_ERROR, 3), 0, 1).tolist()
    return Blend(float(np.clip(opacity, *OPACITY_RANGE)), (red, green, blue))


class Dewatermark(Task):
    """Text, shapes and logos blended over a picture, paired with a head that removes them."""

    spec = TASKS["dewatermark"]
    arch = "overlay-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(48, 96, 128), blocks=(1, 1, 1), finder_widths=(48, 96, 160), finder_blocks=(1, 2, 3)
    )
    patch = 128

    def head(self, options: MaskOptions) -> DewatermarkHead:
        return DewatermarkHead()

    def operator(self, damage: WatermarkOptions) -> WatermarkOverlay:
        return WatermarkOverlay(damage.opacity, () if damage.logo is None else read_logos(Path(damage.logo)))

    def training_pairs(self, damage: WatermarkTraining) -> list[TrainingPair]:
        marks = replace(self.operator(damage), short_side=SHORT_SIDES, unmarked=damage.unmarked)
        reencoded = Reencoded(marks, damage.reencoded, (damage.rescaled, 1.0), (damage.jpeg_quality, 95))
        return [TrainingPair(reencoded, DewatermarkHead(), slack=1 / damage.rescaled if damage.reencoded else 1)]

    def cases(self, damage: WatermarkOptions) -> list[Case]:
        """PSNR inside the mask: with the true mask, with a detected mask, and detected after resizing and JPEG."""
        exact = self.operator(damage)
        return [
            Case("given", TrainingPair(exact, DewatermarkHead()), inside=True, given=True),
            Case("blind", TrainingPair(exact, DewatermarkHead()), inside=True),
            Case("re-encoded", TrainingPair(Reencoded(exact, 1.0), DewatermarkHead()), inside=True),
        ]


def read_logos(folder: Path) -> tuple[Logo, ...]:
    """Reads every image in a folder as a logo.

    Raises:
        UsageError: the folder is missing or holds no image, or an image is no logo (see `make_logo`).
    """
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder}: {wrong}; name a folder of logos, PNG files with transparency")
    paths = find_images(folder)
    if not paths:
        raise UsageError(f"{folder}: no images in this folder; put logos there, PNG files with transparency")
    return tuple(make_logo(str(path), read_image(path)) for path in paths)


TASK = Dewatermark()
