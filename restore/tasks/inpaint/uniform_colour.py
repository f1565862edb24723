"""Uniform colours as evidence of damage: bars from side to side, and one colour at several places.

Light, shade and grain change the colours of an object of the scene over a distance. What was drawn over a picture keeps
its colour, but for the noise of compression. A network that has learnt on patches does not see so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from restore.pixels import Array, to_uint8

CONTRAST = 16  # levels, from which on another colour differs clearly
GAP, BESIDE = 2, 4  # pixels left out around what has one colour, where its edge may be soft; and compared beyond

# Bars and gutters, which consist of lines: rows or columns of the picture.
LINE_TOLERANCE = 14  # levels of 255, by which noise of compression changes the colour of a bar
UNIFORM_LINE, UNIFORM_CORE = 0.9, 0.97  # share of a line, and of `MIN_LINES`, that is within so many of its median
MIN_LINES = 2  # the rules of a table or chart may have one
MIN_LENGTH = 64  # pixels, below which lines of a scene are uniform by chance
GUTTER_AGREEMENT, BAR_AGREEMENT = 0.5, 0.8  # share of it that the network takes for damage
GUTTER_CONTRAST, BAR_CONTRAST = 0.6, 0.85  # share of the lines on each side that differ clearly from it
# Median deviation of the lines beside a bar from their medians, in levels: a picture is there, and not plain paper. A
# bar of a colour that is known needs it no more, and only the agreement and contrast of a gutter.
BAR_TEXTURE = 5
# The mean difference of the lines on both sides, divided by that of lines which are shifted by these shares of their
# length: up to the first a scene goes on behind bars of one colour, from the second on gutters part pictures.
CONTINUED, PARTED = 0.75, 0.85
MIN_DIFFERENCE = 5  # levels, of shifted lines beside a gutter: in a plain sky all are alike
SHIFTS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)
SMOOTHED = 9  # pixels along the lines, over which they are averaged for it
# Lines of a soft edge at most, and the opacity from which on a line is one, by its colours, which are between those of
# the bar and of the line beyond: of 190 lines beside a bar 2 % have more than 0.11, of 492 of an edge 2 % have less.
SOFT_LINES, MIN_OPACITY = 3, 0.1

# Parts of one colour.
MIN_PART_PIXELS, MIN_PART_SHARE = 60, 0.001  # of the picture
MIN_CORE = 20  # pixels that are certainly damaged, and of the surroundings
PART_TOLERANCE, UNIFORM_PART = 12, 0.95  # levels; share of the core that is within so many of its median
PART_CONTRAST = 0.7  # share of the surroundings that differ clearly from it
PART_TEXTURE = 7  # median deviation of the surroundings from their median, in levels
EQUAL = 3  # levels, by which the medians of two parts of one colour differ at most
# Range of the channels of a colour, and its brightest one, in levels: white, black, grays and the tint of deep shadows
# are at several places of many scenes.
MIN_CHROMA, MIN_BRIGHTNESS = 20, 80


@dataclass(frozen=True)
class _Bar:
    """Consecutive lines of one colour, a bar or a gutter.

    start, stop: of the lines.
    colour: (3,), median, levels of 255.
    agreement: share of the pixels that the network takes for damage.
    contrast: share of the lines on a side that differ clearly, the smaller one.
    texture: of the plainer side; see `BAR_TEXTURE`.
    across, elsewhere: differences of the two sides; see `CONTINUED`.
    """

    start: int
    stop: int
    colour: Array
    agreement: float
    contrast: float
    texture: float
    across: float
    elsewhere: float


def spanning_bars(image: Array, levels: Array) -> tuple[Array, Array]:
    """Finds horizontal and vertical bars of one colour that reach from side to side.

    Args:
        image: (H,W,3), any supported dtype.
        levels: (H,W) int8, logits of the network that a pixel is damaged, times `LEVELS`.

    Returns:
        Two masks (H,W) bool: bars that were drawn over a scene, which goes on behind them, with their soft edges; and
        the gutters between the pictures of a collage.
    """
    drawn, gutters = np.zeros(levels.shape, bool), np.zeros(levels.shape, bool)
    turned = image.swapaxes(0, 1)
    found = [(bar, image, drawn, gutters) for bar in _bars(image, levels)]
    found += [(bar, turned, drawn.T, gutters.T) for bar in _bars(turned, levels.T)]
    bars = [bar for bar, *_ in found]
    certain = [
        bar.colour
        for bar in bars
        if bar.agreement >= BAR_AGREEMENT
        and bar.contrast >= BAR_CONTRAST
        and bar.texture >= BAR_TEXTURE
        and _discontinuity(bar.colour, bars) <= CONTINUED
    ]
    for bar, pixels, drawn_lines, gutter_lines in found:
        if any(_equal(bar.colour, colour) for colour in certain):
            before = _soft_lines(pixels[: bar.start][::-1], bar.colour)
            drawn_lines[bar.start - before : bar.stop + _soft_lines(pixels[bar.stop :], bar.colour)] = True
        elif bar.elsewhere >= MIN_DIFFERENCE and _discontinuity(bar.colour, bars) >= PARTED:
            gutter_lines[bar.start : bar.stop] = True
    return drawn, gutters


def _discontinuity(colour: Array, bars: list[_Bar]) -> float:
    """How much the sides of those `bars` differ that have about this colour; see `CONTINUED`."""
    same = [bar for bar in bars if _equal(bar.colour, colour)]
    return sum(bar.across for bar in same) / max(sum(bar.elsewhere for bar in same), 1e-6)


def _equal(colour: Array, other: Array) -> bool:
    return bool(np.abs(colour - other).max() <= LINE_TOLERANCE)


def _soft_lines(image: Array, colour: Array) -> int:
    """The number of leading lines of (N,L,3), from a bar outwards, that have some of its colour (3,) in levels."""
    beyond = to_uint8(image[min(SOFT_LINES, len(image) - 1)]).astype(np.float32)
    towards = colour - beyond
    weight = np.square(towards).sum(-1)
    clear = weight > CONTRAST**2
    for count, line in enumerate(image[:SOFT_LINES]):
        along = ((to_uint8(line) - beyond) * towards).sum(-1)
        if not clear.any() or np.median(along[clear] / weight[clear]) < MIN_OPACITY:
            return count
    return SOFT_LINES


def _bars(image: Array, levels: Array) -> Iterator[_Bar]:
    """Bars and gutters along the second axis of (N,L,3) and (N,L), which differ from what is on both sides."""
    count, length = levels.shape
    if length < MIN_LENGTH:
        return
    damaged = np.count_nonzero(levels >= 0, axis=1) / length
    uniform, colours = np.zeros(count), np.zeros((count, 3))
    for line in np.flatnonzero(damaged >= GUTTER_AGREEMENT):
        pixels = to_uint8(image[line]).astype(np.int16)
        colours[line] = np.median(pixels, axis=0)
        uniform[line] = _share_near(pixels, colours[line], LINE_TOLERANCE)
    if not uniform.any():
        return
    steps = np.abs(np.diff(colours, axis=0)).max(-1)
    joined = (np.minimum(uniform[1:], uniform[:-1]) >= UNIFORM_LINE) & (steps <= LINE_TOLERANCE)
    ends = np.flatnonzero(~joined) + 1
    for start, stop in pairwise([0, *ends.tolist(), count]):
        core = colours[start:stop][uniform[start:stop] >= UNIFORM_CORE]
        above, below = start - GAP, stop + GAP
        if len(core) < MIN_LINES or above <= 0 or below >= count:
            continue
        colour = np.median(core, axis=0)
        sides = [
            to_uint8(side).astype(np.int16)
            for side in (image[max(above - BESIDE, 0) : above], image[below : below + BESIDE])
        ]
        contrast = min(_contrast(side, colour) for side in sides)
        if contrast >= GUTTER_CONTRAST:
            texture = min(_deviation(side, np.median(side, axis=1, keepdims=True)) for side in sides)
            agreement = float(damaged[start:stop].mean())
            yield _Bar(start, stop, colour, agreement, contrast, texture, *_differences(*sides))


def _differences(before: Array, after: Array) -> tuple[float, float]:
    """Mean differences of lines (N,L,3) and (M,L,3) on both sides of a bar, and of shifted ones; see `CONTINUED`."""
    first, second = (
        cv2.blur(side.mean(axis=0, dtype=np.float32)[None], (SMOOTHED, 1), borderType=cv2.BORDER_REFLECT)[0]
        for side in (before, after)
    )
    shifted = [np.abs(first - np.roll(second, int(shift * len(second)), axis=0)).mean() for shift in SHIFTS]
    return float(np.abs(first - second).mean()), float(np.mean(shifted))


def repeated_colours(image: Array, certain: Array, labels: Array, sizes: Array) -> Array:
    """Which parts have a colour, uniform and neither gray nor dark, that another part has too.

    Args:
        image: (H,W,3), any supported dtype.
        certain: (H,W) bool, certainly damaged.
        labels: (H,W) integers of the parts, from 1 to P.
        sizes: (P,) pixels of each.

    Returns:
        (P,) bool.
    """
    repeated = np.zeros(len(sizes), bool)
    large = sizes >= max(MIN_PART_PIXELS, MIN_PART_SHARE * labels.size)
    found = np.flatnonzero(large)
    if len(found) < 2:
        return repeated
    rows, columns = np.append(False, large)[labels].nonzero()
    order = np.argsort(labels[rows, columns], kind="stable")
    colours = np.full((len(found), 3), np.nan)
    for index, own in enumerate(np.split(order, np.cumsum(sizes[found])[:-1])):
        window = tuple(
            slice(max(int(places[own].min()) - GAP - BESIDE, 0), int(places[own].max()) + GAP + BESIDE + 1)
            for places in (rows, columns)
        )
        colour = _part_colour(to_uint8(image[window]), certain[window], labels[window], found[index] + 1)
        if colour is not None:
            colours[index] = colour
    apart = np.abs(colours[:, None] - colours).max(-1)
    np.fill_diagonal(apart, np.inf)
    repeated[found] = (apart <= EQUAL).any(-1)
    return repeated


def _part_colour(image: Array, certain: Array, labels: Array, number: int) -> Array | None:
    """The colour (3,) of the part `number`, in levels of 255; None if it has not a single one, or hardly stands out.

    Args:
        image: (h,w,3) uint8, with the surroundings of the part.
        certain, labels: (h,w).
        number: of the part.
    """
    part = (labels == number).astype(np.uint8)
    core = part & certain
    inner = cv2.erode(core, _square(1))
    core = inner if 5 * inner.sum() >= core.sum() else core
    ring = (cv2.dilate(part, _square(GAP + BESIDE - 1)) > cv2.dilate(part, _square(GAP))) & (labels == 0)
    pixels, around = (image[where].astype(np.int16) for where in (core > 0, ring))
    if min(len(pixels), len(around)) < MIN_CORE:
        return None
    colour: Array = np.median(pixels, axis=0)
    drawn = (
        np.ptp(colour) >= MIN_CHROMA
        and colour.max() >= MIN_BRIGHTNESS
        and _share_near(pixels, colour, PART_TOLERANCE) >= UNIFORM_PART
        and _contrast(around, colour) >= PART_CONTRAST
        and _deviation(around, np.median(around, axis=0)) >= PART_TEXTURE
    )
    return colour if drawn else None


def _square(radius: int) -> Array:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _share_near(pixels: Array, colour: Array, tolerance: int) -> float:
    """The share of `pixels` (...,3) that are within `tolerance` levels of `colour` (3,) in all channels."""
    return float((np.abs(pixels - colour).max(-1) <= tolerance).mean())


def _contrast(pixels: Array, colour: Array) -> float:
    """The share of `pixels` (...,3) that differ clearly from `colour` (3,)."""
    return float((np.abs(pixels - colour).max(-1) > CONTRAST).mean())


def _deviation(pixels: Array, colour: Array) -> float:
    """The median difference of `pixels` (...,3) to `colour`, of the channel where it is largest."""
    return float(np.median(np.abs(pixels - colour).max(-1)))
