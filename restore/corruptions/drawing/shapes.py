"""Rasterisation of opaque shapes (polylines, rectangles, text) as coverage of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.drawing.text import draw_text

_SUBPIXELS = 4  # a pixel and axis
_SHIFT = 4  # fractional bits of subpixel coordinates
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 9)  # angles of the semicircle at the end of a rounded line
_MIN_COVERAGE = 5  # of 255: pixels with this much or less stay unchanged
_BAND_PIXELS = 2**20  # rasterised at once, to bound memory for large images

Point = tuple[float, float]


@dataclass(frozen=True)
class Colour:
    """A colour, absolute or relative to that of a pixel."""

    rgb: tuple[int, int, int]  # 0 to 255; with `at`, the difference to the colour of that pixel
    # (x, y) of the pixel, relative to the size of the image, in [0, 1); None: `rgb` is absolute
    at: Point | None = None


WHITE, BLACK = Colour((255, 255, 255)), Colour((0, 0, 0))


@dataclass(frozen=True)
class Line:
    """A polyline."""

    points: tuple[Point, ...]  # (x, y) in pixels; pixel n extends from n to n + 1
    thickness: float  # in pixels
    round: bool  # round joints and ends; otherwise every segment ends at a right angle
    colour: Colour  # of the line


@dataclass(frozen=True)
class Rectangle:
    """An axis-aligned rectangle.

    box: left, top, right, bottom in pixels. outline: thickness of the frame in pixels; 0: filled.
    """

    box: tuple[float, float, float, float]
    outline: float
    colour: Colour


@dataclass(frozen=True)
class Text:
    """A text; `text`, `font`, `size` and `weight` as in `draw_text`.

    at: (x, y) of the top left corner in pixels. turns: rotation by so many right angles, counter-clockwise.
    """

    text: str
    font: str
    size: int
    weight: int
    at: tuple[int, int]
    turns: int
    colour: Colour


Shape = Line | Rectangle | Text


def _segments(points: tuple[Point, ...], thickness: float, rounded: bool) -> np.ndarray:
    """The convex outlines (n,k,2), in subpixels, of the n segments of a polyline."""
    path = _SUBPIXELS * np.array(points) - 0.5  # the centre of the first subpixel is at 0
    starts, steps = path[:-1], np.diff(path, axis=0)
    along = steps / np.maximum(np.hypot(steps[:, :1], steps[:, 1:]), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # OpenCV fills the subpixels on the outline too, so it is moved inwards by half a subpixel.
    radius = (_SUBPIXELS * thickness - 1) / 2
    if rounded:
        forward, aside = radius * np.cos(_CAP), radius * np.sin(_CAP)
    else:
        forward, aside = np.array([-0.5, -0.5]), np.array([-radius, radius])
    cap = forward[:, None] * along[:, None] + aside[:, None] * across[:, None]
    # The cap at the start is the one at the end rotated by 180 degrees.
    return np.concatenate([path[1:, None] + cap, starts[:, None] - cap], axis=1)


def _outlines(shape: Line | Rectangle) -> np.ndarray:
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


def _draw_letters(cover: np.ndarray, shape: Text) -> None:
    ink = np.rot90(draw_text(shape.text, shape.font, shape.size, shape.weight), shape.turns)
    x, y = shape.at
    ink = ink[max(0, -y) :, max(0, -x) :]
    area = cover[max(0, y) :, max(0, x) :][: ink.shape[0], : ink.shape[1]]
    np.maximum(area, ink[: area.shape[0], : area.shape[1]], out=area)


def coverage(shapes: tuple[Shape, ...], size: tuple[int, int], antialiased: bool) -> np.ndarray:
    """Coverage of each pixel by the union of `shapes` in an image of `size` (h,w): (h,w) uint8.

    Without `antialiased` it is thresholded to 0 and 255.
    """
    height, width = size
    cover = np.zeros(size, np.uint8)
    outlines = [_outlines(shape) for shape in shapes if not isinstance(shape, Text)]
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height if outlines else 0, rows):
        band = cover[top : top + rows]
        canvas = np.zeros((band.shape[0] * _SUBPIXELS, width * _SUBPIXELS), np.uint8)
        for polygon in (polygon for outline in outlines for polygon in outline - (0, top * _SUBPIXELS)):
            cv2.fillConvexPoly(canvas, np.rint(polygon * 2**_SHIFT).astype(np.int32), 255, cv2.LINE_8, _SHIFT)
        # Twice by 2: OpenCV has a fast path for that, eight times as fast as once by 4.
        halved = cv2.resize(canvas, (2 * width, 2 * band.shape[0]), interpolation=cv2.INTER_AREA)
        cv2.resize(halved, (width, band.shape[0]), dst=band, interpolation=cv2.INTER_AREA)
    for shape in shapes:
        if isinstance(shape, Text):
            _draw_letters(cover, shape)
    kind = cv2.THRESH_TOZERO if antialiased else cv2.THRESH_BINARY
    return cv2.threshold(cover, _MIN_COVERAGE if antialiased else 127, 255, kind)[1].reshape(size)
