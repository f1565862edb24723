"""denoise: white Gaussian noise of unknown level, and the head that removes it.

Blind, as DnCNN-B (Zhang et al. 2017): one network for all levels, not told which.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from restore.corruptions.gaussian_noise import GaussianNoise
from restore.metrics import psnr
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.pixels import luma, to_dtype, to_float
from restore.tasks.base import Case, RGBHead, TrainingPair
from restore.tasks.functional import flat_areas
from restore.tasks.spec import TASKS, NoiseOptions, NoiseTraining, NoiseTrial, Options

REPORTED_SIGMAS = (15.0, 25.0, 50.0)  # the levels that papers report


class DenoiseHead(RGBHead[Options]):
    """RGB to RGB. Constant areas hold no noise and stay as they are.

    Noise changes every pixel, so this touches no noisy picture; it keeps the white border of a scan white, and
    the constant areas of drawings constant.
    """

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        return torch.where(flat_areas(planes), planes, output)


class Denoise:
    """Gaussian noise, clipped and not, paired with an RGB-to-RGB head."""

    spec = TASKS["denoise"]
    arch = "conv-autoencoder"
    config = ConvAutoencoderConfig(widths=(64, 128, 192), blocks=(3, 3, 4), fold=2)
    patch = 128

    def head(self, options: Options) -> DenoiseHead:
        return DenoiseHead()

    def operator(self, damage: NoiseOptions) -> GaussianNoise:
        """Clipped noise, since it goes into a file; gray pictures keep equal channels half of the time."""
        return GaussianNoise(damage.sigma, clip=1.0, gray_equal=0.5)

    def training_pairs(self, damage: NoiseTraining) -> list[TrainingPair]:
        return [TrainingPair(GaussianNoise(damage.sigma, damage.clip, gray_equal=1.0), DenoiseHead())]

    def cases(self, damage: NoiseOptions) -> list[Case]:
        """Noise at the reported levels, or at the middle of a range that holds none; unclipped unless asked."""
        clipped = isinstance(damage, NoiseTrial) and damage.clipped
        low, high = damage.sigma
        levels = [sigma for sigma in REPORTED_SIGMAS if low <= sigma <= high] or [(low + high) / 2]
        return [
            Case(
                f"sigma {sigma:g}{' clipped' if clipped else ''}",
                TrainingPair(GaussianNoise((sigma, sigma), clip=float(clipped)), DenoiseHead()),
                psnr,
            )
            for sigma in levels
        ]

    def prepare(self, clean: np.ndarray, damage: NoiseTraining, rng: np.random.Generator) -> np.ndarray:
        """Turns a share of the patches gray, in colour form: gray scans are denoised by the same network."""
        if rng.random() >= damage.gray:
            return clean
        return np.repeat(to_dtype(luma(to_float(clean)), clean.dtype)[..., None], 3, axis=-1)

    def config_for(self, config: Any, damage: NoiseOptions) -> Any:
        return replace(config, scales=(1,))


TASK = Denoise()
