"""dewatermark: marks that shine through, and the head that finds and undoes them.

The mask is found in the whole picture first. Under it, the blend is undone by the opacity and colour that the
network estimates, and what that leaves is painted. Pixels outside of the mask stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore.corruptions.logos import Logos
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import find_images, read_image
from restore.metrics import psnr
from restore.models.masking import FIND, MaskedAutoencoderConfig
from restore.tasks.base import Case, Finding, Head, Look, Sample, Variant
from restore.tasks.distances import Distance
from restore.tasks.found import Belief, LookingHead, believed, found_levels, grown, mask_loss, share_inside
from restore.tasks.spec import TASKS, DewatermarkOptions, WatermarkOptions, WatermarkTraining

SHORT_SIDES = (256, 640)  # of the pictures that training patches stand for, in pixels: how large marks are
# The finder is young: it speaks up only where it is very sure, so that clean pictures are left alone.
BELIEF = Belief(likely=-1.0, sure=5.0, smallest=40, least=5e-4)


class DewatermarkHead(LookingHead):
    """Finds the marks, or is told where they are; undoes and paints inside of the mask."""

    def analyse(
        self, image: np.ndarray, options: DewatermarkOptions, look: Look, mask: np.ndarray | None = None
    ) -> Finding:
        if mask is None:
            mask = believed(found_levels(image, look, FIND), BELIEF)
        return Finding(grown(mask, options.grow))

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """Of the mask, the opacity, the colour where there is one, the blend undone, and the painting."""
        assert sample.mask is not None
        assert sample.opacity is not None
        assert sample.colour is not None
        logits, opacity, colour = prediction[:, :1], prediction[:, 1:2], prediction[:, 2:5]
        undone, painted = prediction[:, 5:8], prediction[:, 8:]
        mask = sample.mask
        return (
            mask_loss(logits, mask)
            + (opacity - sample.opacity).abs().mean()
            + share_inside((opacity - sample.opacity).abs(), mask)
            + share_inside((colour - sample.colour).abs() * sample.opacity, mask)
            + share_inside(distance(undone, sample.clean), mask)
            + share_inside(distance(painted, sample.clean), mask)
        )


class Dewatermark:
    """Text, shapes and logos blended over a picture, paired with a head that takes them off."""

    spec = TASKS["dewatermark"]
    arch = "overlay-autoencoder"
    config = MaskedAutoencoderConfig(
        widths=(48, 96, 128), blocks=(1, 1, 1), finder_widths=(48, 96, 160), finder_blocks=(1, 2, 3)
    )
    patch = 128

    def head(self, options: DewatermarkOptions) -> Head:
        return DewatermarkHead()

    def operator(self, damage: WatermarkOptions) -> WatermarkOverlay:
        return WatermarkOverlay(damage.opacity, _logos(damage.logo))

    def variants(self, damage: WatermarkTraining) -> list[Variant]:
        marks = WatermarkOverlay(damage.opacity, _logos(damage.logo), SHORT_SIDES, damage.unmarked)
        return [Variant(Reencoded(marks, damage.reencoded), DewatermarkHead(), slack=2 if damage.reencoded else 1)]

    def cases(self, damage: WatermarkOptions) -> list[Case]:
        """PSNR under the mark: blind, and blind after resizing and JPEG."""
        exact = self.operator(damage)
        return [
            Case("blind", Variant(exact, DewatermarkHead()), psnr, inside=True),
            Case("re-encoded", Variant(Reencoded(exact, 1.0), DewatermarkHead()), psnr, inside=True),
        ]

    def prepare(self, clean: np.ndarray, damage: WatermarkTraining, rng: np.random.Generator) -> np.ndarray:
        return clean

    def config_for(self, config: Any, damage: WatermarkTraining) -> Any:
        return replace(config, scales=(1,))


def _logos(folder: str | None) -> Logos | None:
    """The logos of a folder. Raises UsageError if it is missing, empty, or holds a picture without transparency."""
    return None if folder is None else Logos.read(Path(folder), find_images, read_image)


TASK = Dewatermark()
