"""What old photographs suffer: scratches, dust and hairs, folds, torn edges, stains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, log_uniform
from restore.corruptions.degradation import Choice, Part
from restore.errors import unknown_name
from restore.pixels import luma, to_dtype, to_float

VISIBLE = 0.15  # opacity from which on a pixel counts as damaged: nobody marks the faint rim of a scratch
FAINT = 0.01  # up to which the picture is left alone
_SUBPIXELS = 4  # for each pixel and axis, in pictures of up to `_FINE_PIXELS`
_FINE_PIXELS = 1 << 21  # larger pictures are drawn without subpixels
_SHIFT = 4  # fractional bits of coordinates
_UNEVEN = (0.6, 1.4)  # factors of the thickness along a line
_REFERENCE_SIDE = 320  # pixels: short side of the picture that the thicknesses below refer to
# Kinds of damage, and how often each comes on an `aged_print`.
KINDS = {"scratches": 0.25, "dust": 0.2, "scratches and dust": 0.3, "folds": 0.1, "torn edges": 0.07, "stains": 0.08}


@dataclass(frozen=True)
class Trace:
    """A line, or an area, of one colour.

    Args:
        points: (x, y) in pixels.
        thickness: of the line through them, in pixels; 0: the area inside of them.
        opacity: 0 to 1.
        colour: RGB, 0 to 255.
    """

    points: tuple[tuple[float, float], ...]
    thickness: float
    opacity: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class PrintDamageParams:
    """Parameters of `PrintDamage`.

    Args:
        traces: drawn in this order.
        gaps: share of their area where the surface has held.
        grain: of the gaps, in pixels.
        blur: of the edges, standard deviation in pixels.
        seed: of the gaps and of uneven thickness.
    """

    traces: tuple[Trace, ...]
    gaps: float
    grain: float
    blur: float
    seed: int


class _Print:
    """The picture that traces are sampled for. scale: its short side in pixels, which sizes are relative to."""

    def __init__(self, shape: tuple[int, ...], short_side: tuple[int, int] | None, rng: np.random.Generator) -> None:
        self.height, self.width = shape[:2]
        self.scale = min(shape[:2]) if short_side is None else int(rng.integers(*short_side, endpoint=True))
        self.share = min(1.0, self.height * self.width / self.scale**2)  # of the picture that a patch shows
        self.rng = rng
        bright = rng.random() < 0.65
        level = rng.uniform(190, 255) if bright else rng.uniform(0, 60)
        tint = rng.uniform(0, 30) if rng.random() < 0.25 else 0.0
        values = np.clip([level, level - tint / 2, level - tint], 0, 255) if bright else [level + tint, level, level]
        self.colour = (int(values[0]), int(values[1]), int(values[2]))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pixels(self, low: float, high: float) -> float:
        """Log-uniform; `low` and `high` in pixels of a picture with a short side of `_REFERENCE_SIDE`."""
        return log_uniform(low, high, self.rng) * max(self.scale / _REFERENCE_SIDE, 0.6)

    def count(self, low: float, high: float) -> int:
        """Log-uniform number in a picture, as many of them as a patch shows, at least 1."""
        return max(1, round(float(self.share * low * (high / low) ** self.rng.random())))

    def walk(self, length: float, turn: float, heading: float | None = None) -> np.ndarray:
        """A path (n,2) of `length` pixels through the picture, whose direction drifts by `turn` radians a step."""
        steps = max(3, min(40, round(length / 8)))
        first = self.uniform(0, 2 * math.pi) if heading is None else heading
        angles = first + np.cumsum(self.rng.normal(0, turn, steps) + self.rng.normal(0, turn / 2))
        path = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), 0) * (length / steps)
        return np.asarray(path + self.rng.random(2) * (self.width, self.height) - path[steps // 2])

    def trace(self, points: np.ndarray, thickness: float, opacity: tuple[float, float]) -> Trace:
        return Trace(tuple((float(x), float(y)) for x, y in points), thickness, self.uniform(*opacity), self.colour)

    def params(self, traces: list[Trace], gaps: float, blur: float) -> PrintDamageParams:
        return PrintDamageParams(tuple(traces), gaps, self.pixels(1.5, 6), blur, int(self.rng.integers(2**63)))


def _scratches(surface: _Print) -> PrintDamageParams:
    """Thin scratches, light or dark, half transparent, irregular and broken; a quarter are vertical, as of a film."""
    vertical = surface.rng.random() < 0.25
    turn, traces = surface.uniform(0.02, 0.25), []
    for _ in range(surface.count(2, 12)):
        thickness, length = surface.pixels(0.8, 3.5), surface.scale * surface.uniform(0.1, 1.2)
        if vertical:
            path = surface.walk(2.5 * surface.height, 0.004, math.pi / 2)
        else:
            path = surface.walk(length, turn)
        traces.append(surface.trace(path, thickness, (0.5, 1.0)))
    return surface.params(traces, surface.uniform(-0.1, 0.45), surface.uniform(0, 0.8))


def _dust(surface: _Print) -> PrintDamageParams:
    """Specks of dust, and hairs."""
    traces, rng = [], surface.rng
    if rng.random() < 0.85:
        largest = surface.uniform(2.0, 5.0)
        for _ in range(surface.count(8, 150)):
            angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(5, 9))))
            radii = surface.pixels(1.2, largest) * rng.uniform(0.6, 1.2, (len(angles), 1)) * rng.uniform(0.6, 1, 2)
            centre = rng.random(2) * (surface.width, surface.height)
            speck = centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
            traces.append(surface.trace(speck, 0, (0.6, 1.0)))
    if rng.random() < 0.4 or not traces:
        for _ in range(surface.count(1, 12)):
            path = surface.walk(surface.scale * surface.uniform(0.03, 0.3), surface.uniform(0.1, 0.4))
            traces.append(surface.trace(path, surface.pixels(0.8, 2.0), (0.6, 1.0)))
    return surface.params(traces, -1.0, surface.uniform(0, 0.7))


def _folds(surface: _Print) -> PrintDamageParams:
    """Creases across the picture where the surface has broken, with small cracks beside them."""
    heading, traces = surface.uniform(0, math.pi), []
    for number in range(int(surface.rng.integers(1, 3))):
        path = surface.walk(2.2 * (surface.width + surface.height), 0.01, heading + number * math.pi / 2)
        traces.append(surface.trace(path, surface.pixels(0.8, 4.0), (0.6, 1.0)))
        for start in surface.rng.choice(path, int(surface.rng.integers(0, 12))):
            crack = surface.walk(surface.pixels(4, 30), 0.4)
            traces.append(surface.trace(crack - crack[0] + start, surface.pixels(0.6, 1.5), (0.5, 1.0)))
    return surface.params(traces, surface.uniform(0.0, 0.5), surface.uniform(0, 0.7))


def _torn_edges(surface: _Print) -> PrintDamageParams:
    """A corner or a side is missing, and what lies behind is plain."""
    rng, size = surface.rng, np.array([surface.width, surface.height], np.float32)
    depth = min(0.25 * surface.scale, 0.3 * float(size.min())) * surface.uniform(0.2, 1.0)
    along = np.linspace(0, 1, int(rng.integers(8, 30)))[:, None]
    jagged = np.cumsum(rng.normal(0, 0.12, len(along))) + rng.normal(0, 0.04, len(along))
    if rng.random() < 0.6:  # a corner
        edge = along * [surface.uniform(1, 3) * depth, 0] + (1 - along) * [0, surface.uniform(1, 3) * depth]
        edge += (jagged - jagged.mean())[:, None] * depth * 0.6
        edge[0, 0], edge[-1, 1] = -1, -1
        area = np.concatenate([edge, [[-1.0, -1.0]]])
    else:
        edge = np.concatenate([along * (size[0] + 2) - 1, depth * np.clip(1 + jagged[:, None], 0.05, 2)], 1)
        area = np.concatenate([edge, [[size[0] + 1.0, -1.0], [-1.0, -1.0]]])
    for axis in range(2):
        if rng.random() < 0.5:
            area[:, axis], edge[:, axis] = size[axis] - area[:, axis], size[axis] - edge[:, axis]
    behind = surface.trace(area, 0, (1.0, 1.0))
    rim = Trace(tuple((float(x), float(y)) for x, y in edge), surface.pixels(0.8, 4.0), 0.9, (240, 238, 232))
    return surface.params([behind, rim] if rng.random() < 0.5 else [behind], -1.0, surface.uniform(0, 0.6))


def _stains(surface: _Print) -> PrintDamageParams:
    """Blots with soft edges, nearly opaque."""
    rng, traces = surface.rng, []
    if rng.random() < 0.4:
        surface.colour = (int(rng.integers(90, 160)), int(rng.integers(60, 110)), int(rng.integers(20, 70)))
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    for _ in range(surface.count(1, 10)):
        wave = sum(rng.normal(0, 0.25 / k) * np.cos(k * angles + rng.uniform(0, 6)) for k in range(1, 6))
        radii = np.maximum(0.2, 1 + wave)[:, None] * surface.pixels(3, 22) * rng.uniform(0.6, 1, 2)
        centre = rng.random(2) * (surface.width, surface.height)
        traces.append(surface.trace(centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1), 0, (0.75, 1.0)))
    return surface.params(traces, surface.uniform(-1.0, 0.15), surface.uniform(0.5, 2.0))


def _scratches_and_dust(surface: _Print) -> PrintDamageParams:
    """Scratches, and dust of the same colour."""
    scratches, dust = _scratches(surface), _dust(surface)
    return surface.params([*scratches.traces, *dust.traces], max(0.0, scratches.gaps) / 2, scratches.blur)


_TRACES = {
    "scratches": _scratches,
    "dust": _dust,
    "scratches and dust": _scratches_and_dust,
    "folds": _folds,
    "torn edges": _torn_edges,
    "stains": _stains,
}


@dataclass(frozen=True)
class PrintDamage(Corruption[PrintDamageParams]):
    """Traces of one kind, blended over the picture.

    Args:
        kind: one of `KINDS`.
        short_side: for training patches, range in pixels of the short side of the picture that the patch stands for;
            None: the short side of the picture itself.

    Raises:
        UsageError: an unknown kind, or an empty range.
    """

    kind: str
    short_side: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("damage of prints", self.kind, KINDS)
        if self.short_side is not None:
            check_range(1, math.inf, short_side=self.short_side)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> PrintDamageParams:
        """Draws traces for a picture (H,W,C)."""
        return _TRACES[self.kind](_Print(shape, self.short_side, rng))

    def apply(self, image: np.ndarray, params: PrintDamageParams) -> Corrupted:
        """Blends the traces over (H,W,C).

        Returns:
            The picture in the same shape and dtype, and the mask (H,W) of what can be seen. Outside of it soft edges
            have an opacity of at most `VISIBLE`, and the rest stays bit-identical.
        """
        size, rng = image.shape[:2], np.random.Generator(np.random.SFC64(params.seed))
        opacity, colour = np.zeros(size, np.float32), np.zeros(image.shape, np.float32)
        for tone, traces in groupby(params.traces, key=lambda trace: trace.colour):
            alpha = _opacity(list(traces), size, rng)
            if params.gaps > 0:
                alpha *= _surface(size, params.gaps, params.grain, rng)
            if params.blur > 0.2:  # less changes nothing on a grid of pixels
                alpha = cv2.GaussianBlur(alpha, (0, 0), params.blur)
            shade = np.array(tone, np.float32) / 255
            over = alpha > opacity
            opacity[over], colour[over] = alpha[over], luma(shade)[None] if image.shape[-1] == 1 else shade
        touched, damaged = opacity > FAINT, image.copy()
        amount = opacity[touched][:, None]
        damaged[touched] = to_dtype(to_float(image[touched]) * (1 - amount) + colour[touched] * amount, image.dtype)
        return Corrupted(damaged, opacity > VISIBLE)


def _opacity(traces: list[Trace], size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Opacity (h,w) float32 of antialiased traces."""
    height, width = size[:2]
    fine = _SUBPIXELS if height * width <= _FINE_PIXELS else 1
    canvas = np.zeros((height * fine, width * fine), np.uint8)
    for trace in traces:
        level = round(255 * trace.opacity)
        path = np.rint((np.array(trace.points) * fine - 0.5) * 2**_SHIFT).astype(np.int32)
        if trace.thickness == 0:
            cv2.fillPoly(canvas, [path], level, cv2.LINE_8, _SHIFT)
            continue
        thicknesses = np.maximum(1, np.rint(trace.thickness * fine * rng.uniform(*_UNEVEN, len(path) - 1))).astype(int)
        for start, end, thickness in zip(path[:-1].tolist(), path[1:].tolist(), thicknesses.tolist(), strict=True):
            cv2.line(canvas, start, end, level, thickness, cv2.LINE_8, _SHIFT)
    smooth = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(smooth.reshape(height, width), np.float32) / 255


def _surface(size: tuple[int, ...], gaps: float, grain: float, rng: np.random.Generator) -> np.ndarray:
    """(h,w) float32: 0 in a share `gaps` of the area, in patches of `grain` pixels, else mostly 1."""
    coarse = [math.ceil(side / grain) + 2 for side in size[:2]]
    noise = cv2.resize(rng.random(coarse, np.float32), (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip((noise - gaps) * 6 + 0.5, 0, 1), np.float32).reshape(size[0], size[1])


def aged_print(short_side: tuple[int, int] | None = None) -> Choice:
    """One of the damages, each as often as `KINDS` says. `short_side` as in `PrintDamage`."""
    return Choice(tuple(Part(PrintDamage(kind, short_side), share) for kind, share in KINDS.items()))
