"""dewatermark: marks that shine through, and the head that finds and removes them.

The mask is found in the whole picture, in two passes: what is found first tells the opacity and colour of the mark,
and a second pass that knows these finds the rest. Under the mask the blend is undone, and the network mends what that
leaves. Pixels outside of the mask stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.corruptions.drawing.logos import Logos
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import find_images, read_image
from restore.metrics import psnr
from restore.models.masking import FIND, MaskedAutoencoderConfig
from restore.pixels import to_float
from restore.tasks.base import Analysis, Case, Picture, Predictor, Sample, TrainingPair, Window
from restore.tasks.dewatermark.alpha import FAR, OPACITY_RANGE, Blend, estimate_alpha
from restore.tasks.dewatermark.confidence import (
    AGGRESSIVE_LOG_ODDS,
    CONFIDENT_LOG_ODDS,
    Evidence,
    contrast_across,
    watermark_confidence,
)
from restore.tasks.losses import PixelLoss
from restore.tasks.mask_detection import (
    UNCERTAIN,
    HysteresisThreshold,
    MaskHead,
    detect_logits,
    dilate,
    mask_from_logits,
    mask_loss,
    masked_mean,
)
from restore.tasks.spec import TASKS, DewatermarkOptions, WatermarkOptions, WatermarkTraining

SHORT_SIDES = (256, 640)  # of the pictures that training patches stand for, in pixels: how large marks are
FIRST_PASS = HysteresisThreshold(low=-1.0, high=4.5, min_pixels=40, min_share=5e-4)
SECOND_PASS = HysteresisThreshold(low=-1.0, high=2.0, min_share=5e-4)
# Logits from which on a pixel is taken for the inside of a mark, to estimate its alpha by: soft edges make that weaker.
INSIDE_LOGITS = (2.0, 1.0, 0.0)
EDGE = 1  # pixels around what was found that may be soft edges
# How often the training mask is larger by 0, 1, 2, 3 pixels.
DILATION_SHARES = (0.25, 0.4, 0.25, 0.1)
TINY = 1e-6  # contrast that is as good as none
# By how much less opaque marks are estimated in training, and the standard deviations of opacity and colour.
OPACITY_BIAS, OPACITY_ERROR, COLOUR_ERROR = 0.05, 0.12, 0.04


@dataclass(frozen=True)
class Marks(Analysis):
    """What tiles need to remove marks.

    Args:
        blend: of the marks under the mask; None where their borders do not tell.
        mask_plane: (1,H,W) bool on the computing device.
    """

    blend: Blend | None = None
    mask_plane: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def at(cls, mask: np.ndarray, blend: Blend | None, device: torch.device) -> Marks:
        """Marks under `mask` (H,W) bool, not empty."""
        return cls(mask, blend=blend, mask_plane=torch.from_numpy(mask).to(device)[None])


class DewatermarkHead(MaskHead[DewatermarkOptions, Marks]):
    """Finds the marks, or is told where they are; undoes the blend and mends inside of the mask."""

    def analyse(
        self, picture: Picture, options: DewatermarkOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Marks:
        if mask is not None:
            return Marks.at(dilate(mask, options.grow), estimate_alpha(picture.rgb, mask), picture.device)
        nothing = Marks(np.zeros(picture.size, bool))
        found = detect_marks(picture, predict, self)
        if found is None or found[1].log_odds < AGGRESSIVE_LOG_ODDS:
            return nothing
        marks, evidence = found
        if evidence.log_odds < CONFIDENT_LOG_ODDS and not options.aggressive:
            return replace(nothing, note=UNCERTAIN)
        assert marks.mask is not None
        return Marks.at(dilate(marks.mask, options.grow + EDGE), marks.blend, picture.device)

    def context(self, analysis: Marks, window: Window) -> torch.Tensor | None:
        """Opacity under the mask, 0 outside, 1 where it is not known (1 plane); opacity and colour anywhere (4 planes).

        Where the blend is not known the last four are 0, and undoing it changes nothing.
        """
        if analysis.mask_plane is None:
            return None
        rows, columns = window.slices
        mask = analysis.mask_plane[:, rows, columns]
        opacity = 1.0 if analysis.blend is None else analysis.blend.opacity
        return torch.cat([mask * opacity, _blend_planes(analysis.blend, mask.shape[1:], mask.device)])

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return torch.cat([planes, planes, torch.zeros_like(planes[:, :1])], dim=1)
        opacity, blend = context.split((1, 4), dim=1)
        return torch.cat([_undone(planes, blend), planes, opacity], dim=1)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For both branches the picture with a blend undone, and its opacity: (h,w,8) float32.

        The blend is about as far from the true one as it is in use, and now and then it is not known; the mask is
        seldom exact.
        """
        assert damaged.mask is not None
        pixels = to_float(damaged.image)
        guessed = _guessed(damaged, rng)
        known = guessed if rng.random() < 0.5 else None
        blend = guessed if rng.random() < 0.9 else None
        mask = dilate(damaged.mask, int(rng.choice(len(DILATION_SHARES), p=DILATION_SHARES)))
        opacity = np.full(mask.shape, 0.0 if known is None else known.opacity, np.float32)
        strength = mask * np.float32(1.0 if blend is None else blend.opacity)
        undone = [pixels if one is None else one.undone(pixels) for one in (known, blend)]
        return np.concatenate([undone[0], opacity[..., None], undone[1], strength[..., None]], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        hints = sample.hints
        return torch.cat([sample.corrupted, hints[:, :7], sample.corrupted, hints[:, 7:]], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """Of the mask; and inside of it, of the opacity and the restored pixels."""
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


def detect_marks(picture: Picture, predict: Predictor, head: DewatermarkHead) -> tuple[Marks, Evidence] | None:
    """What may be marks in a picture, and the evidence for it; None if nothing is found."""
    first = detect_logits(picture, predict, FIND, partial(_finder_input, blend=None))
    blend = _estimated_blend(picture, first, FIRST_PASS)
    if blend is None:
        return None
    second = detect_logits(picture, predict, FIND, partial(_finder_input, blend=blend))
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
    return Marks(mask, blend=blend), evidence


def _contrast_removed(
    picture: Picture, mask: np.ndarray, blend: Blend, predict: Predictor, head: DewatermarkHead
) -> float:
    """How much of the contrast across the border of `mask` is gone once the marks are removed, see `Evidence`."""
    marks = Marks.at(dilate(mask, EDGE), blend, picture.device)
    assert marks.mask is not None
    before = after = TINY

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
    """The blend of the marks that the logits tell of, by the strictest mask that tells it."""
    for low in INSIDE_LOGITS:
        inside = mask_from_logits(levels, replace(threshold, low=low))
        if inside.any() and (blend := estimate_alpha(picture.rgb, inside)) is not None:
            return blend
    return None


def _finder_input(planes: torch.Tensor, blend: Blend | None) -> torch.Tensor:
    """What the finder sees of RGB planes: (N,3,h,w) -> (N,7,h,w)."""
    known = _blend_planes(blend, planes.shape[-2:], planes.device)[None]
    return torch.cat([planes, _undone(planes, known), known[:, :1].expand(len(planes), -1, -1, -1)], dim=1)


def _blend_planes(blend: Blend | None, size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Opacity, and opacity times colour, over a tile of `size` (h,w): (4,h,w) float32; 0 where it is not known."""
    values = [0.0] * 4 if blend is None else [blend.opacity, *(blend.opacity * value for value in blend.colour)]
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None].expand(-1, *size)


def _undone(planes: torch.Tensor, blend: torch.Tensor) -> torch.Tensor:
    """RGB planes as if all of them lay under the mark: (N,3,h,w), (N,4,h,w) of `_blend_planes` -> (N,3,h,w)."""
    opacity, overlay = blend.split((1, 3), dim=1)
    undone = ((planes - overlay) / (1 - opacity)).clamp(-FAR, 1 + FAR)
    return torch.where(opacity > 0, undone, planes)


def _guessed(damaged: Corrupted, rng: np.random.Generator) -> Blend:
    """About the blend of the marks of a training patch; any, where it has none."""
    assert damaged.mask is not None
    assert damaged.opacity is not None
    assert damaged.colour is not None
    opacities = damaged.opacity[damaged.mask]
    if opacities.any():  # resized marks end in pixels that they hardly cover
        opacity, colour = float(np.quantile(opacities, 0.9)), np.average(damaged.colour[damaged.mask], 0, opacities)
    else:
        opacity = float(rng.uniform(0.15, 0.8))
        colour = np.full(3, rng.random() > 0.3) if rng.random() < 0.5 else rng.random(3)
    opacity = 1 - (1 - opacity) * float(np.exp(rng.normal(OPACITY_BIAS, OPACITY_ERROR)))
    red, green, blue = np.clip(colour + rng.normal(0, COLOUR_ERROR, 3), 0, 1).tolist()
    return Blend(float(np.clip(opacity, *OPACITY_RANGE)), (red, green, blue))


class Dewatermark:
    """Text, shapes and logos blended over a picture, paired with a head that removes them."""

    spec = TASKS["dewatermark"]
    arch = "overlay-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(48, 96, 128), blocks=(1, 1, 1), finder_widths=(48, 96, 160), finder_blocks=(1, 2, 3)
    )
    patch = 128

    def head(self, options: DewatermarkOptions) -> DewatermarkHead:
        return DewatermarkHead()

    def operator(self, damage: WatermarkOptions) -> WatermarkOverlay:
        return WatermarkOverlay(damage.opacity, _logos(damage.logo))

    def training_pairs(self, damage: WatermarkTraining) -> list[TrainingPair]:
        marks = WatermarkOverlay(damage.opacity, _logos(damage.logo), SHORT_SIDES, damage.unmarked)
        return [TrainingPair(Reencoded(marks, damage.reencoded), DewatermarkHead(), slack=2 if damage.reencoded else 1)]

    def cases(self, damage: WatermarkOptions) -> list[Case]:
        """PSNR under the mark: told where it is, blind, and blind after resizing and JPEG."""
        exact = self.operator(damage)
        return [
            Case("given", TrainingPair(exact, DewatermarkHead()), psnr, inside=True, given=True),
            Case("blind", TrainingPair(exact, DewatermarkHead()), psnr, inside=True),
            Case("re-encoded", TrainingPair(Reencoded(exact, 1.0), DewatermarkHead()), psnr, inside=True),
        ]

    def prepare(self, clean: np.ndarray, damage: WatermarkTraining, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: WatermarkTraining) -> Any:
        return replace(config, scales=(1,))


def _logos(folder: str | None) -> Logos | None:
    """The logos of a folder. Raises UsageError if it is missing, empty, or holds a picture without transparency."""
    return None if folder is None else Logos.read(Path(folder), find_images, read_image)


TASK = Dewatermark()
