"""What heads share that look for the damage: from the network's output to a mask, and the losses of masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.tasks.base import Look, Window, as_planes

SPECK = 12  # pixels: nothing that anyone drew is as small


def found_mask(image: np.ndarray, look: Look, lost: Callable[[torch.Tensor], torch.Tensor], stage: str) -> np.ndarray:
    """The mask (H,W) of a whole picture (H,W,3), tile by tile. lost: a tile's output (C,h,w) -> (h,w) bool."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)

    def planes(window: Window) -> torch.Tensor:
        return as_planes(image[window.slices])

    for window, output in look.tiles((height, width), planes, stage):
        mask[window.slices] = lost(output).numpy()
    return mask


def clean_up(mask: np.ndarray, smallest: int = SPECK) -> np.ndarray:
    """`mask` without connected parts of fewer than `smallest` pixels, which are mistakes more often than damage."""
    if not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= min(smallest, mask.size // 2)
    large[0] = False
    kept: np.ndarray = large[labels]
    return kept


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
