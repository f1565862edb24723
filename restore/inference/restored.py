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
        note: a message for the user, such as why nothing was restored.
    """

    image: Image
    mask: np.ndarray | None = None
    nothing: bool = False
    note: str = ""
