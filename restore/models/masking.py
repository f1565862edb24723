"""Networks for pictures of which a part is lost: one branch finds that part, the other paints it.

Two architectures. `hole-autoencoder`: what is lost is gone (bars, strokes), as in context encoders (Pathak
et al. 2016). `overlay-autoencoder`: it shines through (watermarks), and both branches are told what the picture
would be without.
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
MOSTLY = 2.0  # logit of how much of a pixel a mark covers, to begin with
MOST_OPAQUE = 0.95  # beyond this a blend cannot be undone


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
        sizes = self.finder_widths, self.finder_blocks, self.finder_fold
        return ConvAutoencoder(ConvAutoencoderConfig(inputs, outputs, *sizes, residual=False))

    def painter(self, inputs: int, outputs: int = 3, residual: bool = True) -> ConvAutoencoder:
        """The branch that paints: `inputs` planes in, of which the first are RGB to be corrected if `residual`."""
        sizes = self.widths, self.blocks, self.fold
        return ConvAutoencoder(ConvAutoencoderConfig(inputs, outputs, *sizes, residual=residual))


class MaskedAutoencoder(Architecture):
    """What both have in common: `finder` and `painter`, and which planes each of them takes.

    stage: "" restores, FIND gives what the finder says, TRAIN both for a loss: it takes the planes of FIND, then
    those of "", and gives the outputs in that order. There one in `PAINTED` of the batch is painted, the others keep
    what they are: finding takes many more examples to learn than painting does, and is cheaper.
    """

    LOOKED_AT = 3  # planes that FIND takes
    PAINTED = 4

    def __init__(self, config: MaskedAutoencoderConfig, finder: ConvAutoencoder, painter: ConvAutoencoder) -> None:
        super().__init__()
        self.config = config
        self.finder, self.painter = finder, painter
        self.scales = config.scales
        self.stride = max(self.finder.stride, self.painter.stride)
        self.radius = max(self.finder.radius + EVEN // 2 + 1, self.painter.radius)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        if stage == FIND:
            return self.find(planes)
        if stage == TRAIN:
            looked_at, given = planes[:, : self.LOOKED_AT], planes[:, self.LOOKED_AT :]
            count = -(-len(planes) // self.PAINTED)
            painted = torch.cat([self.paint(given[:count]), self.unpainted(given[count:].float())])
            return torch.cat([self.find(looked_at), painted], dim=1)
        return self.paint(planes)[:, :3]

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        """What the finder says of (N,`LOOKED_AT`,H,W)."""
        raise NotImplementedError

    def paint(self, planes: torch.Tensor) -> torch.Tensor:
        """What the planes of "" are restored to: (N,3,H,W), and what else training is to see of it."""
        raise NotImplementedError

    def unpainted(self, planes: torch.Tensor) -> torch.Tensor:
        """In the form of `paint`, what those planes (N,C,H,W) are before."""
        raise NotImplementedError

    def values_a_pixel(self, scale: int) -> float:
        """The hungrier branch: they run one after the other; and the planes that pass between them."""
        return max(self.finder.values_a_pixel(1), self.painter.values_a_pixel(1)) + 16


@register("hole-autoencoder", MaskedAutoencoderConfig)
class HoleAutoencoder(MaskedAutoencoder):
    """Paints holes, starting from a rough filling.

    Shapes, of stage "": (N,4,H,W), RGB with the holes filled roughly and the mask (1 in a hole), to RGB. FIND:
    RGB to (N,1,H,W), the logit of being lost. TRAIN: (N,7,H,W) to (N,4,H,W).
    """

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, config.finder(6, 1), config.painter(4))

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.finder(torch.cat([planes.float(), evenness(planes.float())], dim=1))
        return found

    def paint(self, planes: torch.Tensor) -> torch.Tensor:
        painted: torch.Tensor = self.painter(planes)
        return painted

    def unpainted(self, planes: torch.Tensor) -> torch.Tensor:
        return planes[:, :3]


@register("overlay-autoencoder", MaskedAutoencoderConfig)
class OverlayAutoencoder(MaskedAutoencoder):
    """Finds what lies under `picture * (1 - opacity) + colour * opacity`, and takes the rest of it away.

    A mark has one opacity and one colour, so those are found outside of the network, from all of the mark. What the
    network sees of them is the picture with that blend undone everywhere; what it gives is how much of each pixel the
    mark covers, which undoes the blend there and nowhere else, and what is to be added then.

    Shapes, of stage "": (N,7,H,W), RGB undone, RGB, and the opacity under the mask (0 outside; 1 where it is not
    known, and then undone is the picture), to RGB. FIND: (N,7,H,W), RGB, RGB undone, and the opacity (0 where no mark
    is known yet, and undone is the picture) to (N,1,H,W), the logit of lying under a mark. TRAIN: (N,14,H,W) to
    (N,5,H,W), the logit, RGB, and the opacity a pixel.
    """

    LOOKED_AT = 7
    PAINTED = 2

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, config.finder(10, 1), config.painter(7, 4, residual=False))

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.finder(torch.cat([planes.float(), evenness(planes[:, :3].float())], dim=1))
        return found

    def paint(self, planes: torch.Tensor) -> torch.Tensor:
        output = self.painter(planes)
        undone, picture, opacity = planes.float().split((3, 3, 1), dim=1)
        opacity = opacity.clamp(max=MOST_OPAQUE)
        overlay = picture - (1 - opacity) * undone  # colour * opacity
        covered = torch.sigmoid(output[:, 3:] + MOSTLY)
        clean = (picture - covered * overlay) / (1 - covered * opacity)
        return torch.cat([clean + output[:, :3], covered * opacity], dim=1)

    def unpainted(self, planes: torch.Tensor) -> torch.Tensor:
        return planes[:, (0, 1, 2, 6)]


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
