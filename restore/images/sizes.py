"""How large a picture is, from its header alone."""

from __future__ import annotations

from pathlib import Path

import PIL.Image

from restore.errors import ImageError
from restore.images.failures import CODEC_ERRORS, printable, reason
from restore.images.pixels import without_limit
from restore.images.reading import decoded, open_tiff

_PIXELS_A_BYTE = 1 << 18  # more than JPEG 2000 and AVIF reach for a picture of one colour


class _SizeFoundError(Exception):
    """Carries a size out of a reader, before it decodes."""


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the picture in a file as it is stored, without decoding it.

    A stored orientation may swap the two when the picture is read, and a readable header is no promise
    that the rest is whole.

    Raises:
        ImageError: naming the file, where the header cannot be read, or claims more pixels than a file of this size
            can hold in any format.
    """
    try:
        with without_limit():  # it would warn of large ones; the caller who decodes has a limit of his own
            picture = PIL.Image.open(path)
        with picture:
            width, height = picture.size
    except CODEC_ERRORS:  # Pillow knows no JPEG XL, and not all kinds of TIFF
        width, height = _stated(path)
    if width * height > 1e6 and width * height > _PIXELS_A_BYTE * path.stat().st_size:
        raise ImageError(f"{printable(path)}: its header claims {width} x {height} pixels; get a whole copy")
    return height, width


def _stated(path: Path) -> tuple[int, int]:
    def found(width: int, height: int) -> None:
        raise _SizeFoundError(width, height)

    try:
        with open_tiff(path, found) as reader:
            if reader is None:
                decoded(path.read_bytes(), printable(path), found)
    except _SizeFoundError as size:
        return size.args[0], size.args[1]
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{printable(path)}: {reason(error)}") from error
    raise ImageError(f"{printable(path)}: its size cannot be read")
