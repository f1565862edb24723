"""denoise: noise as photographs have it, and the head that removes it, told the level or not.

Blind, as DnCNN-B (Zhang et al. 2017), or with a map of the level as FFDNet (Zhang et al. 2018) and DRUNet (Zhang
et al. 2021): one network for both, which two planes beside the picture tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from restore.corruptions.base import Corrupted, Corruption
from restore.corruptions.camera_noise import CameraNoise
from restore.corruptions.degradation import Choice, Degradation, Part
from restore.corruptions.film_grain import FilmGrain
from restore.corruptions.gaussian_noise import GaussianNoise
from restore.corruptions.jpeg_compression import JpegCompression
from restore.corruptions.resampled import Resampled
from restore.corruptions.signal_noise import PoissonNoise, SpeckleNoise
from restore.errors import UsageError
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.models.registry import Architecture
from restore.pixels import luma, to_dtype, to_float
from restore.tasks.base import Analysis, Case, Head, Picture, Predictor, Task, TrainingPair, Window
from restore.tasks.functional import flat_areas
from restore.tasks.spec import TASKS, DenoiseOptions, NoiseOptions, NoiseTraining, NoiseTrial

REPORTED_SIGMAS = (15.0, 25.0, 50.0)  # the levels that papers report
LEVEL_PLANES = 2  # beside RGB: whether the level is told, and the level
VISIBLE_CHANGE = 1.0  # of 255: less than that nobody sees
ESTIMATED_SIDE = 512  # pixels of the middle of a picture that the level is estimated by
LEVEL_UNIT = 50.0  # of 255: the level that is 1 in its plane
DRIFT = 2 / 255  # by which a network changes an area of one value without meaning to


@dataclass(frozen=True)
class NoiseLevel(Analysis):
    """The noise level that the network is given.

    Args:
        sigma: on the 0-255 scale; None: the network judges for itself.
    """

    sigma: float | None = None


class DenoiseHead(Head[DenoiseOptions, NoiseLevel]):
    """RGB, and what is known of the noise, to RGB. Constant areas hold no noise and stay as they are.

    Noise changes every pixel, so the latter touches no noisy picture; it keeps the white border of a scan white, and
    the constant areas of drawings constant.

    Args:
        sigma: level on the 0-255 scale that the network is told; None: it judges for itself.
        factor: by which that level, or the one that the network finds, is multiplied.
        share: in training, of the patches whose level the network is told.
    """

    max_strength = TASKS["denoise"].max_strength

    def __init__(self, sigma: float | None = None, factor: float = 1.0, share: float = 0.0) -> None:
        self.sigma, self.factor, self.share = sigma, factor, share

    def check(self, network: Architecture) -> None:
        if (self.sigma is not None or self.factor > 1) and input_planes(network) < 3 + LEVEL_PLANES:
            raise UsageError(
                "these weights cannot be told a noise level, which --sigma and a --strength above 1 do; "
                "use others with -m"
            )

    def stronger(self, strength: float) -> DenoiseHead:
        return DenoiseHead(self.sigma, strength, self.share)

    def describe_change(self, change: float) -> str:
        if change < VISIBLE_CHANGE:
            return f"hardly any noise found: {change:.1f} levels changed"
        return f"noise about {change:.{0 if change >= 3 else 1}f} of 255 removed"

    def analyse(
        self, picture: Picture, options: DenoiseOptions, predict: Predictor, mask: np.ndarray | None = None
    ) -> NoiseLevel:
        sigma = self.sigma
        if self.factor > 1 and sigma is None:
            sigma = self._estimated_level(picture, predict)
        return NoiseLevel(sigma=None if sigma is None else self.factor * sigma)

    def static_analysis(self) -> NoiseLevel | None:
        return NoiseLevel(sigma=self.sigma) if self.factor <= 1 else None

    def _estimated_level(self, picture: Picture, predict: Predictor) -> float:
        """What the network removes by itself from the middle of a picture, on the 0-255 scale."""
        height, width = picture.size
        top, left = max(0, height - ESTIMATED_SIDE) // 2, max(0, width - ESTIMATED_SIDE) // 2
        window = Window(top, left, min(height, ESTIMATED_SIDE), min(width, ESTIMATED_SIDE))
        planes = picture.planes(window)
        output = predict.whole(self.preprocess(planes, level_planes(None)[None])[0])
        return 255 * float((output - planes[0].to(output.device)).square().mean().sqrt())

    def context(self, analysis: NoiseLevel, window: Window) -> torch.Tensor:
        """Whether the level is told, and the level: (2,1,1), constant over a tile."""
        return level_planes(analysis.sigma)

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        assert context is not None
        return torch.cat([planes, context.to(planes).expand(planes.shape[0], -1, *planes.shape[-2:])], dim=1)

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """Weights without planes for the level get the picture alone."""
        return super().run(network, planes[:, : input_planes(network)], stage)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        # JPEG makes constant areas too, with steps between them: there a larger change is meant.
        drift = (output - planes).abs().amax(1, keepdim=True) < DRIFT
        extreme = ((planes <= 0) | (planes >= 1)).all(1, keepdim=True)
        return torch.where(flat_areas(planes) & (drift | extreme), planes, output)

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """The level of a patch, which is what the damage changed, for the share of patches that is told."""
        sigma = None
        if rng.random() < self.share:
            change = to_float(damaged.image) - to_float(clean)
            sigma = 255 * float(np.sqrt(np.mean(np.square(change))))
        return np.broadcast_to(level_planes(sigma).numpy().transpose(1, 2, 0), (*clean.shape[:2], LEVEL_PLANES))


def level_planes(sigma: float | None) -> torch.Tensor:
    """(2,1,1): 1 and the level where it is told, zeros where it is not."""
    values = [0.0, 0.0] if sigma is None else [1.0, sigma / LEVEL_UNIT]
    return torch.tensor(values)[:, None, None]


def input_planes(network: Any) -> int:
    """How many planes a network takes; RGB alone if its config does not say, as of other projects' networks."""
    return int(getattr(getattr(getattr(network, "module", network), "config", None), "in_channels", 3))


def photographs(white: Corruption[Any]) -> Choice:
    """Noise as photographs have it: `white` a good third of the time, the rest as cameras, films and files make it."""
    jpeg = JpegCompression()
    camera, grain = CameraNoise(), FilmGrain()
    mild = GaussianNoise((0.0, 50.0), clip=1.0, gray_equal=1.0)
    saved = Part(JpegCompression(quality=(40, 98)), 0.6)
    alone = Choice((Part(camera, 5), Part(grain, 3), Part(mild, 3), Part(PoissonNoise(), 1), Part(SpeckleNoise(), 1)))
    anything = Degradation(
        (
            Part(camera, 0.35),
            Part(grain, 0.3),
            Part(GaussianNoise((0.0, 25.0), clip=1.0, gray_equal=1.0), 0.3),
            Part(PoissonNoise((100.0, 3000.0)), 0.1),
            Part(SpeckleNoise((0.02, 0.12)), 0.1),
            Part(jpeg, 0.3),
            Part(Resampled(alone), 0.15),
        ),
        twice=0.2,
        last=saved,
    )
    return Choice(
        (
            Part(white, 0.38),
            Part(GaussianNoise((0.0, 0.0), clip=1.0), 0.07),  # clean pictures are to be left alone
            Part(Degradation((Part(mild, 1.0),), last=Part(JpegCompression(quality=(60, 98)), 1.0)), 0.1),
            Part(Degradation((Part(camera, 1.0),), last=Part(JpegCompression(quality=(70, 98)), 0.7)), 0.12),
            Part(Degradation((Part(grain, 1.0),), last=Part(JpegCompression(quality=(60, 98)), 0.4)), 0.14),
            Part(JpegCompression(quality=(12, 60)), 0.14),
            Part(jpeg, 0.08),
            Part(Degradation((Part(Resampled(alone), 1.0),), last=saved), 0.05),
            Part(anything, 0.06),
        )
    )


def _operator(damage: NoiseOptions, white: Corruption[Any]) -> Corruption[Any]:
    kinds: dict[str, Corruption[Any]] = {
        "white": white,
        "camera": CameraNoise(),
        "grain": FilmGrain(),
        "jpeg": JpegCompression(),
        "photo": photographs(white),
    }
    return kinds[damage.noise]


class Denoise(Task):
    """Noise of photographs, paired with an RGB-to-RGB head."""

    spec = TASKS["denoise"]
    arch = "conv-autoencoder"
    config = ConvAutoencoderConfig(3 + LEVEL_PLANES, widths=(64, 128, 192), blocks=(3, 3, 4), fold=2)
    patch = 128

    def head(self, options: DenoiseOptions) -> DenoiseHead:
        return DenoiseHead(options.sigma)

    def operator(self, damage: NoiseOptions) -> Corruption[Any]:
        """Clipped noise, since it goes into a file; gray pictures keep equal channels half of the time."""
        return _operator(damage, GaussianNoise(damage.sigma, clip=1.0, gray_equal=0.5))

    def training_pairs(self, damage: NoiseTraining) -> list[TrainingPair]:
        white = GaussianNoise(damage.sigma, damage.clip, gray_equal=1.0)
        return [TrainingPair(_operator(damage, white), DenoiseHead(share=damage.told))]

    def cases(self, damage: NoiseOptions) -> list[Case]:
        """A line for each kind of damage.

        White noise: at the reported levels, or at the middle of a range that holds none; unclipped unless asked.
        """
        clipped = isinstance(damage, NoiseTrial) and damage.clipped
        low, high = damage.sigma
        levels = [sigma for sigma in REPORTED_SIGMAS if low <= sigma <= high] or [(low + high) / 2]
        white = [
            _case(f"sigma {sigma:g}{' clipped' if clipped else ''}", GaussianNoise((sigma, sigma), float(clipped)))
            for sigma in levels
        ]
        photo = [
            _case("camera", Degradation((Part(CameraNoise((4e-4, 0.02)), 1.0),), last=_saved(80, 97))),
            _case("grain", FilmGrain((5.0, 25.0), (0.4, 1.2), 0.3)),
            _case("jpeg-noise", Degradation((Part(GaussianNoise((5.0, 35.0), 1.0), 1.0),), last=_saved(70, 97))),
            _case("blocks", JpegCompression((15, 60), twice=0.0)),
        ]
        if damage.noise == "photo":
            return [*white, *photo]
        if damage.noise == "white":
            return white
        return [_case(damage.noise, self.operator(damage))]

    def prepare(self, clean: np.ndarray, damage: NoiseTraining, rng: np.random.Generator) -> np.ndarray:
        """Turns a share of the patches gray, in colour form, and makes the colours of another share stronger.

        Gray scans are denoised by the same network; and there is more in the world than tame colours.
        """
        kind = rng.random()
        if kind < damage.gray:
            return np.repeat(to_dtype(luma(to_float(clean)), clean.dtype)[..., None], 3, axis=-1)
        if kind >= damage.gray + damage.vivid:
            return clean
        if rng.random() < 0.5:
            return np.ascontiguousarray(clean[..., rng.permutation(3)])
        values = to_float(clean)
        gray = luma(values)[..., None]
        return to_dtype(np.clip(gray + np.float32(rng.uniform(1.2, 2.5)) * (values - gray), 0, 1), clean.dtype)


def _case(label: str, operator: Corruption[Any]) -> Case:
    return Case(label, TrainingPair(operator, DenoiseHead()))


def _saved(low: int, high: int) -> Part:
    return Part(JpegCompression((low, high), twice=0.0), 1.0)


TASK = Denoise()
