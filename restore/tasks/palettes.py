"""What colours a picture has: whether they are but a tint, and how to give another picture the same."""

from __future__ import annotations

from functools import lru_cache
from math import atan2, degrees, hypot
from pathlib import Path

import numpy as np
import torch

from restore.colour import to_lab
from restore.errors import UsageError
from restore.images import read_image
from restore.models.ab_cells import cells_of, spacing_of
from restore.pixels import is_gray
from restore.tasks.base import Picture
from restore.tasks.scene import shrunk_rgb

# Of sepia prints: how far, as the root of the mean square, a*b* may be from its mean at that lightness, in so many
# ranges of it; that as a share of the mean; and the hue of the mean, in degrees.
TINTED, BINS = 3.0, 16
TINT_SHARE = 0.25
WARM = (30.0, 110.0)

# Of palettes: the share of cells that are not in it, how far each round goes, and how many there are.
FLOOR, DRAWN, ROUNDS = 0.01, 0.7, 3


def is_tinted(picture: Picture) -> bool:
    """Whether a picture is a sepia print: gray but for a warm tint, that goes with the lightness.

    In each of `BINS` ranges of lightness all pixels then have about the same a*b*. It was so for 87 % of gray pictures
    printed in six tints with noise or JPEG, and for 0.7 % of 677 training pictures: skies at dusk, sand, old paper.
    """
    lab = to_lab(np.clip(shrunk_rgb(picture), 0, 1)).reshape(-1, 3)
    place = np.clip(lab[:, 0] * (BINS / 100), 0, BINS - 1).astype(np.intp)
    count = np.bincount(place, minlength=BINS).clip(min=1)
    usual = np.stack([np.bincount(place, ab, BINS) / count for ab in lab[:, 1:].T], axis=-1)[place]
    off = float(np.sqrt(np.square(lab[:, 1:] - usual).sum(axis=-1).mean()))
    a, b = lab[:, 1:].mean(axis=0)
    warm = WARM[0] <= degrees(atan2(b, a)) <= WARM[1]
    return warm and off < min(TINTED, TINT_SHARE * hypot(a, b))


def palette_of(path: str, count: int) -> torch.Tensor:
    """How often each cell of a*b* occurs in a picture file.

    Args:
        path: the file.
        count: of cells.

    Returns:
        (count,), adding up to 1.

    Raises:
        ImageError: the file cannot be read.
        UsageError: the picture has no colours.
    """
    file = Path(path)
    return _palette(file, count, file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=4)  # it is asked for with each picture
def _palette(path: Path, count: int, changed: int) -> torch.Tensor:  # noqa: ARG001
    pixels = read_image(path).pixels
    if pixels.shape[-1] == 1 or is_gray(pixels):
        raise UsageError(f"{path}: a gray picture has no palette; name one in colours as --reference")
    ab = to_lab(np.clip(shrunk_rgb(Picture.of(pixels)), 0, 1))[..., 1:].transpose(2, 0, 1)
    cells, shares = cells_of(torch.from_numpy(ab.copy())[None], spacing_of(count))
    palette = torch.zeros(count).index_add_(0, cells.flatten(), shares.flatten())
    return palette / palette.sum()


def drawn_to(logits: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Logits (K,h,w) whose mean distribution over the picture is that of `palette` (K,), nearly.

    Each cell is made likelier everywhere by as much as it is rarer than in the palette, `ROUNDS` times.
    """
    wanted = (palette + FLOOR / len(palette)).log()
    for _ in range(ROUNDS):
        there = logits.softmax(0).mean((1, 2)) + FLOOR / len(palette)
        logits = logits + DRAWN * (wanted - there.log())[:, None, None]
    return logits
