"""What solid things have in common: a colour. From a mask that was found to the whole of what it belongs to."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from restore.pixels import Array
from restore.tasks.mask_detection import component_means, components

NOTABLE = 0.02  # share of what was found that a colour needs to be one of the colours of the damage
FEWEST = 12  # pixels that it needs at least
FOUND = 0.35  # share of a part in such a colour that has to be found already: the sky behind a white bar is not
EXACT = 0.5  # share of neighbours in the mask with equal colours, above which nothing has blurred or compressed them
NEVER = 0.95  # share of what would be taken in that is certain to be of the picture, from which on it is not taken in
EXPLAINED = 0.8  # share of what was found that exact colours have to explain
EDGE = 2  # pixels of a soft edge, at most
NEARLY = 18  # levels of 255 that a colour is off by, at most, after resizing and JPEG
SHARE = 0.05  # of what was found that a colour needs then
PIECE = 0.1  # share of a part in nearly such a colour that has to be found already
LEAST = 30  # pixels of a part that are not found yet, from which on it is worth taking in
CRISP = 0.75  # share of the pixels around such a part that are of quite another colour: things in a picture fade
ANOTHER = 45  # levels of 255 from which on a colour is quite another
THICKER = 1.5  # by how much such a part may be thicker than what was found
TINTED = 0.8  # how much nearer to the colour beside them the pixels of a soft edge are, at least
_STEP = np.ones((3, 3), np.uint8)


def completed(image: Array, mask: Array, never: Array) -> Array:
    """`mask` (H,W) with the rest of the solid things that it covers in part, and without what is not of them.

    image: (H,W,3) uint8. never: (H,W) bool, what the finder is certain of that it belongs to the picture, as the white
    of a digit below a white bar. Where something was drawn into the file its colour is exactly constant, and the mask
    becomes exact, soft edges taken in. Of use where `has_solid_colour`.
    """
    whole = _whole(image, mask)
    labels, size, certain = components(whole & ~mask, never)
    foreign = certain >= NEVER * size
    foreign[0] = False
    joined: Array = whole & ~foreign[labels]
    return joined


def continued(image: Array, mask: Array, sure: Array) -> Array:
    """`mask` (H,W) with the rest of the strokes that it covers in part, for pictures that were resized or compressed.

    image: (H,W,3) uint8. sure: (H,W) bool, what the finder is certain of that it is damage. A stroke goes on in nearly
    its colour, with an edge all along, and no thicker; where the scene behind it is alike, the finder loses it. Of use
    where not `has_solid_colour`.
    """
    inner = cv2.erode((mask & sure).astype(np.uint8), _STEP) > 0
    more = np.zeros_like(mask)
    for colour in _main_colours(image[inner]):
        more |= _strokes(_off(image, colour), mask, inner)
    joined: Array = mask | (cv2.dilate((more & ~mask).astype(np.uint8), _STEP) > 0)
    return joined


def _main_colours(pixels: Array) -> list[Array]:
    """The colours (3,) int16 that most of `pixels` (N,3) uint8 are near to, the commonest first."""
    least = max(FEWEST, SHARE * len(pixels))
    rest, colours = pixels.astype(np.int16), []
    while len(rest) >= least:
        cells = _codes(rest >> 3)
        codes, counts = np.unique(cells, return_counts=True)
        colour = np.median(rest[cells == codes[counts.argmax()]], axis=0).astype(np.int16)
        near = np.abs(rest - colour).max(-1) <= NEARLY
        if near.sum() < least:
            break
        colours.append(colour)
        rest = rest[~near]
    return colours


def _off(image: Array, colour: Array) -> Array:
    """By how many levels, at most of three, each pixel of (H,W,3) uint8 is off `colour` (3,): (H,W)."""
    planes = (np.abs(image[..., channel].astype(np.int16) - colour[channel]) for channel in range(3))
    off: Array = functools.reduce(np.maximum, planes)
    return off


def _strokes(off: Array, mask: Array, inner: Array) -> Array:
    """The parts of the colour that pixels are `off` by (H,W), of which `mask` has a piece, and that look like one."""
    same = cv2.morphologyEx((off <= NEARLY).astype(np.uint8), cv2.MORPH_OPEN, _STEP)
    labels, size, found = components(same > 0, mask)
    count = len(size)
    kept = (found >= np.maximum(PIECE * size, 1)) & (size - found >= LEAST)
    kept[0] = False
    if not kept.any():
        return np.zeros_like(mask)
    parts = np.where(kept[labels], labels, 0).astype(np.float32)  # of the types that dilate takes, it holds the most
    around = cv2.dilate(parts, np.ones((9, 9), np.uint8)).astype(np.int32)
    ring = (around > 0) & (cv2.dilate(parts, np.ones((5, 5), np.uint8)) == 0) & ~mask
    # Beyond the border of the picture nothing ends: a stroke that leaves it is as thick there as elsewhere.
    framed = cv2.copyMakeBorder(same, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    kept &= component_means(off > ANOTHER, around, ring, count) >= CRISP
    known = inner & (same > 0)
    thickness = depth[known].mean() if known.any() else 0
    kept &= component_means(depth, labels, (parts > 0) & ~mask, count) <= THICKER * thickness
    strokes: Array = kept[labels]
    return strokes


def _whole(image: Array, mask: Array) -> Array:
    """All that has the colours of `mask` and hangs together with it, as `completed` begins."""
    parts = _parts(_of_colours(image, _exact_colours(image, mask)), mask)
    whole = _with_edge(image, parts)
    if whole is parts and parts.sum() > EXPLAINED * mask.sum():
        return parts
    # Around hard edges all that is of the picture; around soft ones what was found may lie farther out still.
    joined: Array = whole | mask
    return joined


def _with_edge(image: Array, mask: Array) -> Array:
    """`mask` grown pixel by pixel, by `EDGE` at most, as long as what lies around it is tinted by its colours.

    Around a soft edge pixels are nearer to the colour beside them than those a step farther out; around a hard
    edge both are of the picture, and equally far from it.
    """
    for _ in range(EDGE):
        first = cv2.dilate(mask.astype(np.uint8), _STEP)
        second = cv2.dilate(first, _STEP) > first
        near = (first > 0) & ~mask
        if not second.any():
            break
        reached = (
            cv2.dilate(np.where(mask[..., None], image, 0), _STEP),
            cv2.erode(np.where(mask[..., None], image, 255).astype(np.uint8), _STEP),
        )
        # The colours beside each pixel of the edge.
        tint = (reached[0].astype(np.float32) + reached[1].astype(np.float32)) / 2
        close = np.abs(image[near] - tint[near]).mean()
        beyond = cv2.dilate(np.where(near[..., None], tint, 0), _STEP)
        far = np.abs(image[second] - beyond[second]).mean()
        if close > TINTED * far:
            break
        mask = first > 0
    return mask


def has_solid_colour(image: Array, mask: Array) -> bool:
    """Whether most pixels of the mask (H,W), not empty, have a neighbour in it of the very same colour."""
    equal = np.zeros(mask.shape, bool)
    equal[:, :-1] |= (image[:, :-1] == image[:, 1:]).all(-1) & mask[:, 1:]
    equal[:-1] |= (image[:-1] == image[1:]).all(-1) & mask[1:]
    return float(equal[mask].mean()) > EXACT


def _codes(colours: Array) -> Array:
    """(...,3) uint8 as one number each."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _exact_colours(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    codes, counts = np.unique(_codes(image[mask]), return_counts=True)
    notable: Array = codes[counts >= max(FEWEST, NOTABLE * mask.sum())]
    return notable


def _of_colours(image: np.ndarray, codes: np.ndarray) -> np.ndarray:
    seen = _codes(image)
    same = np.zeros(seen.shape, bool)
    for code in codes:
        same |= seen == code
    return same


def _parts(same: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The connected parts of `same` of which enough is in the mask; of others what is in the mask."""
    labels, size, found = components(same, mask)
    kept = found >= np.maximum(FOUND * size, 1)
    kept[0] = False
    parts: np.ndarray = kept[labels] | (same & mask)
    return parts
