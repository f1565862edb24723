"""A convolutional autoencoder with symmetric skips and a global residual.

After RED-Net (Mao et al. 2016: symmetric skips), DRUNet (Zhang et al. 2021: residual convolution
blocks in a U) and FFDNet (Zhang et al. 2018: work on a folded picture, the cheapest way to a large
receptive field). With one level it is the flat residual trunk of EDSR (Lim et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from restore.errors import UsageError
from restore.models.blocks import ResidualBlock, ResidualHeads, conv3x3, folded, residual_blocks
from restore.models.registry import Architecture, register


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """All it takes to build a `ConvAutoencoder`.

    Raises:
        UsageError: the values make no network.
    """

    in_channels: int = 3  # planes of the input
    out_channels: int = 3  # planes of the output
    widths: tuple[int, ...] = (64, 128, 256)  # channels of each level, from the finest to the bottleneck
    # Residual blocks of each level; the encoder and the decoder have as many each, the bottleneck once
    blocks: tuple[int, ...] = (2, 2, 2)
    fold: int = 2  # the input is rearranged to 1/fold of its size before the first convolution
    scales: tuple[int, ...] = (1,)  # by how much the output is larger than the input, an upsampling head for each
    # The network predicts what to add to the first planes of its input (enlarged by bicubic interpolation where scale >
    # 1)
    residual: bool = True

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise UsageError(f"widths {self.widths} and blocks {self.blocks} need one entry a level each")
        numbers = (self.in_channels, self.out_channels, self.fold, *self.widths, *self.blocks)
        if min(numbers) < 1 or not self.scales or min(self.scales) < 1:
            raise UsageError(f"an autoencoder needs whole numbers of at least 1; got {self}")
        if self.residual and self.in_channels < self.out_channels:
            raise UsageError("a global residual needs as many input channels as output channels")


@register("conv-autoencoder", ConvAutoencoderConfig)
class ConvAutoencoder(Architecture):
    """Residual convolution blocks, strided-convolution encoder, bottleneck, transposed-convolution decoder.

    Shape: (N,in_channels,H,W) -> (N,out_channels,H*scale,W*scale), any H and W from 1. The input may
    have any float dtype; the convolutions run in the dtype of the weights (or of autocast), the
    global residual is added in float32, and float32 is returned.
    """

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        levels = len(config.widths)
        self.stride = config.fold * 2 ** (levels - 1)
        self.scales = config.scales
        self.radius = _radius(config)
        self.stem = conv3x3(config.in_channels * config.fold**2, config.widths[0])
        finer = list(zip(config.widths[:-1], config.blocks[:-1], strict=True))  # all levels but the bottleneck
        self.encoder = nn.ModuleList(residual_blocks(width, count) for width, count in finer)
        pairs = list(zip(config.widths[:-1], config.widths[1:], strict=True))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.bottleneck = residual_blocks(config.widths[-1], config.blocks[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(residual_blocks(width, count) for width, count in finer)
        self.heads = ResidualHeads(config.widths[0], config.out_channels, config.fold, config.scales, config.residual)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        scale = self.scales[0] if scale is None else scale
        return self.heads(self.features(planes), planes, scale)

    def features(self, planes: torch.Tensor) -> torch.Tensor:
        """What the heads are given: (N,widths[0],h,w), of the folded and padded input."""
        return self.features_of(folded(planes.to(self.stem.weight.dtype), self.stride, self.config.fold))

    def features_of(self, cells: torch.Tensor) -> torch.Tensor:
        """`features` of an input that is `folded` already."""
        features = stem = self.stem(cells)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(blocks(features))
            features = down(skips[-1])
        features = self.bottleneck(features)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            features = blocks(up(features).add_(skips.pop()))
        return features.add_(stem)

    def values_a_pixel(self, scale: int) -> float:
        """The larger of two moments: a block at work on the finest level, beside the skips; and the head's end.

        From 0.8 to 1.35 of the peaks that were measured, in fp32 and bf16, at scales of 1 to 4.
        """
        config = self.config
        finest = config.widths[0] / config.fold**2
        skips: float = sum(width / (config.fold * 2**level) ** 2 for level, width in enumerate(config.widths))
        block = skips + 5 * finest + 6 * config.in_channels
        return max(block, 2 * finest + 8 * config.out_channels * scale**2)


def _radius(config: ConvAutoencoderConfig) -> int:
    """How far an input pixel can reach, counted along the longest way through the network."""
    reach = 2 * config.fold  # the stem and the head, a 3x3 convolution each
    for level, blocks in enumerate(config.blocks):
        unit = config.fold * 2**level  # input pixels in a cell of this level
        last = level == len(config.blocks) - 1
        reach += ResidualBlock.RADIUS * blocks * unit * (1 if last else 2)
        reach += 0 if last else 2 * unit  # down and up
    stride: int = config.fold * 2 ** (len(config.blocks) - 1)
    return max(reach + stride - 1, 2)  # where in its cell a pixel lies; bicubic reaches 2
