"""Detection of damaged pixels, shared by heads: logits, masks, connected components and losses of masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.models.masking import part_labels
from restore.pixels import Array, to_float
from restore.tasks.base import Picture, Predictor, Window
from restore.tasks.functional import to_array

BORDER_TOLERANCE = 6 / 255  # deviation of the pixels of a plain border from its colour, after compression
UNCERTAIN = "possible damage left unchanged; --aggressive restores it too"
LEVELS = 16  # quantisation steps of a logit of 1: int8 holds logits from -8 to 8
LOWEST, HIGHEST = -128, 127
LARGE_DISC = 20  # pixels of radius, beyond which distances to a mask cost less than a disc on each of its pixels


@dataclass(frozen=True)
class HysteresisThreshold:
    """Thresholds by which pixels count as damaged (hysteresis as in Canny 1986).

    Args:
        low, high: a connected component of pixels with logits of at least `low` counts if one of them reaches `high`.
        min_pixels: smaller components are dropped.
        min_share: of the pixels of an image; a smaller mask is dropped completely.
    """

    low: float = 0.0
    high: float = 0.0
    min_pixels: int = 12
    min_share: float = 0.0


def detect_logits(
    picture: Picture, predict: Predictor, stage: str, planes_of: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> tuple[Array, Array | None]:
    """Runs the network on a whole picture, tile by tile, and quantises its output.

    Args:
        picture: the picture.
        predict: the network.
        stage: as in `Head.run`.
        planes_of: makes the network input (1,C,h,w) of RGB planes (1,3,h,w); None: the RGB planes.

    Returns:
        (H,W) int8 on the host: the logits in the first channel times `LEVELS`; `LOWEST` in a plain border. The other
        channels (C,H/2,W/2) int8, of every second row and column, times `HIGHEST`; None if there are none.
    """
    device = picture.pixels.device
    logits = torch.empty(picture.size, dtype=torch.int8, device=device)
    rest: torch.Tensor | None = None

    def planes(window: Window) -> torch.Tensor:
        rgb = picture.planes(window)
        return (rgb if planes_of is None else planes_of(rgb))[0]

    for window, output in predict.tiles(picture.size, planes, stage):
        logits[window.slices] = (output[0] * LEVELS).clamp(LOWEST, HIGHEST).floor().to(logits)
        if len(output) > 1:
            if rest is None:
                small = [-(-side // 2) for side in picture.size]
                rest = torch.empty((len(output) - 1, *small), dtype=torch.int8, device=device)
            part = output[1:, window.top % 2 :: 2, window.left % 2 :: 2] * HIGHEST
            top, left = -(-window.top // 2), -(-window.left // 2)
            rest[:, top : top + part.shape[1], left : left + part.shape[2]] = part.round().to(rest)
    levels = to_array(logits)
    levels[plain_border(picture.rgb)] = LOWEST
    return levels, None if rest is None else to_array(rest)


def plain_border(image: Array) -> Array:
    """Finds a border of constant colour, such as the white of a scan or the black of a film, which is no damage.

    A border is a strip of one colour along a side, if another side has a strip of the same colour. A strip along a
    single side may be a bar that hides something.

    Args:
        image: (H,W,3), any supported dtype.

    Returns:
        (H,W) bool, True in the border.
    """
    strips = [_strip(lines) for lines in _from_each_side(image)]
    border = np.zeros(image.shape[:2], bool)
    for side, (lines, (depth, colour)) in enumerate(zip(_from_each_side(border), strips, strict=True)):
        others = (strip for number, strip in enumerate(strips) if number != side)
        if any(other and np.abs(colour - shade).max() <= BORDER_TOLERANCE for other, shade in others):
            lines[:depth] = True
    return border


def _from_each_side(values: Array) -> list[Array]:
    """Views of (H,W,...) whose first axis goes inwards from the top, bottom, left and right side."""
    columns = values.swapaxes(0, 1)
    return [values, values[::-1], columns, columns[::-1]]


def _strip(lines: Array) -> tuple[int, Array]:
    """The number of leading lines of one colour, and that colour, white at 1."""
    colour = to_float(lines[0]).mean(0)
    for depth, line in enumerate(lines):
        if np.abs(to_float(line) - colour).max() > BORDER_TOLERANCE:
            return depth, colour
    return len(lines), colour


def mask_from_logits(levels: Array, threshold: HysteresisThreshold) -> Array:
    """Thresholds logits with hysteresis.

    Args:
        levels: (H,W) int8, logits times `LEVELS`.
        threshold: the thresholds.

    Returns:
        The mask, (H,W) bool.
    """
    labels = part_labels(levels, threshold.low * LEVELS, threshold.high * LEVELS)
    if not labels.any():
        return labels > 0
    kept = np.bincount(labels.ravel()) >= min(threshold.min_pixels, labels.size // 2)
    kept[0] = False  # the background
    mask: Array = kept[labels]
    return mask if mask.mean() >= threshold.min_share else np.zeros_like(mask)


def components(area: Array, within: Array) -> tuple[Array, Array, Array]:
    """Labels connected components (8-connectivity), and counts their pixels in another area.

    Args:
        area, within: (H,W) bool.

    Returns:
        Labels (H,W) of the components of `area`, 0 for the background; pixels of each label; and those in `within`.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    return labels, stats[:, cv2.CC_STAT_AREA], np.bincount(labels[within], minlength=count)


def component_means(values: Array, labels: Array, within: Array, count: int) -> Array:
    """Averages values over components.

    Args:
        values: (H,W).
        labels: (H,W) integers from 0 to `count` - 1.
        within: (H,W) bool, the pixels to average over.
        count: of labels.

    Returns:
        (count,), the mean for each label; 0 where it has no pixels.
    """
    selected = labels[within]
    sums = np.bincount(selected, weights=values[within], minlength=count)
    pixels = np.bincount(selected, minlength=count)
    result: Array = sums / np.maximum(pixels, 1)
    return result


def highest_mean_logit(levels: Array, mask: Array) -> float:
    """The highest mean logit of the components of `mask` (H,W) bool, not empty; `levels` as in `mask_from_logits`."""
    labels, size, _ = components(mask, mask)
    return float(component_means(levels, labels, mask, len(size))[1:].max() / LEVELS)


def probability(logit: float) -> float:
    """The logistic function, from log odds to 0..1."""
    return float(1 / (1 + np.exp(-logit)))


def dilate(mask: Array, pixels: int) -> Array:
    """Dilates `mask` (H,W) bool by a disc with a radius of `pixels`; unchanged for 0."""
    if pixels <= 0 or not mask.any():
        return mask
    if pixels > LARGE_DISC:
        outside = np.logical_not(mask).astype(np.uint8)
        near: Array = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= min(pixels, sum(mask.shape))
        return near
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


def mask_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy plus the soft Jaccard loss of each damaged sample: a thin scratch counts as much as a bar.

    Args:
        logits: (N,1,H,W).
        mask: (N,1,H,W), 0 or 1.

    Returns:
        A scalar.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, mask)
    probability = torch.sigmoid(logits)
    intersection = (probability * mask).sum((1, 2, 3))
    union = (probability + mask).sum((1, 2, 3)) - intersection
    damaged = mask.amax((1, 2, 3))
    return entropy + ((1 - (intersection + 1) / (union + 1)) * damaged).sum() / damaged.sum().clamp(min=1)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` (N,C,H,W) over the pixels where `mask` (N,1,H,W) is 1; 0 for an empty mask."""
    inside = mask.sum() * values.shape[1]
    return (values * mask).sum() / inside.clamp(min=1)
