"""Opaque shapes (polylines, rectangles, strings) and how much of each pixel they cover."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.drawing.text import draw_text

_FINE = 4  # subpixels a pixel and axis
_SHIFT = 4  # binary digits after the point in coordinates of subpixels
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 9)  # the half circle at the end of a rounded line
_FAINT = 5  # of 255, or 2 %: coverage up to here leaves a pixel as it was
_BAND = 2**20  # pixels drawn at once: a bound on memory for large pictures

Point = tuple[float, float]


@dataclass(frozen=True)
class Colour:
    """rgb: 0-255. at: None, or the place (x, y in [0, 1)) of the pixel to which `rgb` is then a difference."""

    rgb: tuple[int, int, int]
    at: Point | None = None


WHITE, BLACK = Colour((255, 255, 255)), Colour((0, 0, 0))


@dataclass(frozen=True)
class Line:
    """A polyline through `points` (x, y) in pixels, pixel n reaching from n to n + 1.

    thickness: in pixels. round: joints and ends; otherwise each segment is cut off at right angles.
    """

    points: tuple[Point, ...]
    thickness: float
    round: bool
    colour: Colour


@dataclass(frozen=True)
class Rectangle:
    """box: left, top, right, bottom in pixels. outline: thickness of the frame, 0 where filled."""

    box: tuple[float, float, float, float]
    outline: float
    colour: Colour


@dataclass(frozen=True)
class Text:
    """A string as `draw_text` takes it, its top left corner at `at` (x, y), turned by `turns` right angles."""

    text: str
    font: str
    size: int
    weight: int
    at: tuple[int, int]
    turns: int
    colour: Colour


Shape = Line | Rectangle | Text


def _segments(points: tuple[Point, ...], thickness: float, rounded: bool) -> np.ndarray:
    """The convex outlines (n,k,2), in subpixels, of the n segments between `points`."""
    path = _FINE * np.array(points) - 0.5  # the middle of the first subpixel is at 0
    starts, steps = path[:-1], np.diff(path, axis=0)
    along = steps / np.maximum(np.hypot(steps[:, :1], steps[:, 1:]), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # OpenCV fills the subpixels of the border too, so outlines lie half a subpixel within the shape.
    radius = (_FINE * thickness - 1) / 2
    if rounded:
        forward, aside = radius * np.cos(_CAP), radius * np.sin(_CAP)
    else:
        forward, aside = np.array([-0.5, -0.5]), np.array([-radius, radius])
    cap = forward[:, None] * along[:, None] + aside[:, None] * across[:, None]
    # The cap at the start is that at the end turned by half a circle.
    return np.concatenate([path[1:, None] + cap, starts[:, None] - cap], axis=1)


def _outlines(shape: Line | Rectangle) -> np.ndarray:
    """The convex polygons (n,k,2) that `shape` consists of."""
    if isinstance(shape, Line):
        return _segments(shape.points, shape.thickness, shape.round)
    left, top, right, bottom = shape.box
    half = shape.outline / 2
    if not half or min(right - left, bottom - top) <= 4 * half:
        middle = (top + bottom) / 2
        return _segments(((left, middle), (right, middle)), bottom - top, False)
    sides = [((left, y), (right, y)) for y in (top + half, bottom - half)]
    sides += [((x, top), (x, bottom)) for x in (left + half, right - half)]
    return np.concatenate([_segments(side, shape.outline, False) for side in sides])


def _draw(canvas: np.ndarray, shape: Line | Rectangle, top: int) -> None:
    """Fills `shape` into `canvas`, in subpixels, whose first row is row `top` of the picture."""
    shifted = _outlines(shape) - (0, top * _FINE)
    for polygon in np.rint(shifted * 2**_SHIFT).astype(np.int32):
        cv2.fillConvexPoly(canvas, polygon, 255, cv2.LINE_8, _SHIFT)


def _write(cover: np.ndarray, shape: Text) -> None:
    """Lays the letters over `cover`, as far as they are within it."""
    ink = np.rot90(draw_text(shape.text, shape.font, shape.size, shape.weight), shape.turns)
    x, y = shape.at
    ink = ink[max(0, -y) :, max(0, -x) :]
    area = cover[max(0, y) :, max(0, x) :][: ink.shape[0], : ink.shape[1]]
    np.maximum(area, ink[: area.shape[0], : area.shape[1]], out=area)


def coverage(shapes: tuple[Shape, ...], size: tuple[int, int], antialiased: bool) -> np.ndarray:
    """How much of each pixel the shapes cover together, (h,w) uint8; only 0 and 255 where not antialiased."""
    height, width = size
    cover = np.zeros(size, np.uint8)
    outlines = [shape for shape in shapes if not isinstance(shape, Text)]
    rows = max(1, _BAND // width)
    for top in range(0, height if outlines else 0, rows):
        band = cover[top : top + rows]
        canvas = np.zeros((band.shape[0] * _FINE, width * _FINE), np.uint8)
        for outline in outlines:
            _draw(canvas, outline, top)
        # Halved twice: OpenCV has a fast path for that, eight times as fast as a quarter at once.
        halved = cv2.resize(canvas, (2 * width, 2 * band.shape[0]), interpolation=cv2.INTER_AREA)
        cv2.resize(halved, (width, band.shape[0]), dst=band, interpolation=cv2.INTER_AREA)
    for shape in shapes:
        if isinstance(shape, Text):
            _write(cover, shape)
    kind = cv2.THRESH_TOZERO if antialiased else cv2.THRESH_BINARY
    return cv2.threshold(cover, _FAINT if antialiased else 127, 255, kind)[1].reshape(size)
