"""Learned image compression: a rounded code, entropy-coded with a factorised prior (Ballé et al. 2017)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from restore.models.blocks import ResidualBlock, conv3x3, crop, pad_to_multiple
from restore.models.registry import Architecture, register

ARCH = "latent-codec"
FOLD = 4  # factor of the pixel unshuffle before the first convolution
STRIDE = 4 * FOLD
BOUND = 127  # rounded codes are from -BOUND to BOUND
TOTAL = 1 << 20  # approximate sum of the frequencies in a table
MIXED = 3  # components of the prior, a mixture of logistic distributions
PACE = 10.0  # parameters of the prior are stored divided by it, which multiplies their learning rate
LEAST = 1e-7  # lower bound of a probability before its logarithm is taken
# Lambda of the rate-distortion loss by level: weight of the squared error (white is 255) beside bits a pixel.
TRADES = (0.0007, 0.0014, 0.0028, 0.0056, 0.0112)


@dataclass(frozen=True)
class CodecConfig:
    """All it takes to build a codec.

    Attributes:
        channels: Of the hidden layers.
        code: Channels of the code, one place for every 16x16 pixels.
        blocks: Residual blocks at an eighth of the resolution, on each side.
        levels: Number of rate-distortion trade-offs.
    """

    channels: int = 96
    code: int = 128
    blocks: int = 1
    levels: int = len(TRADES)


class Normalise(nn.Module):
    """Generalised divisive normalisation, or its inverse (Ballé et al. 2016).

    Each channel is divided, or multiplied, by a weighted sum of the absolute values of all channels: without the
    squares and the root, which cost time and gain nothing (Johnston et al. 2019).
    Shape: (N,C,H,W) -> the same.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.offset = nn.Parameter(torch.ones(channels))
        # Not a matrix by shape: Muon would make its updates orthogonal, and these weights are positive.
        self.weight = nn.Parameter(0.1 * torch.eye(channels)[None])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        sizes = F.conv2d(features.abs(), self.weight[0, :, :, None, None].abs(), self.offset.abs() + 1e-3)
        return features * sizes if self.inverse else features / sizes


@register(ARCH, CodecConfig)
class Codec(Architecture):
    """Pictures (N,3,H,W) in [0,1] to codes (N,code,H/16,W/16), which are rounded, and back."""

    stride = STRIDE
    scales = (1,)

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        inner, code = config.channels, config.code
        self.radius = STRIDE * (5 + 4 * config.blocks)
        self.analysis = nn.Sequential(
            nn.PixelUnshuffle(FOLD),
            conv3x3(3 * FOLD**2, inner),
            Normalise(inner),
            nn.Conv2d(inner, inner, 5, 2, 2),
            *(ResidualBlock(inner) for _ in range(config.blocks)),
            Normalise(inner),
            nn.Conv2d(inner, code, 5, 2, 2),
        )
        self.synthesis = nn.Sequential(
            nn.ConvTranspose2d(code, inner, 5, 2, 2, output_padding=1),
            Normalise(inner, inverse=True),
            *(ResidualBlock(inner) for _ in range(config.blocks)),
            nn.ConvTranspose2d(inner, inner, 5, 2, 2, output_padding=1),
            Normalise(inner, inverse=True),
            conv3x3(inner, 3 * FOLD**2),
            nn.PixelShuffle(FOLD),
        )
        # One network for all levels: each has gains and inverse gains for the channels of the code (Cui et al. 2021).
        first = torch.tensor([0.5 * math.log(trade / TRADES[0]) for trade in TRADES[: config.levels]])
        self.stretch = nn.Parameter(first[:, None].repeat(1, code))
        self.shrink = nn.Parameter(-first[:, None].repeat(1, code))
        shape = (config.levels, code, MIXED)
        self.means = nn.Parameter(torch.zeros(shape))
        self.widths = nn.Parameter(((torch.arange(MIXED) - 1) / PACE).expand(shape).clone())  # logarithms
        self.shares = nn.Parameter(torch.zeros(shape))

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        """(N,3,H,W) -> what is decoded at the highest level."""
        level = torch.full((len(planes),), self.config.levels - 1, device=planes.device)
        return self.decode(self.encode(planes, level).round(), level, planes.shape[-2], planes.shape[-1])

    def values_a_pixel(self, scale: int) -> float:
        """Numbers kept at once for each input pixel."""
        return 6.0 + 3 * self.config.channels / FOLD**2

    def encode(self, planes: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(N,3,H,W) -> codes (N,code,h,w), to be rounded; `level` (N,) from 0."""
        code: torch.Tensor = self.analysis(pad_to_multiple(planes, STRIDE) - 0.5)
        return code.float() * self.stretch[level].exp()[:, :, None, None]

    def decode(self, code: torch.Tensor, level: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Rounded codes (N,code,h,w) -> pictures (N,3,height,width), about in [0,1]."""
        decoded = self.synthesis(code * self.shrink[level].exp()[:, :, None, None])
        return crop(decoded.float() + 0.5, height, width)

    def bits(self, code: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(N,): bits of codes (N,code,h,w) under the prior convolved with uniform noise; they may be fractions."""
        mixed = (PACE * part[level][:, :, None, None] for part in (self.means, self.widths, self.shares))
        return -probability(code.float(), *mixed).clamp_min(LEAST).log2().sum((1, 2, 3))

    @torch.no_grad()
    def tables(self, level: int) -> np.ndarray:
        """Frequencies of the rounded values -BOUND to BOUND by the prior: (code,2*BOUND+1) int64, at least 1.

        In double precision and rounded, so that the same weights give the same tables in every run.
        """
        values = torch.arange(-BOUND, BOUND + 1, dtype=torch.float64)
        mixed = (PACE * part[level].double().cpu()[:, None] for part in (self.means, self.widths, self.shares))
        return (probability(values, *mixed) * TOTAL).round().long().clamp_min(1).numpy()

    def digest(self, level: int) -> str:
        """A hash of the weights and of the tables of a level."""
        known = hashlib.sha256(self.tables(level).astype("<i8").tobytes())
        for tensor in self.state_dict().values():
            known.update(tensor.detach().cpu().float().numpy().astype("<f4").tobytes())
        return known.hexdigest()[:16]


def probability(values: torch.Tensor, means: torch.Tensor, widths: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Of the interval `values` - 0.5 to + 0.5 under a mixture of logistics, whose parameters have one axis more."""
    # The lower tail is precise where the upper one is 1 - 0: the sign is that of the lower half.
    apart = (values[..., None] - means).abs()
    inverse = (-widths).exp()
    upper = (0.5 - apart) * inverse
    inside = torch.sigmoid(upper) - torch.sigmoid(upper - inverse)
    return (inside * shares.softmax(-1)).sum(-1)
