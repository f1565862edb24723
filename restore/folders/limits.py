"""Bounds of a run over many files: memory for the pictures in flight, and free space on the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from restore.errors import ImageError
from restore.images import image_size
from restore.images.failures import reason

MEMORY = 512 << 20  # bytes of pictures that are decoded, waiting or being encoded, for up to four threads
MEMORY_PER_THREAD = 128 << 20  # for more: a photograph of 12 megapixels, input and output
_BYTES_PER_PIXEL = 5  # 8-bit RGB, and what the codecs hold beside it


def default_memory_limit(workers: int) -> int:
    """Bytes that the pictures of `workers` threads may take together: at most a quarter of what is available."""
    available: int = psutil.virtual_memory().available
    return min(max(MEMORY, workers * MEMORY_PER_THREAD), available // 4)


def give_back_memory() -> None:
    """Returns freed memory to the system, where glibc was told to keep it (`restore.devices.keep_freed_memory`)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class MemoryLimiter:
    """Bounds the bytes in flight. What is larger than the whole limit is processed alone.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._closed = False
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Waits until `size` bytes are free and holds them; requests are served in order."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + size <= self.limit or self._closed)
            self.used += size
        try:
            yield
        finally:
            with self._changed:
                self.used -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting: the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def estimate_memory(path: Path | None, scale: int = 1) -> int:
    """Estimates the bytes that restoring the picture in a file takes, from its header or else its file size.

    0 for None and for what is no regular file. scale: by how much the sides become longer; 0: only the input is held.
    """
    try:
        if path is None or not stat.S_ISREG((about := os.stat(path)).st_mode):
            return 0
    except (OSError, ValueError):
        return 0  # reading it will report the reason
    try:
        height, width = image_size(path)
    except ImageError:
        height = width = 0
    # Pixels deeper than 8 bits have large files.
    return max(height * width * _BYTES_PER_PIXEL, about.st_size) * (1 + scale * scale)


class DiskSpace:
    """Remembers that a disk was full, so that thousands of pictures are not computed in vain.

    After the first picture that did not fit, others are tried only where the disk has room for as many times the
    size of their input file as that one needed: a disk on which space is freed is used again.
    """

    def __init__(self) -> None:
        self._ratio: float | None = None  # bytes of output for a byte of input
        self._reason = ""

    def write_failed(self, error: OSError, source: Path | None, size: int) -> None:
        """Records that `size` bytes made from the file `source` could not be written."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            quota = error.errno == errno.EDQUOT  # about which free space says nothing
            self._ratio = float("inf") if quota else max(self._ratio or 1.0, size / max(1, file_size(source)))
            self._reason = reason(error)

    def refusal(self, source: Path | None, folder: Path) -> str | None:
        """The reason why the output of `source` will not fit into `folder`; None if it may."""
        if self._ratio is None:
            return None
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            return None
        needed = self._ratio if self._ratio == float("inf") else self._ratio * file_size(source)
        return f"{self._reason} (not tried)" if free < needed else None


def file_size(path: Path | None) -> int:
    """Bytes of a file; 0 for None, and for what cannot be read."""
    try:
        return os.stat(path).st_size if path is not None else 0
    except (OSError, ValueError):
        return 0
