"""Operations on batches of pixels, on whatever device they are: conversion, luma, gamut, flat areas, resampling.

Pixels are (N,H,W,C) in the dtype of the picture; planes are (N,C,H,W) float32 with black at 0 and white at 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from restore.errors import UsageError
from restore.pixels import BT601

if TYPE_CHECKING:
    from restore.tasks.base import Window

FLAT_SIDE = 5  # pixels: side of the neighbourhood that has to be constant for its centre to count as flat


def white_level(dtype: torch.dtype) -> float:
    """The value of white: 255 for uint8, 65535 for uint16, 1 for floating point. Raises UsageError for other dtypes."""
    if dtype == torch.uint8:
        return 255.0
    if dtype == torch.uint16:
        return 65535.0
    if dtype.is_floating_point:
        return 1.0
    raise UsageError(f"pixels of type {dtype} are not supported; use uint8, uint16 or float32")


def to_planes(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as planes. Floating point values outside [0, 1] are kept.

    Args:
        pixels: (N,H,W,C) uint8, uint16 or floating point.

    Returns:
        (N,C,H,W) float32, in channels_last memory format, never sharing memory with an integer input.
    """
    white = white_level(pixels.dtype)
    planes = pixels.to(torch.float32).permute(0, 3, 1, 2)
    return planes if white == 1.0 else planes * (1.0 / white)


def to_pixels(planes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Planes as pixels: rounded to nearest and clipped for integers, neither for floating point.

    Args:
        planes: (N,C,H,W) floating point, white at 1.
        dtype: uint8, uint16 or floating point.

    Returns:
        (N,H,W,C) of `dtype`.
    """
    white = white_level(dtype)
    if white != 1.0:
        planes = (planes * white).round_().clamp_(0.0, white)
    return planes.permute(0, 2, 3, 1).to(dtype)


def array_to_planes(image: np.ndarray) -> torch.Tensor:
    """(H,W,C) array of any supported dtype -> (C,H,W) float32 tensor on the CPU, contiguous."""
    return to_planes(torch.from_numpy(np.ascontiguousarray(image))[None])[0].contiguous()


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """The values on the host. Of the meta device, which holds none, zeros: what only the host computes can be timed."""
    if tensor.device.type == "meta":
        return np.zeros(tensor.shape, np.int8 if tensor.dtype == torch.int8 else np.float32)
    return np.asarray(tensor.cpu().numpy())


def luma(planes: torch.Tensor) -> torch.Tensor:
    """BT.601 luma, exactly the value of gray pixels: (N,3,H,W) -> (N,1,H,W)."""
    red, green, blue = planes.split(1, dim=1)
    exact: torch.Tensor = red + BT601[1] * (green - red) + BT601[2] * (blue - red)
    return exact


def in_gamut(luminance: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """RGB of a given BT.601 luma with as much of the chroma as stays within [0, 1].

    The chroma is scaled towards gray, so that the luma stays; luma outside [0, 1] is left gray.

    Args:
        luminance: (N,1,H,W), BT.601 luma Y.
        chroma: (N,2,H,W), R-Y and B-Y.

    Returns:
        (N,3,H,W), RGB.
    """
    red, blue = chroma.split(1, dim=1)
    green = (red * BT601[0] + blue * BT601[2]) * (-1 / BT601[1])
    colours = torch.cat([red, green, blue], dim=1)
    above = colours.amax(1, keepdim=True).clamp(min=1e-9)
    below = (-colours).amax(1, keepdim=True).clamp(min=1e-9)
    share: torch.Tensor = torch.minimum((1 - luminance) / above, luminance / below).clamp(0, 1)
    rgb: torch.Tensor = luminance + share * colours
    return rgb


def flat_centres(planes: torch.Tensor) -> torch.Tensor:
    """Where a neighbourhood of `FLAT_SIDE` pixels a side is constant: (N,C,H,W) -> (N,1,H,W), 1 or 0, float32."""
    varies = _max_filter(planes) != -_max_filter(-planes)
    return (~varies.any(dim=1, keepdim=True)).float()


def flat_areas(planes: torch.Tensor) -> torch.Tensor:
    """All pixels of constant neighbourhoods, not only their centres: (N,C,H,W) -> (N,1,H,W) bool."""
    return _max_filter(flat_centres(planes)) > 0


def sample_window(planes: torch.Tensor, size: tuple[int, int], window: Window) -> torch.Tensor:
    """A window of small planes stretched bilinearly over a picture, pixel centres aligned.

    Every value is computed from its place in the picture alone, so that neighbouring windows fit exactly.

    Args:
        planes: (C,h,w) floating point.
        size: height and width of the picture that they are stretched over.
        window: part of that picture.

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
    """Smaller planes, each value the mean of the area that it covers: (N,C,H,W) -> (N,C,*size), size (h,w)."""
    down, across = (_area_weights(*sides, planes.device) for sides in zip(planes.shape[-2:], size, strict=True))
    return down @ (planes @ across.T)


def _area_weights(length: int, count: int, device: torch.device) -> torch.Tensor:
    """(count,length): what share of each of `count` equal parts of a side every pixel of it has."""
    edges = torch.arange(count + 1, dtype=torch.float64, device=device) * (length / count)
    pixels = torch.arange(length, dtype=torch.float64, device=device)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (covered.clamp(min=0) * (count / length)).float()


def _neighbours(
    count: int, length: int, start: int, taken: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For pixels `start` to `start + taken` of `length`: indices of both of `count` values around each, and weight."""
    place = (torch.arange(start, start + taken, dtype=torch.float64, device=device) + 0.5) * (count / length) - 0.5
    place = place.clamp(0, count - 1)
    lower = place.floor()
    first = lower.long()
    return first, (first + 1).clamp(max=count - 1), (place - lower).float()


def _max_filter(planes: torch.Tensor) -> torch.Tensor:
    """The largest value within `FLAT_SIDE` pixels a side around each."""
    reach = FLAT_SIDE // 2
    rows = F.max_pool2d(planes, (FLAT_SIDE, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, FLAT_SIDE), 1, (0, reach))
