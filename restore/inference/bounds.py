"""What a folder of pictures may take: memory for those in flight, and the disk while there is room."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from restore.errors import ImageError
from restore.images.failures import reason
from restore.images.sizes import image_size

IN_FLIGHT = 512 << 20  # bytes of pictures that are decoded, waiting or being encoded
_A_PIXEL = 5  # bytes: RGB of 8 bits, and what the codecs hold beside it


class Budget:
    """Bytes that may be in flight at once. What is larger than all of it goes alone."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit or min(IN_FLIGHT, psutil.virtual_memory().available // 4)
        self._used, self._open = 0, True
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Waits until `size` bytes are free and holds them; whoever asks first is served first."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self.limit or not self._open)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def release_all(self) -> None:
        """Lets everybody pass who still waits: the run is over."""
        with self._changed:
            self._open = False
            self._changed.notify_all()


def bytes_needed(path: Path | None, scale: int = 1) -> int:
    """About how many bytes restoring the picture in a file holds, by its header, or by its size where that is
    not understood.

    scale: how many times longer the sides of the restored picture are.
    """
    try:
        if path is None or not stat.S_ISREG((about := os.stat(path)).st_mode):
            return 0
    except (OSError, ValueError):
        return 0  # reading it will say why
    try:
        height, width = image_size(path)
    except ImageError:
        height = width = 0
    return max(height * width * _A_PIXEL, about.st_size) * (1 + scale * scale)  # deep pixels have large files


class Disk:
    """Remembers that a disk was full, so that thousands of pictures are not computed for nothing.

    After the first that did not fit, a picture is tried only where the disk has room for as many times
    the size of its input file as that one needed. So a disk that is cleaned up is used again.
    """

    def __init__(self) -> None:
        self._needed: float | None = None  # bytes of output for a byte of input
        self._why = ""

    def failed(self, error: OSError, source: Path | None, size: int) -> None:
        """Takes note of a picture whose `size` bytes could not be written."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = error.errno == errno.EDQUOT  # free space says nothing about a quota
            self._needed = float("inf") if full else max(self._needed or 1.0, size / max(1, _file_size(source)))
            self._why = reason(error)

    def refusal(self, source: Path | None, folder: Path) -> str | None:
        """Why a picture need not be tried, or None."""
        if self._needed is None:
            return None
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            return None
        needed = self._needed * _file_size(source) if self._needed != float("inf") else float("inf")
        return f"{self._why} (not tried)" if free < needed else None


def _file_size(path: Path | None) -> int:
    try:
        return os.stat(path).st_size if path is not None else 0
    except (OSError, ValueError):
        return 0
