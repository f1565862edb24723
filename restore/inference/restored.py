"""What restoring a picture gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.images import Image


@dataclass(frozen=True)
class Restored:
    """A picture with what was found in it.

    mask: (H,W) bool of the pixels that may have changed; None where all may. nothing: there was nothing to
    restore, and every pixel is the input's; note says why, or what else a person should know. change: by how much
    values differ from the input's, root mean square, of 255; None for a picture of another size, or not restored.
    """

    image: Image
    mask: np.ndarray | None = None
    nothing: bool = False
    note: str = ""
    change: float | None = None
