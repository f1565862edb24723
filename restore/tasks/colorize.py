"""colorize: the loss of colour, and the head that gives plausible ones back.

A network that was trained to name things sees the whole picture at a bounded size, and colours that a person gave
(Zhang et al. 2017), and gives a distribution over CIELAB a*b* (Zhang et al. 2016), from which the colour that errs
least is chosen. At full size the colours follow the edges of the luma by a fast guided filter (He and Sun 2015), and
the luma is the input's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from restore.colour import chroma_of, has_colours, in_gamut, luma_of, to_lab, with_luma
from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Grayscale, opaque
from restore.metrics import psnr
from restore.models.ab_cells import AB, ab_centres, cells_of, centres_of, expected_ab, spacing_of
from restore.models.backbones import BACKBONES, pretrained_tensors
from restore.models.blocks import pad_to_multiple
from restore.models.pretrained_unet import DISTRIBUTION, FINEST, PretrainedUNetConfig
from restore.models.registry import Architecture
from restore.pixels import is_gray, to_float
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant, Window
from restore.tasks.colour_choice import chosen_ab
from restore.tasks.distances import Distance
from restore.tasks.palettes import drawn_to, is_tinted, palette_of
from restore.tasks.sampling import sampled
from restore.tasks.scene import guided, resized, shrunk_luma
from restore.tasks.spec import TASKS, ColorizeOptions, ColorizeTraining, GrayOptions, Options

LEVELS = 3.0  # of 255: how far the channels of gray pictures that went through JPEG, WebP or a scanner may be apart
RARE = 0.001  # share of the pixels that may be further apart than that

# The loss. Coloured pixels are rare, and count for more (as in Zhang et al. 2016): by 1 + chroma / RARER, at most so
# many times a gray one. Patches of gray pictures, with a mean chroma below that, teach nothing.
RARER, MOST = 12.0, 6.0
UNDONE = 1.0  # power of that by which the distribution is divided again when a picture is restored
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
    hinted = True
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
        # Logits of the picture and of its mirror image lie on each other only where they divide its width.
        seen = pad_to_multiple(torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None], FINEST)[0]
        logits = (look.whole(seen, DISTRIBUTION) + look.whole(seen.flip(2), DISTRIBUTION).flip(2)) / 2
        ab = self.decoded(logits, luma.shape, options)
        chroma = chroma_of(in_gamut(luma, chroma_of(with_luma(luma, ab))))
        slope, offset = guided(luma, chroma)
        return Colours(slope=slope, offset=offset, size=size)

    def decoded(self, logits: torch.Tensor, size: tuple[int, int], options: ColorizeOptions) -> np.ndarray:
        """a*b* (h,w,2) of `size` from the logits (K,h/4,w/4) of cells."""
        logits = logits - UNDONE * rarity(torch.from_numpy(centres_of(len(logits))).norm(dim=1)).log()[:, None, None]
        if options.reference is not None:
            logits = drawn_to(logits, palette_of(str(options.reference), len(logits)))
        ab = chosen_ab(logits, options.temperature)[None] * options.saturation
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
        weight = rarity(chroma) * (chroma.mean((1, 2), keepdim=True) > GRAY)
        mean = expected_ab(likely.exp(), centres.to(ab.device))
        regressed = distance(mean / AB, ab / AB).mean(1)
        total: torch.Tensor = (weight * (entropy + REGRESSED * regressed)).sum() / weight.sum().clamp(min=1)
        return total


def rarity(chroma: torch.Tensor) -> torch.Tensor:
    """How much more colours of a chroma, in units of CIELAB, count in training than gray does."""
    return (1 + chroma / RARER).clamp(max=MOST)


def hint_planes(hints: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """What the network sees of hints (H,W,4), at the size of `luma` (h,w): a*b* by `AB`, and where there are any.

    However thin a stroke is: where a pixel covers any of it, it has its mean colour. (h,w,3) float32.
    """
    height, width = luma.shape
    there = opaque(hints).astype(np.float32)
    coverage = resized(there, height, width)
    planes = np.zeros((height, width, 3), np.float32)
    colours = to_float(np.ascontiguousarray(hints[..., :3])) * there[..., None]
    colours = resized(colours, height, width)
    marked = coverage > 1e-3
    found = np.clip(colours[marked] / coverage[marked][:, None], 0, 1)
    planes[marked, :2] = to_lab(found[None])[0, :, 1:] / np.float32(AB)
    planes[marked, 2] = 1
    return planes


def colour_psnr(restored: np.ndarray, clean: np.ndarray) -> float:
    """`psnr` in dB; NaN for a clean picture without colours: it had none to lose."""
    return nan if is_gray(clean) else psnr(restored, clean)


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
