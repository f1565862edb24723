"""Operations on batches of pixels on any device: conversion, luma, gamut, flat areas, filters, resampling.

Pixels are (N,H,W,C) in the dtype of the image; planes are (N,C,H,W) float32 with black at 0 and white at 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from restore.models.blocks import max_filter, without_autocast
from restore.pixels import BT601, white

if TYPE_CHECKING:
    from restore.tasks.base import Window

FLAT_SIDE = 5  # pixels: side of the constant neighbourhood of a flat pixel


def white_level(dtype: torch.dtype) -> float:
    """The value of white in `dtype`: 255 for uint8, 65535 for uint16, 1 for floating point.

    Raises:
        UsageError: any other dtype.
    """
    return 1.0 if dtype.is_floating_point else white(np.dtype(str(dtype).removeprefix("torch.")))


def to_planes(pixels: torch.Tensor) -> torch.Tensor:
    """Converts pixels (N,H,W,C) to planes (N,C,H,W), in channels_last memory format.

    Floating point values outside [0, 1] are kept. Never shares memory with an integer input.
    """
    scale = white_level(pixels.dtype)
    planes = pixels.to(torch.float32).permute(0, 3, 1, 2)
    return planes if scale == 1.0 else planes * (1.0 / scale)


def to_pixels(planes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Converts planes (N,C,H,W) to pixels (N,H,W,C) of `dtype`, rounded to nearest and clipped for integers."""
    scale = white_level(dtype)
    if scale != 1.0:
        planes = (planes * scale).round_().clamp_(0.0, scale)
    return planes.permute(0, 2, 3, 1).to(dtype)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the memory of `array`; of a copy if torch does not support its layout."""
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def array_to_planes(image: np.ndarray) -> torch.Tensor:
    """Converts an array (H,W,C) of any supported dtype to (C,H,W) float32 on the CPU, contiguous."""
    return to_planes(as_tensor(image)[None])[0].contiguous()


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Copies a tensor to the host; zeros for the meta device, so that the work of the host can be timed alone."""
    if tensor.device.type == "meta":
        return np.zeros(tensor.shape, np.int8 if tensor.dtype == torch.int8 else np.float32)
    return np.asarray(tensor.cpu().numpy())


def luma(planes: torch.Tensor) -> torch.Tensor:
    """BT.601 luma: (N,3,H,W) -> (N,1,H,W). Written such that gray pixels keep exactly their value."""
    red, green, blue = planes.split(1, dim=1)
    return red + BT601[1] * (green - red) + BT601[2] * (blue - red)


def in_gamut(luminance: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """RGB (N,3,H,W) within [0, 1] of luma (N,1,H,W) and chroma R-Y, B-Y (N,2,H,W), scaled towards gray.

    Pixels with luma outside [0, 1] become gray.
    """
    red, blue = chroma.split(1, dim=1)
    green = (red * BT601[0] + blue * BT601[2]) * (-1 / BT601[1])
    colours = torch.cat([red, green, blue], dim=1)
    above = colours.amax(1, keepdim=True).clamp(min=1e-9)
    below = (-colours).amax(1, keepdim=True).clamp(min=1e-9)
    share: torch.Tensor = torch.minimum((1 - luminance) / above, luminance / below).clamp(0, 1)
    return luminance + share * colours


def flat_centres(planes: torch.Tensor) -> torch.Tensor:
    """Pixels whose neighbourhood of `FLAT_SIDE` pixels a side is constant: (N,C,H,W) -> (N,1,H,W) bool."""
    reach = FLAT_SIDE // 2
    across = F.pad((planes[..., 1:] != planes[..., :-1]).any(1, keepdim=True), (0, 1))
    down = F.pad((planes[..., 1:, :] != planes[..., :-1, :]).any(1, keepdim=True), (0, 0, 0, 1))
    # A change lies between a pixel and the next one, so that a window has one less of them than pixels.
    across = max_filter(across, (reach, reach), (reach, reach - 1))
    down = max_filter(down, (reach, reach - 1), (reach, reach))
    return ~(across | down)


def flat_areas(planes: torch.Tensor) -> torch.Tensor:
    """All pixels of constant neighbourhoods, see `flat_centres`: (N,C,H,W) -> (N,1,H,W) bool."""
    reach = FLAT_SIDE // 2
    return max_filter(flat_centres(planes), (reach, reach), (reach, reach))


def sample_window(planes: torch.Tensor, size: tuple[int, int], window: Window) -> torch.Tensor:
    """Upsamples a window of small planes (C,h,w) bilinearly to the `size` (h,w) of a picture (`align_corners=False`).

    Every value depends on its position in the picture alone, so that adjacent windows fit without seams.

    Returns:
        (C,window.height,window.width) float32.
    """
    if tuple(planes.shape[-2:]) == size:
        rows, columns = window.slices
        return planes[:, rows, columns].float()
    top, bottom, down = _neighbours(planes.shape[-2], size[0], window.top, window.height, planes.device)
    left, right, across = _neighbours(planes.shape[-1], size[1], window.left, window.width, planes.device)
    planes = planes.float()
    columns_mixed = torch.lerp(planes[..., left], planes[..., right], across)
    return torch.lerp(columns_mixed[:, top], columns_mixed[:, bottom], down[:, None])


def resize_area(planes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Downsamples by area averaging: (N,C,H,W) -> (N,C,*size), `size` (h,w)."""
    down, across = (_area_weights(*sides, planes.device) for sides in zip(planes.shape[-2:], size, strict=True))
    with without_autocast(planes.device):  # training validates under it, in bfloat16
        return down @ (planes @ across.T)


def correlate1d(values: torch.Tensor, kernel: list[float], dim: int) -> torch.Tensor:
    """(N,C,h,w) correlated with `kernel`, of odd length, along `dim`, -1 or -2; 0 is assumed beyond the image.

    By sums: faster than a convolution on a CPU, and in full precision on GPUs, which may compute that in TF32.
    """
    reach, length = len(kernel) // 2, values.shape[dim]
    padded = F.pad(values, (reach, reach, 0, 0) if dim == -1 else (0, 0, reach, reach))
    total = torch.zeros_like(values)
    for place, weight in enumerate(kernel):
        total.add_(padded.narrow(dim, place, length), alpha=weight)
    return total


def gaussian_kernel1d(sigma: float, radius: int) -> list[float]:
    """A kernel for `correlate1d`, 2 * radius + 1 long, with a sum of 1."""
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def _area_weights(length: int, count: int, device: torch.device) -> torch.Tensor:
    """(count,length) weights of `length` pixels in the mean of each of `count` equal intervals."""
    edges = torch.arange(count + 1, dtype=torch.float64, device=device) * (length / count)
    pixels = torch.arange(length, dtype=torch.float64, device=device)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (count / length)).float()


def _neighbours(
    count: int, length: int, start: int, taken: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two nearest of `count` samples for pixels `start` to `start + taken` of `length`; weight of the second."""
    position = (torch.arange(start, start + taken, dtype=torch.float64, device=device) + 0.5) * (count / length) - 0.5
    position = position.clamp(0, count - 1)
    lower = position.floor()
    first = lower.long()
    return first, (first + 1).clamp(max=count - 1), (position - lower).float()
