"""inpaint: opaque shapes over an image, and the head that detects them and inpaints the pixels below.

The mask is detected in the whole image first. The network refines a filling of all holes by the fast marching method
(Telea 2004). What it predicts in wide holes is a blur, which gets the texture of what is around them. Pixels outside of
the mask stay bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.corruptions.base import Corrupted
from restore.corruptions.degradation import Choice, Part
from restore.corruptions.film_grain import FilmGrain
from restore.corruptions.look_alikes import LookAlikes
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.corruptions.print_damage import aged_print
from restore.corruptions.reencoded import Reencoded
from restore.errors import UsageError
from restore.models.masking import TRAIN, HoleAutoencoder, HoleAutoencoderConfig
from restore.models.registry import Architecture
from restore.pixels import luma, to_dtype, to_float, to_uint8
from restore.tasks.base import Analysis, Case, Head, Picture, Predictor, Sample, Task, TrainingPair, Window
from restore.tasks.functional import array_to_planes, sample_window, to_array
from restore.tasks.inpaint.detection import detect_holes, verdict_loss
from restore.tasks.inpaint.filling import rough_filling, telea
from restore.tasks.inpaint.texture import synthesize_texture
from restore.tasks.losses import PixelLoss
from restore.tasks.mask_detection import components, dilate, mask_loss, masked_mean
from restore.tasks.spec import TASKS, MaskOptions, OcclusionOptions, OcclusionTraining

WIDE = 20  # pixels to the nearest edge, from which on a hole is filled with texture,
TEXTURE_EDGE = 4  # over so many pixels inwards from its edge
# Pixels around a hole that its texture is taken from: as many as the hole has, within this range.
TEXTURE_MARGIN = (64, 256)
MAX_TEXTURE_PIXELS = 1 << 22  # of a hole with its margin; larger ones keep what the network predicts
MAX_PREDICTED = 160  # pixels a side of the prediction whose low frequencies a texture follows
SHORT_SIDES = (256, 640)  # pixels, of the images that training patches stand for: sizes of shapes follow from it
PRINT_SCALE = 0.75  # by which damaged prints are shrunk, at least: what is thin would vanish
# The training mask is dilated by 0 pixels with a probability of 0.5, by 1 with 0.3, by 2 with 0.2.
DILATION_LIMITS = (0.5, 0.8)
OBJECT_SHARE = 0.25  # share of training samples whose holes show an object


@dataclass(frozen=True)
class Holes(Analysis):
    """The analysis of an image with holes. What is below is None or empty until it is completed for restoring.

    Args:
        rough: (3,h,w) uint8 on the computing device, the image with its holes filled, perhaps at a smaller size.
        mask_plane: (1,H,W) bool on the computing device, the mask.
        textures: of wide holes: a window, and RGB and its share of the result (4,h,w) float32 on the computing device.
    """

    rough: torch.Tensor | None = field(default=None, repr=False)
    mask_plane: torch.Tensor | None = field(default=None, repr=False)
    textures: tuple[tuple[Window, torch.Tensor], ...] = field(default=(), repr=False)


class InpaintHead(Head[MaskOptions, Holes]):
    """Detects the mask, unless it is given, and inpaints the pixels inside."""

    masked = True
    fills = True
    training_stage = TRAIN
    _blurs = True

    def check(self, network: Architecture) -> None:
        """Notes whether what the network predicts in wide holes is a blur; those of other projects give texture."""
        self._blurs = isinstance(network, HoleAutoencoder)

    def analyse(
        self, picture: Picture, options: MaskOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Holes:
        """Detects the mask, if none is given; arguments as in `Head.analyse`.

        Raises:
            UsageError: `mask` covers the whole image.
        """
        detected, note, confidence = mask is None, "", None
        if mask is None:
            mask, confidence, note = detect_holes(picture, predict, options.aggressive)
        if not mask.any():
            return Holes(mask, note, confidence)
        mask = dilate(mask, options.grow)
        if mask.all():
            if not detected:
                raise UsageError(
                    "the mask covers the whole picture, which leaves nothing to fill it from; white marks what to fill"
                )
            return Holes(np.zeros_like(mask), note="the whole picture looks damaged, left unchanged")
        return Holes(mask, note, confidence)

    def complete(self, picture: Picture, analysis: Holes, predict: Predictor) -> Holes:
        """Fills the holes roughly, and wide ones with texture."""
        mask = analysis.mask
        assert mask is not None
        return replace(
            analysis,
            rough=torch.from_numpy(rough_filling(picture.rgb, mask)).to(picture.device).permute(2, 0, 1),
            mask_plane=torch.from_numpy(mask).to(picture.device)[None],
            textures=tuple(self._textures(picture, mask, predict)) if self._blurs else (),
        )

    def _textures(
        self, picture: Picture, mask: np.ndarray, predict: Predictor
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """What `Holes.textures` holds, for each connected hole that is wide enough."""
        holes = mask.astype(np.uint8)
        if not cv2.erode(holes, np.ones((WIDE, WIDE), np.uint8)).any():  # quick: most masks are of thin damage
            return
        depth = cv2.distanceTransform(holes, cv2.DIST_L2, 3)
        labels, _, wide = components(mask, depth >= WIDE)
        for number in np.flatnonzero(wide):
            window = _with_margin(labels == number)
            if window.height * window.width > MAX_TEXTURE_PIXELS:
                continue
            inside, hole = mask[window.slices], labels[window.slices] == number
            predicted = self._prediction(picture, window, inside, predict)
            filled = np.where(inside[..., None], predicted, to_float(picture.rgb[window.slices]))
            texture = synthesize_texture(filled, hole, inside)
            if texture is None:
                continue
            share = np.where(hole, ((depth[window.slices] - 1) / TEXTURE_EDGE).clip(0, 1), 0).astype(np.float32)
            planes = np.concatenate([texture, share[..., None]], axis=-1).transpose(2, 0, 1)
            yield window, torch.from_numpy(np.ascontiguousarray(planes)).to(picture.device)

    def _prediction(self, picture: Picture, window: Window, mask: np.ndarray, predict: Predictor) -> np.ndarray:
        """What the network predicts in a window that is shrunk so that it sees across the holes: (h,w,3) float32.

        mask: (h,w) bool.
        """
        factor = max(1.0, max(window.height, window.width) / MAX_PREDICTED)
        size = math.ceil(window.width / factor), math.ceil(window.height / factor)
        seen, known = to_float(picture.rgb[window.slices]), (~mask).astype(np.float32)
        shrink = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
        undamaged = shrink(known)
        hole = undamaged < 1 - 1e-3
        visible = shrink(seen * known[..., None]) / np.maximum(undamaged, 1e-3)[..., None]
        filled = np.where(hole[..., None], to_float(rough_filling(visible, hole)), visible)
        covered = np.zeros_like(filled)  # as if nothing were: an object that is painted out would shine through
        predicted = predict.whole(array_to_planes(np.concatenate([filled, hole[..., None], covered], axis=-1)))
        return np.asarray(cv2.resize(to_array(predicted.permute(1, 2, 0)), (window.width, window.height)))

    def context(self, analysis: Holes, window: Window) -> torch.Tensor | None:
        """Of a window: the rough filling (3 channels), the mask (1), texture and its share (4)."""
        if analysis.rough is None or analysis.mask_plane is None:
            return None
        rows, columns = window.slices
        height, width = analysis.mask_plane.shape[-2:]
        rough = sample_window(analysis.rough, (height, width), window) / 255
        texture = rough.new_zeros(4, window.height, window.width)
        for place, planes in analysis.textures:
            _paste(planes, place, texture, window)
        return torch.cat([rough, analysis.mask_plane[:, rows, columns].to(rough), texture])

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return F.pad(planes, (0, 0, 0, 0, 0, 4))
        rough, mask, _ = context.split((3, 1, 4), dim=1)
        filled = torch.where(mask > 0, rough, planes)
        return torch.cat([filled, mask, planes - filled], dim=1)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if context is None:
            return output
        texture, share = context[:, 4:].split((3, 1), dim=1)
        return output + (texture - output) * share

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The last 7 channels of stage TRAIN: (h,w,7) float32, see `HoleAutoencoder`.

        These are the roughly filled image, the mask, and what is seen in holes less the rough filling. The mask may be
        dilated as detected ones are. A share of the holes shows another place of the picture: what people paint over
        may be an object, and then nothing in it tells what is behind.
        """
        assert damaged.mask is not None
        draw = rng.random()
        mask = dilate(damaged.mask, sum(draw > limit for limit in DILATION_LIMITS))
        if mask.all():
            mask = damaged.mask
        rough = telea(to_uint8(damaged.image), mask)
        seen = to_float(damaged.image)
        filled = np.where(mask[..., None], to_float(rough), seen)
        if rng.random() < OBJECT_SHARE:
            seen = np.where(mask[..., None], np.roll(seen, tuple(rng.integers(mask.shape)), axis=(0, 1)), seen)
        return np.concatenate([filled, mask[..., None].astype(np.float32), seen - filled], axis=-1)

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """Segmentation loss of the mask, plus the mean pixel loss inside of it."""
        assert sample.hints is not None
        assert sample.mask is not None
        logits, verdicts, restored = prediction[:, :1], prediction[:, 1:-3], prediction[:, -3:]
        filled = masked_mean(pixel_loss(restored, sample.clean), sample.hints[:, 3:4])
        return filled + mask_loss(logits, sample.mask) + verdict_loss(logits, verdicts, sample.mask)


def _with_margin(hole: np.ndarray) -> Window:
    """The window of a hole (H,W) bool and what its texture is taken from."""
    left, top, width, height = cv2.boundingRect(hole.astype(np.uint8))
    margin = int(np.clip(max(width, height), *TEXTURE_MARGIN))
    bottom, right = min(hole.shape[0], top + height + margin), min(hole.shape[1], left + width + margin)
    top, left = max(0, top - margin), max(0, left - margin)
    return Window(top, left, bottom - top, right - left)


def _paste(planes: torch.Tensor, place: Window, target: torch.Tensor, window: Window) -> None:
    """Writes what `planes` (C,h,w) at `place` have in `window` into `target`, which shows `window`."""
    top, left = max(place.top, window.top), max(place.left, window.left)
    bottom = min(place.top + place.height, window.top + window.height)
    right = min(place.left + place.width, window.left + window.width)
    if top < bottom and left < right:
        source = planes[:, top - place.top : bottom - place.top, left - place.left : right - place.left]
        target[:, top - window.top : bottom - window.top, left - window.left : right - window.left] = source


def _aged(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H,W,3) uint8 gray, brown or with faded colours, of less contrast, most often with grain."""
    values, kind = to_float(clean), rng.random()
    if kind < 0.8:
        values = np.repeat(luma(values)[..., None], 3, axis=-1)
    black, white = rng.uniform(0, 0.25), rng.uniform(0.75, 1)
    tint = rng.uniform([1, 0.85, 0.6], [1, 0.97, 0.9]) if kind >= 0.55 else np.ones(3)
    faded = to_dtype((black + (white - black) * values * tint).astype(np.float32), clean.dtype)
    if rng.random() < 0.3:
        return faded
    grain = FilmGrain((1.5, 16.0), coloured=0.0 if kind < 0.55 else 0.3)
    return grain.apply(faded, grain.sample(faded.shape, rng)).image


class Inpaint(Task):
    """Bars, strokes, rectangles and text, paired with a head that detects and inpaints them."""

    spec = TASKS["inpaint"]
    arch = "hole-autoencoder"
    config = HoleAutoencoderConfig(
        widths=(64, 128, 160),
        blocks=(1, 2, 3),
        finder_widths=(32, 64, 112, 144),
        finder_blocks=(1, 1, 2, 1),
    )
    patch = 128

    def head(self, options: MaskOptions) -> InpaintHead:
        return InpaintHead()

    def operator(self, damage: OcclusionOptions) -> OcclusionBars:
        return OcclusionBars(bars=damage.bars)

    def training_pairs(self, damage: OcclusionTraining) -> list[TrainingPair]:
        if damage.bars == "lecture":  # digits of 28x28, which are never re-encoded
            return [TrainingPair(self.operator(damage), InpaintHead())]
        bars = OcclusionBars(bars=damage.bars, short_side=SHORT_SIDES)
        rest = max(0.0, 1 - damage.prints - damage.undamaged)
        share, scale, quality = damage.reencoded, (damage.rescaled, 1.0), (damage.jpeg_quality, 95)
        print_scale = (max(damage.rescaled, PRINT_SCALE), 1.0)
        kinds = Choice(
            (
                Part(Reencoded(bars, share, scale, quality), rest),
                Part(Reencoded(aged_print(SHORT_SIDES), share, print_scale, quality), damage.prints),
                Part(Reencoded(LookAlikes(), share, scale, quality), damage.undamaged),
            )
        )
        return [TrainingPair(kinds, InpaintHead(), slack=1 / damage.rescaled if share else 1)]

    def cases(self, damage: OcclusionOptions) -> list[Case]:
        """PSNR inside the mask: with a detected mask, with the true mask, and detected after resizing and JPEG."""
        exact = TrainingPair(self.operator(damage), InpaintHead())
        cases = [Case("blind", exact, inside=True), Case("mask given", exact, inside=True, given=True)]
        if damage.bars == "lecture":
            return cases
        reencoded = TrainingPair(Reencoded(exact.corruption, 1.0), InpaintHead())
        cases.append(Case("re-encoded", reencoded, inside=True))
        if getattr(damage, "prints", 0):
            prints = TrainingPair(Reencoded(aged_print(), 1.0, scale=(PRINT_SCALE, 1.0)), InpaintHead())
            cases.append(Case("prints", prints, inside=True))
            cases.append(Case("prints, mask given", prints, inside=True, given=True))
        return cases

    def prepare(self, clean: np.ndarray, damage: OcclusionTraining, rng: np.random.Generator) -> np.ndarray:
        """Makes a share of the patches look like old photographs, which are no damage by themselves."""
        return clean if damage.bars == "lecture" or rng.random() >= damage.aged else _aged(clean, rng)


TASK = Inpaint()
