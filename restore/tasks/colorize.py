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
import torch.nn.functional as F

from restore.colour import chroma_of, has_colours, lightness, to_lab, with_luma
from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Grayscale
from restore.metrics import psnr
from restore.models.ensemble import EnsembleAutoencoderConfig
from restore.pixels import is_gray, to_float
from restore.tasks.base import Analysis, Case, Head, Picture, Predictor, Sample, TrainingPair, Window
from restore.tasks.functional import in_gamut, luma, resize_area, sample_window, to_array
from restore.tasks.losses import PixelLoss
from restore.tasks.spec import TASKS, ColorizeOptions, Options

ANALYSED = 192  # short side of what the network sees, in pixels
LONGEST = 4  # the long side is at most so many times that; longer pictures are squeezed
AB = 110.0  # a* and b* of sRGB lie within this of 0, nearly
LEVELS = 3.0  # of 255: how far the channels of gray pictures that went through JPEG, WebP or a scanner may be apart
RARE = 0.001  # share of the pixels that may be further apart than that

BAND_PIXELS = 1 << 20  # of the picture that are shrunk together

# The guided filter: colours are taken as linear in the luma within so many pixels, and contrasts below
# sqrt(SMOOTH) (white at 1) as no edges.
REACH = 2
SMOOTH = 3e-4


@dataclass(frozen=True)
class Colours(Analysis):
    """Chroma R-Y and B-Y over the picture, linear in the luma Y, at the analysed size.

    Args:
        coefficients: (4,h,w) float32 on the computing device, two planes of slope and two of offset; None where
            nothing is coloured.
        size: height and width of the picture that they are stretched over.
    """

    coefficients: torch.Tensor | None = field(default=None, repr=False)
    size: tuple[int, int] = (0, 0)


class ColorizeHead(Head[ColorizeOptions, Colours]):
    """L* of a whole picture to its a*b*; tiles then only take the colours up. L* is divided by 100, a*b* by `AB`."""

    colours = True
    upright = True
    runs_network = False

    def analyse(
        self, picture: Picture, options: ColorizeOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> Colours:
        """The colours of a gray picture; a coloured one, tinted ones among them, is left alone unless `force`."""
        if not options.force and has_colours(picture.array, LEVELS, RARE):
            return Colours(np.zeros(picture.size, bool), "has colours already (--force colours it anew)")
        small = np.clip(shrunk_luma(picture), 0, 1)
        planes = torch.from_numpy(lightness(small)[None] / np.float32(100)).to(picture.device)
        ab = to_array(predict.whole(planes)).transpose(1, 2, 0) * np.float32(AB * options.saturation)
        chroma = _chroma_in_gamut(small, chroma_of(with_luma(small, ab)))
        coefficients = np.concatenate(guided(small, chroma), axis=-1).transpose(2, 0, 1)
        return Colours(
            coefficients=torch.from_numpy(np.ascontiguousarray(coefficients)).to(picture.device), size=picture.size
        )

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
        """(h,w,3): L* of the gray patch, by 100, and a*b* of the clean one, by `AB`."""
        light = lightness(to_float(damaged.image)) / np.float32(100)
        return np.concatenate([light, to_lab(to_float(clean))[..., 1:] / np.float32(AB)], axis=-1)

    def network_input(self, sample: Sample) -> torch.Tensor:
        assert sample.hints is not None
        return sample.hints[:, :1]

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """The mean `pixel_loss` of a* and b*."""
        assert sample.hints is not None
        return pixel_loss(prediction, sample.hints[:, 1:]).mean()


def analysed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is looked at: `ANALYSED` pixels on the short side, its proportions kept."""
    scale = ANALYSED / min(height, width)
    return min(round(height * scale), LONGEST * ANALYSED), min(round(width * scale), LONGEST * ANALYSED)


def shrunk_luma(picture: Picture) -> np.ndarray:
    """BT.601 luma at `analysed_size`: (h,w) float32 on the host, white at 1; by area where it shrinks, else bicubic.

    Computed on the picture's device, a band of rows at a time.
    """
    height, width = analysed_size(*picture.size)
    rows = max(1, BAND_PIXELS // picture.size[1])
    total, across = picture.size
    bands = [Window(top, 0, min(rows, total - top), across) for top in range(0, total, rows)]
    # Rows first shrink in width only; both interpolations are separable.
    narrow = torch.cat([_resized(luma(picture.planes(band)), band.height, width) for band in bands], dim=2)
    return to_array(_resized(narrow, height, width)[0, 0])


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


def _resized(planes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N,C,h,w) at another size."""
    if height <= planes.shape[-2] and width <= planes.shape[-1]:
        return resize_area(planes, (height, width))
    return F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)


def _chroma_in_gamut(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """`chroma` (h,w,2), shrunk until luma (h,w) and chroma together lie within [0, 1]."""
    planes = in_gamut(torch.from_numpy(luminance)[None, None], torch.from_numpy(chroma.transpose(2, 0, 1).copy())[None])
    return chroma_of(planes[0].permute(1, 2, 0).numpy())


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

    def head(self, options: Options) -> ColorizeHead:
        return ColorizeHead()

    def operator(self, damage: Options) -> Grayscale:
        return Grayscale()

    def training_pairs(self, damage: Options) -> list[TrainingPair]:
        """Most of a scene in each patch, as the whole of it is seen in use."""
        return [TrainingPair(Grayscale(), ColorizeHead(), coverage=(0.7, 1.0))]

    def cases(self, damage: Options) -> list[Case]:
        """RGB PSNR; pictures that were gray before do not count."""
        return [Case("gray", pair, colour_psnr) for pair in self.training_pairs(damage)]

    def prepare(self, clean: np.ndarray, damage: Options, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: Options) -> Any:
        return config


TASK = Colorize()
