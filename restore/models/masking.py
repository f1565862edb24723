"""Networks for pictures of which a part is lost: one branch finds that part, the other paints it.

Two architectures. `hole-autoencoder`: what is lost is gone (bars, strokes), as in context encoders (Pathak
et al. 2016). `overlay-autoencoder`: it shines through (watermarks), so its opacity and colour are found as
well, and the blend is undone before painting, as in Dekel et al. 2017, learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from restore.models.autoencoder import ConvAutoencoder, ConvAutoencoderConfig
from restore.models.registry import Architecture, register

FIND, TRAIN = "find", "train"
TO_FIND = 4
MOST_OPAQUE = 0.85  # undoing a blend multiplies noise by 1 / (1 - opacity); beyond this the painter has to invent
FAR = 0.5  # how far beyond black and white an undone blend may lie


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """All it takes to build either architecture.

    widths, blocks, fold: of the branch that paints, finder_*: of the one that finds; as in
    `ConvAutoencoderConfig`. scales: always 1, the picture keeps its size.
    """

    widths: tuple[int, ...] = (64, 128, 160)
    blocks: tuple[int, ...] = (1, 2, 3)
    fold: int = 2
    finder_widths: tuple[int, ...] = (32, 64, 96, 128)
    finder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    finder_fold: int = 2
    scales: tuple[int, ...] = (1,)

    def finder(self, outputs: int) -> ConvAutoencoder:
        """The branch that finds: RGB in, `outputs` planes out."""
        return ConvAutoencoder(
            ConvAutoencoderConfig(
                out_channels=outputs,
                widths=self.finder_widths,
                blocks=self.finder_blocks,
                fold=self.finder_fold,
                residual=False,
            )
        )

    def painter(self, inputs: int) -> ConvAutoencoder:
        """The branch that paints: `inputs` planes in, of which the first three are RGB to be corrected."""
        return ConvAutoencoder(
            ConvAutoencoderConfig(in_channels=inputs, widths=self.widths, blocks=self.blocks, fold=self.fold)
        )


class MaskedAutoencoder(Architecture):
    """What both have in common. stage: "" restores, FIND gives what the finder says, TRAIN both for a loss."""

    def __init__(self, config: MaskedAutoencoderConfig, found: int, painted: int) -> None:
        super().__init__()
        self.config = config
        self.finder, self.painter = config.finder(found), config.painter(painted)
        self.scales = config.scales
        self.stride = max(self.finder.stride, self.painter.stride)

    def values_a_pixel(self, scale: int) -> float:
        """The hungrier branch: they run one after the other; and the planes that pass between them."""
        return max(self.finder.values_a_pixel(1), self.painter.values_a_pixel(1)) + 16


@register("hole-autoencoder", MaskedAutoencoderConfig)
class HoleAutoencoder(MaskedAutoencoder):
    """Paints holes, starting from a rough filling.

    Shapes, of stage "": (N,4,H,W), RGB with the holes filled roughly and the mask (1 in a hole), to RGB. FIND:
    RGB to (N,1,H,W), the logit of being lost. TRAIN: (N,7,H,W), corrupted RGB and what "" takes, to
    (N,4,H,W), the logit and RGB. There one in `TO_FIND` of the batch is painted, the others keep their filling:
    finding takes many more examples to learn than painting does, and is cheaper.
    """

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, found=1, painted=4)
        self.radius = max(self.finder.radius, self.painter.radius)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        if stage == FIND:
            found: torch.Tensor = self.finder(planes)
            return found
        if stage == TRAIN:
            filled = planes[:, 3:6].float()
            count = -(-len(planes) // TO_FIND)
            painted = torch.cat([self.painter(planes[:count, 3:]), filled[count:]])
            return torch.cat([self.finder(planes[:, :3]), painted], dim=1)
        restored: torch.Tensor = self.painter(planes)
        return restored


@register("overlay-autoencoder", MaskedAutoencoderConfig)
class OverlayAutoencoder(MaskedAutoencoder):
    """Undoes `picture * (1 - opacity) + colour * opacity`, and paints what that leaves.

    Shapes: (N,3,H,W), RGB, to RGB in stage "". FIND: to (N,5,H,W): the logit of lying under the overlay, its opacity
    and its colour. TRAIN: to (N,11,H,W): those, RGB with the blend undone, and RGB painted (of one in `TO_FIND`;
    the others as they are undone). The painter's
    gradient does not reach the finder: opacity and colour are to be true, not merely of use to it.
    """

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, found=5, painted=7)
        self.radius = self.finder.radius + self.painter.radius

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        found = self._find(planes)
        if stage == FIND:
            return found
        opacity, colour = found[:, 1:2], found[:, 2:]
        undone = undo_blend(planes.float(), opacity, colour)
        seen = torch.cat([undone, planes.float(), opacity], dim=1).detach()
        if stage != TRAIN:
            restored: torch.Tensor = self.painter(seen)
            return restored
        count = -(-len(planes) // TO_FIND)
        painted = torch.cat([self.painter(seen[:count]), seen[count:, :3]])
        return torch.cat([found, undone, painted], dim=1)

    def _find(self, planes: torch.Tensor) -> torch.Tensor:
        raw = self.finder(planes)
        return torch.cat([raw[:, :1], torch.sigmoid(raw[:, 1:2] - 2), raw[:, 2:] + 0.5], dim=1)


def undo_blend(planes: torch.Tensor, opacity: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """(N,3,H,W) with white at 1 from under an overlay of `opacity` (N,1,H,W) and `colour` (N,3,H,W)."""
    opacity = opacity.clamp(0, MOST_OPAQUE)
    return ((planes - opacity * colour.clamp(0, 1)) / (1 - opacity)).clamp(-FAR, 1 + FAR)
