"""Errors of codecs and of the file system as one line of text."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

# Libraries raise anything for damaged input. Where this package raises one of these, the program is wrong (`is_own`).
_PROGRAM_ERRORS = (TypeError, LookupError, AttributeError, RuntimeError)

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
    errno.ELOOP: "its symbolic links form a loop; repair them",
    errno.EBADF: "stdin or stdout is closed; open it, or give a file",
    errno.EIO: "the disk reports an error; copy the file elsewhere first",
}

# These libraries log a line for every oddity of a file, thousands for some. What matters is raised as an error.
for _library in ("tifffile", "imagecodecs", "PIL"):
    if (_logger := logging.getLogger(_library)).level == logging.NOTSET:
        _logger.setLevel(logging.CRITICAL + 1)


def is_own(error: BaseException) -> bool:
    """Whether `error` is an error of this program: of a kind that shows one, and raised by code of this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    here = str(Path(__file__).parent)
    return (
        isinstance(error, _PROGRAM_ERRORS) and trace is not None and trace.tb_frame.f_code.co_filename.startswith(here)
    )


def printable(name: str | os.PathLike[str]) -> str:
    """A file name on one line that any terminal can print."""
    text = os.fspath(name).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in text)


def reason(error: BaseException) -> str:
    """What `error` says, on one printable line of at most 160 characters."""
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs or use a smaller picture"
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno) or error.strerror or str(error)
    text = str(getattr(error, "err", "") or error) or type(error).__name__
    return printable(" ".join(text.split()))[:160]
