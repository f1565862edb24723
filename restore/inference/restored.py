"""The result of restoring a picture. Does not import torch, for processes that only handle files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.images import Image


@dataclass(frozen=True)
class Restored:
    """The result of restoring a picture.

    Args:
        image: the restored picture.
        mask: (H,W) bool of the pixels that may have changed; None where all may.
        nothing: there was nothing to restore, and every pixel is the input's.
        note: what a person should know, such as why nothing was restored, or how much noise was removed.
        change: root mean square difference to the input, on the 0-255 scale; None for a picture of another size.
        confidence: how likely what was detected is damage, 0 to 1; None where nothing was detected or a mask given.
    """

    image: Image
    mask: np.ndarray | None = None
    nothing: bool = False
    note: str = ""
    change: float | None = None
    confidence: float | None = None
