"""From a distribution over colours to one: the colour that errs least where any of the likely ones may be true."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from restore.metrics import COLOURED, COLOURED_AT_ALL, HUE
from restore.models.ab_cells import centres_of

LIGHTNESS = 60.0  # at which colours are compared; CIEDE2000 of equally light ones depends on it little
# What it costs to miss the hue of a coloured pixel, beside the difference of the colours, in units of CIEDE2000; and
# how far above the least expected cost a colour still takes part. Without the first, gray is what errs least.
MISSED, SPREAD = 13.0, 1.0


def chosen_ab(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The a*b* of least expected cost.

    The mean of a distribution is brown, and its mode noisy: here each cell is weighed by what it would cost if the
    others were true, and cells that cost about the least are averaged.

    Args:
        logits: (K,h,w) of the cells of `centres_of`.
        temperature: of the distribution.

    Returns:
        (2,h,w), in units of CIELAB.
    """
    count, height, width = logits.shape
    centres = torch.from_numpy(centres_of(count)).to(logits.device)
    likely = (logits.float() / temperature).softmax(0).reshape(count, -1)
    with torch.autocast(logits.device.type, enabled=False):  # training validates under it, in bfloat16
        cost = costs(count).to(logits.device) @ likely
        return (centres.T @ (-cost / SPREAD).softmax(0)).reshape(2, height, width)


@lru_cache(maxsize=2)
def costs(count: int) -> torch.Tensor:
    """What it costs to give the colour of a row where that of a column is true: (K,K) float32."""
    from skimage.color import deltaE_ciede2000

    ab = centres_of(count)
    lab = np.concatenate([np.full((count, 1), LIGHTNESS, np.float32), ab], axis=1)
    difference = deltaE_ciede2000(lab[:, None], lab[None])
    chroma = np.linalg.norm(ab, axis=1)
    alike = ab @ ab.T >= math.cos(math.radians(HUE)) * chroma[:, None] * chroma
    missed = (chroma > COLOURED) & ~(alike & (chroma[:, None] > COLOURED_AT_ALL))
    return torch.from_numpy((difference + MISSED * missed).astype(np.float32))
