"""The pieces that autoencoders are put together from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """A 3x3 convolution with zero padding, Kaiming-initialised (He et al. 2015) and scaled by `gain`."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    init_kaiming(conv, gain)
    with torch.no_grad():
        if conv.bias is not None:
            conv.bias.zero_()
    return conv


def init_kaiming(conv: nn.Conv2d, gain: float = 1.0, nonlinearity: Literal["relu", "linear"] = "relu") -> None:
    """Fresh weights of a convolution (He et al. 2015), scaled by `gain`; nothing on the meta device."""
    if conv.weight.is_meta:  # torch would load its compiler for such random numbers, which takes seconds
        return
    nn.init.kaiming_normal_(conv.weight, nonlinearity=nonlinearity)
    with torch.no_grad():
        conv.weight.mul_(gain)


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


class ResidualHeads(nn.ModuleDict):
    """The end of an autoencoder: a convolution and a pixel shuffle for each scale, and the global residual.

    The convolutions start small: beside the residual that is the input, or at zero, there is less to unlearn.

    Args:
        channels: Of the features.
        out_channels: Planes of the output.
        fold: The features are 1/fold of the input's size.
        scales: By how much the output is larger than the input, a convolution for each.
        residual: Whether to add the first planes of the input, enlarged by bicubic interpolation.

    Shape: features (N,channels,H'/fold,W'/fold) of a padded input, and the input (N,C,H,W) itself ->
    (N,out_channels,H*scale,W*scale), float32.
    """

    def __init__(self, channels: int, out_channels: int, fold: int, scales: tuple[int, ...], residual: bool) -> None:
        super().__init__(
            {str(scale): conv3x3(channels, out_channels * (fold * scale) ** 2, gain=0.1) for scale in scales}
        )
        self.out_channels, self.fold, self.residual = out_channels, fold, residual

    def forward(self, features: torch.Tensor, planes: torch.Tensor, scale: int) -> torch.Tensor:
        height, width = planes.shape[-2:]
        details = self[str(scale)](features)
        if self.fold * scale > 1:
            details = F.pixel_shuffle(details, self.fold * scale)
        details = crop(details, height * scale, width * scale).float()
        if not self.residual:
            return details
        return enlarge(planes[:, : self.out_channels].float(), scale) + details


def folded(planes: torch.Tensor, stride: int, fold: int) -> torch.Tensor:
    """Pads to a multiple of `stride` and rearranges: (N,C,H,W) -> (N,C*fold*fold,H'/fold,W'/fold)."""
    padded = pad_to_multiple(planes, stride)
    return (
        F.pixel_unshuffle(padded, fold) if fold > 1 else padded
    )  # by 1 it would compare the strides of symbolic sides


def pad_to_multiple(planes: torch.Tensor, multiple: int) -> torch.Tensor:
    """Adds rows and columns at the bottom and right until `multiple` divides both sides; the caller cuts back.

    By reflection, or by replication along a side too short to reflect. Sides may be symbolic (`torch.export` with
    dynamic sizes, above `multiple`): nothing is decided by their values then.

    Args:
        planes: (N,C,H,W), of any float dtype.
        multiple: What both sides are to be a multiple of, at least 1.

    Returns:
        (N,C,H',W') with H' and W' the next multiples.
    """
    height, width = planes.shape[-2:]
    if is_symbolic(height, width):
        planes = planes.index_select(-2, _padded_index(height, multiple, planes.device))
        return planes.index_select(-1, _padded_index(width, multiple, planes.device))
    down, right = -height % multiple, -width % multiple
    if down:
        planes = F.pad(planes, (0, 0, 0, down), mode="reflect" if down < height else "replicate")
    if right:
        planes = F.pad(planes, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return planes


def crop(planes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The top left `height` x `width` of (N,C,H,W); the sides may be symbolic, as in `pad_to_multiple`."""
    if is_symbolic(height, width):  # a slice would compare sizes
        planes = planes.index_select(-2, torch.arange(height, device=planes.device))
        return planes.index_select(-1, torch.arange(width, device=planes.device))
    return planes[..., :height, :width]


def max_filter(values: torch.Tensor, down: tuple[int, int], across: tuple[int, int]) -> torch.Tensor:
    """The largest value of a window around each; windows end at the borders.

    On a CPU ten times as fast as pooling.

    Args:
        values: (N,C,H,W), bool or at least 0.
        down, across: Reach of the window in rows and in columns, before and after.
    """
    padded = F.pad(values, (*across, *down))
    for dim, reach in ((-2, down), (-1, across)):
        length = values.shape[dim]
        largest = padded.narrow(dim, 0, length)
        for start in range(1, sum(reach) + 1):
            largest = torch.maximum(largest, padded.narrow(dim, start, length))
        padded = largest
    return padded


def enlarge(planes: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic interpolation with a = -0.5: (N,C,H,W) in float32 -> (N,C,H*scale,W*scale)."""
    if scale == 1:
        return planes
    size = (planes.shape[-2] * scale, planes.shape[-1] * scale)
    with without_autocast(planes.device):  # in half precision a smooth sky shows steps
        return F.interpolate(planes, size=size, mode="bicubic", antialias=True, align_corners=False)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Keeps what is computed on `device` in its own precision, under torch.autocast too; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def is_symbolic(*sides: object) -> bool:
    """Whether any side is one that `torch.export` does not know, so that nothing may be decided by its value."""
    return any(isinstance(side, torch.SymInt) for side in sides)


def _padded_index(length: int, multiple: int, device: torch.device) -> torch.Tensor:
    """For each row (or column) of the padded picture, the row of the picture that it repeats."""
    index = torch.arange((length + multiple - 1) // multiple * multiple, device=device)
    mirrored = 2 * (length - 1) - index
    # The last one is negative where the side is too short to reflect.
    return torch.where(index < length, index, torch.where(mirrored[-1:] >= 0, mirrored, length - 1))
