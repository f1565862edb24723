"""Occlusion by opaque bars, strokes, rectangles and text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, log_uniform, pick
from restore.corruptions.drawing.shapes import BLACK, WHITE, Colour, Line, Point, Rectangle, Shape, Text, coverage
from restore.corruptions.drawing.text import random_text
from restore.errors import UsageError
from restore.pixels import BT601, to_dtype, to_float

_MAX_SHARE = 0.6  # of the pixels may be hidden


@dataclass(frozen=True)
class OcclusionBarsParams:
    """The kinds of shapes, and the shapes, in the order in which they are drawn.

    antialiased: draw soft edges; otherwise a pixel is hidden completely or not at all.
    """

    families: tuple[str, ...]
    shapes: tuple[Shape, ...]
    antialiased: bool


@dataclass(frozen=True)
class _Scene:
    """The image that shapes are sampled for. scale: short side in pixels that sizes are relative to."""

    height: int
    width: int
    gray: bool
    scale: int
    antialiased: bool
    common_colour: Colour | None
    rng: np.random.Generator

    def colour(self) -> Colour:
        return self.common_colour or _random_colour(self.rng, self.gray)

    def size(self, low: float, high: float) -> float:
        """Log-uniform between two shares of `scale`, at least 1 pixel; whole pixels where edges are not antialiased."""
        smallest, largest = max(1.0, low * self.scale), max(2.0, high * self.scale)
        pixels = log_uniform(smallest, largest, self.rng)
        return pixels if self.antialiased else float(min(round(pixels), int(largest)))

    def point(self) -> Point:
        """A uniform point of the image; on the pixel grid where edges are not antialiased."""
        x, y = self.rng.random(2) * (self.width, self.height)
        return (float(x), float(y)) if self.antialiased else (float(int(x)), float(int(y)))


def _random_colour(rng: np.random.Generator, gray: bool) -> Colour:
    """White and black 35 % each, any gray 5 %, any colour 15 %, a colour close to that of some pixel 10 %."""
    kind = rng.random()
    if kind < 0.7:
        return WHITE if kind < 0.35 else BLACK
    near = kind >= 0.9
    low, high = (-30, 31) if near else (0, 256)
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    if gray or kind < 0.75:
        green = blue = red
    return Colour((red, green, blue), (float(rng.random()), float(rng.random())) if near else None)


def _span(length: int, rng: np.random.Generator) -> tuple[float, float]:
    """Start and end of a bar along a side of `length`: all of it, or 20 to 90 %."""
    if rng.random() < 0.6:
        return 0.0, float(length)
    part = max(1, round(length * rng.uniform(0.2, 0.9)))
    start = int(rng.integers(length - part + 1))
    return float(start), float(start + part)


def _lecture_bar(height: int, width: int, rng: np.random.Generator) -> Rectangle:
    if rng.random() < 0.5:
        top = int(rng.integers(max(1, height - 1)))
        return Rectangle((0.0, float(top), float(width), float(top + 2)), 0.0, WHITE)
    left = int(rng.integers(max(1, width - 1)))
    return Rectangle((float(left), 0.0, float(left + 2), float(height)), 0.0, WHITE)


def _bars(scene: _Scene) -> list[Shape]:
    """1 to 8 bars: horizontal, vertical, slanted, or mixed."""
    rng, bars = scene.rng, list[Shape]()
    kinds = ((0,), (1,), (2,), (0, 1), (0, 1, 2))[int(rng.choice(5, p=(0.25, 0.2, 0.2, 0.15, 0.2)))]
    for _ in range(int(rng.integers(1, 9))):
        kind, thickness = pick(kinds, rng), scene.size(0.0, 0.04)
        x, y = scene.point()
        if kind == 0:
            left, right = _span(scene.width, rng)
            bars.append(Rectangle((left, y, right, y + thickness), 0.0, scene.colour()))
        elif kind == 1:
            top, bottom = _span(scene.height, rng)
            bars.append(Rectangle((x, top, x + thickness, bottom), 0.0, scene.colour()))
        else:
            angle, full = rng.uniform(0, math.pi), rng.random() < 0.6
            reach = (scene.width + scene.height) * (1.0 if full else rng.uniform(0.1, 0.4))
            run, rise = reach * math.cos(angle), reach * math.sin(angle)
            # A full bar starts and ends outside of the image; a partial one starts inside.
            ends = ((x - run, y - rise), (x + run, y + rise)) if full else ((x, y), (x + run, y + rise))
            bars.append(Line(ends, thickness, False, scene.colour()))
    return bars


def _strokes(scene: _Scene) -> list[Shape]:
    """2 to 7 free-form strokes: random walks with smoothly varying direction."""
    rng, strokes = scene.rng, list[Shape]()
    smooth, rounded = rng.uniform(0.2, 1.2), bool(rng.random() < 0.7)
    for _ in range(int(rng.integers(2, 8))):
        steps = int(rng.integers(3, 24))
        heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, smooth, steps))
        stride = scene.scale * rng.uniform(0.02, 0.15) * rng.uniform(0.5, 1.5, steps)
        path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * stride[:, None], axis=0) + scene.point()
        points = tuple((float(x), float(y)) for x, y in path)
        strokes.append(Line(points, scene.size(0.005, 0.03), rounded, scene.colour()))
    return strokes


def _rectangles(scene: _Scene) -> list[Shape]:
    """1 to 4 rectangles, together at most 8 % of the image area (a third of a patch); one in five is a frame."""
    rng, rectangles = scene.rng, list[Shape]()
    count = int(rng.integers(1, 5))
    most = min(0.08 * scene.scale**2, scene.height * scene.width / 3) / count
    for _ in range(count):
        area, aspect = most * rng.uniform(0.1, 1.0), math.exp(rng.uniform(-1.4, 1.4))
        sides = (max(1.0, math.sqrt(area * aspect)), max(1.0, math.sqrt(area / aspect)))
        width, height = sides if scene.antialiased else (float(int(sides[0])), float(int(sides[1])))
        x, y = scene.point()
        left, top = (min(x, max(0.0, scene.width - width)), min(y, max(0.0, scene.height - height)))
        outline = scene.size(0.0, 0.02) if rng.random() < 0.2 else 0.0
        rectangles.append(Rectangle((left, top, left + width, top + height), outline, scene.colour()))
    return rectangles


def _text(scene: _Scene) -> list[Shape]:
    """3 to 10 strings, most of them upright, with letters 3 to 12 % of the short side high, at least 5 pixels.

    A patch gets proportionally fewer strings, and no letters higher than a quarter of its short side.
    """
    rng, strings = scene.rng, list[Shape]()
    patch = min(scene.height, scene.width)
    count = rng.integers(3, 11) * min(1.0, patch / scene.scale)
    for _ in range(max(1, round(count))):
        font, text = random_text(rng)
        size = max(5, min(round(scene.scale * 0.03 * 4 ** rng.random()), patch // 4))
        x, y = scene.point()
        # Approximately centred: the exact width is known only after rendering.
        across, down = 0.3 * size * len(text), 0.5 * size
        turns = int(rng.choice(4, p=(0.88, 0.05, 0.02, 0.05)))
        at = (int(x - across), int(y - down)) if turns % 2 == 0 else (int(x - down), int(y - across))
        weight = int(rng.choice((300, 400, 600, 800)))
        strings.append(Text(text, font, size, weight, at, turns, scene.colour()))
    return strings


_SHAPES: dict[str, Callable[[_Scene], list[Shape]]] = {
    "bars": _bars,
    "strokes": _strokes,
    "rectangles": _rectangles,
    "text": _text,
}
FAMILIES = tuple(_SHAPES)
BARS = ("any", "lecture")


def _layers(shapes: tuple[Shape, ...], size: tuple[int, int], antialiased: bool) -> list[tuple[Colour, np.ndarray]]:
    """(colour, coverage) from bottom to top; consecutive shapes of one colour form one layer."""
    groups = groupby(shapes, key=lambda shape: shape.colour)
    return [(colour, coverage(tuple(group), size, antialiased)) for colour, group in groups]


def _value(colour: Colour, image: np.ndarray) -> np.ndarray:
    """`colour` as float32, white at 1, with as many channels as `image`."""
    value = np.array(colour.rgb, np.float32) / np.float32(255)
    if image.shape[-1] == 1:
        value = value @ np.array(BT601, np.float32).reshape(3, 1) if len(set(colour.rgb)) > 1 else value[:1]
    if colour.at is not None:
        x, y = (int(share * side) for share, side in zip(colour.at, image.shape[1::-1], strict=True))
        value = np.clip(value + to_float(image[y, x]), 0, 1)
    return np.asarray(value, np.float32)


@dataclass(frozen=True)
class OcclusionBars(Corruption[OcclusionBarsParams]):
    """Opaque shapes of one colour or several: bars, free-form strokes, rectangles, text.

    Sizes are relative to the short side of the image; bars are from 1 pixel to 4 % of it thick. Half of the samples
    are antialiased.

    Args:
        families: the kinds of shapes to choose from, a subset of `FAMILIES`; a sample has one, one in five has two.
        bars: "any", or "lecture": exactly one white bar, two pixels thick, across the whole image.
        short_side: for training patches, range in pixels of the short side of the image that the patch stands for;
            None: the short side of the image itself.

    Raises:
        UsageError: unknown names, no family, or an empty range.
    """

    families: tuple[str, ...] = FAMILIES
    bars: str = "any"
    short_side: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.families:
            raise UsageError(f"families must be one or more of {', '.join(FAMILIES)}; got {self.families}")
        if self.bars not in BARS:
            raise UsageError(f"bars must be one of {', '.join(BARS)}; got {self.bars!r}")
        if self.short_side is not None:
            check_range(1, math.inf, short_side=self.short_side)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> OcclusionBarsParams:
        """Draws families, edges, colours and shapes for an image (H,W,C); only grays where C is 1."""
        if self.bars == "lecture":
            return OcclusionBarsParams(("bars",), (_lecture_bar(shape[0], shape[1], rng),), antialiased=False)
        antialiased = bool(rng.random() < 0.5)
        count = min(len(self.families), 2 if rng.random() < 0.2 else 1)
        families = tuple(str(name) for name in rng.choice(self.families, count, replace=False))
        scale = min(shape[:2]) if self.short_side is None else int(rng.integers(*self.short_side, endpoint=True))
        common = None if rng.random() < 0.15 else _random_colour(rng, shape[2] == 1)
        scene = _Scene(shape[0], shape[1], shape[2] == 1, scale, antialiased, common, rng)
        shapes = tuple(drawn for name in families for drawn in _SHAPES[name](scene))
        return OcclusionBarsParams(families, shapes, antialiased)

    def apply(self, image: np.ndarray, params: OcclusionBarsParams) -> Corrupted:
        """Draws the shapes over (H,W,C), same dtype; pixels outside of the mask stay bit-identical.

        Shapes are dropped from the end until at most 60 % of the pixels are hidden.
        """
        size, shapes = (image.shape[0], image.shape[1]), params.shapes
        while True:
            layers = _layers(shapes, size, params.antialiased)
            mask = np.zeros(size, bool)
            for _, alpha in layers:
                mask |= alpha > 0
            if not shapes or np.count_nonzero(mask) <= _MAX_SHARE * mask.size:
                break
            shapes = shapes[:-1]
        damaged = np.array(image, order="C")
        flat = damaged.reshape(-1, image.shape[-1])
        for colour, alpha in layers:
            index = np.flatnonzero(alpha)
            weight = alpha.ravel()[index, None].astype(np.float32) / np.float32(255)
            pixels = to_float(flat.take(index, axis=0)) * (1 - weight) + _value(colour, image) * weight
            flat[index] = to_dtype(pixels, image.dtype)
        return Corrupted(damaged, mask=mask)
