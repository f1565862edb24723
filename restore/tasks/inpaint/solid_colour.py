"""Refinement of a mask of opaque shapes by their colour: each has a single one."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from restore.pixels import Array
from restore.tasks.mask_detection import component_means, components

SOLID_SHARE = 0.5  # of masked pixels with a neighbour of equal colour, above which nothing was blurred or compressed

# For exact colours, in images that were not re-encoded.
MIN_COLOUR_SHARE = 0.02  # of the masked pixels, for a colour to be one of the damage
MIN_COLOUR_PIXELS = 12
MIN_CERTAIN_SHARE = 0.6  # of the masked pixels of such a colour: what letters enclose has less
MIN_MASKED_SHARE = 0.35  # of a component of such a colour: the sky behind a white bar has less
MAX_EXCLUDED_SHARE = 0.95  # of an added component, from which on it is dropped
MIN_EXPLAINED_SHARE = 0.8  # of the masked pixels, by the exact colours
MAX_EDGE = 2  # pixels, width of a soft edge
EDGE_SIMILARITY = 0.8  # ratio of the colour distances of a soft edge and of its surroundings, at most

# For approximate colours, after resizing and JPEG.
COLOUR_TOLERANCE = 18  # levels of 255
MIN_APPROXIMATE_SHARE = 0.05  # of the masked pixels, for a colour to be one of the damage
MIN_STROKE_SHARE = 0.1  # of a component, that is masked already
MIN_NEW_PIXELS = 30  # of a component, that are not masked yet
MIN_CONTOUR_SHARE = 0.75  # of the pixels around a component that differ clearly: objects of a scene have softer edges
CONTOUR_CONTRAST = 45  # levels of 255, of a clearly different colour
MAX_THICKNESS_RATIO = 1.5  # of a component to the masked strokes
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def complete_shapes(image: Array, mask: Array, certain: Array, excluded: Array) -> Array:
    """Completes the shapes that a mask covers in part, and removes pixels that do not belong to them.

    For images with `has_solid_colour`: what was drawn into the file has exactly constant colours, so the mask becomes
    exact, including soft edges.

    Args:
        image: (H,W,3) uint8.
        mask: (H,W) bool, detected so far.
        certain: (H,W) bool, certainly damaged.
        excluded: (H,W) bool, certainly not damaged, such as a white digit below a white bar.

    Returns:
        The refined mask (H,W) bool.
    """
    complete = _solid_shapes(image, mask, certain)
    labels, size, overlap = components(complete & ~mask, excluded)
    rejected = overlap >= MAX_EXCLUDED_SHARE * size
    rejected[0] = False
    refined: Array = complete & ~rejected[labels]
    return refined


def extend_strokes(image: Array, mask: Array, certain: Array) -> Array:
    """Extends a mask by the rest of the strokes that it covers in part.

    For images without `has_solid_colour`, which were resized or compressed. The rest of a stroke has about its colour,
    a sharp contour, and at most its thickness.

    Args:
        image: (H,W,3) uint8.
        mask: (H,W) bool, detected so far.
        certain: (H,W) bool, certainly damaged.

    Returns:
        The extended mask (H,W) bool.
    """
    core = cv2.erode((mask & certain).astype(np.uint8), _NEIGHBOURS) > 0
    strokes = np.zeros_like(mask)
    for colour in _main_colours(image[core]):
        strokes |= _strokes(_colour_distance(image, colour), mask, core)
    extended: Array = mask | (cv2.dilate((strokes & ~mask).astype(np.uint8), _NEIGHBOURS) > 0)
    return extended


def _main_colours(pixels: Array) -> list[Array]:
    """The colours (3,) int16 of the largest clusters of `pixels` (N,3) uint8, most frequent first."""
    minimum = max(MIN_COLOUR_PIXELS, MIN_APPROXIMATE_SHARE * len(pixels))
    rest, colours = pixels.astype(np.int16), []
    while len(rest) >= minimum:
        bins = _codes(rest >> 3)
        codes, counts = np.unique(bins, return_counts=True)
        colour = np.median(rest[bins == codes[counts.argmax()]], axis=0).astype(np.int16)
        near = np.abs(rest - colour).max(-1) <= COLOUR_TOLERANCE
        if near.sum() < minimum:
            break
        colours.append(colour)
        rest = rest[~near]
    return colours


def _colour_distance(image: Array, colour: Array) -> Array:
    """The largest difference of the three channels of (H,W,3) uint8 to `colour` (3,), in levels: (H,W)."""
    planes = (np.abs(image[..., channel].astype(np.int16) - colour[channel]) for channel in range(3))
    distance: Array = functools.reduce(np.maximum, planes)
    return distance


def _strokes(distance: Array, mask: Array, core: Array) -> Array:
    """The stroke-like components of one colour that `mask` covers in part; `distance` (H,W) is to that colour."""
    same = cv2.morphologyEx((distance <= COLOUR_TOLERANCE).astype(np.uint8), cv2.MORPH_OPEN, _NEIGHBOURS)
    labels, size, masked = components(same > 0, mask)
    count = len(size)
    kept = (masked >= np.maximum(MIN_STROKE_SHARE * size, 1)) & (size - masked >= MIN_NEW_PIXELS)
    kept[0] = False
    if not kept.any():
        return np.zeros_like(mask)
    candidates = np.where(kept[labels], labels, 0).astype(np.float32)  # the widest type that cv2.dilate supports
    around = cv2.dilate(candidates, np.ones((9, 9), np.uint8)).astype(np.int32)
    ring = (around > 0) & (cv2.dilate(candidates, np.ones((5, 5), np.uint8)) == 0) & ~mask
    # Replicated at the border, so that a stroke that leaves the image is not thinner there.
    framed = cv2.copyMakeBorder(same, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    kept &= component_means(distance > CONTOUR_CONTRAST, around, ring, count) >= MIN_CONTOUR_SHARE
    known = core & (same > 0)
    thickness = depth[known].mean() if known.any() else 0
    kept &= component_means(depth, labels, (candidates > 0) & ~mask, count) <= MAX_THICKNESS_RATIO * thickness
    strokes: Array = kept[labels]
    return strokes


def _solid_shapes(image: Array, mask: Array, certain: Array) -> Array:
    """The components of the exact colours under `mask` that it covers in part, with their soft edges."""
    shapes = _masked_components(np.isin(_codes(image), _exact_colours(image, mask, certain)), mask)
    with_edge = _add_soft_edge(image, shapes)
    if with_edge is shapes and shapes.sum() > MIN_EXPLAINED_SHARE * mask.sum():
        return shapes  # hard edges: the rest of the mask is not damaged
    joined: Array = with_edge | mask
    return joined


def _add_soft_edge(image: Array, mask: Array) -> Array:
    """Dilates `mask` pixel by pixel, at most `MAX_EDGE` times, while the added pixels are tinted by its colours.

    Pixels of a soft edge are closer to the adjacent colour of the mask than pixels one step farther out; at a hard edge
    both are equally far from it.
    """
    for _ in range(MAX_EDGE):
        first = cv2.dilate(mask.astype(np.uint8), _NEIGHBOURS)
        second = cv2.dilate(first, _NEIGHBOURS) > first
        near = (first > 0) & ~mask
        if not second.any():
            break
        adjacent = (
            cv2.dilate(np.where(mask[..., None], image, 0), _NEIGHBOURS),
            cv2.erode(np.where(mask[..., None], image, 255).astype(np.uint8), _NEIGHBOURS),
        )
        # The colour of the mask beside each pixel of the edge.
        tint = (adjacent[0].astype(np.float32) + adjacent[1].astype(np.float32)) / 2
        close = np.abs(image[near] - tint[near]).mean()
        beyond = cv2.dilate(np.where(near[..., None], tint, 0), _NEIGHBOURS)
        far = np.abs(image[second] - beyond[second]).mean()
        if close > EDGE_SIMILARITY * far:
            break
        mask = first > 0
    return mask


def has_solid_colour(image: Array, mask: Array) -> bool:
    """Whether most masked pixels have a masked neighbour of exactly the same colour.

    Args:
        image: (H,W,3) uint8.
        mask: (H,W) bool, not empty.
    """
    equal = np.zeros(mask.shape, bool)
    equal[:, :-1] |= (image[:, :-1] == image[:, 1:]).all(-1) & mask[:, 1:]
    equal[:-1] |= (image[:-1] == image[1:]).all(-1) & mask[1:]
    return float(equal[mask].mean()) > SOLID_SHARE


def _codes(colours: Array) -> Array:
    """Packs RGB (...,3) into one integer each."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _exact_colours(image: np.ndarray, mask: np.ndarray, certain: np.ndarray) -> np.ndarray:
    codes, inverse, counts = np.unique(_codes(image[mask]), return_inverse=True, return_counts=True)
    damaged = np.bincount(inverse, certain[mask]) >= MIN_CERTAIN_SHARE * counts
    frequent: Array = codes[damaged & (counts >= max(MIN_COLOUR_PIXELS, MIN_COLOUR_SHARE * mask.sum()))]
    return frequent


def _masked_components(same: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The components of `same` that are masked for the most part; of others the masked pixels."""
    labels, size, masked = components(same, mask)
    kept = masked >= np.maximum(MIN_MASKED_SHARE * size, 1)
    kept[0] = False
    shapes: np.ndarray = kept[labels] | (same & mask)
    return shapes
