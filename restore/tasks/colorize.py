"""colorize: the loss of colour, and the head that gives plausible ones back.

A network that was trained to name things sees the whole picture at a bounded size, and colours that a person gave
(Zhang et al. 2017), and gives a distribution over CIELAB a*b*, of which the annealed mean is taken (Zhang et al. 2016).
At full size the colours follow the edges of
the luma by a fast guided filter (He and Sun 2015), and the luma is the input's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import atan2, degrees, hypot, nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.colour import bands, chroma_of, has_colours, in_gamut, luma_of, to_lab, with_luma
from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Grayscale, opaque
from restore.errors import UsageError
from restore.images import read_image
from restore.metrics import psnr
from restore.models.pretrained import (
    AB,
    BACKBONES,
    DISTRIBUTION,
    FINEST,
    PretrainedUNetConfig,
    ab_centres,
    cells_of,
    centres_of,
    expected_ab,
    mean_ab,
    pretrained_tensors,
    spacing_of,
)
from restore.models.registry import Architecture
from restore.pixels import is_gray, to_float
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant, Window
from restore.tasks.distances import Distance
from restore.tasks.sampling import sampled
from restore.tasks.spec import TASKS, ColorizeOptions, ColorizeTraining, GrayOptions, Options

ANALYSED = 192  # short side of what the network sees, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed
LEVELS = 3.0  # of 255: how far the channels of gray pictures that went through JPEG, WebP or a scanner may be apart
RARE = 0.001  # share of the pixels that may be further apart than that

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(SMOOTH) (white at 1) as no edges.
REACH = 2
SMOOTH = 3e-4

# Of sepia prints: how far, as the root of the mean square, a*b* may be from its mean at that lightness, in so many
# ranges of it; that as a share of the mean; and the hue of the mean, in degrees.
TINTED, BINS = 3.0, 16
TINT_SHARE = 0.25
WARM = (30.0, 110.0)

# Of palettes: the share of cells that are not in it, how far each round goes, and how many there are.
FLOOR, DRAWN, ROUNDS = 0.01, 0.7, 3

# The loss. Coloured pixels are rare, and count for more (as in Zhang et al. 2016): by 1 + chroma / RARER, at most so
# many times a gray one. Patches of gray pictures, with a mean chroma below that, teach nothing.
RARER, MOST = 12.0, 6.0
GRAY = 2.5
GIVEN = 10  # hints, where they are scored
REGRESSED = 2.0  # weight of the distance of the mean beside the cross-entropy


@dataclass(frozen=True)
class Colours(Finding):
    """Chroma R-Y and B-Y over the picture, as slope * Y + offset: (h,w,2) float32 each, at the analysed size.

    size: height and width of the picture that they are stretched over. None where nothing is to be coloured.
    """

    slope: np.ndarray | None = field(default=None, repr=False)
    offset: np.ndarray | None = field(default=None, repr=False)
    size: tuple[int, int] = (0, 0)


class ColorizeHead(Head):
    """Gray values of a whole picture to its a*b*; tiles then only take the colours up.

    encoder: what training starts from, the name of a backbone or a file.
    """

    colours = True
    upright = True
    tiles = False
    training_stage = DISTRIBUTION

    def __init__(self, encoder: str | None = None) -> None:
        self._encoder = encoder

    def initial(self, config: Any) -> dict[str, torch.Tensor]:
        """The pretrained encoder. Raises UsageError or WeightsError where there is none, or it does not fit."""
        if self._encoder is None:
            return {}
        return pretrained_tensors(self._encoder, config.encoder, config.stages)

    def analyse(
        self, image: np.ndarray, options: ColorizeOptions, look: Look, mask: np.ndarray | None = None
    ) -> Colours:
        """The colours of a gray picture; a coloured one is left alone, unless `options.force`.

        A sepia print is taken as gray. mask: (H,W,4), hints, which are colours where opaque.
        """
        size = (image.shape[0], image.shape[1])
        if not options.force and has_colours(image, LEVELS, RARE) and not is_tinted(image):
            untouched = np.broadcast_to(np.False_, size)
            return Colours(untouched, "has colours already (--force colours it anew)")
        luma = np.clip(shrunk_luma(image), 0, 1)
        planes = luma[..., None] if mask is None else np.concatenate([luma[..., None], hint_planes(mask, luma)], -1)
        logits = look.whole(torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))), DISTRIBUTION)
        ab = self.decoded(logits, luma.shape, options)
        chroma = chroma_of(in_gamut(luma, chroma_of(with_luma(luma, ab))))
        slope, offset = guided(luma, chroma)
        return Colours(slope=slope, offset=offset, size=size)

    def decoded(self, logits: torch.Tensor, size: tuple[int, int], options: ColorizeOptions) -> np.ndarray:
        """a*b* (h,w,2) of `size` from the logits (K,h/4,w/4) of cells."""
        if options.reference is not None:
            logits = drawn_to(logits, palette_of(str(options.reference), len(logits)))
        centres = torch.from_numpy(centres_of(len(logits)))
        ab = mean_ab(logits[None], centres, options.temperature) * options.saturation
        height, width = logits.shape[-2] * FINEST, logits.shape[-1] * FINEST
        ab = F.interpolate(ab, size=(height, width), mode="bilinear", align_corners=False)
        return ab[0, :, : size[0], : size[1]].numpy().transpose(1, 2, 0)

    def finish(self, output: torch.Tensor, pixels: np.ndarray, context: Colours, window: Window) -> np.ndarray:
        """The tile (h,w,3) in colours, its luma kept where it is within [0, 1]; `output` plays no part."""
        if context.slope is None or context.offset is None:
            return pixels
        luma = luma_of(pixels)
        chroma = sampled(context.slope, context.size, window)
        chroma *= luma[..., None]
        chroma += sampled(context.offset, context.size, window)
        return in_gamut(luma, chroma)

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """Stage DISTRIBUTION gives logits of cells at a quarter of the size."""
        result: torch.Tensor = network(planes, None, stage)
        return result

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(h,w,6): the gray patch, a*b* by `AB` of the hints, where those are, and a*b* by `AB` of the clean one."""
        gray = to_float(damaged.image)
        given = np.zeros((*gray.shape[:2], 3), np.float32)
        if damaged.hints is not None:
            there = opaque(damaged.hints)
            given[there, :2] = to_lab(to_float(damaged.hints[there][None, :, :3]))[0, :, 1:] / np.float32(AB)
            given[there, 2] = 1
        return np.concatenate([gray, given, to_lab(to_float(clean))[..., 1:] / np.float32(AB)], axis=-1)

    def seen(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return sample.hints[:, :4]

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """Cross-entropy of the cells of a*b*, rare colours rebalanced, and the mean `distance` of their mean."""
        assert sample.hints is not None
        ab = F.avg_pool2d(sample.hints[:, 4:], FINEST, ceil_mode=True).float() * AB
        spacing, centres = spacing_of(prediction.shape[1]), torch.from_numpy(centres_of(prediction.shape[1]))
        cells, shares = cells_of(ab, spacing)
        likely = prediction.float().log_softmax(1)
        entropy = -(likely.gather(1, cells) * shares).sum(1)
        chroma = ab.norm(dim=1)
        weight = (1 + chroma / RARER).clamp(max=MOST) * (chroma.mean((1, 2), keepdim=True) > GRAY)
        mean = expected_ab(likely.exp(), centres.to(ab.device))
        regressed = distance(mean / AB, ab / AB).mean(1)
        total: torch.Tensor = (weight * (entropy + REGRESSED * regressed)).sum() / weight.sum().clamp(min=1)
        return total


def hint_planes(hints: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """What the network sees of hints (H,W,4), at the size of `luma` (h,w): a*b* by `AB`, and where there are any.

    However thin a stroke is: where a pixel covers any of it, it has its mean colour. (h,w,3) float32.
    """
    height, width = luma.shape
    there = opaque(hints).astype(np.float32)
    coverage = _resized(there, height, width)
    planes = np.zeros((height, width, 3), np.float32)
    colours = to_float(np.ascontiguousarray(hints[..., :3])) * there[..., None]
    colours = _resized(colours, height, width)
    marked = coverage > 1e-3
    found = np.clip(colours[marked] / coverage[marked][:, None], 0, 1)
    planes[marked, :2] = to_lab(found[None])[0, :, 1:] / np.float32(AB)
    planes[marked, 2] = 1
    return planes


def is_tinted(image: np.ndarray) -> bool:
    """Whether (H,W,3), any dtype, is a sepia print: gray but for a warm tint, that goes with the lightness.

    In each of `BINS` ranges of lightness all pixels then have about the same a*b*. It was so for 87 % of gray pictures
    printed in six tints with noise or JPEG, and for 0.7 % of 677 training pictures: skies at dusk, sand, old paper.
    """
    height, width = analysed_size(*image.shape[:2])
    narrow = [_resized(to_float(band), band.shape[0], width) for band in bands(image)]
    lab = to_lab(np.clip(_resized(np.concatenate(narrow), height, width), 0, 1)).reshape(-1, 3)
    place = np.clip(lab[:, 0] * (BINS / 100), 0, BINS - 1).astype(np.intp)
    count = np.bincount(place, minlength=BINS).clip(min=1)
    usual = np.stack([np.bincount(place, ab, BINS) / count for ab in lab[:, 1:].T], axis=-1)[place]
    off = float(np.sqrt(np.square(lab[:, 1:] - usual).sum(axis=-1).mean()))
    a, b = lab[:, 1:].mean(axis=0)
    warm = WARM[0] <= degrees(atan2(b, a)) <= WARM[1]
    return warm and off < min(TINTED, TINT_SHARE * hypot(a, b))


@lru_cache(maxsize=4)
def palette_of(path: str, count: int) -> torch.Tensor:
    """How often each of `count` cells of a*b* occurs in a picture file: (count,), adding up to 1.

    Raises ImageError for a file that cannot be read, UsageError for a picture without colours.
    """
    pixels = read_image(Path(path)).pixels
    if pixels.shape[-1] == 1 or is_gray(pixels):
        raise UsageError(f"{path}: a gray picture has no palette; name one in colours as --reference")
    height, width = analysed_size(*pixels.shape[:2])
    small = cv2.resize(to_float(pixels), (width, height), interpolation=cv2.INTER_AREA)
    ab = torch.from_numpy(to_lab(np.clip(small, 0, 1))[..., 1:].transpose(2, 0, 1).copy())[None]
    cells, shares = cells_of(ab, spacing_of(count))
    palette = torch.zeros(count).index_add_(0, cells.flatten(), shares.flatten())
    return palette / palette.sum()


def drawn_to(logits: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Logits (K,h,w) whose mean distribution over the picture is that of `palette` (K,), nearly.

    Each cell is made likelier everywhere by as much as it is rarer than in the palette, `ROUNDS` times.
    """
    wanted = (palette + FLOOR / len(palette)).log()
    for _ in range(ROUNDS):
        there = logits.softmax(0).mean((1, 2)) + FLOOR / len(palette)
        logits = logits + DRAWN * (wanted - there.log())[:, None, None]
    return logits


def analysed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is looked at: `ANALYSED` pixels on the short side, its proportions kept."""
    scale = ANALYSED / min(height, width)
    return min(round(height * scale), LONGEST * ANALYSED), min(round(width * scale), LONGEST * ANALYSED)


def shrunk_luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma of (H,W,3), any dtype, at `analysed_size`: float32, white at 1.

    By area where it shrinks, cubic where it grows; never held at full size.
    """
    height, width = analysed_size(*image.shape[:2])
    # Rows first shrink in width only, a band at a time; area and cubic interpolation are separable.
    narrow = [_resized(luma_of(to_float(band)), band.shape[0], width) for band in bands(image)]
    return _resized(np.concatenate(narrow), height, width)


def guided(luma: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chroma` (h,w,2) as slope * luma + offset, with slope and offset (h,w,2) that vary little (He et al. 2013)."""
    guide = luma[..., None]
    mean, mean_chroma = _box(luma)[..., None], _box(chroma)
    variance = _box(luma * luma)[..., None] - mean * mean
    slope = (_box(guide * chroma) - mean * mean_chroma) / (np.maximum(variance, 0) + np.float32(SMOOTH))
    return _box(slope), _box(mean_chroma - slope * mean)


def colour_psnr(restored: np.ndarray, clean: np.ndarray) -> float:
    """`psnr` in dB; NaN for a clean picture without colours: it had none to lose."""
    return nan if is_gray(clean) else psnr(restored, clean)


def _resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height <= values.shape[0] and width <= values.shape[1]
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _box(values: np.ndarray) -> np.ndarray:
    side = 2 * REACH + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)


class Colorize:
    """The BT.601 luma of a picture, paired with a head that colours it anew."""

    spec = TASKS["colorize"]
    arch = "pretrained-unet"
    config = PretrainedUNetConfig()
    patch = 160

    def head(self, options: Options) -> Head:
        if isinstance(options, ColorizeOptions) and options.reference is not None:
            palette_of(str(options.reference), len(ab_centres(self.config.spacing)))  # refused before any work
        return ColorizeHead()

    def operator(self, damage: GrayOptions) -> Grayscale:
        return Grayscale((damage.hints, damage.hints))

    def variants(self, damage: Options) -> list[Variant]:
        """Most of a scene in each patch, as the whole of it is seen in use."""
        assert isinstance(damage, ColorizeTraining)
        operator = Grayscale(damage.hints, damage.without)
        return [Variant(operator, ColorizeHead(damage.encoder), coverage=(0.7, 1.0))]

    def cases(self, damage: Options) -> list[Case]:
        """RGB PSNR, without hints and with ten, or as many as asked for; gray pictures do not count."""
        count = damage.hints if isinstance(damage, GrayOptions) and damage.hints else GIVEN
        whole = (0.7, 1.0)
        return [
            Case("gray", Variant(Grayscale(), ColorizeHead(), coverage=whole), colour_psnr),
            Case(
                f"{count} hints",
                Variant(Grayscale((count, count)), ColorizeHead(), coverage=whole),
                colour_psnr,
                given=True,
            ),
        ]

    def prepare(self, clean: np.ndarray, damage: Options, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: Options) -> Any:
        """The encoder that training is to start from, where it is named."""
        encoder = damage.encoder if isinstance(damage, ColorizeTraining) else None
        return replace(config, encoder=encoder) if encoder in BACKBONES else config


TASK = Colorize()
