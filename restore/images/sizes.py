"""How large a picture is, from its header alone."""

from __future__ import annotations

from pathlib import Path

import PIL.Image

from restore.errors import ImageError
from restore.images.failures import CODEC_ERRORS, printable, reason
from restore.images.pil import without_limit


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the picture in a file as it is stored, without decoding it.

    A stored orientation may swap the two when the picture is read, and a readable header is no promise
    that the rest is whole. Raises ImageError, naming the file, where the header cannot be read.
    """
    try:
        with without_limit():  # it would warn of large ones; whoever decodes has a limit of his own
            picture = PIL.Image.open(path)
        with picture:
            width, height = picture.size
    except CODEC_ERRORS as error:
        raise ImageError(f"{printable(path)}: {reason(error)}") from error
    return height, width
