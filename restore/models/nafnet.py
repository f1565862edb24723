"""NAFNet: a U of blocks without nonlinear activation functions (Chen et al. 2022), with local channel attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from restore.errors import UsageError
from restore.models.blocks import ResidualHeads, conv3x3, folded, is_symbolic
from restore.models.registry import Architecture, register


@dataclass(frozen=True)
class NAFNetConfig:
    """All it takes to build a `NAFNet`.

    Raises:
        UsageError: The values make no network.
    """

    in_channels: int = 3  # planes of the input
    out_channels: int = 3  # planes of the output
    width: int = 32  # channels of the finest level; every further level has twice as many
    encoder_blocks: tuple[int, ...] = (1, 1, 2)  # blocks of each level of the encoder, finest first
    middle_blocks: int = 4  # blocks at the coarsest level
    # Blocks of each level of the decoder, finest first; as many levels as the encoder
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    fold: int = 1  # the input is rearranged to 1/fold of its size before the first convolution
    # Side in input pixels of the areas over which channel attention averages; a multiple of the side of a cell of the
    # coarsest level, `fold * 2**len(encoder_blocks)`
    window: int = 16
    scales: tuple[int, ...] = (1,)  # by how much the output is larger than the input, an upsampling head for each
    # The network predicts what to add to its input (enlarged by bicubic interpolation where scale > 1)
    residual: bool = True

    def __post_init__(self) -> None:
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise UsageError(
                f"encoder_blocks {self.encoder_blocks} and decoder_blocks {self.decoder_blocks} need as many levels"
            )
        counts = (*self.encoder_blocks, self.middle_blocks, *self.decoder_blocks)
        sizes = (self.in_channels, self.out_channels, self.width, self.fold, self.window, *self.scales)
        if min(counts) < 0 or min(sizes) < 1 or not self.scales:
            raise UsageError(f"a NAFNet needs sizes of at least 1 and no negative number of blocks; got {self}")
        if self.window % (self.fold * 2 ** len(self.encoder_blocks)):
            coarsest = self.fold * 2 ** len(self.encoder_blocks)
            raise UsageError(f"window must be a multiple of {coarsest}, the coarsest level's cell; got {self.window}")
        if self.residual and self.in_channels < self.out_channels:
            raise UsageError("a global residual needs as many input channels as output channels")


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels.

    Shape: (N,C,H,W) -> the same.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = super().forward(features.permute(0, 2, 3, 1))
        return normal.permute(0, 3, 1, 2)


class NAFBlock(nn.Module):
    """Two residual branches: a depthwise convolution with channel attention, and a pointwise network.

    Both use SimpleGate, the product of the two halves of the channels, as their only nonlinearity. The published
    blocks start with a gain of zero, which takes long to leave; here it is one, attention starts by letting everything
    through, and the last convolution of each branch is small.

    The published network averages channel attention over the whole training patch; on a larger picture that is
    another statistic, which TLC (Chu et al. 2022) mends by averages over windows of the patch's size when
    restoring. Here averages are local in training too, so that both see the same, and the result does not depend on
    the size of picture or tile: over areas on a grid, and interpolated bilinearly between their centres.

    Shape: (N,C,H,W) -> the same; H and W are multiples of `cells`.
    """

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.norm = nn.ModuleList(ChannelLayerNorm(channels, eps=1e-6) for _ in range(2))
        self.expand = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 1) for _ in range(2))
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.gain = nn.ParameterList(torch.ones(channels, 1, 1) for _ in range(2))
        with torch.no_grad():
            nn.init.zeros_(self.attention.weight)
            nn.init.ones_(self.attention.bias)  # type: ignore[arg-type]
            for last in self.project.parameters():
                last.mul_(0.1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        gated = _simple_gate(self.depthwise(self.expand[0](self.norm[0](features))))
        weights = self.attention(F.avg_pool2d(gated, self.cells))
        if self.cells > 1:
            weights = F.interpolate(weights, scale_factor=float(self.cells), mode="bilinear", align_corners=False)
        features = features + self.project[0](gated * weights) * self.gain[0]
        gated = _simple_gate(self.expand[1](self.norm[1](features)))
        return features + self.project[1](gated) * self.gain[1]


@register("nafnet", NAFNetConfig)
class NAFNet(Architecture):
    """Strided-convolution encoder, middle blocks, pixel-shuffle decoder with additive skips, and a global residual.

    Shape: (N,in_channels,H,W) -> (N,out_channels,H*scale,W*scale), any H and W from 1. The input may have any float
    dtype; the residual is added in float32, and float32 is returned.
    """

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stride, self.radius, self.scales = config.window, _radius(config), config.scales
        widths = [config.width * 2**level for level in range(len(config.encoder_blocks) + 1)]
        self.stem = conv3x3(config.in_channels * config.fold**2, config.width)

        def blocks(level: int, count: int) -> nn.Sequential:
            cells = config.window // (config.fold * 2**level)
            return nn.Sequential(*(NAFBlock(widths[level], cells) for _ in range(count)))

        self.encoder = nn.ModuleList(blocks(level, count) for level, count in enumerate(config.encoder_blocks))
        self.down = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths[:-1])
        self.middle = blocks(len(widths) - 1, config.middle_blocks)
        self.up = nn.ModuleList(nn.Conv2d(2 * width, 4 * width, 1, bias=False) for width in widths[:-1])
        self.decoder = nn.ModuleList(blocks(level, count) for level, count in enumerate(config.decoder_blocks))
        self.heads = ResidualHeads(config.width, config.out_channels, config.fold, config.scales, config.residual)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        scale = self.scales[0] if scale is None else scale
        features = self.stem(folded(planes.to(self.stem.weight.dtype), self.stride, self.config.fold))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(blocks(features))
            features = down(skips[-1])
        features = self.middle(features)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            features = blocks(F.pixel_shuffle(up(features), 2) + skips.pop())
        return self.heads(features, planes, scale)

    def values_a_pixel(self, scale: int) -> float:
        """A block at work on the finest level, beside the skips; or the end of the head."""
        config = self.config
        finest = config.width / config.fold**2
        levels = range(len(config.encoder_blocks) + 1)
        skips: float = sum(config.width * 2**level / (config.fold * 2**level) ** 2 for level in levels)
        return max(skips + 7 * finest + 6 * config.in_channels, 2 * finest + 8 * config.out_channels * scale**2)


def _simple_gate(features: torch.Tensor) -> torch.Tensor:
    first, second = features.chunk(2, dim=1)
    if is_symbolic(*features.shape[-2:]):  # the product of views compares their strides
        first, second = first.contiguous(), second.contiguous()
    return first * second


def _radius(config: NAFNetConfig) -> int:
    """A bound of how far an input pixel can reach to any side, wherever it lies in its area of attention."""
    levels = len(config.encoder_blocks)
    stages = (*enumerate(config.encoder_blocks), (levels, config.middle_blocks), *enumerate(config.decoder_blocks))
    reach = 4 * config.fold  # the stem and the head, a 3x3 convolution each
    for level, blocks in stages:
        cell = config.fold * 2**level
        # From the middle of an area a block reaches that of the next; the first one may begin elsewhere.
        reach += 3 * cell + config.window * blocks + bool(blocks) * config.window // 2
    return reach
