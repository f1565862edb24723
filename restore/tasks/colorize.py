"""colorize: the loss of colour, and the head that predicts plausible colours.

A network with an encoder pretrained on ImageNet gets the whole picture at a bounded size and the colour hints of a
person (Zhang et al. 2017), and predicts a distribution over CIELAB a*b* (Zhang et al. 2016), whose annealed mean is
taken. At full size the colours follow the edges of the luma by a fast guided filter (He and Sun 2015), and the luma is
the input's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.colour import chroma_of, luma_of, to_lab, with_luma
from restore.colour import in_gamut as fit_gamut
from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Grayscale, opaque
from restore.errors import UsageError
from restore.images import read_image
from restore.metrics import psnr
from restore.models.ab_cells import AB, ab_centres, cells_of, centres_of, expected_ab, mean_ab, spacing_of
from restore.models.backbones import BACKBONES, pretrained_tensors
from restore.models.blocks import pad_to_multiple
from restore.models.pretrained_unet import DISTRIBUTION, LOGIT_CELL, PretrainedUNet, PretrainedUNetConfig
from restore.models.registry import Architecture
from restore.pixels import is_gray, to_float
from restore.tasks.base import Analysis, Case, Head, Picture, Predictor, Sample, Task, TrainingPair, Window
from restore.tasks.functional import in_gamut, luma, resize_area, sample_window, to_array, to_planes
from restore.tasks.losses import PixelLoss
from restore.tasks.monochrome import analysed_size, is_monochrome, shrunk, shrunk_luma, shrunk_rgb
from restore.tasks.spec import TASKS, ColorizeOptions, ColorizeTraining, GrayOptions, Options

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(GUIDED_EPSILON) (white at 1) as no edges.
GUIDED_RADIUS = 2
GUIDED_EPSILON = 3e-4

# Class rebalancing of the loss (Zhang et al. 2016), since coloured pixels are rare: a pixel has the weight
# 1 + chroma / REBALANCING_CHROMA, at most MAX_REBALANCING, and decoding divides by it again.
REBALANCING_CHROMA, MAX_REBALANCING = 12.0, 6.0
GRAY_CHROMA = 2.5  # mean chroma of a patch, up to which it counts as gray and has no weight
SCORED_HINTS = 10  # hints, where they are scored
REGRESSION_WEIGHT = 2.0  # weight of the distance of the mean beside the cross-entropy

# Short sides at which a picture is seen, in pixels, the largest first: the logits are averaged.
SIDES = (256, 192, 144)

# Palette matching: additive smoothing of the histograms, step of each round, and number of rounds.
PALETTE_FLOOR, PALETTE_STEP, PALETTE_ROUNDS = 0.01, 0.7, 3


@dataclass(frozen=True)
class Colours(Analysis):
    """Chroma R-Y and B-Y over the picture, linear in the luma Y, at the analysed size."""

    # (4,h,w) float32 on the computing device, two planes of slope and two of offset; None where nothing is coloured
    coefficients: torch.Tensor | None = field(default=None, repr=False)
    size: tuple[int, int] = (0, 0)  # height and width of the picture that they are stretched over


class ColorizeHead(Head[ColorizeOptions, Colours]):
    """Gray values of a whole picture to its a*b*; tiles are then coloured by their luma.

    Args:
        encoder: what training starts from, the name of a backbone or a file.
    """

    colours = True
    hinted = True
    upright = True
    runs_network = False
    training_stage = DISTRIBUTION

    def __init__(self, encoder: str | None = None) -> None:
        self._encoder = encoder

    def check(self, network: Architecture) -> None:
        """Raises UsageError for a network that gives no distribution over colours."""
        if not isinstance(network, PretrainedUNet):
            raise UsageError(f"colorize takes weights of the architecture {Colorize.arch} only")

    def initial(self, config: Any) -> dict[str, torch.Tensor]:
        """The pretrained encoder. Raises UsageError or WeightsError where there is none, or it does not fit."""
        if self._encoder is None:
            return {}
        return pretrained_tensors(self._encoder, config.encoder, config.stages)

    def analyse(
        self, picture: Picture, options: ColorizeOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Colours:
        """The colours of a gray picture; a coloured one is left alone, unless `options.force`.

        A sepia print is taken as gray. mask: (H,W,4), hints, which are colours where opaque.
        """
        if not options.force and not is_monochrome(picture):
            return Colours(np.zeros(picture.size, bool), "has colours already (--force colours it anew)")
        small = np.clip(shrunk_luma(picture, SIDES[0]), 0, 1)
        planes = torch.from_numpy(small)[None].to(picture.device)
        if mask is not None:
            planes = torch.cat([planes, premultiplied_hints(mask, picture.device)])
        ab = self.decoded(average_logits(planes, picture.size, predict), small.shape, options)
        chroma = chroma_of(fit_gamut(small, chroma_of(with_luma(small, ab))))
        coefficients = np.concatenate(guided(small, chroma), axis=-1).transpose(2, 0, 1)
        return Colours(
            coefficients=torch.from_numpy(np.ascontiguousarray(coefficients)).to(picture.device), size=picture.size
        )

    def decoded(self, logits: torch.Tensor, size: tuple[int, ...], options: ColorizeOptions) -> np.ndarray:
        """a*b* (h,w,2) of `size`, on the host, from the logits (K,h/4,w/4) of cells."""
        centres = torch.from_numpy(centres_of(len(logits))).to(logits.device)
        logits = logits - rebalancing_weight(centres.norm(dim=1)).log()[:, None, None]
        if options.reference is not None:
            logits = match_palette(logits, palette_of(options.reference, len(logits)).to(logits.device))
        ab = mean_ab(logits[None] / options.temperature, centres) * options.saturation
        height, width = logits.shape[-2] * LOGIT_CELL, logits.shape[-1] * LOGIT_CELL
        ab = F.interpolate(ab, size=(height, width), mode="bilinear", align_corners=False)
        return to_array(ab[0, :, : size[0], : size[1]].permute(1, 2, 0))

    def context(self, analysis: Colours, window: Window) -> torch.Tensor | None:
        """Slope and offset of the chroma over the luma: (4,h,w)."""
        if analysis.coefficients is None:
            return None
        return sample_window(analysis.coefficients, analysis.size, window)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        """The tile in colours, its luma kept where it is within [0, 1]; `output` plays no part."""
        if context is None:
            return planes
        gray = luma(planes)
        slope, offset = context.split(2, dim=1)
        return in_gamut(gray, slope * gray + offset)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(h,w,6): the gray patch, a*b* by `AB` of the hints, where those are, and a*b* by `AB` of the clean one."""
        gray = to_float(damaged.image)
        gray = gray if gray.shape[-1] == 1 else luma_of(gray)[..., None]
        given = np.zeros((*gray.shape[:2], 3), np.float32)
        if damaged.hints is not None:
            there = opaque(damaged.hints)
            given[there, :2] = to_lab(to_float(damaged.hints[there][None, :, :3]))[0, :, 1:] / np.float32(AB)
            given[there, 2] = 1
        return np.concatenate([gray, given, to_lab(to_float(clean))[..., 1:] / np.float32(AB)], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return sample.hints[:, :4]

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """Cross-entropy of the cells of a*b*, rare colours rebalanced, and the mean `pixel_loss` of their mean."""
        assert sample.hints is not None
        ab = F.avg_pool2d(sample.hints[:, 4:], LOGIT_CELL, ceil_mode=True).float() * AB
        spacing, centres = spacing_of(prediction.shape[1]), torch.from_numpy(centres_of(prediction.shape[1]))
        cells, shares = cells_of(ab, spacing)
        likely = prediction.float().log_softmax(1)
        entropy = -(likely.gather(1, cells) * shares).sum(1)
        chroma = ab.norm(dim=1)
        weight = rebalancing_weight(chroma) * (chroma.mean((1, 2), keepdim=True) > GRAY_CHROMA)
        mean = expected_ab(likely.exp(), centres.to(ab.device))
        regressed = pixel_loss(mean / AB, ab / AB).mean(1)
        return (weight * (entropy + REGRESSION_WEIGHT * regressed)).sum() / weight.sum().clamp(min=1)


def rebalancing_weight(chroma: torch.Tensor) -> torch.Tensor:
    """How much more colours of a chroma, in units of CIELAB, count in training than gray does."""
    return (1 + chroma / REBALANCING_CHROMA).clamp(max=MAX_REBALANCING)


def average_logits(planes: torch.Tensor, size: tuple[int, int], predict: Predictor) -> torch.Tensor:
    """The mean of the logits of a picture of `size`, seen at each of `SIDES` and mirrored.

    Args:
        planes: (1 or 5,h,w) at the largest of `SIDES`, gray values, perhaps followed by `premultiplied_hints`.
        size: height and width of the picture.
        predict: the network.

    Returns:
        (K,h/4,w/4), rounded up: logits of the cells of `centres_of`.
    """
    found: list[torch.Tensor] = []
    for side in SIDES:
        seen = resize_area(planes[None], analysed_size(*size, side))[0]
        if len(seen) > 1:
            seen = torch.cat([seen[:1], hint_planes(seen[1:])])
        # Logits of the picture and of its mirror image lie on each other only where they divide its width.
        seen = pad_to_multiple(seen[None], LOGIT_CELL)[0]
        logits = (predict.whole(seen, DISTRIBUTION) + predict.whole(seen.flip(2), DISTRIBUTION).flip(2)) / 2
        finest = found[0].shape[-2:] if found else logits.shape[-2:]
        found.append(F.interpolate(logits[None], size=finest, mode="bilinear", align_corners=False)[0])
    return torch.stack(found).mean(0)


def premultiplied_hints(hints: np.ndarray, device: torch.device) -> torch.Tensor:
    """RGB times coverage, and coverage, of hints (H,W,4) at the largest of `SIDES`: (4,h,w) float32 on `device`."""

    def planes(window: Window) -> torch.Tensor:
        band = to_planes(torch.from_numpy(np.ascontiguousarray(hints[window.slices]))[None].to(device))
        there = (band[:, 3:] > 0.5).float()
        return torch.cat([band[:, :3] * there, there], dim=1)

    return shrunk(planes, (hints.shape[0], hints.shape[1]), SIDES[0])[0]


def hint_planes(premultiplied: torch.Tensor) -> torch.Tensor:
    """What the network sees of hints: a*b* by `AB`, and 1 where there are any, (4,h,w) -> (3,h,w).

    However thin a stroke is: where a pixel covers any of it, it has its mean colour.
    """
    small = to_array(premultiplied.permute(1, 2, 0))
    coverage, planes = small[..., 3], np.zeros((3, *small.shape[:2]), np.float32)
    marked = coverage > 1e-6
    found = np.clip(small[marked, :3] / coverage[marked][:, None], 0, 1)
    planes[:2, marked] = to_lab(found[None])[0, :, 1:].T / np.float32(AB)
    planes[2, marked] = 1
    return torch.from_numpy(planes).to(premultiplied.device)


def colour_psnr(restored: np.ndarray, clean: np.ndarray) -> float:
    """`psnr` in dB; NaN for a clean picture without colours: it had none to lose."""
    return nan if is_gray(clean) else psnr(restored, clean)


def guided(gray: np.ndarray, chroma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chroma` (h,w,2) as slope * luma + offset, with slope and offset (h,w,2) that vary little (He et al. 2013)."""
    guide = gray[..., None]
    mean, mean_chroma = _box(gray)[..., None], _box(chroma)
    variance = _box(gray * gray)[..., None] - mean * mean
    slope = (_box(guide * chroma) - mean * mean_chroma) / (np.maximum(variance, 0) + np.float32(GUIDED_EPSILON))
    return _box(slope), _box(mean_chroma - slope * mean)


def _box(values: np.ndarray) -> np.ndarray:
    side = 2 * GUIDED_RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)


def palette_of(path: str, count: int) -> torch.Tensor:
    """How often each of `count` cells of a*b* occurs in a picture file: (count,), adding up to 1.

    Raises:
        ImageError: the file cannot be read.
        UsageError: the picture has no colours.
    """
    file = Path(path)
    return _palette(file, count, file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=4)  # it is asked for with each picture
def _palette(path: Path, count: int, changed: int) -> torch.Tensor:  # noqa: ARG001
    pixels = read_image(path).pixels
    if pixels.shape[-1] == 1 or is_gray(pixels):
        raise UsageError(f"{path}: a gray picture has no palette; name one in colours as --reference")
    ab = to_lab(np.clip(shrunk_rgb(Picture.of(pixels)), 0, 1))[..., 1:].transpose(2, 0, 1)
    cells, shares = cells_of(torch.from_numpy(ab.copy())[None], spacing_of(count))
    palette = torch.zeros(count).index_add_(0, cells.flatten(), shares.flatten())
    return palette / palette.sum()


def match_palette(logits: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Logits (K,h,w) whose mean distribution over the picture is that of `palette` (K,), nearly.

    Each cell is made likelier everywhere by as much as it is rarer than in the palette, `PALETTE_ROUNDS` times.
    """
    wanted = (palette + PALETTE_FLOOR / len(palette)).log()
    for _ in range(PALETTE_ROUNDS):
        there = logits.softmax(0).mean((1, 2)) + PALETTE_FLOOR / len(palette)
        logits = logits + PALETTE_STEP * (wanted - there.log())[:, None, None]
    return logits


class Colorize(Task):
    """The BT.601 luma of a picture, paired with a head that colours it anew."""

    spec = TASKS["colorize"]
    arch = "pretrained-unet"
    config = PretrainedUNetConfig()
    patch = 160

    def head(self, options: ColorizeOptions) -> ColorizeHead:
        if options.reference is not None:
            palette_of(options.reference, len(ab_centres(self.config.spacing)))  # refused before any work
        return ColorizeHead()

    def operator(self, damage: GrayOptions) -> Grayscale:
        return Grayscale((damage.hints, damage.hints))

    def training_pairs(self, damage: ColorizeTraining) -> list[TrainingPair]:
        """Most of a scene in each patch, as the whole of it is seen in use."""
        operator = Grayscale(damage.hints, damage.without)
        return [TrainingPair(operator, ColorizeHead(damage.encoder), coverage=(0.7, 1.0))]

    def cases(self, damage: Options) -> list[Case]:
        """RGB PSNR, without hints and with ten, or as many as asked for; gray pictures do not count."""
        count = damage.hints if isinstance(damage, GrayOptions) and damage.hints else SCORED_HINTS
        whole = (0.7, 1.0)
        return [
            Case("gray", TrainingPair(Grayscale(), ColorizeHead(), coverage=whole), colour_psnr),
            Case(
                f"{count} hints",
                TrainingPair(Grayscale((count, count)), ColorizeHead(), coverage=whole),
                colour_psnr,
                given=True,
            ),
        ]

    def config_for(self, config: Any, damage: Options) -> Any:
        """The encoder that training is to start from, where it is named. Raises UsageError for other architectures."""
        if not isinstance(config, PretrainedUNetConfig):
            raise UsageError(f"colorize is trained with the architecture {self.arch} only")
        encoder = damage.encoder if isinstance(damage, ColorizeTraining) else None
        return replace(config, encoder=encoder) if encoder in BACKBONES else config


TASK = Colorize()
