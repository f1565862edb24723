"""inpaint: solid things over a picture, and the head that finds them and paints what they hide.

The mask is found in the whole picture first; a classical filling (Telea 2004) of all holes is what the network
starts from. Pixels outside of the mask stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch

from restore.corruptions.base import Corrupted
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.corruptions.reencoded import Reencoded
from restore.errors import UsageError
from restore.metrics import psnr
from restore.models.masking import FIND, MaskedAutoencoderConfig
from restore.pixels import to_dtype, to_float
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant, Window, as_planes
from restore.tasks.distances import Distance
from restore.tasks.found import (
    DOUBTFUL,
    LEVELS,
    LOWEST,
    Belief,
    LookingHead,
    believed,
    found_levels,
    grown,
    likeliest,
    mask_loss,
    share_inside,
)
from restore.tasks.sampling import sampled
from restore.tasks.solid import completed, continued, has_solid_colour
from restore.tasks.spec import TASKS, InpaintOptions, OcclusionOptions, OcclusionTraining

DRAWN = Belief(likely=-1.0, sure=6.0)  # of what was drawn into the file: its colour says the rest
# Of what was resized or compressed since: what is missed stays in the picture, and a pixel too many is painted well.
BLURRED = Belief(likely=-4.0, sure=4.5)
# Mean logit of a part, without which a picture counts as clean, but for the eager: damage is seen as a whole, what
# looks like it in spots.
CONVINCING = 1.5
SURE = 2.0  # the logit from which on a pixel shows the colour of the damage
RADIUS = 3  # of Telea's method, in pixels
ROUGH_PIXELS = 1 << 24  # larger pictures are shrunk for the rough filling
SHORT_SIDES = (256, 640)  # of the pictures that training patches stand for, in pixels: how thick bars are
GROWN = (0.5, 0.8)  # in training the mask is as it is below the first, one pixel larger below the second, else two


@dataclass(frozen=True)
class Holes(Finding):
    """rough: (h,w,3) uint8, the picture with its holes filled, perhaps at a smaller size."""

    rough: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8), repr=False)


class InpaintHead(LookingHead):
    """Finds the mask, or is given one; paints inside of it."""

    def analyse(self, image: np.ndarray, options: InpaintOptions, look: Look, mask: np.ndarray | None = None) -> Holes:
        found = mask is None
        if mask is None:
            mask = _found(image, found_levels(image, look, FIND), options.eager)
            if mask is None:
                return Holes(np.zeros(image.shape[:2], bool), note=DOUBTFUL)
        if mask.any():
            mask = grown(mask, options.grow)
        if mask.all():
            if not found:
                raise UsageError("the mask covers the whole picture: nothing is left to fill it from")
            return Holes(np.zeros_like(mask), note="all of it looks damaged, which leaves nothing to fill it from")
        return Holes(mask, rough=rough_filling(image, mask)) if mask.any() else Holes(mask)

    def planes(self, pixels: np.ndarray, context: Holes, window: Window) -> torch.Tensor:
        assert context.mask is not None
        mask = context.mask[window.slices]
        rough = sampled(context.rough, context.mask.shape, window) / np.float32(255)
        filled = np.where(mask[..., None], rough, pixels)
        return torch.cat([as_planes(filled), torch.from_numpy(mask.astype(np.float32))[None]])

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """RGB with the holes filled roughly, and the mask they were taken from: it is seldom exact in use."""
        assert damaged.mask is not None
        turn = rng.random()
        mask = grown(damaged.mask, sum(turn > limit for limit in GROWN))
        if mask.all():
            mask = damaged.mask
        rough = _telea(_eight_bit(damaged.image), mask)
        filled = np.where(mask[..., None], to_float(rough), to_float(damaged.image))
        return np.concatenate([filled, mask[..., None].astype(np.float32)], axis=-1)

    def seen(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return torch.cat([sample.corrupted, sample.hints], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """Of the mask, and of the painting where it counts: inside."""
        assert sample.hints is not None
        assert sample.mask is not None
        painted = share_inside(distance(prediction[:, 1:], sample.clean), sample.hints[:, 3:])
        return painted + mask_loss(prediction[:, :1], sample.mask)


def _found(image: np.ndarray, levels: np.ndarray, eager: bool) -> np.ndarray | None:
    """The mask of what the finder says of (H,W,3), any dtype; None if it may be part of the picture."""
    mask = believed(levels, DRAWN)
    if not mask.any():
        return mask
    seen = _eight_bit(image)
    if not has_solid_colour(seen, mask):
        mask = believed(levels, BLURRED)
        if likeliest(levels, mask) < CONVINCING and not eager:
            return None
        return continued(seen, mask, sure=levels >= SURE * LEVELS)
    return completed(seen, mask, never=levels == LOWEST)


def rough_filling(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H,W,3), any dtype, with the holes of `mask` (H,W) filled by Telea's method: uint8, shrunk if it is large."""
    factor = math.ceil(math.sqrt(max(1.0, mask.size / ROUGH_PIXELS)))
    if factor == 1:
        return _telea(_eight_bit(image), mask)
    height, width = (-(-side // factor) for side in mask.shape)
    rows = max(1, ROUGH_PIXELS // image.shape[1]) // factor * factor or factor
    small, known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
    for top in range(0, image.shape[0], rows):
        part, there = image[top : top + rows], (~mask[top : top + rows]).astype(np.float32)
        size = (width, -(-part.shape[0] // factor))
        place = slice(top // factor, top // factor + size[1])
        weight = cv2.resize(there, size, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(_eight_bit(part) * there[..., None], size, interpolation=cv2.INTER_AREA)
        known[place] = weight
        small[place] = np.clip(mean / np.maximum(weight, 1e-3)[..., None], 0, 255)
    return _telea(small, known < 0.5)


def _telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if mask.all():  # of a shrunk picture: nothing is known
        return image
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)).reshape(image.shape)


def _eight_bit(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image if image.dtype == np.uint8 else to_dtype(to_float(image), np.uint8))


class Inpaint:
    """Bars, strokes, rectangles and text, paired with a head that finds and paints."""

    spec = TASKS["inpaint"]
    arch = "hole-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(64, 128, 160), blocks=(1, 2, 3), finder_widths=(32, 64, 112, 144), finder_blocks=(1, 1, 2, 1)
    )
    patch = 128

    def head(self, options: InpaintOptions) -> Head:
        return InpaintHead()

    def operator(self, damage: OcclusionOptions) -> OcclusionBars:
        return OcclusionBars(bars=damage.bars)

    def variants(self, damage: OcclusionTraining) -> list[Variant]:
        if damage.bars == "lecture":  # exact bars on small pictures: nothing comes from elsewhere
            return [Variant(self.operator(damage), InpaintHead())]
        bars = OcclusionBars(bars=damage.bars, short_side=SHORT_SIDES)
        return [Variant(Reencoded(bars, damage.reencoded), InpaintHead(), slack=2 if damage.reencoded else 1)]

    def cases(self, damage: OcclusionOptions) -> list[Case]:
        """PSNR inside the mask: blind, blind after resizing and JPEG, and with the true mask."""
        exact = Variant(self.operator(damage), InpaintHead())
        cases = [Case("blind", exact, psnr, inside=True), Case("mask given", exact, psnr, inside=True, given=True)]
        if damage.bars == "lecture":
            return cases
        return [*cases, Case("re-encoded", Variant(Reencoded(exact.corruption, 1.0), InpaintHead()), psnr, inside=True)]

    def prepare(self, clean: np.ndarray, damage: OcclusionTraining, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: OcclusionTraining) -> Any:
        return replace(config, scales=(1,))


TASK = Inpaint()
