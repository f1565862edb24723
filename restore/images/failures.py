"""Whatever a codec or the file system says, as one line for a person."""

from __future__ import annotations

import errno
import os
import struct
import zlib

import cv2
import PIL.Image
import tifffile

# What PIL, OpenCV, tifffile and zlib raise on damaged input; anything else is a bug of ours and shall show.
CODEC_ERRORS = (
    OSError,  # also PIL.UnidentifiedImageError
    SyntaxError,
    ValueError,  # also tifffile.TiffFileError
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
    cv2.error,
    tifffile.TiffFileError,
    PIL.Image.DecompressionBombError,
)

_REASONS = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "is a folder, not a file; name a picture",
    errno.EACCES: "permission denied; check the rights or choose another folder",
    errno.EPERM: "not permitted; check the rights or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "too large for this disk; choose another folder",
    errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
    errno.EEXIST: "exists already; choose another name or allow overwriting",
    errno.ELOOP: "its symbolic links form a loop; mend them",
    errno.EIO: "the disk reports an error; copy the file elsewhere first",
}


def printable(name: str | os.PathLike[str]) -> str:
    """A file name on one line that any terminal can print."""
    text = os.fspath(name).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in text)


def reason(error: BaseException) -> str:
    """What `error` says, on one line of at most 160 characters."""
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs or use a smaller picture"
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno) or error.strerror or str(error)
    text = str(getattr(error, "err", "") or error) or type(error).__name__
    return " ".join(text.split())[:160]
