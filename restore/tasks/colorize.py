"""colorize: the loss of colour, and the head that gives plausible ones back.

A network sees the lightness of the whole picture at a bounded size and gives CIELAB a*b* (as Zhang et al.
2016, and Iizuka et al. 2016, who also take the whole scene in). At full size the colours follow the edges of
the luma by a fast guided filter (He and Sun 2015), and the luma is the input's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import Any

import cv2
import numpy as np
import torch

from restore.colour import bands, chroma_of, has_colours, in_gamut, lightness, luma_of, to_lab, with_luma
from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Grayscale
from restore.metrics import psnr
from restore.models.ensemble import EnsembleAutoencoderConfig
from restore.pixels import is_gray, to_float
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant, Window
from restore.tasks.distances import Distance
from restore.tasks.sampling import sampled
from restore.tasks.spec import TASKS, ColorizeOptions, Options

ANALYSED = 192  # short side of what the network sees, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed
AB = 110.0  # a* and b* of sRGB lie within this of 0, nearly
LEVELS = 3.0  # of 255: how far the channels of gray pictures that went through JPEG, WebP or a scanner may be apart
RARE = 0.001  # share of the pixels that may be further apart than that

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(SMOOTH) (white at 1) as no edges.
REACH = 2
SMOOTH = 3e-4


@dataclass(frozen=True)
class Colours(Finding):
    """Chroma R-Y and B-Y over the picture, as slope * Y + offset: (h,w,2) float32 each, at the analysed size.

    size: height and width of the picture that they are stretched over. None where nothing is to be coloured.
    """

    slope: np.ndarray | None = field(default=None, repr=False)
    offset: np.ndarray | None = field(default=None, repr=False)
    size: tuple[int, int] = (0, 0)


class ColorizeHead(Head):
    """L* of a whole picture to its a*b*; tiles then only take the colours up. L* is divided by 100, a*b* by `AB`."""

    colours = True
    upright = True
    tiles = False

    def analyse(
        self, image: np.ndarray, options: ColorizeOptions, look: Look, mask: np.ndarray | None = None
    ) -> Colours:
        """The colours of a gray picture; a coloured one is left alone, unless `options.force`.

        A tinted picture, sepia say, counts as coloured.
        """
        size = (image.shape[0], image.shape[1])
        if not options.force and has_colours(image, LEVELS, RARE):
            untouched = np.broadcast_to(np.False_, size)
            return Colours(untouched, "has colours already (--force colours it anew)")
        luma = np.clip(shrunk_luma(image), 0, 1)
        planes = torch.from_numpy(lightness(luma)[None] / np.float32(100))
        ab = look.whole(planes).numpy().transpose(1, 2, 0) * np.float32(AB * options.saturation)
        chroma = chroma_of(in_gamut(luma, chroma_of(with_luma(luma, ab))))
        slope, offset = guided(luma, chroma)
        return Colours(slope=slope, offset=offset, size=size)

    def finish(self, output: torch.Tensor, pixels: np.ndarray, context: Colours, window: Window) -> np.ndarray:
        """The tile (h,w,3) in colours, its luma kept where it is within [0, 1]; `output` plays no part."""
        if context.slope is None or context.offset is None:
            return pixels
        luma = luma_of(pixels)
        chroma = sampled(context.slope, context.size, window)
        chroma *= luma[..., None]
        chroma += sampled(context.offset, context.size, window)
        return in_gamut(luma, chroma)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(h,w,3): L* of the gray patch, by 100, and a*b* of the clean one, by `AB`."""
        light = lightness(to_float(damaged.image)) / np.float32(100)
        return np.concatenate([light, to_lab(to_float(clean))[..., 1:] / np.float32(AB)], axis=-1)

    def seen(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return sample.hints[:, :1]

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """The mean `distance` of a* and b*."""
        assert sample.hints is not None
        return distance(prediction, sample.hints[:, 1:]).mean()


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
    arch = "ensemble-autoencoder"
    # Each works at a quarter of the analysed size, and sees all of a scene. A thousand pictures tell too little of what
    # colour a thing has, so the mean of several guesses is better than one.
    config = EnsembleAutoencoderConfig(
        in_channels=1, out_channels=2, widths=(32, 48, 48, 48), blocks=(2, 2, 2, 1), fold=4, residual=False, members=3
    )
    patch = 160

    def head(self, options: Options) -> Head:
        return ColorizeHead()

    def operator(self, damage: Options) -> Grayscale:
        return Grayscale()

    def variants(self, damage: Options) -> list[Variant]:
        """Most of a scene in each patch, as the whole of it is seen in use."""
        return [Variant(Grayscale(), ColorizeHead(), coverage=(0.7, 1.0))]

    def cases(self, damage: Options) -> list[Case]:
        """RGB PSNR; pictures that were gray before do not count."""
        return [Case("gray", variant, colour_psnr) for variant in self.variants(damage)]

    def prepare(self, clean: np.ndarray, damage: Options, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: Options) -> Any:
        return config


TASK = Colorize()
