"""What heads share that look for the damage: from the network's output to a mask, and the losses of masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.models.masking import TRAIN
from restore.models.registry import Architecture
from restore.pixels import to_float
from restore.tasks.base import Head, Look, Window, as_planes
from restore.tasks.parts import counted, means

PLAIN = 6 / 255  # how far the pixels of a plain border may be from its colour, once compressed
DOUBTFUL = "what may be part of the picture is left alone (--eager takes it off)"
LEVELS = 16  # in which a logit of 1 is kept: one byte a pixel is enough, from -8 to 8
LOWEST, HIGHEST = -128, 127


class LookingHead(Head):
    """Fits a two-branch network of `restore.models.masking`, which is told what it is run for."""

    training_stage = TRAIN

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        result: torch.Tensor = network(planes, stage=stage)
        return result


@dataclass(frozen=True)
class Belief:
    """When a pixel counts as damaged, by the logit that the network gives it.

    likely, sure: parts of the picture where the logit is above `likely` count if it is above `sure` somewhere in
    them (hysteresis, as Canny 1986 has it for edges). smallest: parts of fewer pixels are mistakes more often than
    damage. least: share of a picture below which all that was found is one.
    """

    likely: float = 0.0
    sure: float = 0.0
    smallest: int = 12
    least: float = 0.0


def found_levels(
    image: np.ndarray, look: Look, stage: str, planes_of: Callable[[np.ndarray], torch.Tensor] = as_planes
) -> np.ndarray:
    """The first plane of the output for a whole picture (H,W,3), tile by tile: logits in `LEVELS`, (H,W) int8.

    planes_of: what the network sees of a tile (h,w,3): (C,h,w).
    """
    height, width = image.shape[:2]
    levels = np.zeros((height, width), np.int8)

    def planes(window: Window) -> torch.Tensor:
        return planes_of(image[window.slices])

    for window, output in look.tiles((height, width), planes, stage):
        levels[window.slices] = (output[0] * LEVELS).clamp(LOWEST, HIGHEST).floor().numpy()
    levels[frame_of(image)] = LOWEST
    return levels


def frame_of(image: np.ndarray) -> np.ndarray:
    """The plain border around what a picture (H,W,3), any dtype, shows: (H,W) bool. It is part of the picture.

    The lines along a side that are of one colour, where another side has lines of that colour too: a scan's white
    border, or the black above and below a film. Alone along one side they may be a bar that covers something.
    """
    strips = [_strip(lines) for lines in _from_each_side(image)]
    frame = np.zeros(image.shape[:2], bool)
    for side, (lines, (depth, colour)) in enumerate(zip(_from_each_side(frame), strips, strict=True)):
        others = (strip for number, strip in enumerate(strips) if number != side)
        if any(other and np.abs(colour - hue).max() <= PLAIN for other, hue in others):
            lines[:depth] = True
    return frame


def _from_each_side(values: np.ndarray) -> list[np.ndarray]:
    """Views of (H,W,...) whose first axis goes inwards from the top, the bottom, the left and the right."""
    across = values.swapaxes(0, 1)
    return [values, values[::-1], across, across[::-1]]


def _strip(lines: np.ndarray) -> tuple[int, np.ndarray]:
    """How many of the first lines are of one colour, and that colour, white at 1."""
    colour = to_float(lines[0]).mean(0)
    for depth, line in enumerate(lines):
        if np.abs(to_float(line) - colour).max() > PLAIN:
            return depth, colour
    return len(lines), colour


def believed(levels: np.ndarray, belief: Belief) -> np.ndarray:
    """The mask (H,W) bool that follows from logits in `LEVELS`."""
    likely, sure = levels >= belief.likely * LEVELS, levels >= belief.sure * LEVELS
    if not sure.any():
        return sure
    labels, size, certain = counted(likely, sure)
    kept = (certain > 0) & (size >= min(belief.smallest, likely.size // 2))
    kept[0] = False  # what is not likely
    mask: np.ndarray = kept[labels]
    return mask if mask.mean() >= belief.least else np.zeros_like(mask)


def likeliest(levels: np.ndarray, mask: np.ndarray) -> float:
    """The highest mean logit of a connected part of `mask` (H,W) bool, not empty. levels: as in `believed`."""
    labels, size, _ = counted(mask, mask)
    return float(means(levels, labels, mask, len(size))[1:].max() / LEVELS)


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """`mask` (H,W) bool, larger by so many pixels on every side."""
    if pixels <= 0:
        return mask
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), around).astype(bool)


def mask_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, and one minus the intersection over union of the batch, made smooth; (N,1,H,W) each."""
    entropy = F.binary_cross_entropy_with_logits(logits, mask)
    likely = torch.sigmoid(logits)
    shared = (likely * mask).sum()
    return entropy + 1 - (shared + 1) / ((likely + mask).sum() - shared + 1)


def share_inside(distances: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `distances` (N,C,H,W) over the pixels where `mask` (N,1,H,W) is 1; 0 where that is nowhere."""
    inside = mask.sum() * distances.shape[1]
    return (distances * mask).sum() / inside.clamp(min=1)
