"""Semi-transparent watermarks: text, shapes and logos, blended over a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from restore.corruptions.base import Corrupted
from restore.corruptions.drawing.logos import Logos
from restore.corruptions.drawing.marks import (
    Ink,
    LogoMark,
    Mark,
    draw_accent,
    draw_mark,
    extent,
    log_uniform,
    pick,
    sample_ink,
    sample_mark,
    turned,
    with_channels,
)
from restore.errors import ImageError, UsageError
from restore.pixels import luma, to_dtype, to_float

ARRANGEMENTS = ("single", "repeated", "tiled")
VISIBLE = 0.02  # opacity up to here is none at all: at most 5 of 255 levels, which nobody sees
LONGEST = 16384  # pixels a side: OpenCV turns pictures of up to 32767, and the diagonal has to fit
LARGEST = 4096  # pixels of short side: marks grow no further with the picture; a line of text has to fit as well


@dataclass(frozen=True)
class Layer:
    """One mark, where and how it lies on the picture.

    places: for "single" and "repeated", the share (x, y) of the room left beside the mark that is to its
    left and above it (0 flush left or top, 1 flush right or bottom, beyond that: cut by the edge, but never
    by more than half); for "tiled", by how much of a cell the grid is shifted. angle: in degrees, counter-
    clockwise. gap: between tiles, across and down, in parts of the mark. stagger: by how much of a cell every
    other row is shifted. opacity: at the two ends of the picture along `slope` degrees, equal in most marks.
    edge: the sigma of a blur in pixels; 0 antialiased as drawn; negative: hard, covered or not.
    """

    mark: Mark
    ink: Ink
    arrangement: str
    places: tuple[tuple[float, float], ...]
    angle: float
    gap: tuple[float, float]
    stagger: float
    opacity: tuple[float, float]
    slope: float
    edge: float


@dataclass(frozen=True)
class WatermarkOverlayParams:
    """layers: from the lowest to the topmost; none leaves the picture untouched."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class WatermarkOverlay:
    """Lays one mark, sometimes two, over a picture: clean * (1 - opacity) + colour * opacity.

    opacity: (low, high) where a mark covers a pixel wholly, also where two overlap. logos: used for half of
    the marks, in their own colours and at the drawn opacity times their alpha. short_side: marks are as
    large as a picture with a short side from this range in pixels would get them (for training on patches);
    None: the picture's own, up to `LARGEST`. none: the probability of no mark at all.
    Raises UsageError for a range that is no range, a probability outside [0, 1], or no logos in `logos`.
    """

    opacity: tuple[float, float] = (0.15, 0.8)
    logos: Logos | None = None
    short_side: tuple[int, int] | None = None
    none: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.opacity
        if not VISIBLE < low <= high <= 1:
            raise UsageError(f"opacity must be a range above {VISIBLE} up to 1, low to high; got {low} to {high}")
        if self.short_side is not None and not 1 <= self.short_side[0] <= self.short_side[1] <= LARGEST:
            raise UsageError(f"short_side must be a range within 1 to {LARGEST} pixels; got {self.short_side}")
        if not 0 <= self.none <= 1:
            raise UsageError(f"none is a probability from 0 to 1; got {self.none}")
        if self.logos is not None and not len(self.logos):
            raise UsageError("logos holds no logo; give at least one, or None")

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> WatermarkOverlayParams:
        """Draws marks whose size fits a picture of `shape` (H,W,C), or `short_side`."""
        if rng.random() < self.none:
            return WatermarkOverlayParams(())
        low, high = self.short_side or (min(shape[:2]), min(shape[:2]))
        short_side = min(int(rng.integers(low, high + 1)), LARGEST)
        layers = [_sample_layer(short_side, self.opacity, self.logos, rng)]
        # What is left under the first mark for a second one, so that both together stay in the range.
        room = 1 - (1 - self.opacity[1]) / max(1 - max(layers[0].opacity), 1e-6)
        if rng.random() < 0.2 and room > self.opacity[0]:
            layers.append(_sample_layer(short_side, (self.opacity[0], room), self.logos, rng))
        return WatermarkOverlayParams(tuple(layers))

    def apply(self, image: np.ndarray, params: WatermarkOverlayParams) -> Corrupted:
        """(H,W,C) -> the same shape and dtype, with the opacity, colour and mask of the marks.

        opacity: (H,W), exactly 0 wherever it would be at most `VISIBLE`; there the picture keeps its bytes
        and colour is 0. mask: opacity > 0. A gray picture gets the luma of the colours. Floats are not
        clipped. `params` have to come from an operator with the same logos.
        Raises ImageError for a picture with a side beyond `LONGEST` pixels.
        """
        height, width, channels = image.shape
        if max(height, width) > LONGEST:
            raise ImageError(f"a picture of {width}x{height} is too large for watermarks; use at most {LONGEST} a side")
        # One row for each pixel: only those that a mark covers are computed.
        out, opacity = image.copy(), np.zeros(height * width, np.float32)
        colour = np.zeros((height * width, channels), np.float32)
        for layer in params.layers:
            index, alpha, tint = _render(layer, (height, width), self.logos)
            # Two blends in a row are one blend, with the joint opacity and the mean colour by what is seen of each.
            joint = alpha + opacity[index] * (1 - alpha)
            over, share = luma(tint)[:, None] if channels == 1 else tint, (alpha / joint)[:, None]
            colour[index] = colour[index] * (1 - share) + over * share
            opacity[index] = joint
        covered = np.flatnonzero(opacity > 0)
        amount, pixels = opacity[covered, None], out.reshape(-1, channels)
        blended = to_float(pixels[covered]) * (1 - amount) + colour[covered] * amount
        pixels[covered] = to_dtype(blended, image.dtype)
        opacity = opacity.reshape(height, width)
        return Corrupted(out, mask=opacity > 0, opacity=opacity, colour=colour.reshape(image.shape))

    def target(self, image: np.ndarray, params: WatermarkOverlayParams) -> np.ndarray:
        """The picture itself."""
        return image


def _sample_layer(
    short_side: int, opacity: tuple[float, float], logos: Logos | None, rng: np.random.Generator
) -> Layer:
    chance = rng.random()
    arrangement = "single" if chance < 0.5 else "repeated" if chance < 0.65 else "tiled"
    strength = float(rng.uniform(*opacity))
    return Layer(
        mark=sample_mark(short_side, arrangement == "tiled", logos, rng),
        ink=sample_ink(rng),
        arrangement=arrangement,
        places=_sample_places(arrangement, rng),
        angle=_sample_angle(rng),
        gap=(log_uniform(0.05, 1.0, rng), log_uniform(0.2, 4.0, rng)),
        stagger=0.5 if rng.random() < 0.4 else 0.0,
        opacity=(strength, float(rng.uniform(*opacity)) if rng.random() < 0.12 else strength),
        slope=float(rng.uniform(0, 360)),
        edge=_sample_edge(rng),
    )


def _sample_places(arrangement: str, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    if arrangement == "tiled":
        return ((float(rng.random()), float(rng.random())),)
    if arrangement == "repeated":
        return tuple((float(x), float(y)) for x, y in rng.uniform(-0.1, 1.1, (int(rng.integers(2, 7)), 2)))
    kind = rng.random()
    if kind < 0.3:
        return ((0.5, 0.5),)
    if kind < 0.6:
        inset = float(rng.uniform(0.0, 0.1))
        return ((pick((inset, 0.5, 1 - inset), rng), pick((inset, 1 - inset), rng)),)
    x, y = rng.uniform(-0.2, 1.2, 2).tolist()
    return ((x, y),)


def _sample_angle(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.35:
        return 0.0
    if kind < 0.8:
        return float(rng.uniform(-30, 30))
    if kind < 0.92:
        return pick((45.0, -45.0, 90.0, -90.0), rng)
    return float(rng.uniform(-180, 180))


def _sample_edge(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.65:
        return 0.0
    return float(rng.uniform(0.3, 1.5)) if kind < 0.9 else -1.0


def _render(layer: Layer, shape: tuple[int, int], logos: Logos | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a layer is visible, (n,) indices into the pixels row by row; its opacity there, (n,); and its colour.

    The colour is (n,3), or (1,3) where the layer has but one; opacity and colour are float32.
    """
    planes = (_tiled if layer.arrangement == "tiled" else _placed)(_stamp(layer, logos), layer, shape)
    if layer.edge > 0:
        planes = with_channels(cv2.GaussianBlur(planes, (0, 0), layer.edge))
    rows = planes.reshape(-1, planes.shape[2])
    index = np.flatnonzero(rows[:, -1] > 0)
    values = to_float(rows[index])
    # Neighbouring roundings may leave more ink than coverage, or a little more than all of a pixel.
    alpha, ink = np.minimum(values[:, -1], 1), layer.ink
    tint = np.array([ink.colour], np.float32)
    if values.shape[1] == 2:
        second = np.array([ink.second], np.float32)
        tint = second + np.minimum(values[:, :1] / alpha[:, None], 1) * (tint - second)
    elif values.shape[1] == 4:
        tint = np.minimum(values[:, :3] / alpha[:, None], 1)
    if layer.edge < 0:
        alpha = (alpha >= 0.5).astype(np.float32)
    alpha = alpha * _strength(layer, shape, index)
    seen = alpha > VISIBLE
    return index[seen], alpha[seen], tint[seen] if len(tint) == len(seen) else tint


def _stamp(layer: Layer, logos: Logos | None) -> np.ndarray:
    """The mark of a layer, upright: (h,w,K) with its coverage last.

    K = 1: uint8. K = 2: uint8, the ink, then the ink with its accent. K = 4: a logo, uint16, RGB times alpha,
    then alpha. Raises UsageError for a logo without logos.
    """
    if isinstance(layer.mark, LogoMark):
        if logos is None:
            raise UsageError("these parameters use logos; apply them with the operator that sampled them")
        return to_dtype(logos.logos[layer.mark.index].drawn(layer.mark.size), np.uint16)
    coverage = draw_mark(layer.mark)
    return draw_accent(coverage, layer.mark, layer.ink.accent) if layer.ink.accent else coverage[..., None]


def _strength(layer: Layer, shape: tuple[int, int], index: np.ndarray) -> np.ndarray:
    """The opacity at full coverage, float32: (1,), or (n,) at the pixels `index` where it changes along the picture."""
    first, last = layer.opacity
    if first == last:
        return np.array([first], np.float32)
    turn = np.deg2rad(layer.slope)
    y, x = ((place + 0.5) / side - 0.5 for place, side in zip(np.divmod(index, shape[1]), shape, strict=True))
    along = (x * np.cos(turn) + y * np.sin(turn)) / (abs(np.cos(turn)) + abs(np.sin(turn))) + 0.5
    return np.asarray(first + (last - first) * along, np.float32)


def _placed(stamp: np.ndarray, layer: Layer, shape: tuple[int, int]) -> np.ndarray:
    """The stamp (h,w,K), turned, at each of its places: (H,W,K), same dtype."""
    box = extent(stamp.shape, layer.angle)
    out: np.ndarray | None = None
    for x, y in layer.places:
        # At least half of the mark stays within the picture, each way.
        top, left = (
            min(max(share * (side - part), -part / 2), side - part / 2)
            for share, side, part in zip((y, x), shape, box, strict=True)
        )
        if layer.angle == 0:
            top, left = round(top), round(left)  # whole pixels: upright letters stay as sharp as drawn
        new = turned(stamp, layer.angle, (top + box[0] / 2, left + box[1] / 2), shape)
        if out is None:
            out = new
        else:
            # Where two of one mark overlap, the stronger is seen: it is one layer of ink.
            stronger = new[..., -1] > out[..., -1]
            out[stronger] = new[stronger]
    assert out is not None
    return out


def _tiled(stamp: np.ndarray, layer: Layer, shape: tuple[int, int]) -> np.ndarray:
    """A grid of the stamp (h,w,K), turned as a whole, over the whole picture: (H,W,K), same dtype."""
    height, width = stamp.shape[:2]
    right, below = (round(gap * side) for gap, side in zip(layer.gap, (width, height), strict=True))
    cell = np.pad(stamp, ((0, below), (0, right), (0, 0)))
    shift = partial(np.roll, axis=(0, 1))
    if layer.stagger:
        cell = np.concatenate([cell, shift(cell, (0, round(layer.stagger * cell.shape[1])))])
    x, y = layer.places[0]
    cell = shift(cell, (round(y * cell.shape[0]), round(x * cell.shape[1])))
    size = shape
    if layer.angle != 0:
        # Seen along the turned grid, the picture is this high and wide; interpolation asks for a little more.
        down, across = extent(shape, layer.angle)
        size = int(down) + 4, int(across) + 4
    counts = [-(-side // part) for side, part in zip(size, cell.shape, strict=False)]
    grid = np.tile(cell, (*counts, 1))[: size[0], : size[1]]
    return grid if layer.angle == 0 else turned(grid, layer.angle, (shape[0] / 2, shape[1] / 2), shape)
