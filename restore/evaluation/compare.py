"""`restore compare`: two pictures side by side, or a page with a slider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from restore.corruptions.downsample import resize_bicubic
from restore.errors import UsageError
from restore.evaluation.page import page, slider
from restore.images import Image, find_images, read_image
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


def find_pairs(before: Path, after: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """The pictures of two folders that have one relative path, with or without the suffix, and the others.

    Raises:
        UsageError: there is no pair at all.
    """
    sides = [{path.relative_to(folder): path for path in find_images(folder)} for folder in (before, after)]
    pairs = {name: (sides[0].pop(name), sides[1].pop(name)) for name in sides[0].keys() & sides[1].keys()}
    stems = [Counter(name.with_suffix("") for name in side) for side in sides]
    by_stem = [
        {name.with_suffix(""): name for name in side if count[name.with_suffix("")] == 1}
        for side, count in zip(sides, stems, strict=True)
    ]
    for stem in by_stem[0].keys() & by_stem[1].keys():
        name = by_stem[0][stem]
        pairs[name] = sides[0].pop(name), sides[1].pop(by_stem[1][stem])
    if not pairs:
        raise UsageError(f"{before} and {after} have no picture of one name")
    return [pairs[name] for name in sorted(pairs)], [side[name] for side in sides for name in sorted(side)]


def side_by_side(first: Image, second: Image, labels: tuple[str, str]) -> Image:
    """Joins two pictures of the same size, with a white gap, and above each its label where it is wide enough."""
    gap = np.full((first.pixels.shape[0], GAP, 3), 255, np.uint8)
    icc = first.icc if first.icc == second.icc else None
    joined = Image(np.concatenate([first.pixels, gap, second.pixels], axis=1), icc=icc)
    width, height = first.size
    size = min(max(12, height // 24), 48)
    font = PIL.ImageFont.load_default(size)
    if max(font.getlength(label) for label in labels) > width:
        return joined
    strip = PIL.Image.new("RGB", (joined.size[0], 3 * size // 2), "white")
    draw = PIL.ImageDraw.Draw(strip)
    for left, label in zip((0, width + GAP), labels, strict=True):
        draw.text((left, size // 8), label, "black", font)
    return replace(joined, pixels=np.concatenate([np.asarray(strip), joined.pixels]))


def slider_page(pairs: Iterable[tuple[str, Image, Image]], labels: tuple[str, str]) -> str:
    """Makes a self-contained page with a slider for each pair of pictures of the same size; pairs have a name."""
    title = f"{labels[0]} and {labels[1]}"
    sliders = [
        f"{f'<h2>{escape(name)}</h2>' if name else ''}{slider(first, second, *labels)}" for name, first, second in pairs
    ]
    return page(title, "\n".join([f"<h1>{escape(title)}</h1>", *sliders]))


def _flat(image: Image) -> Image:
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
