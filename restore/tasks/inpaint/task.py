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
from restore.metrics import psnr
from restore.models.masking import (
    FIND,
    JUDGE,
    PART_HIGH,
    PART_LOW,
    HoleAutoencoder,
    HoleAutoencoderConfig,
    part_labels,
    pool_evidence,
)
from restore.models.registry import Architecture
from restore.pixels import luma, to_dtype, to_float, to_uint8
from restore.tasks.base import Analysis, Case, Picture, Predictor, Sample, Task, TrainingPair, Window
from restore.tasks.functional import array_to_planes, sample_window, to_array
from restore.tasks.inpaint.solid_colour import complete_shapes, extend_strokes, has_solid_colour
from restore.tasks.inpaint.texture import synthesize_texture
from restore.tasks.losses import PixelLoss
from restore.tasks.mask_detection import (
    HIGHEST,
    LEVELS,
    LOWEST,
    UNCERTAIN,
    HysteresisThreshold,
    MaskHead,
    components,
    detect_logits,
    dilate,
    highest_mean_logit,
    mask_from_logits,
    mask_loss,
    masked_mean,
    probability,
)
from restore.tasks.spec import TASKS, MaskOptions, OcclusionOptions, OcclusionTraining

# Thresholds of weights without a judge (`evidence` is 0).
# For shapes of constant colour, which completes the mask.
EXACT_THRESHOLD = HysteresisThreshold(low=-1.0, high=6.0)
# After resizing or compression: a missed pixel stays visible, an additional one is filled well.
REENCODED_THRESHOLD = HysteresisThreshold(low=-4.0, high=4.5)
# Highest mean logit of a component, below which a re-encoded image counts as clean unless `aggressive`: real damage has
# high logits everywhere, similar objects of the scene only in spots.
MIN_MEAN_LOGIT = 1.5
# Thresholds of weights with a judge.
# Log odds that a picture is damaged: from the first on its parts are restored, from the second on they are reported.
CONVINCING, DOUBTFUL = 2.5, 1.0
# Log odds that a part is damage: those of at least the first are taken if one of them has at least the second.
LIKELY, CERTAIN = -1.5, 1.25
LIKELY_SOLID = 0.5  # instead of `LIKELY`, where these have a constant colour, which nothing has blurred
# Largest share of a picture that is restored unasked: one of 112 damaged pictures of the validation set has more, and a
# false detection of that size would replace most of what the picture shows.
MAX_SHARE = 0.2
MIN_PIXELS = 4  # of a part
# Where pixels were resized or compressed, a missed one stays visible and an additional one is filled well: parts grow
# by so many pixels of at least this logit.
GROWTH, EDGE_LOGIT = 6, -4.0
COLOUR_LOGIT = 2.0  # from which on a pixel is used to estimate the colour of the damage
TELEA_RADIUS = 3  # pixels
MAX_FILLING_PIXELS = 1 << 24  # larger images are shrunk for the rough filling
WIDE = 20  # pixels to the nearest edge, from which on a hole is filled with texture,
TEXTURE_EDGE = 4  # over so many pixels inwards from its edge
# Pixels around a hole that its texture is taken from: as many as the hole has, within this range.
TEXTURE_MARGIN = (64, 256)
MAX_TEXTURE_PIXELS = 1 << 22  # of a hole with its margin; larger ones keep what the network predicts
MAX_PREDICTED = 160  # pixels a side of the prediction whose low frequencies a texture follows
SHORT_SIDES = (256, 640)  # pixels, of the images that training patches stand for: sizes of shapes follow from it
PRINT_SCALE = 0.75  # by which damaged prints are shrunk, at least: what is thin would vanish
JUDGED = 0.5  # weight of the loss of what is said of parts
# The training mask is dilated by 0 pixels with a probability of 0.5, by 1 with 0.3, by 2 with 0.2.
DILATION_LIMITS = (0.5, 0.8)
OBJECTS = 0.25  # share of training samples whose holes show an object


@dataclass(frozen=True)
class Holes(Analysis):
    """The analysis of an image with holes.

    Args:
        rough: (3,h,w) uint8 on the computing device, the image with its holes filled, perhaps at a smaller size.
        mask_plane: (1,H,W) bool on the computing device, the mask.
        textures: of wide holes: a window, and RGB and its share of the result (4,h,w) float32 on the computing device.
    """

    rough: torch.Tensor | None = field(default=None, repr=False)
    mask_plane: torch.Tensor | None = field(default=None, repr=False)
    textures: tuple[tuple[Window, torch.Tensor], ...] = field(default=(), repr=False)


class InpaintHead(MaskHead[MaskOptions, Holes]):
    """Detects the mask, unless it is given, and inpaints the pixels inside."""

    fills = True
    _blurs = True

    def check(self, network: Architecture) -> None:
        """Notes whether what the network predicts in wide holes is a blur; those of other projects give texture."""
        self._blurs = isinstance(network, HoleAutoencoder)

    def analyse(
        self, picture: Picture, options: MaskOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Holes:
        """Detects the mask and fills it roughly; arguments as in `Head.analyse`.

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
        rough = torch.from_numpy(rough_filling(picture.rgb, mask)).to(picture.device).permute(2, 0, 1)
        plane = torch.from_numpy(mask).to(picture.device)[None]
        holes = Holes(mask, note, confidence, rough=rough, mask_plane=plane)
        if not self._blurs:
            return holes
        return replace(holes, textures=tuple(self._textures(picture, mask, predict)))

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
        rough = _telea(to_uint8(damaged.image), mask)
        seen = to_float(damaged.image)
        filled = np.where(mask[..., None], to_float(rough), seen)
        if rng.random() < OBJECTS:
            seen = np.where(mask[..., None], np.roll(seen, tuple(rng.integers(mask.shape)), axis=(0, 1)), seen)
        return np.concatenate([filled, mask[..., None].astype(np.float32), seen - filled], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return torch.cat([sample.corrupted, sample.hints], dim=1)

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


def verdict_loss(logits: torch.Tensor, verdicts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of what the network says of each part that it found, and of each picture with parts.

    What is true of a part is the share of it that is damaged. Every part of a picture counts the same, and pictures
    with many parts count more, by the root of their number.

    Args:
        logits: (N,1,H,W) of the mask, which make the parts.
        verdicts: (N,2,H,W), log odds for each pixel of a part; (N,0,H,W): parts are not judged.
        mask: (N,1,H,W), 0 or 1.
    """
    losses, weights = [logits.sum() * 0], 1.0
    for number, levels in enumerate(logits[:, 0].detach().float().cpu().numpy() if verdicts.shape[1] else ()):
        labels = torch.from_numpy(part_labels(levels)).to(mask.device).long()
        inside = labels > 0
        if not inside.any():
            continue
        parts, true, said = labels[inside] - 1, mask[number, 0][inside], verdicts[number][:, inside].float()
        size = torch.bincount(parts)
        truth = torch.bincount(parts, true) / size
        own = torch.zeros(len(size), device=said.device).index_add(0, parts, said[0]) / size
        weight = math.sqrt(len(size))
        losses.append(F.binary_cross_entropy_with_logits(own, truth.to(own)) * weight)
        losses.append(F.binary_cross_entropy_with_logits(said[1].mean(), mask[number].amax()) * weight)
        weights += weight
    return torch.stack(losses).sum() * (JUDGED / weights)


def detect_holes(picture: Picture, predict: Predictor, aggressive: bool) -> tuple[np.ndarray, float | None, str]:
    """Finds damage.

    Args:
        picture: the picture.
        predict: the network.
        aggressive: take doubtful parts too.

    Returns:
        The mask (H,W) bool; how likely the most convincing part is damage, 0 to 1, None if there are none; and what a
        person is told of the parts that were left.
    """
    levels, evidence = detect_logits(picture, predict, FIND)
    if evidence is None:
        found, confidence = _detect_mask(picture, levels, aggressive)
        if found is None:
            return np.zeros(picture.size, bool), confidence, UNCERTAIN
        return found, confidence, ""
    labels = part_labels(levels, PART_LOW * LEVELS, PART_HIGH * LEVELS)
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return labels > 0, None, ""
    part, whole = _judged(levels, evidence, labels, predict)
    likely = (part >= LIKELY) & (sizes >= min(MIN_PIXELS, labels.size // 2))
    convincing = (whole >= CONVINCING) & (part[likely].max(initial=LIKELY) >= CERTAIN)
    taken = likely & (whole >= DOUBTFUL if aggressive else convincing)
    left = int(np.count_nonzero(likely & ~taken & (whole >= DOUBTFUL)))
    confidence, nothing = probability(float(whole.max())), np.zeros(picture.size, bool)
    if not taken.any():
        return nothing, confidence, left_note(left)
    mask = _completed(to_uint8(picture.rgb), levels, labels, taken, part)
    if mask.mean() > MAX_SHARE and not aggressive:
        return nothing, confidence, left_note(left + int(np.count_nonzero(taken)))
    return mask, confidence, left_note(left)


def _completed(
    pixels: np.ndarray, levels: np.ndarray, labels: np.ndarray, taken: np.ndarray, part: np.ndarray
) -> np.ndarray:
    """The mask (H,W) bool of the parts that are `taken` (P,), completed: by their colour, or by soft edges.

    Args:
        pixels: (H,W,3) uint8.
        levels: quantised logits.
        labels: of the parts, 0 for the background.
        part: (P,) log odds of each.
    """
    for chosen in (taken & (part >= LIKELY_SOLID), taken):
        mask = np.append(False, chosen)[labels]
        if chosen.any() and has_solid_colour(pixels, mask):
            return complete_shapes(pixels, mask, excluded=levels == LOWEST)
    return soft_edged(pixels, mask, levels)


def _detect_mask(picture: Picture, levels: np.ndarray, aggressive: bool) -> tuple[np.ndarray | None, float | None]:
    """The mask (H,W) that follows from quantised logits, None if it may be an object of the scene; its confidence."""
    mask = mask_from_logits(levels, EXACT_THRESHOLD)
    if not mask.any():
        return mask, None
    pixels = to_uint8(picture.rgb)
    if not has_solid_colour(pixels, mask):
        mask = mask_from_logits(levels, REENCODED_THRESHOLD)
        logit = highest_mean_logit(levels, mask)
        if logit < MIN_MEAN_LOGIT and not aggressive:
            return None, probability(logit)
        return extend_strokes(pixels, mask, certain=levels >= COLOUR_LOGIT * LEVELS), probability(logit)
    confidence = probability(highest_mean_logit(levels, mask))
    return complete_shapes(pixels, mask, excluded=levels == LOWEST), confidence


def left_note(parts: int) -> str:
    """What a person is told of `parts` that are in doubt."""
    if not parts:
        return ""
    one = parts == 1
    return (
        f"{parts} part{'' if one else 's'} may be damage and {'is' if one else 'are'} left unchanged;"
        f" --aggressive restores {'it' if one else 'them'} too, and with --dry-run --save-mask DIR only shows where"
    )


def _judged(levels: np.ndarray, evidence: np.ndarray, labels: np.ndarray, predict: Predictor) -> np.ndarray:
    """Log odds (2,P): that each part is damage, and that the picture has any."""
    logits, values = torch.from_numpy(levels) / LEVELS, torch.from_numpy(evidence) / HIGHEST
    odds = predict.whole(pool_evidence(logits, values, torch.from_numpy(labels)), JUDGE)
    return to_array(odds[:, :, 0])


def soft_edged(pixels: np.ndarray, mask: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Completes a mask (H,W) bool by soft edges, and by the colours under it; `levels` are the quantised logits.

    Args:
        pixels: (H,W,3) uint8.
    """
    grown = dilate(mask, GROWTH) & (levels >= EDGE_LOGIT * LEVELS) | mask
    return extend_strokes(pixels, grown, certain=mask & (levels >= COLOUR_LOGIT * LEVELS))


def rough_filling(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills holes by the fast marching method of Telea (2004).

    Args:
        image: (H,W,3), any supported dtype.
        mask: (H,W) bool, the holes.

    Returns:
        (h,w,3) uint8, shrunk by an integer factor if the image has more than `MAX_FILLING_PIXELS`.
    """
    factor = math.ceil(math.sqrt(max(1.0, mask.size / MAX_FILLING_PIXELS)))
    if factor == 1:
        return _telea(to_uint8(image), mask)
    height, width = (-(-side // factor) for side in mask.shape)
    rows = max(1, MAX_FILLING_PIXELS // image.shape[1]) // factor * factor or factor
    small, known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
    for top in range(0, image.shape[0], rows):
        band, valid = image[top : top + rows], (~mask[top : top + rows]).astype(np.float32)
        size = (width, -(-band.shape[0] // factor))
        target = slice(top // factor, top // factor + size[1])
        weight = cv2.resize(valid, size, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(to_uint8(band) * valid[..., None], size, interpolation=cv2.INTER_AREA)
        known[target] = weight
        small[target] = np.clip(mean / np.maximum(weight, 1e-3)[..., None], 0, 255)
    return _telea(small, known < 0.5)


def _telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if mask.all():  # possible after shrinking
        return image
    for axis in (0, 1):
        if mask.shape[axis] == 1:  # OpenCV 5.0 reads beyond a single row or column: other results each time
            wide = _telea(np.repeat(image, 3, axis), np.repeat(mask, 3, axis))
            return wide.take([1], axis)
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)).reshape(image.shape)


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
        share, scale = damage.reencoded, (damage.rescaled, 1.0)
        print_scale = (max(damage.rescaled, PRINT_SCALE), 1.0)
        kinds = Choice(
            (
                Part(Reencoded(bars, share, scale), rest),
                Part(Reencoded(aged_print(SHORT_SIDES), share, print_scale), damage.prints),
                Part(Reencoded(LookAlikes(), share, scale), damage.undamaged),
            )
        )
        return [TrainingPair(kinds, InpaintHead(), slack=1 / damage.rescaled if share else 1)]

    def cases(self, damage: OcclusionOptions) -> list[Case]:
        """PSNR inside the mask: with a detected mask, with the true mask, and detected after resizing and JPEG."""
        exact = TrainingPair(self.operator(damage), InpaintHead())
        cases = [Case("blind", exact, psnr, inside=True), Case("mask given", exact, psnr, inside=True, given=True)]
        if damage.bars == "lecture":
            return cases
        reencoded = TrainingPair(Reencoded(exact.corruption, 1.0), InpaintHead())
        cases.append(Case("re-encoded", reencoded, psnr, inside=True))
        if getattr(damage, "prints", 0):
            prints = TrainingPair(Reencoded(aged_print(), 1.0, scale=(PRINT_SCALE, 1.0)), InpaintHead())
            cases.append(Case("prints", prints, psnr, inside=True))
            cases.append(Case("prints, mask given", prints, psnr, inside=True, given=True))
        return cases

    def prepare(self, clean: np.ndarray, damage: OcclusionTraining, rng: np.random.Generator) -> np.ndarray:
        """Makes a share of the patches look like old photographs, which are no damage by themselves."""
        return clean if damage.bars == "lecture" or rng.random() >= damage.aged else _aged(clean, rng)


TASK = Inpaint()
