"""super-resolve: pictures made small, by bicubic interpolation or as they come, and the head that enlarges.

One trunk at low resolution with an upsampling head for each scale, as MDSR (Lim et al. 2017).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from restore.corruptions.base import Corruption
from restore.corruptions.downsample import Downsample, resize_bicubic
from restore.corruptions.photo_downsample import PhotoDownsample
from restore.errors import UsageError
from restore.metrics import psnr
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.tasks.base import Case, Head, Variant, Window
from restore.tasks.flat import flat_centres
from restore.tasks.spec import TASKS, DownsampleOptions, ScaleOptions


class SuperResolveHead(Head):
    """RGB to RGB, `scale` times larger. Where nothing varies there is nothing to sharpen: white stays white."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def finish(self, output: torch.Tensor, pixels: np.ndarray, context: Any, window: Window) -> np.ndarray:
        restored = super().finish(output, pixels, context, window)
        flat = flat_centres(pixels)
        if not flat.any():
            return restored
        flat, even = (np.repeat(np.repeat(values, self.scale, 0), self.scale, 1) for values in (flat, pixels))
        return np.where(flat[..., None], even, restored)

    def untouched(self, pixels: np.ndarray) -> np.ndarray:
        """Bicubic interpolation of the tile."""
        height, width = pixels.shape[:2]
        return resize_bicubic(pixels, (height * self.scale, width * self.scale))


class SuperResolve:
    """Downsampling by 2, 3 and 4, paired with a head for each."""

    spec = TASKS["super-resolve"]
    arch = "conv-autoencoder"
    config = ConvAutoencoderConfig(widths=(64, 128), blocks=(3, 3), fold=1, scales=(2, 3, 4))
    patch = 48

    def head(self, options: ScaleOptions) -> Head:
        return SuperResolveHead(options.scale)

    def operator(self, damage: DownsampleOptions) -> Corruption[Any]:
        return _operator(damage.scales, damage.shrinking)

    def variants(self, damage: DownsampleOptions) -> list[Variant]:
        return [Variant(_operator((scale,), damage.shrinking), SuperResolveHead(scale)) for scale in damage.scales]

    def cases(self, damage: DownsampleOptions) -> list[Case]:
        """Luma PSNR with `scale` border pixels cut, a case for each scale; of photographs, and without other damage."""
        kinds = {"": "bicubic"} if damage.shrinking == "bicubic" else {" photo": "photo", " bicubic": "bicubic"}
        return [
            Case(
                f"x{scale}{label}",
                Variant(_operator((scale,), kind), SuperResolveHead(scale)),
                partial(psnr, luma=True, border=scale),
            )
            for label, kind in kinds.items()
            for scale in damage.scales
        ]

    def prepare(self, clean: np.ndarray, damage: DownsampleOptions, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: DownsampleOptions) -> Any:
        if len(set(damage.scales)) != len(damage.scales) or not set(damage.scales) <= {2, 3, 4}:
            raise UsageError(f"scales must be some of 2, 3, 4, each once; got {damage.scales}")
        return replace(config, scales=tuple(damage.scales))


def _operator(scales: tuple[int, ...], shrinking: str) -> Corruption[Any]:
    return Downsample(scales) if shrinking == "bicubic" else PhotoDownsample(scales, bicubic=0.25)


TASK = SuperResolve()
