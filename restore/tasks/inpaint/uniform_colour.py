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
from restore.tasks.mask_detection import LEVELS

CONTRAST = 16  # levels, from which on another colour differs clearly
GAP, BESIDE = 2, 4  # pixels left out around what has one colour, where its edge may be soft; and compared beyond

# Bars, which consist of lines: rows or columns of the picture.
LINE_TOLERANCE = 14  # levels of 255, by which noise of compression changes the colour of a bar
UNIFORM_LINE, UNIFORM_CORE = 0.9, 0.97  # share of a line, and of `MIN_LINES`, that is within so many of its median
AGREEMENT = 0.8  # share of a bar that the network takes for damage
SAME_COLOUR_AGREEMENT = 0.5  # the same, of a bar that has the colour of a certain one
MIN_LINES = 2  # of a bar: the rules of a table or chart may have one
MIN_LENGTH = 64  # pixels, below which lines of a scene are uniform by chance
LINE_CONTRAST = 0.85  # share of the lines beside a bar that differ clearly from it
# Median deviation of the lines beside a bar from their medians, in levels: a picture is there, and not plain paper.
LINE_TEXTURE = 5
# Lines of a soft edge at most, and the opacity from which on a line is one, by its colours, which are between those of
# the bar and of the line beyond: of 190 lines beside a bar 2 % have more than 0.11, of 492 of an edge 2 % have less.
SOFT_LINES, MIN_OPACITY = 3, 0.1

# Parts of one colour.
MIN_PART_PIXELS, MIN_PART_SHARE = 60, 0.001  # of the picture
CORE_LOGIT = 2.0  # from which on a pixel is in the core of a part
MIN_CORE = 20  # pixels
PART_TOLERANCE, UNIFORM_PART = 12, 0.95  # levels; share of the core that is within so many of its median
PART_CONTRAST = 0.7  # share of the surroundings that differ clearly from it
PART_TEXTURE = 7  # median deviation of the surroundings from their median, in levels
EQUAL = 3  # levels, by which the medians of two parts of one colour differ at most
# Range of the channels of a colour, and its brightest one, in levels: white, black, grays and the tint of deep shadows
# are at several places of many scenes.
MIN_CHROMA, MIN_BRIGHTNESS = 20, 80


@dataclass(frozen=True)
class _Bar:
    """Consecutive lines of one colour.

    start, stop: of the lines.
    colour: (3,), median, levels of 255.
    agreement: share of the pixels that the network takes for damage.
    texture: of the plainer side; see `LINE_TEXTURE`.
    """

    start: int
    stop: int
    colour: Array
    agreement: float
    texture: float


def spanning_bars(image: Array, levels: Array) -> Array:
    """Finds horizontal and vertical bars of one colour that reach from side to side.

    Args:
        image: (H,W,3), any supported dtype.
        levels: (H,W) int8, logits of the network that a pixel is damaged, times `LEVELS`.

    Returns:
        (H,W) bool, True in bars and their soft edges.
    """
    mask = np.zeros(levels.shape, bool)
    across = [
        (lines, pixels, list(_bars(pixels, logits)))
        for lines, pixels, logits in ((mask, image, levels), (mask.T, image.swapaxes(0, 1), levels.T))
    ]
    certain = [
        bar.colour for *_, bars in across for bar in bars if bar.agreement >= AGREEMENT and bar.texture >= LINE_TEXTURE
    ]
    for lines, pixels, bars in across:
        for bar in bars:
            if any(np.abs(bar.colour - colour).max() <= LINE_TOLERANCE for colour in certain):
                before = _soft_lines(pixels[: bar.start][::-1], bar.colour)
                lines[bar.start - before : bar.stop + _soft_lines(pixels[bar.stop :], bar.colour)] = True
    return mask


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
    """Bars along the second axis of (N,L,3) and (N,L), which differ from what is on both sides."""
    count, length = levels.shape
    if length < MIN_LENGTH:
        return
    damaged = np.count_nonzero(levels >= 0, axis=1) / length
    uniform, colours = np.zeros(count), np.zeros((count, 3))
    for line in np.flatnonzero(damaged >= SAME_COLOUR_AGREEMENT):
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
        if len(core) < MIN_LINES:
            continue
        colour, before, after = np.median(core, axis=0), max(start - GAP, 0), stop + GAP
        sides = [
            to_uint8(side).astype(np.int16)
            for side in (image[max(before - BESIDE, 0) : before], image[after : after + BESIDE])
        ]
        if all(len(side) and _contrast(side, colour) >= LINE_CONTRAST for side in sides):
            texture = min(_deviation(side, np.median(side, axis=1, keepdims=True)) for side in sides)
            yield _Bar(start, stop, colour, float(damaged[start:stop].mean()), texture)


def repeated_colours(image: Array, levels: Array, labels: Array) -> Array:
    """Which parts have a colour, uniform and neither gray nor dark, that another part has too.

    Args:
        image: (H,W,3), any supported dtype.
        levels: (H,W) int8, logits of the network that a pixel is damaged, times `LEVELS`.
        labels: (H,W) integers of the parts, from 1 to P.

    Returns:
        (P,) bool.
    """
    sizes = np.bincount(labels.ravel())
    repeated = np.zeros(len(sizes) - 1, bool)
    large = sizes >= max(MIN_PART_PIXELS, MIN_PART_SHARE * labels.size)
    large[0] = False  # the background
    if np.count_nonzero(large) < 2:
        return repeated
    rows, columns = large[labels].nonzero()
    numbers = labels[rows, columns]
    order = np.argsort(numbers, kind="stable")
    found = np.flatnonzero(large)
    colours = np.full((len(found), 3), np.nan)
    for index, own in enumerate(np.split(order, np.cumsum(sizes[found])[:-1])):
        window = tuple(
            slice(max(int(places[own].min()) - GAP - BESIDE, 0), int(places[own].max()) + GAP + BESIDE + 1)
            for places in (rows, columns)
        )
        colour = _part_colour(to_uint8(image[window]), levels[window], labels[window], found[index])
        if colour is not None:
            colours[index] = colour
    apart = np.abs(colours[:, None] - colours).max(-1)
    np.fill_diagonal(apart, np.inf)
    repeated[found - 1] = (apart <= EQUAL).any(-1)
    return repeated


def _part_colour(image: Array, levels: Array, labels: Array, number: int) -> Array | None:
    """The colour (3,) of the part `number`, in levels of 255; None if it has not a single one, or hardly stands out.

    Args:
        image: (h,w,3) uint8, with the surroundings of the part.
        levels, labels: (h,w).
        number: of the part.
    """
    part = (labels == number).astype(np.uint8)
    core = part & (levels >= CORE_LOGIT * LEVELS)
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
