"""Semi-transparent watermarks: text, shapes and logos, alpha-blended over an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from restore.corruptions.base import Corrupted, Corruption, check_range, check_share, log_uniform, pick
from restore.corruptions.drawing.logos import Logo
from restore.corruptions.drawing.marks import (
    Ink,
    LogoMark,
    Mark,
    draw_accent,
    draw_mark,
    rotate,
    rotated_size,
    sample_ink,
    sample_mark,
)
from restore.errors import ImageError, UsageError
from restore.pixels import luma, to_dtype, to_float

ARRANGEMENTS = ("single", "repeated", "tiled")
MIN_OPACITY = 0.02  # lower opacities are set to 0: they change a pixel by at most 5 of 255 levels
MAX_SIDE = 16384  # pixels: OpenCV rotates images of up to 32767 pixels a side, and the diagonal has to fit
MAX_SHORT_SIDE = 4096  # pixels: marks are not scaled up beyond this, since a line of text has to fit as well


@dataclass(frozen=True)
class Layer:
    """One mark and its placement."""

    mark: Mark  # what is drawn
    ink: Ink  # its colours
    arrangement: str  # one of `ARRANGEMENTS`
    # For "single" and "repeated", positions (x, y) relative to the free space beside the mark: 0 is flush left or top,
    # 1 flush right or bottom; beyond these the mark is cropped, by at most half. For "tiled", the offset of the grid in
    # cells
    places: tuple[tuple[float, float], ...]
    angle: float  # rotation in degrees, counter-clockwise
    gap: tuple[float, float]  # between tiles, horizontally and vertically, relative to the size of the mark
    stagger: float  # offset of every other row of tiles, in cells
    opacity: tuple[float, float]  # at the two ends of the image along the direction `slope`; equal for a uniform mark
    slope: float  # direction of the opacity gradient in degrees
    edge: float  # standard deviation of a blur in pixels; 0: antialiased; negative: hard edges


@dataclass(frozen=True)
class WatermarkOverlayParams:
    """Parameters of `WatermarkOverlay`."""

    layers: tuple[Layer, ...]  # from bottom to top; empty: no mark


@dataclass(frozen=True)
class WatermarkOverlay(Corruption[WatermarkOverlayParams]):
    """Blends one mark, sometimes two, over an image: clean * (1 - opacity) + colour * opacity.

    Args:
        opacity: (low, high), range of the opacity where a mark covers a pixel completely, also where two overlap.
        logos: used for half of the marks, in their own colours, at the sampled opacity times their alpha.
        short_side: for training patches, range in pixels of the short side of the image that the patch stands for;
            None: the short side of the image itself, up to `MAX_SHORT_SIDE`.
        unmarked: probability of no mark.

    Raises:
        UsageError: an empty range, or a probability outside [0, 1].
    """

    opacity: tuple[float, float] = (0.15, 0.8)
    logos: tuple[Logo, ...] = ()
    short_side: tuple[int, int] | None = None
    unmarked: float = 0.0

    def __post_init__(self) -> None:
        check_range(MIN_OPACITY, 1, above=True, opacity=self.opacity)
        if self.short_side is not None:
            check_range(1, MAX_SHORT_SIDE, short_side=self.short_side)
        check_share(unmarked=self.unmarked)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> WatermarkOverlayParams:
        """Draws marks with sizes relative to the short side of `shape` (H,W,C), or to `short_side`."""
        if rng.random() < self.unmarked:
            return WatermarkOverlayParams(())
        low, high = self.short_side or (min(shape[:2]), min(shape[:2]))
        short_side = min(int(rng.integers(low, high + 1)), MAX_SHORT_SIDE)
        layers = [_sample_layer(short_side, self.opacity, self.logos, rng)]
        # The highest opacity of a second mark for which the joint opacity stays in the range.
        limit = 1 - (1 - self.opacity[1]) / max(1 - max(layers[0].opacity), 1e-6)
        if rng.random() < 0.2 and limit > self.opacity[0]:
            layers.append(_sample_layer(short_side, (self.opacity[0], limit), self.logos, rng))
        return WatermarkOverlayParams(tuple(layers))

    def apply(self, image: np.ndarray, params: WatermarkOverlayParams) -> Corrupted:
        """Blends the marks over (H,W,C).

        Gray images get the luma of the colours. Floating point values are not clipped. `params` must have been
        sampled with the same logos.

        Returns:
            The image in the same shape and dtype. Opacity (H,W), 0 where it would be at most `MIN_OPACITY`: there the
            image stays bit-identical and the colour is 0. Mask: opacity > 0.

        Raises:
            ImageError: a side longer than `MAX_SIDE` pixels.
            UsageError: `params` use logos that this operator does not have.
        """
        height, width, channels = image.shape
        if max(height, width) > MAX_SIDE:
            raise ImageError(
                f"a picture of {width}x{height} is too large for watermarks; use at most {MAX_SIDE} a side"
            )
        # Flattened to pixels, so that only those under a mark are computed.
        out, opacity = image.copy(), np.zeros(height * width, np.float32)
        colour = np.zeros((height * width, channels), np.float32)
        for layer in params.layers:
            index, alpha, tint = _render(layer, (height, width), self.logos)
            # The composition of two blends is one blend with the joint opacity and the weighted mean colour.
            joint = alpha + opacity[index] * (1 - alpha)
            top, share = luma(tint)[:, None] if channels == 1 else tint, (alpha / joint)[:, None]
            colour[index] = colour[index] * (1 - share) + top * share
            opacity[index] = joint
        covered = np.flatnonzero(opacity > 0)
        amount, pixels = opacity[covered, None], out.reshape(-1, channels)
        blended = to_float(pixels[covered]) * (1 - amount) + colour[covered] * amount
        pixels[covered] = to_dtype(blended, image.dtype)
        opacity = opacity.reshape(height, width)
        return Corrupted(out, mask=opacity > 0, opacity=opacity, colour=colour.reshape(image.shape))


def _sample_layer(
    short_side: int, opacity: tuple[float, float], logos: tuple[Logo, ...], rng: np.random.Generator
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


def _render(layer: Layer, shape: tuple[int, int], logos: tuple[Logo, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders a layer for an image of `shape` (H,W).

    Returns:
        Flat indices of the pixels where it is visible, (n,); its opacity there, (n,) float32; and its colour, (n,3)
        float32, or (1,3) if it is uniform.
    """
    planes = (_tile if layer.arrangement == "tiled" else _place)(_stamp(layer, logos), layer, shape)
    if layer.edge > 0:
        planes = np.atleast_3d(cv2.GaussianBlur(planes, (0, 0), layer.edge))  # OpenCV drops the axis of one channel
    rows = planes.reshape(-1, planes.shape[2])
    index = np.flatnonzero(rows[:, -1] > 0)
    values = to_float(rows[index])
    # Rounding may leave slightly more ink than coverage, or coverage slightly above 1.
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
    visible = alpha > MIN_OPACITY
    return index[visible], alpha[visible], tint[visible] if len(tint) == len(visible) else tint


def _stamp(layer: Layer, logos: tuple[Logo, ...]) -> np.ndarray:
    """Draws the mark of a layer without rotation: (h,w,K), coverage in the last channel.

    K = 1: uint8 coverage. K = 2: uint8 coverage of the ink, then of ink and accent together. K = 4: a logo, uint16
    premultiplied RGB, then alpha.
    """
    if isinstance(layer.mark, LogoMark):
        if layer.mark.index >= len(logos):
            raise UsageError("these parameters use logos; apply them with the operator that sampled them")
        return to_dtype(logos[layer.mark.index].render(layer.mark.size), np.uint16)
    coverage = draw_mark(layer.mark)
    return draw_accent(coverage, layer.mark, layer.ink.accent) if layer.ink.accent else coverage[..., None]


def _strength(layer: Layer, shape: tuple[int, int], index: np.ndarray) -> np.ndarray:
    """The opacity at full coverage, float32: (1,) if uniform, else (n,) at the flat pixel indices `index`."""
    first, last = layer.opacity
    if first == last:
        return np.array([first], np.float32)
    turn = np.deg2rad(layer.slope)
    y, x = ((place + 0.5) / side - 0.5 for place, side in zip(np.divmod(index, shape[1]), shape, strict=True))
    along = (x * np.cos(turn) + y * np.sin(turn)) / (abs(np.cos(turn)) + abs(np.sin(turn))) + 0.5
    return np.asarray(first + (last - first) * along, np.float32)


def _place(stamp: np.ndarray, layer: Layer, shape: tuple[int, int]) -> np.ndarray:
    """The stamp (h,w,K), rotated, at each of its places: (H,W,K), same dtype."""
    box = rotated_size(stamp.shape, layer.angle)
    out: np.ndarray | None = None
    for x, y in layer.places:
        # At least half of the mark stays inside of the image in each direction.
        top, left = (
            min(max(share * (side - part), -part / 2), side - part / 2)
            for share, side, part in zip((y, x), shape, box, strict=True)
        )
        if layer.angle == 0:
            top, left = round(top), round(left)  # whole pixels: no interpolation, so letters stay sharp
        new = rotate(stamp, layer.angle, (top + box[0] / 2, left + box[1] / 2), shape)
        if out is None:
            out = new
        else:
            # Copies of one mark belong to one layer: where they overlap the maximum counts.
            stronger = new[..., -1] > out[..., -1]
            out[stronger] = new[stronger]
    assert out is not None
    return out


def _tile(stamp: np.ndarray, layer: Layer, shape: tuple[int, int]) -> np.ndarray:
    """A grid of the stamp (h,w,K), rotated as a whole, over the whole image: (H,W,K), same dtype."""
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
        # The rotated grid must cover the image; interpolation needs a margin.
        down, across = rotated_size(shape, layer.angle)
        size = int(down) + 4, int(across) + 4
    counts = [-(-side // part) for side, part in zip(size, cell.shape, strict=False)]
    grid = np.tile(cell, (*counts, 1))[: size[0], : size[1]]
    return grid if layer.angle == 0 else rotate(grid, layer.angle, (shape[0] / 2, shape[1] / 2), shape)
