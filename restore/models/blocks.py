"""The pieces that autoencoders are put together from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """A 3x3 convolution with zero padding, Kaiming-initialised (He et al. 2015) and scaled by `gain`."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    with torch.no_grad():
        conv.weight.mul_(gain)
        if conv.bias is not None:
            conv.bias.zero_()
    return conv


class ResidualBlock(nn.Module):
    """conv - ReLU - conv added to the input, without normalisation (EDSR, Lim et al. 2017).

    The second convolution starts at a tenth, so that a deep stack starts near the identity.
    Shape: (N,C,H,W) -> the same. Reaches `RADIUS` pixels.
    """

    RADIUS = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv3x3(channels, channels)
        self.second = conv3x3(channels, channels, gain=0.1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.second(F.relu(self.first(features), inplace=True))
        return change.add_(features)  # in place: on a CPU, fresh memory for a large picture costs as much as the sum


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """`count` residual blocks of `channels` in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def pad_to_multiple(planes: torch.Tensor, multiple: int) -> torch.Tensor:
    """`planes` (N,C,H,W) with rows and columns added at the bottom and right until `multiple` divides both.

    By reflection, or by replication along a side too short to reflect; the caller cuts back.
    """
    height, width = planes.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if down:
        planes = F.pad(planes, (0, 0, 0, down), mode="reflect" if down < height else "replicate")
    if right:
        planes = F.pad(planes, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return planes
