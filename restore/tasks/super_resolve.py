"""super-resolve: pictures made small, by bicubic interpolation or as they come, and the head that enlarges.

One trunk at low resolution with an upsampling head for each scale, as MDSR (Lim et al. 2017).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from restore.corruptions.downsample import Downsample
from restore.errors import UsageError
from restore.metrics import psnr
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.models.blocks import enlarge
from restore.tasks.base import Analysis, Case, Head, Task, TrainingPair
from restore.tasks.functional import flat_centres
from restore.tasks.spec import TASKS, DownsampleOptions, ScaleOptions


class SuperResolveHead(Head[ScaleOptions, Analysis]):
    """RGB to RGB, `scale` times larger. Constant areas have nothing to sharpen and stay constant."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def static_analysis(self) -> Analysis:
        return Analysis()

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        flat = F.interpolate(flat_centres(planes).float(), scale_factor=float(self.scale), mode="nearest")
        constant = F.interpolate(planes, scale_factor=float(self.scale), mode="nearest")
        return torch.where(flat > 0, constant, output)

    def identity(self, planes: torch.Tensor) -> torch.Tensor:
        """Bicubic interpolation, a = -0.5."""
        return enlarge(planes, self.scale)


class SuperResolve(Task):
    """Downsampling by 2, 3 and 4, paired with a head for each."""

    spec = TASKS["super-resolve"]
    arch = "conv-autoencoder"
    config = ConvAutoencoderConfig(widths=(64, 128), blocks=(3, 3), fold=1, scales=(2, 3, 4))
    patch = 48

    def head(self, options: ScaleOptions) -> SuperResolveHead:
        return SuperResolveHead(options.scale)

    def operator(self, damage: DownsampleOptions) -> Downsample:
        return _operator(damage.scales, damage.shrinking)

    def training_pairs(self, damage: DownsampleOptions) -> list[TrainingPair]:
        return [TrainingPair(_operator((scale,), damage.shrinking), SuperResolveHead(scale)) for scale in damage.scales]

    def cases(self, damage: DownsampleOptions) -> list[Case]:
        """Luma PSNR with `scale` border pixels cut, a case for each scale; of photographs, and without other damage."""
        kinds = {"": "bicubic"} if damage.shrinking == "bicubic" else {" photo": "photo", " bicubic": "bicubic"}
        return [
            Case(
                f"x{scale}{label}",
                TrainingPair(_operator((scale,), kind), SuperResolveHead(scale)),
                partial(psnr, luma=True, border=scale),
            )
            for label, kind in kinds.items()
            for scale in damage.scales
        ]

    def config_for(self, config: Any, damage: DownsampleOptions) -> Any:
        if len(set(damage.scales)) != len(damage.scales) or not set(damage.scales) <= {2, 3, 4}:
            raise UsageError(f"scales must be some of 2, 3, 4, each once; got {damage.scales}")
        return replace(config, scales=tuple(damage.scales))


def _operator(scales: tuple[int, ...], shrinking: str) -> Downsample:
    return Downsample(scales, bicubic=1.0 if shrinking == "bicubic" else 0.4)


TASK = SuperResolve()
