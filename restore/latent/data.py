"""A folder of pictures as one array: squares of one size, and the subfolder each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from restore.errors import ImageError, RestoreError
from restore.images import read_image
from restore.pixels import luma, to_rgb, to_uint8
from restore.training.data import list_pictures

TURN = math.radians(90)  # by which pictures are turned at most, where they are moved by 1
CONTRAST = 0.3  # standard deviation, white at 1
LEAST_CONTRAST = 0.01  # lower bound of a divisor: flat pictures have none
HELD_OUT = 20  # of so many pictures one is held out where there is no --val
FIT = 0.9  # share of the pictures that are not enlarged


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures that could be read.

    Attributes:
        pixels: (N,S,S,C) in uint8.
        paths: Of the files.
        labels: The subfolder of each, below the folder that was asked for; "" for those right in it.
    """

    pixels: np.ndarray
    paths: list[Path]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def planes(self) -> torch.Tensor:
        """(N,C,S,S) float in [0,1]."""
        return to_planes(self.pixels)

    @property
    def classes(self) -> list[str]:
        """The labels there are, sorted."""
        return sorted(set(self.labels))

    def subset(self, numbers: Sequence[int] | np.ndarray) -> Pictures:
        """Those with these numbers."""
        chosen = [int(number) for number in numbers]
        return Pictures(self.pixels[chosen], [self.paths[n] for n in chosen], [self.labels[n] for n in chosen])

    def spread(self, count: int) -> np.ndarray:
        """Numbers of up to `count` pictures, at equal distances from the first to the last."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)

    def split(self) -> tuple[Pictures, Pictures]:
        """Those to learn from, and every `HELD_OUT`th to choose weights by."""
        held = np.arange(len(self)) % HELD_OUT == 0
        return self.subset(np.flatnonzero(~held)), self.subset(np.flatnonzero(held))


def to_planes(pixels: np.ndarray) -> torch.Tensor:
    """(N,S,S,C) uint8 -> (N,C,S,S) float in [0,1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def to_pixels(planes: torch.Tensor) -> np.ndarray:
    """(N,C,S,S) in [0,1] -> (N,S,S,C) uint8, clipped and rounded."""
    return (planes.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def equal_contrast(pixels: np.ndarray) -> np.ndarray:
    """(N,S,S,C) uint8, each multiplied so that its standard deviation is `CONTRAST`, and clipped; black stays."""
    deviations = np.maximum(pixels.std((1, 2, 3), keepdims=True) / 255, LEAST_CONTRAST)
    scaled: np.ndarray = np.rint((pixels * (CONTRAST / deviations)).clip(0, 255)).astype(np.uint8)
    return scaled


def moved(planes: torch.Tensor, amount: float, draw: torch.Generator) -> torch.Tensor:
    """(N,C,S,S), each shifted by up to `amount` of its side, turned by up to `amount` of 90 degrees, and zoomed.

    Args:
        planes: Pictures; what comes in from outside repeats their border.
        amount: From 0 to 1.
        draw: The source of random numbers.
    """
    count = len(planes)
    turn, zoom, across, down = (2 * torch.rand((4, count), generator=draw) - 1) * amount
    turn, zoom = turn * TURN, 1 + zoom
    rows = [zoom * turn.cos(), -zoom * turn.sin(), 2 * across, zoom * turn.sin(), zoom * turn.cos(), 2 * down]
    grid = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False)


def silent(_: object) -> None:
    """A `report` that drops its lines."""


def read_folder(
    folder: Path, size: int, channels: int | None, report: Callable[[str], None] = print, *, shrink: bool = False
) -> Pictures:
    """All pictures below `folder`, or one file.

    Args:
        folder: Searched through and through.
        size: Side of the squares. A picture is cut to a square around its centre, then resized.
        channels: 1, 3, or None: 1 where all are gray.
        report: Takes a line for each picture that cannot be read, which is left out.
        shrink: Whether `size` shrinks to what nine in ten of the pictures have.

    Raises:
        UsageError: The folder is missing or holds no picture.
        RestoreError: None of the pictures can be read.
    """
    paths = list_pictures([folder])
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(partial(_square, size=size), paths))
    for found in read:
        if isinstance(found, ImageError):
            report(f"skipped: {found}")
    kept = [(path, pixels) for path, pixels in zip(paths, read, strict=True) if not isinstance(pixels, ImageError)]
    if not kept:
        raise RestoreError(f"{folder}: none of the pictures can be read")
    if shrink:
        sides = sorted(len(pixels) for _, pixels in kept)
        fitting = sides[int((1 - FIT) * len(sides))]
        if fitting < size:
            report(f"the size shrinks from {size} to {fitting} pixels to fit the pictures")
            size = fitting
    if channels is None:
        channels = 1 if all(pixels.shape[2] == 1 for _, pixels in kept) else 3
    stacked = np.stack([resized(_with_channels(pixels, channels), size) for _, pixels in kept])
    parents = [path.relative_to(root_of(folder)).parent for path, _ in kept]
    labels = [parent.parts[0] if parent.parts else "" for parent in parents]
    return Pictures(stacked, [path for path, _ in kept], labels)


def root_of(folder: Path) -> Path:
    """What the paths of the pictures below `folder`, or of one file, are relative to."""
    return folder.parent if folder.is_file() else folder


def _square(path: Path, size: int) -> np.ndarray | ImageError:
    """The centre of a picture, no larger than `size`: a folder of photographs does not fit into memory."""
    try:
        pixels = read_image(path).pixels
    except ImageError as error:
        return error
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    return resized(to_uint8(square), size) if side > size else to_uint8(square)


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return to_rgb(pixels)
    gray: np.ndarray = np.rint(luma(pixels)).astype(np.uint8)
    return gray[..., None]


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """A square (S,S,C) uint8 with another side."""
    if len(pixels) == size:
        return pixels
    way = cv2.INTER_AREA if len(pixels) > size else cv2.INTER_CUBIC
    made: np.ndarray = cv2.resize(pixels, (size, size), interpolation=way).reshape(size, size, pixels.shape[2])
    return made
