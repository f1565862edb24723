"""The marks of watermarks: text, framed text, shapes and logos; sampling, drawing and rotation.

Coverage is the share of a pixel that a mark fills: uint8, 255 for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.base import log_uniform, pick
from restore.corruptions.drawing.logos import Logo
from restore.corruptions.drawing.text import draw_text, random_text

FRAMES = ("box", "ring")
SHAPES = ("circle", "ring", "ellipse", "rectangle", "stripes", "line", "cross", "star", "polygon")
ACCENTS = ("shadow", "outline", "plate")
FILLABLE = ("circle", "ellipse", "rectangle", "star", "polygon")
LETTER_SIZE = (0.03, 0.25)  # range, relative to the short side
MIN_SIZE = 6  # pixels: smaller letters are not legible

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class TextMark:
    """A text, perhaps with a frame around it."""

    text: str  # one or more lines
    font: str  # one of `text.FONTS`
    size: int  # height of capitals in pixels
    weight: int = 400  # 100 (thin) to 900 (black)
    frame: str = ""  # "" or one of `FRAMES`


@dataclass(frozen=True)
class ShapeMark:
    """A geometric shape."""

    shape: str  # one of `SHAPES`
    size: int  # width in pixels
    aspect: float  # height relative to the width
    stroke: float  # thickness of lines relative to the width
    points: int  # corners of a polygon, tips of a star, or number of stripes
    filled: bool  # draw the area instead of its outline


@dataclass(frozen=True)
class LogoMark:
    """A logo by its index in a tuple of them; size: longer side in pixels."""

    index: int
    size: int


Mark = TextMark | ShapeMark | LogoMark


@dataclass(frozen=True)
class Ink:
    """The colours of a mark, RGB with white at 1; of its accent, "" or one of `ACCENTS`, drawn beneath, the second."""

    colour: Colour
    accent: str = ""
    second: Colour = (0.0, 0.0, 0.0)


def sample_mark(short_side: int, tiled: bool, logos: tuple[Logo, ...], rng: np.random.Generator) -> Mark:
    """Samples a mark relative to a `short_side` in pixels, smaller if it will be `tiled`; half of them are `logos`."""
    if logos and rng.random() < 0.5:
        size = short_side * log_uniform(0.08, 0.3 if tiled else 0.7, rng)
        return LogoMark(int(rng.integers(len(logos))), max(MIN_SIZE, round(size)))
    if rng.random() < 0.25:
        return _sample_shape(short_side, tiled, rng)
    font, text = random_text(rng)
    letters = short_side * log_uniform(LETTER_SIZE[0], 0.12 if tiled else LETTER_SIZE[1], rng)
    # Long lines get smaller letters so that most of them fits; letters are nearly as wide as high.
    longest = max(len(line) for line in text.split("\n"))
    letters = max(min(letters, 1.5 * short_side / (0.8 * longest)), LETTER_SIZE[0] * short_side)
    weight = 400 if rng.random() < 0.5 else pick((200, 600, 700, 900), rng)
    frame = pick(FRAMES, rng) if rng.random() < 0.15 else ""
    return TextMark(text, font, max(MIN_SIZE, round(letters)), weight, frame)


def _sample_shape(short_side: int, tiled: bool, rng: np.random.Generator) -> ShapeMark:
    shape = pick(SHAPES, rng)
    filled = shape in FILLABLE and rng.random() < 0.35
    size = short_side * log_uniform(0.08, 0.3 if tiled or filled else 0.9, rng)
    isotropic = shape in ("circle", "ring", "star", "polygon")
    aspect = 1.0 if isotropic else float(rng.uniform(0.3, 1.0))
    stroke = log_uniform(0.01, 0.12, rng)
    return ShapeMark(shape, max(MIN_SIZE, round(size)), aspect, stroke, int(rng.integers(3, 9)), filled)


def sample_ink(rng: np.random.Generator) -> Ink:
    """Samples colours: white most often; one in five has an accent in a contrasting second colour."""
    colour = _sample_colour(rng)
    if rng.random() >= 0.2:
        return Ink(colour)
    dark = (0.0, 0.0, 0.0) if sum(colour) > 1.5 else (1.0, 1.0, 1.0)
    return Ink(colour, pick(ACCENTS, rng), dark if rng.random() < 0.7 else _sample_colour(rng))


def _sample_colour(rng: np.random.Generator) -> Colour:
    kind = rng.random()
    if kind < 0.4:
        return 1.0, 1.0, 1.0
    if kind < 0.55:
        return 0.0, 0.0, 0.0
    if kind < 0.7:
        level = float(rng.uniform(0.2, 0.9))
        return level, level, level
    red, green, blue = rng.random(3).tolist()
    return red, green, blue


def draw_mark(mark: TextMark | ShapeMark) -> np.ndarray:
    """Draws a text or shape without rotation: coverage (h,w) uint8, antialiased, 0 along the border."""
    if isinstance(mark, ShapeMark):
        radii = mark.size / 2, mark.size * mark.aspect / 2
        return _draw_lines(_lines(mark, *radii), radii, 0 if mark.filled else max(1, round(mark.size * mark.stroke)))
    letters = np.pad(draw_text(mark.text, mark.font, mark.size, mark.weight), 1)
    return _framed(letters, mark) if mark.frame else letters


def draw_accent(coverage: np.ndarray, mark: TextMark | ShapeMark, accent: str) -> np.ndarray:
    """Adds an accent beneath a mark.

    Args:
        coverage: (h,w) uint8, of the mark.
        mark: the mark.
        accent: "shadow" (a copy offset down and to the right), "outline" (a rim) or "plate" (a filled box).

    Returns:
        (h',w',2) uint8, coverage of the ink, then of ink and accent together.
    """
    letter = mark.size if isinstance(mark, TextMark) else mark.size // 4
    reach = max(1, letter // (4 if accent == "plate" else 14))
    ink = np.pad(coverage, reach)
    if accent == "shadow":
        beneath = np.pad(coverage, ((2 * reach, 0), (2 * reach, 0)))
    elif accent == "outline":
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        beneath = np.asarray(cv2.dilate(ink, disc))
    else:
        beneath = np.full_like(ink, 255)
    # Union of two independent coverages: 1 - (1 - a)(1 - b).
    together = 255 - np.rint((255.0 - ink) * (255.0 - beneath) / 255.0)
    return np.stack([ink, together.astype(np.uint8)], axis=2)


def _framed(letters: np.ndarray, mark: TextMark) -> np.ndarray:
    """Text in a box, or in an ellipse through the corners of the box."""
    height, width = letters.shape
    stroke, margin = max(1, mark.size // 12), mark.size // 3
    factor = 1.0 if mark.frame == "box" else 2**0.5
    radii = factor * (width / 2 + margin), factor * (height / 2 + margin)
    frame = _rectangle(*radii) if mark.frame == "box" else _round(*radii)
    canvas = _draw_lines([frame], radii, stroke)
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    inside = canvas[top : top + height, left : left + width]
    np.maximum(inside, letters, out=inside)
    return canvas


def _lines(mark: ShapeMark, across: float, down: float) -> list[np.ndarray]:
    """Closed outlines (three points or more) or line segments (two) of a shape around (0, 0): (n,2), x and y."""
    if mark.shape in ("circle", "ellipse"):
        return [_round(across, down)]
    if mark.shape == "ring":
        return [_round(across, down), _round(0.75 * across, 0.75 * down)]
    if mark.shape == "rectangle":
        return [_rectangle(across, down)]
    if mark.shape == "polygon":
        return [_round(across, down, mark.points)]
    if mark.shape == "star":
        tips = _round(across, down, 2 * max(4, mark.points))
        tips[1::2] *= 0.45
        return [tips]
    if mark.shape == "cross":
        return [np.array([(-across, -down), (across, down)]), np.array([(-across, down), (across, -down)])]
    heights = [0.0] if mark.shape == "line" else np.linspace(-down, down, mark.points).tolist()
    return [np.array([(-across, y), (across, y)]) for y in heights]


def _round(across: float, down: float, points: int = 96) -> np.ndarray:
    """A polygon inscribed in the ellipse with these radii, one corner at the top."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([across * np.sin(turn), -down * np.cos(turn)], axis=1)


def _rectangle(across: float, down: float) -> np.ndarray:
    return np.array([(-across, -down), (across, -down), (across, down), (-across, down)])


def _draw_lines(lines: list[np.ndarray], radii: tuple[float, float], stroke: int) -> np.ndarray:
    """Antialiased coverage (h,w) uint8 of `lines`, or for a stroke of 0 of the areas inside, centred."""
    across, down = (int(np.ceil(radius)) + stroke // 2 + 3 for radius in radii)
    canvas = np.zeros((2 * down + 1, 2 * across + 1), np.uint8)
    for line in lines:
        # Four fractional bits, for subpixel positions.
        points = np.rint((line + np.array((across, down))) * 16).astype(np.int32)
        if stroke:
            cv2.polylines(canvas, [points], len(line) > 2, 255, stroke, cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA, 4)
    return canvas


def rotated_size(shape: tuple[int, ...], angle: float) -> tuple[float, float]:
    """Height and width in pixels of the bounding box of a rectangle (h,w) rotated by `angle` degrees."""
    turn = np.deg2rad(angle)
    cos, sin = abs(np.cos(turn)), abs(np.sin(turn))
    return shape[0] * cos + shape[1] * sin, shape[1] * cos + shape[0] * sin


def rotate(stamp: np.ndarray, angle: float, middle: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Rotates a stamp (h,w,K), uint8 or uint16, into an image of `shape` by bilinear interpolation: (H,W,K).

    Args:
        stamp: to rotate.
        angle: in degrees, counter-clockwise.
        middle: (y, x), where the centre of the stamp goes.
        shape: height and width of the image.
    """
    height, width = stamp.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] += middle[1] - width / 2, middle[0] - height / 2
    turned = cv2.warpAffine(np.ascontiguousarray(stamp), matrix, shape[::-1], flags=cv2.INTER_LINEAR)
    return np.atleast_3d(turned)  # OpenCV drops the axis of a single channel
