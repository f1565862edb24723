"""`restore compare`: two pictures side by side, or a page with a slider."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from restore.corruptions.downsample import resize_bicubic
from restore.errors import UsageError
from restore.evaluation.page import page, slider
from restore.images import Image, read_image
from restore.pixels import to_dtype, to_float, white

GAP = 8  # white pixels between two pictures side by side
MAX_FACTOR = 8  # between the sizes of the two pictures


def read_pair(before: Path, after: Path) -> tuple[Image, Image]:
    """Reads two pictures as 8-bit RGB over white; the smaller one is enlarged by bicubic interpolation.

    Raises:
        ImageError: a file cannot be read.
        UsageError: no size is a multiple of the other, or by more than `MAX_FACTOR`.
    """
    first, second = (_flat(read_image(path)) for path in (before, after))
    small, large = sorted((first.size, second.size))
    factor = round(large[0] / small[0])
    if (small[0] * factor, small[1] * factor) != large or factor > MAX_FACTOR:
        (w, h), (width, height) = first.size, second.size
        raise UsageError(f"{before} is {w}x{h} and {after} {width}x{height}: one must be a multiple of the other")
    return _fit(first, large), _fit(second, large)


def side_by_side(first: Image, second: Image) -> Image:
    """Joins two pictures of the same size, with a white gap."""
    gap = np.full((first.pixels.shape[0], GAP, 3), 255, np.uint8)
    icc = first.icc if first.icc == second.icc else None
    return Image(np.concatenate([first.pixels, gap, second.pixels], axis=1), icc=icc)


def slider_page(first: Image, second: Image, names: tuple[str, str]) -> str:
    """Makes a self-contained page with a slider between two pictures of the same size."""
    title = f"{names[0]} and {names[1]}"
    return page(title, f"<h1>{escape(title)}</h1>\n{slider(first, second, *names)}")


def _flat(image: Image) -> Image:
    """Converts to 8-bit RGB, transparent pixels over white."""
    pixels = to_float(image.pixels)
    if image.alpha is not None:
        opacity = image.alpha.astype(np.float32)[..., None] / white(image.alpha.dtype)
        pixels = pixels * opacity + (1 - opacity)
    pixels = np.broadcast_to(to_dtype(pixels, np.uint8), (*pixels.shape[:2], 3))
    return Image(np.ascontiguousarray(pixels), icc=image.icc if image.pixels.shape[-1] == 3 else None)


def _fit(image: Image, size: tuple[int, int]) -> Image:
    if image.size == size:
        return image
    return replace(image, pixels=resize_bicubic(image.pixels, (size[1], size[0])))
