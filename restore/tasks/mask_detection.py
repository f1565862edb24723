"""Shared by heads that look for the damage: from the network's logits to a mask, connected components, mask losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.models.masking import TRAIN
from restore.models.registry import Architecture
from restore.pixels import Array, to_float
from restore.tasks.base import AnalysisT, Head, OptionsT, Picture, Predictor, Window
from restore.tasks.functional import to_array

BORDER_TOLERANCE = 6 / 255  # how far the pixels of a plain border may be from its colour, once compressed
UNCERTAIN = "possible damage left unchanged; --aggressive restores it too"
LEVELS = 16  # quantisation steps of a logit of 1: int8 holds logits from -8 to 8
LOWEST, HIGHEST = -128, 127


class MaskHead(Head[OptionsT, AnalysisT]):
    """Fits a two-branch network of `restore.models.masking`, which is told which branch to run."""

    training_stage = TRAIN

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        result: torch.Tensor = network(planes, stage=stage)
        return result


@dataclass(frozen=True)
class HysteresisThreshold:
    """Which pixels count as damaged, by their logits (hysteresis as in Canny 1986).

    Args:
        low, high: connected pixels with logits from `low` count if one of them reaches `high`.
        min_pixels: smaller components are dropped.
        min_share: share of a picture below which all that was found is dropped.
    """

    low: float = 0.0
    high: float = 0.0
    min_pixels: int = 12
    min_share: float = 0.0


def detect_logits(
    picture: Picture, predict: Predictor, stage: str, planes_of: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Array:
    """The first plane of the network's output for a whole picture, quantised.

    Args:
        picture: to look at, tile by tile.
        predict: the network.
        stage: as in `Head.run`.
        planes_of: what the network sees of RGB planes (1,3,h,w): (1,C,h,w); None: the RGB planes.

    Returns:
        (H,W) int8 on the host: logits times `LEVELS`; `LOWEST` in a plain border.
    """
    logits = torch.empty(picture.size, dtype=torch.int8, device=picture.pixels.device)

    def planes(window: Window) -> torch.Tensor:
        seen = picture.planes(window)
        return (seen if planes_of is None else planes_of(seen))[0]

    for window, output in predict.tiles(picture.size, planes, stage):
        logits[window.slices] = (output[0] * LEVELS).clamp(LOWEST, HIGHEST).floor().to(logits)
    levels = to_array(logits)
    levels[plain_border(picture.rgb)] = LOWEST
    return levels


def plain_border(image: Array) -> Array:
    """The plain border around what a picture shows, which is part of the picture: a scan's white, a film's black.

    Lines along a side that are of one colour, where another side has lines of that colour too. Along a single side
    they may be a bar that covers something.

    Args:
        image: (H,W,3), any supported dtype.

    Returns:
        (H,W) bool.
    """
    strips = [_strip(lines) for lines in _from_each_side(image)]
    border = np.zeros(image.shape[:2], bool)
    for side, (lines, (depth, colour)) in enumerate(zip(_from_each_side(border), strips, strict=True)):
        others = (strip for number, strip in enumerate(strips) if number != side)
        if any(other and np.abs(colour - hue).max() <= BORDER_TOLERANCE for other, hue in others):
            lines[:depth] = True
    return border


def _from_each_side(values: Array) -> list[Array]:
    """Views of (H,W,...) whose first axis goes inwards from the top, the bottom, the left and the right."""
    across = values.swapaxes(0, 1)
    return [values, values[::-1], across, across[::-1]]


def _strip(lines: Array) -> tuple[int, Array]:
    """How many of the first lines are of one colour, and that colour, white at 1."""
    colour = to_float(lines[0]).mean(0)
    for depth, line in enumerate(lines):
        if np.abs(to_float(line) - colour).max() > BORDER_TOLERANCE:
            return depth, colour
    return len(lines), colour


def mask_from_logits(levels: Array, threshold: HysteresisThreshold) -> Array:
    """The mask (H,W) bool that follows from quantised logits (H,W) int8."""
    sure = levels >= threshold.high * LEVELS
    if not sure.any():
        return sure
    likely = levels >= threshold.low * LEVELS
    labels, size, certain = components(likely, sure)
    kept = (certain > 0) & (size >= min(threshold.min_pixels, likely.size // 2))
    kept[0] = False  # what is not likely
    mask: Array = kept[labels]
    return mask if mask.mean() >= threshold.min_share else np.zeros_like(mask)


def components(area: Array, within: Array) -> tuple[Array, Array, Array]:
    """Connected components (8-connectivity), and how much of each lies in another area.

    Args:
        area, within: (H,W) bool.

    Returns:
        Labels (H,W) of the components of `area`, 0 outside of them; the pixels of each; and those in `within`.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    return labels, stats[:, cv2.CC_STAT_AREA], np.bincount(labels[within], minlength=count)


def component_means(values: Array, labels: Array, within: Array, count: int) -> Array:
    """The mean of `values` (H,W) over the pixels `within` (H,W) of each of `count` labels; 0 where there are none."""
    of = labels[within]
    sums, pixels = np.bincount(of, weights=values[within], minlength=count), np.bincount(of, minlength=count)
    result: Array = sums / np.maximum(pixels, 1)
    return result


def highest_mean_logit(levels: Array, mask: Array) -> float:
    """The highest mean logit of a component of `mask` (H,W) bool, not empty, by quantised logits (H,W) int8."""
    labels, size, _ = components(mask, mask)
    return float(component_means(levels, labels, mask, len(size))[1:].max() / LEVELS)


def dilate(mask: Array, pixels: int) -> Array:
    """`mask` (H,W) bool, larger by so many pixels on every side."""
    if pixels <= 0:
        return mask
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), around).astype(bool)


def mask_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy plus soft Jaccard loss over the batch; logits and mask are (N,1,H,W)."""
    entropy = F.binary_cross_entropy_with_logits(logits, mask)
    likely = torch.sigmoid(logits)
    shared = (likely * mask).sum()
    return entropy + 1 - (shared + 1) / ((likely + mask).sum() - shared + 1)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` (N,C,H,W) over the pixels where `mask` (N,1,H,W) is 1; 0 where that is nowhere."""
    inside = mask.sum() * values.shape[1]
    return (values * mask).sum() / inside.clamp(min=1)
