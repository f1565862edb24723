"""inpaint: solid things over a picture, and the head that finds them and fills what they hide.

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
from restore.tasks.base import Analysis, Case, Picture, Predictor, Sample, TrainingPair, Window
from restore.tasks.functional import sample_window
from restore.tasks.inpaint.solid_colour import completed, continued, has_solid_colour
from restore.tasks.losses import PixelLoss
from restore.tasks.mask_detection import (
    LEVELS,
    LOWEST,
    UNCERTAIN,
    HysteresisThreshold,
    MaskHead,
    detect_logits,
    dilate,
    highest_mean_logit,
    mask_from_logits,
    mask_loss,
    masked_mean,
)
from restore.tasks.spec import TASKS, InpaintOptions, OcclusionOptions, OcclusionTraining

# For damage that was drawn into the file: its constant colour completes the mask.
EXACT_THRESHOLD = HysteresisThreshold(low=-1.0, high=6.0)
# For damage that was resized or compressed since: a missed pixel stays in the picture, one too many is filled well.
REENCODED_THRESHOLD = HysteresisThreshold(low=-4.0, high=4.5)
# Mean logit of a component, below which a re-encoded picture counts as clean unless `aggressive`: damage is detected
# over all of its area, what resembles it in spots.
MIN_MEAN_LOGIT = 1.5
COLOUR_LOGIT = 2.0  # from which on a pixel shows the colour of the damage
TELEA_RADIUS = 3  # pixels
MAX_FILLING_PIXELS = 1 << 24  # larger pictures are shrunk for the rough filling
SHORT_SIDES = (256, 640)  # of the pictures that training patches stand for, in pixels: how thick bars are
# In training the mask is exact below the first, one pixel larger below the second, else two.
DILATION_LIMITS = (0.5, 0.8)


@dataclass(frozen=True)
class Holes(Analysis):
    """What tiles need to fill holes.

    Args:
        rough: (3,h,w) uint8 on the computing device, the picture with its holes filled, perhaps at a smaller size.
        mask_plane: (1,H,W) bool on the computing device.
    """

    rough: torch.Tensor | None = field(default=None, repr=False)
    mask_plane: torch.Tensor | None = field(default=None, repr=False)


class InpaintHead(MaskHead[InpaintOptions, Holes]):
    """Finds the mask, or is given one; fills the inside of it."""

    def analyse(
        self, picture: Picture, options: InpaintOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Holes:
        """The mask and a rough filling of it. Raises UsageError for a given mask that covers the whole picture."""
        found = mask is None
        if mask is None:
            mask = _found(picture, detect_logits(picture, predict, FIND), options.aggressive)
            if mask is None:
                return Holes(np.zeros(picture.size, bool), note=UNCERTAIN)
        if not mask.any():
            return Holes(mask)
        mask = dilate(mask, options.grow)
        if mask.all():
            if not found:
                raise UsageError("the mask covers the whole picture: nothing is left to fill it from")
            return Holes(np.zeros_like(mask), note="all of it looks damaged, which leaves nothing to fill it from")
        rough = torch.from_numpy(rough_filling(picture.rgb, mask)).to(picture.device).permute(2, 0, 1)
        return Holes(mask, rough=rough, mask_plane=torch.from_numpy(mask).to(picture.device)[None])

    def context(self, analysis: Holes, window: Window) -> torch.Tensor | None:
        """The rough filling (3 planes) and the mask (1 plane)."""
        if analysis.rough is None or analysis.mask_plane is None:
            return None
        rows, columns = window.slices
        height, width = analysis.mask_plane.shape[-2:]
        rough = sample_window(analysis.rough, (height, width), window) / 255
        return torch.cat([rough, analysis.mask_plane[:, rows, columns].to(rough)])

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return torch.cat([planes, torch.zeros_like(planes[:, :1])], dim=1)
        rough, mask = context.split((3, 1), dim=1)
        return torch.cat([torch.where(mask > 0, rough, planes), mask], dim=1)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """RGB with the holes filled roughly, and the mask they were taken from: it is seldom exact in use."""
        assert damaged.mask is not None
        turn = rng.random()
        mask = dilate(damaged.mask, sum(turn > limit for limit in DILATION_LIMITS))
        if mask.all():
            mask = damaged.mask
        rough = _telea(_eight_bit(damaged.image), mask)
        filled = np.where(mask[..., None], to_float(rough), to_float(damaged.image))
        return np.concatenate([filled, mask[..., None].astype(np.float32)], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return torch.cat([sample.corrupted, sample.hints], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """Of the mask, and of the filling inside of it."""
        assert sample.hints is not None
        assert sample.mask is not None
        filled = masked_mean(pixel_loss(prediction[:, 1:], sample.clean), sample.hints[:, 3:])
        return filled + mask_loss(prediction[:, :1], sample.mask)


def _found(picture: Picture, levels: np.ndarray, aggressive: bool) -> np.ndarray | None:
    """The mask of what was detected; None if it may be part of the picture."""
    mask = mask_from_logits(levels, EXACT_THRESHOLD)
    if not mask.any():
        return mask
    seen = _eight_bit(picture.rgb)
    if not has_solid_colour(seen, mask):
        mask = mask_from_logits(levels, REENCODED_THRESHOLD)
        if highest_mean_logit(levels, mask) < MIN_MEAN_LOGIT and not aggressive:
            return None
        return continued(seen, mask, sure=levels >= COLOUR_LOGIT * LEVELS)
    return completed(seen, mask, never=levels == LOWEST)


def rough_filling(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H,W,3), any dtype, with the holes of `mask` (H,W) filled by Telea's method: uint8, shrunk if it is large."""
    factor = math.ceil(math.sqrt(max(1.0, mask.size / MAX_FILLING_PIXELS)))
    if factor == 1:
        return _telea(_eight_bit(image), mask)
    height, width = (-(-side // factor) for side in mask.shape)
    rows = max(1, MAX_FILLING_PIXELS // image.shape[1]) // factor * factor or factor
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
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)).reshape(image.shape)


def _eight_bit(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image if image.dtype == np.uint8 else to_dtype(to_float(image), np.uint8))


class Inpaint:
    """Bars, strokes, rectangles and text, paired with a head that finds and fills."""

    spec = TASKS["inpaint"]
    arch = "hole-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(64, 128, 160), blocks=(1, 2, 3), finder_widths=(32, 64, 112, 144), finder_blocks=(1, 1, 2, 1)
    )
    patch = 128

    def head(self, options: InpaintOptions) -> InpaintHead:
        return InpaintHead()

    def operator(self, damage: OcclusionOptions) -> OcclusionBars:
        return OcclusionBars(bars=damage.bars)

    def training_pairs(self, damage: OcclusionTraining) -> list[TrainingPair]:
        if damage.bars == "lecture":  # exact bars on small pictures: nothing comes from elsewhere
            return [TrainingPair(self.operator(damage), InpaintHead())]
        bars = OcclusionBars(bars=damage.bars, short_side=SHORT_SIDES)
        return [TrainingPair(Reencoded(bars, damage.reencoded), InpaintHead(), slack=2 if damage.reencoded else 1)]

    def cases(self, damage: OcclusionOptions) -> list[Case]:
        """PSNR inside the mask: blind, blind after resizing and JPEG, and with the true mask."""
        exact = TrainingPair(self.operator(damage), InpaintHead())
        cases = [Case("blind", exact, psnr, inside=True), Case("mask given", exact, psnr, inside=True, given=True)]
        if damage.bars == "lecture":
            return cases
        reencoded = TrainingPair(Reencoded(exact.corruption, 1.0), InpaintHead())
        return [*cases, Case("re-encoded", reencoded, psnr, inside=True)]

    def prepare(self, clean: np.ndarray, damage: OcclusionTraining, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: OcclusionTraining) -> Any:
        return replace(config, scales=(1,))


TASK = Inpaint()
