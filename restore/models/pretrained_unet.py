"""A U-Net whose encoder was pretrained on ImageNet classification, for tasks that depend on the objects in a picture.

The light decoder with skips predicts a distribution over colours at a quarter of the resolution. Colour hints of a
person (Zhang et al. 2017) spread by attention to places that are near or have similar features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from restore.errors import UsageError, unknown_name
from restore.models.ab_cells import AB, SPACINGS, ab_centres, mean_ab
from restore.models.backbones import BACKBONES, Encoder
from restore.models.blocks import ResidualBlock, pad_to_multiple
from restore.models.registry import Architecture, register

DISTRIBUTION = "distribution"  # the stage of `PretrainedUNet` that gives logits, not colours
LOGIT_CELL = 4  # input pixels a side for each logit
ATTENTION_CELL = 8  # input pixels a side of the cells that hints are attended to in
MAX_KEYS = 128  # cells with hints that are attended to, at most


@dataclass(frozen=True)
class PretrainedUNetConfig:
    """All it takes to build a `PretrainedUNet`.

    Raises:
        UsageError: the values make no network.
    """

    encoder: str = "mobilenet_v2"  # one of `BACKBONES`
    stages: int = 7  # how many of its stages there are, at least those down to a sixteenth
    # Channels of the decoder at a quarter, an eighth and a sixteenth of the input
    widths: tuple[int, ...] = (64, 128, 160)
    spacing: int = 12  # between centres of the a*b* cells, in units of CIELAB
    heads: int = 4  # of the attention to hints; 0: the network takes none
    frozen: int = 0  # the first stages of the encoder that training leaves as they are

    def __post_init__(self) -> None:
        if self.encoder not in BACKBONES:
            raise unknown_name("encoder", self.encoder, BACKBONES)
        if not 6 <= self.stages <= 7:
            raise UsageError(f"the encoder has 6 or 7 stages; got {self.stages}")
        if len(self.widths) != 3 or min(self.widths) < 1:
            raise UsageError(f"the decoder has three levels, of at least one channel; got {self.widths}")
        if self.spacing not in SPACINGS or self.heads < 0 or self.frozen < 0:
            raise UsageError(f"cells of the a*b* plane are 8 to 30 apart, and heads at least 0; got {self}")


class HintAttention(nn.Module):
    """Spreads the colours of hints to cells that are near or have similar features.

    Every cell attends to the cells with hints, or with a learnt logit to none. The logits of a head fall with the
    squared distance, by a learnt factor.

    Shape: (N,C,h,w), (N,3,h,w) as a*b* and coverage -> (N,3*heads,h,w): a*b* by the share attended, and that share.
    """

    CHANNELS = 16  # a head

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, heads * self.CHANNELS, 1)
        self.key = nn.Conv2d(channels, heads * self.CHANNELS, 1)
        # At first the heads reach from a few cells to all of the picture.
        self.near = nn.Parameter(torch.linspace(-4, 2, heads))
        self.none = nn.Parameter(torch.full((heads,), -2.0))

    def forward(self, features: torch.Tensor, hints: torch.Tensor) -> torch.Tensor:
        count, _, height, width = features.shape
        cells = height * width
        coverage, chosen = hints[:, 2].flatten(1).topk(min(MAX_KEYS, cells))  # (N,K)
        query = self.query(features).view(count, self.heads, self.CHANNELS, cells)
        key = self.key(features).view(count, self.heads, self.CHANNELS, cells)
        index = chosen[:, None, None, :]
        key = key.gather(3, index.expand(-1, self.heads, self.CHANNELS, -1))
        likeness = (query.transpose(2, 3) @ key).float() * self.CHANNELS**-0.5  # (N,heads,cells,K)
        place = torch.arange(cells, device=features.device)
        place = torch.stack([place // width, place % width], dim=-1).float()  # (cells,2)
        apart = (place[None, :, None] - place[chosen][:, None]).square().sum(-1)  # (N,cells,K)
        likeness = likeness - self.near.exp()[:, None, None] * (apart[:, None] / 64)
        likeness = likeness.masked_fill((coverage <= 0)[:, None, None, :], -1e4)
        none = self.none.view(1, -1, 1, 1).expand(count, -1, cells, 1)
        share = torch.cat([likeness, none], dim=-1).softmax(-1)[..., :-1]
        colours = hints.flatten(2).gather(2, chosen[:, None].expand(-1, 3, -1)).clone()
        colours[:, 2] = 1
        spread = share @ colours.transpose(1, 2)[:, None]  # (N,heads,cells,3)
        return spread.permute(0, 1, 3, 2).reshape(count, 3 * self.heads, height, width)


class Merge(nn.Module):
    """Coarser features, enlarged twice, with others of the finer level: to `outputs` channels by a 1x1 convolution."""

    def __init__(self, coarse: int, others: int, outputs: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, outputs, 1)  # before it is enlarged, which is the same and cheaper
        self.others = nn.Conv2d(others, outputs, 1)

    def forward(self, coarse: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        enlarged = F.interpolate(self.coarse(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return F.relu(enlarged + self.others(torch.cat(others, dim=1)))


@register("pretrained-unet", PretrainedUNetConfig)
class PretrainedUNet(Architecture):
    """Gray pictures, with hints or without, to CIELAB a*b*.

    Shape: (N,1,H,W), gray values with white at 1, or (N,4,H,W), with a* and b* by `AB` of hints, and where (1) there
    are any -> (N,2,H,W), a*b* by `AB`, the mean of the distribution. Stage `DISTRIBUTION`: -> (N,K,h,w), logits of the
    cells whose centres are `centres` (K,2), h and w being H and W by `LOGIT_CELL`, rounded up.
    """

    def __init__(self, config: PretrainedUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stride, self.scales = 32, (1,)
        self.radius = 1 << 15  # attention has no end
        self.encoder = Encoder(BACKBONES[config.encoder], config.stages, config.frozen)
        quarter, eighth, sixteenth, bottom = self.encoder.channels
        fine, middle, coarse = config.widths
        self.at_sixteenth = Merge(bottom, sixteenth, coarse)
        self.refine_sixteenth = ResidualBlock(coarse)
        self.at_eighth = Merge(coarse, eighth, middle)
        self.refine_eighth = ResidualBlock(middle)
        self.at_quarter = Merge(middle, quarter, fine)
        self.refine_quarter = ResidualBlock(fine)
        if config.heads:
            self.attention = HintAttention(middle, config.heads)
            self.attended = nn.Conv2d(3 * config.heads + 4, middle, 1)
            self.hinted = nn.Conv2d(4, fine, 1)
        self.centres: torch.Tensor
        self.register_buffer("centres", torch.from_numpy(ab_centres(config.spacing)))
        self.classify = nn.Conv2d(fine, len(self.centres), 1)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        height, width = planes.shape[-2:]
        padded = pad_to_multiple(planes, self.stride).to(self.classify.weight.dtype)
        logits = self._logits(padded[:, :1], padded[:, 1:] if self.config.heads and padded.shape[1] > 1 else None)
        if stage == DISTRIBUTION:
            return logits[..., : -(-height // LOGIT_CELL), : -(-width // LOGIT_CELL)].float()
        ab = mean_ab(logits.float(), self.centres.float()) / AB
        return F.interpolate(ab, scale_factor=LOGIT_CELL, mode="bilinear", align_corners=False)[..., :height, :width]

    def _logits(self, gray: torch.Tensor, hints: torch.Tensor | None) -> torch.Tensor:
        quarter, eighth, sixteenth, bottom = self.encoder(gray)
        features = self.at_eighth(self.refine_sixteenth(self.at_sixteenth(bottom, sixteenth)), eighth)
        if hints is not None:
            pooled = pooled_hints(hints, ATTENTION_CELL)
            spread = self.attention(features, pooled[:, :3])
            features = features + self.attended(torch.cat([spread, pooled], dim=1).to(features.dtype))
        elif self.config.heads:
            features = features + _of_zeros(self.attended)
        features = self.at_quarter(self.refine_eighth(features), quarter)
        if hints is not None:
            features = features + self.hinted(pooled_hints(hints, LOGIT_CELL).to(features.dtype))
        elif self.config.heads:
            features = features + _of_zeros(self.hinted)
        return self.classify(self.refine_quarter(features))

    def values_a_pixel(self, scale: int) -> float:
        """The encoder's widest expansion, at half the resolution, and the logits; the attention to hints is bounded."""
        return 96 / 4 + 96 / 4 + 2 * len(self.centres) / LOGIT_CELL**2 + 16


def pooled_hints(hints: torch.Tensor, side: int) -> torch.Tensor:
    """Hints (N,3,H,W) in cells of `side` pixels: (N,4,h,w), mean a*b* of the hints there, coverage, whether any."""
    pooled = F.avg_pool2d(torch.cat([hints[:, :2] * hints[:, 2:], hints[:, 2:]], dim=1).float(), side)
    coverage = pooled[:, 2:]
    return torch.cat([pooled[:, :2] / coverage.clamp(min=1e-6), coverage, (coverage > 0).float()], dim=1)


def _of_zeros(layer: nn.Conv2d) -> torch.Tensor:
    """What `layer` gives where there are no hints, which training shows it as zeros: its bias, (C,1,1)."""
    assert layer.bias is not None
    return layer.bias[:, None, None]
