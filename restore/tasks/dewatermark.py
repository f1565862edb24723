"""dewatermark: marks that shine through, and the head that finds and undoes them.

The mask is found in the whole picture, twice: what is found at first tells the opacity and colour of the mark, and
who knows those finds the rest. Under the mask the blend is undone, and the network mends what that leaves. Pixels
outside of the mask stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.corruptions.logos import Logos
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import find_images, read_image
from restore.metrics import psnr
from restore.models.masking import FIND, MaskedAutoencoderConfig
from restore.pixels import to_float
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant, Window, as_planes
from restore.tasks.blend import RANGE, Blend, blend_of
from restore.tasks.confirmed import BELIEVED, EAGER, Evidence, contrast_across, evidence
from restore.tasks.distances import Distance
from restore.tasks.found import DOUBTFUL, Belief, LookingHead, believed, found_levels, grown, mask_loss, share_inside
from restore.tasks.spec import TASKS, DewatermarkOptions, WatermarkOptions, WatermarkTraining

SHORT_SIDES = (256, 640)  # of the pictures that training patches stand for, in pixels: how large marks are
# What is believed at first, and when opacity and colour are known.
FIRST = Belief(likely=-1.0, sure=4.5, smallest=40, least=5e-4)
AGAIN = Belief(likely=-1.0, sure=2.0, least=5e-4)
# Logits from which on a pixel is taken for the inside of a mark, to find its blend by: soft edges make that weaker.
INSIDE = (2.0, 1.0, 0.0)
EDGE = 1  # pixels around what was found that may be soft edges
GROWN = (0.25, 0.4, 0.25, 0.1)  # how often the mask is larger by 0, 1, 2, 3 pixels in training
TINY = 1e-6  # contrast that is as good as none
SHY, OFF = 0.05, (0.12, 0.04)  # by how much less opaque marks are held for, and how far opacity and colour are off


@dataclass(frozen=True)
class Marks(Finding):
    """blend: of the marks under the mask; None where their borders do not tell."""

    blend: Blend | None = None

    def wider(self, pixels: int) -> Marks:
        """The same with a mask larger by so many pixels on every side."""
        assert self.mask is not None
        return replace(self, mask=grown(self.mask, pixels))


class DewatermarkHead(LookingHead):
    """Finds the marks, or is told where they are; undoes and mends inside of the mask."""

    def analyse(
        self, image: np.ndarray, options: DewatermarkOptions, look: Look, mask: np.ndarray | None = None
    ) -> Marks:
        if mask is not None:
            return Marks(grown(mask, options.grow), blend=blend_of(image, mask))
        found = seen_twice(image, look)
        if found is None or found[1].odds < EAGER:
            return Marks(np.zeros(image.shape[:2], bool))
        marks, reasons = found
        if reasons.odds < BELIEVED and not options.eager:
            return Marks(np.zeros(image.shape[:2], bool), note=DOUBTFUL)
        return marks.wider(options.grow + EDGE)

    def planes(self, pixels: np.ndarray, context: Marks, window: Window) -> torch.Tensor:
        return _painted_from(pixels, context, window)

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
        mask = grown(damaged.mask, int(rng.choice(len(GROWN), p=GROWN)))
        opacity = np.full(mask.shape, _opacity(known, 0.0), np.float32)
        strength = mask * np.float32(_opacity(blend, 1.0))
        return np.concatenate(
            [_undone(pixels, known), opacity[..., None], _undone(pixels, blend), strength[..., None]], axis=-1
        )

    def seen(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        hints = sample.hints
        return torch.cat([sample.corrupted, hints[:, :7], sample.corrupted, hints[:, 7:]], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """Of the mask; and inside, where it counts, of the opacity and the painting."""
        assert sample.hints is not None
        assert sample.mask is not None
        assert sample.opacity is not None
        logits, painted, opacity = prediction.split((1, 3, 1), dim=1)
        inside, known = (sample.hints[:, 7:] > 0).float(), (sample.hints[:, 7:] < 1).float()
        return (
            mask_loss(logits, sample.mask)
            + share_inside(distance(painted, sample.clean), inside)
            + share_inside((opacity - sample.opacity).abs(), inside * known)
        )


def seen_twice(image: np.ndarray, look: Look) -> tuple[Marks, Evidence] | None:
    """What may be marks in (H,W,3), any dtype, and what speaks for that; None if nothing is found."""
    first = found_levels(image, look, FIND, partial(_looked_at, blend=None))
    blend = _blend(image, first, FIRST)
    if blend is None:
        return None
    second = found_levels(image, look, FIND, partial(_looked_at, blend=blend))
    mask = believed(second, AGAIN)
    if not mask.any():
        return None
    marks = Marks(mask, blend=_blend(image, second, AGAIN) or blend)
    assert marks.blend is not None
    return marks, evidence(
        first, believed(first, FIRST), second, mask, marks.blend.correlation, _erased(image, marks, look)
    )


def _erased(image: np.ndarray, marks: Marks, look: Look) -> float:
    """How much of the contrast across the border of `marks` goes away with them, see `Evidence`."""
    wider = marks.wider(EDGE)
    assert marks.mask is not None
    assert wider.mask is not None
    before = after = TINY

    def planes(window: Window) -> torch.Tensor:
        return _painted_from(to_float(image[window.slices]), wider, window)

    for window, output in look.tiles(marks.mask.shape, planes):
        pixels, mask = to_float(image[window.slices]), marks.mask[window.slices]
        undone = np.where(wider.mask[window.slices][..., None], output.numpy().transpose(1, 2, 0), pixels)
        before += contrast_across(mask, pixels)
        after += contrast_across(mask, undone)
    return math.log(before / after)


def _blend(image: np.ndarray, levels: np.ndarray, belief: Belief) -> Blend | None:
    """The blend of the marks that the finder's logits tell of, by the strictest mask that tells it."""
    for likely in INSIDE:
        inside = believed(levels, replace(belief, likely=likely))
        if inside.any() and (blend := blend_of(image, inside)) is not None:
            return blend
    return None


def _looked_at(pixels: np.ndarray, blend: Blend | None) -> torch.Tensor:
    """What the finder sees of (h,w,3), any dtype."""
    pixels = to_float(pixels)
    opacity = np.full((*pixels.shape[:2], 1), _opacity(blend, 0.0), np.float32)
    return as_planes(np.concatenate([pixels, _undone(pixels, blend), opacity], axis=-1))


def _painted_from(pixels: np.ndarray, marks: Marks, window: Window) -> torch.Tensor:
    """What the painter sees of a tile (h,w,3)."""
    assert marks.mask is not None
    strength = marks.mask[window.slices][..., None] * np.float32(_opacity(marks.blend, 1.0))
    return as_planes(np.concatenate([_undone(pixels, marks.blend), pixels, strength], axis=-1))


def _undone(pixels: np.ndarray, blend: Blend | None) -> np.ndarray:
    return pixels if blend is None else blend.undone(pixels)


def _opacity(blend: Blend | None, unknown: float) -> float:
    return unknown if blend is None else blend.opacity


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
    opacity = 1 - (1 - opacity) * float(np.exp(rng.normal(SHY, OFF[0])))
    red, green, blue = np.clip(colour + rng.normal(0, OFF[1], 3), 0, 1).tolist()
    return Blend(float(np.clip(opacity, *RANGE)), (red, green, blue))


class Dewatermark:
    """Text, shapes and logos blended over a picture, paired with a head that takes them off."""

    spec = TASKS["dewatermark"]
    arch = "overlay-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(48, 96, 128), blocks=(1, 1, 1), finder_widths=(48, 96, 160), finder_blocks=(1, 2, 3)
    )
    patch = 128

    def head(self, options: DewatermarkOptions) -> Head:
        return DewatermarkHead()

    def operator(self, damage: WatermarkOptions) -> WatermarkOverlay:
        return WatermarkOverlay(damage.opacity, _logos(damage.logo))

    def variants(self, damage: WatermarkTraining) -> list[Variant]:
        marks = WatermarkOverlay(damage.opacity, _logos(damage.logo), SHORT_SIDES, damage.unmarked)
        return [Variant(Reencoded(marks, damage.reencoded), DewatermarkHead(), slack=2 if damage.reencoded else 1)]

    def cases(self, damage: WatermarkOptions) -> list[Case]:
        """PSNR under the mark: told where it is, blind, and blind after resizing and JPEG."""
        exact = self.operator(damage)
        return [
            Case("given", Variant(exact, DewatermarkHead()), psnr, inside=True, given=True),
            Case("blind", Variant(exact, DewatermarkHead()), psnr, inside=True),
            Case("re-encoded", Variant(Reencoded(exact, 1.0), DewatermarkHead()), psnr, inside=True),
        ]

    def prepare(self, clean: np.ndarray, damage: WatermarkTraining, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: WatermarkTraining) -> Any:
        return replace(config, scales=(1,))


def _logos(folder: str | None) -> Logos | None:
    """The logos of a folder. Raises UsageError if it is missing, empty, or holds a picture without transparency."""
    return None if folder is None else Logos.read(Path(folder), find_images, read_image)


TASK = Dewatermark()
