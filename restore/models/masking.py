"""Networks for pictures of which a part is lost: one branch finds that part, the other paints it.

Two architectures. `hole-autoencoder`: what is lost is gone (bars, strokes), as in context encoders (Pathak
et al. 2016). `overlay-autoencoder`: it shines through (watermarks), so its opacity and colour are found as
well, and the blend is undone before painting, as in Dekel et al. 2017, learnt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from restore.models.autoencoder import ConvAutoencoder, ConvAutoencoderConfig
from restore.models.registry import Architecture, register

FIND, TRAIN = "find", "train"
EVEN = 5  # pixels in a row whose differences are looked at
LEAST_CONTRAST = 1 / 512  # half a level of 255
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

    def finder(self, inputs: int, outputs: int) -> ConvAutoencoder:
        """The branch that finds: `inputs` planes in, `outputs` planes out."""
        return ConvAutoencoder(
            ConvAutoencoderConfig(
                in_channels=inputs,
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

    def __init__(self, config: MaskedAutoencoderConfig, seen: int, found: int, painted: int) -> None:
        super().__init__()
        self.config = config
        self.finder, self.painter = config.finder(seen, found), config.painter(painted)
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
        super().__init__(config, seen=6, found=1, painted=4)
        self.radius = max(self.finder.radius + EVEN // 2 + 1, self.painter.radius)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        if stage == FIND:
            return self._find(planes)
        if stage == TRAIN:
            filled = planes[:, 3:6].float()
            count = -(-len(planes) // TO_FIND)
            painted = torch.cat([self.painter(planes[:count, 3:]), filled[count:]])
            return torch.cat([self._find(planes[:, :3]), painted], dim=1)
        restored: torch.Tensor = self.painter(planes)
        return restored

    def _find(self, planes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.finder(torch.cat([planes.float(), evenness(planes.float())], dim=1))
        return found


@register("overlay-autoencoder", MaskedAutoencoderConfig)
class OverlayAutoencoder(MaskedAutoencoder):
    """Undoes `picture * (1 - opacity) + colour * opacity`, and paints what that leaves.

    Shapes: (N,3,H,W), RGB, to RGB in stage "". FIND: to (N,5,H,W): the logit of lying under the overlay, its opacity
    and its colour. TRAIN: to (N,11,H,W): those, RGB with the blend undone, and RGB painted (of one in `TO_FIND`;
    the others as they are undone). The painter's
    gradient does not reach the finder: opacity and colour are to be true, not merely of use to it.
    """

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, seen=3, found=5, painted=7)
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


def evenness(planes: torch.Tensor) -> torch.Tensor:
    """How little neighbours differ, along rows, along columns, and all around: (N,C,H,W) -> (N,3,H,W).

    1 where all within reach are equal, 0 where black meets white, logarithmic between. What solid things have in
    common, whatever their colour; a network finds them several times sooner when it need not discover this.
    """
    across = F.pad((planes[..., 1:] - planes[..., :-1]).abs().amax(1, keepdim=True), (0, 1))
    down = F.pad((planes[..., 1:, :] - planes[..., :-1, :]).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    contrasts = (
        F.max_pool2d(across, (1, EVEN), 1, (0, EVEN // 2)),
        F.max_pool2d(down, (EVEN, 1), 1, (EVEN // 2, 0)),
        F.max_pool2d(torch.maximum(across, down), 3, 1, 1),
    )
    levels = torch.cat(contrasts, dim=1).clamp(0, 1)
    return -torch.log2(levels + LEAST_CONTRAST) / -math.log2(LEAST_CONTRAST)


def undo_blend(planes: torch.Tensor, opacity: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """(N,3,H,W) with white at 1 from under an overlay of `opacity` (N,1,H,W) and `colour` (N,3,H,W)."""
    opacity = opacity.clamp(0, MOST_OPAQUE)
    return ((planes - opacity * colour.clamp(0, 1)) / (1 - opacity)).clamp(-FAR, 1 + FAR)
