"""Files that appear whole or not at all: written to a temporary file beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import psutil

from restore.errors import RestoreError

TEMPORARY_SUFFIX = ".restore-tmp"
STALE_SECONDS = 24 * 3600.0  # age at which a temporary file of another machine or of unknown origin is removed

# Temporary names carry the machine and the process that writes them: folders may be shared between machines.
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_OWN_NAME = re.compile(
    rf"\..*\.(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL
)

# What os.link raises where the file system has no hard links.
_NO_LINKS = {
    errno.EPERM,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EACCES,
    errno.EXDEV,
}
_BY_HANDLE = {os.open, os.stat, os.unlink, os.link, os.rename} <= os.supports_dir_fd
_unfinished: set[Path] = set()


def write_atomic(data: bytes, path: Path, *, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Writes a file that other programs see only when it is complete; arguments and errors as of `atomic_file`."""
    with atomic_file(path, overwrite=overwrite, sources=sources) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, *, overwrite: bool, sources: Iterable[Path] = ()) -> Iterator[BinaryIO]:
    """A file to write and read that gets its name when the block is left without an error, complete and on the disk.

    The folder is opened once and all is done in it: one that is swapped for a link meanwhile leads nowhere else.

    Args:
        path: the target; its folder must exist.
        overwrite: whether to replace an existing file.
        sources: files that are not replaced in any case.

    Raises:
        FileExistsError: `path` exists and `overwrite` is False, even if it appeared during the write.
        RestoreError: `path` is one of `sources`.
        OSError: the file cannot be written; it names `path`, and no temporary file is left.
    """
    # Cut by bytes, which file systems count: a CJK character takes three.
    stem = os.fsencode(path.name[:80])[:80].decode("utf-8", "ignore")
    temporary = path.with_name(f".{stem}.{_HOST}-{os.getpid()}-{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        with _opened(path.parent) as folder:
            _unfinished.add(temporary)
            try:
                # Not tempfile: its files are readable by their owner alone; this one gets the permissions of the umask.
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
                opener = partial(_open, flags=flags, folder=folder.handle)
                with open(folder.name(temporary), "w+b", opener=opener) as file:  # not by number: it has a name to tell
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                folder.refuse(path, sources)
                folder.rename(temporary, path, overwrite=overwrite)
            finally:
                folder.remove(temporary)
                _unfinished.discard(temporary)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary file, which means nothing to a person
        raise


def _open(name: str, _mode: int, *, flags: int, folder: int | None) -> int:
    return os.open(name, flags, 0o666, dir_fd=folder)


@dataclass(frozen=True)
class _Folder:
    """An open folder; handle: its descriptor, or None where the system has no calls for it (Windows)."""

    handle: int | None

    def name(self, path: Path) -> str:
        """What calls that are given `handle` name the file `path` by."""
        return str(path) if self.handle is None else path.name

    def refuse(self, path: Path, sources: Iterable[Path]) -> None:
        """Raises RestoreError where `path` is one of `sources`: the folder may have become a link to theirs."""
        with suppress(FileNotFoundError):
            found = os.stat(self.name(path), dir_fd=self.handle, follow_symlinks=False)
            for source in sources:
                with suppress(FileNotFoundError):
                    if os.path.samestat(found, os.stat(source)):
                        raise RestoreError(f"{path}: has become the input; nothing is written over an input")

    def remove(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.name(path), dir_fd=self.handle)

    def rename(self, temporary: Path, path: Path, *, overwrite: bool) -> None:
        """Renames in one step of the file system. Raises FileExistsError where `path` exists, unless `overwrite`."""
        one, other, folder = self.name(temporary), self.name(path), self.handle
        if overwrite:
            os.replace(one, other, src_dir_fd=folder, dst_dir_fd=folder)
            return
        if os.name == "nt":
            os.rename(one, other)  # never replaces on Windows
            return
        try:
            os.link(one, other, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
                raise
            # No hard links (FAT, some network shares): an empty file claims the name, and is replaced. It is visible
            # for a moment, but a file of another process is never replaced.
            os.close(os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.handle))
            try:
                os.replace(one, other, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                self.remove(path)
                raise


@contextmanager
def _opened(folder: Path) -> Iterator[_Folder]:
    if not _BY_HANDLE:
        yield _Folder(None)
        return
    handle = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)  # O_PATH: it may not be readable
    try:
        yield _Folder(handle)
    finally:
        os.close(handle)


def discard_unfinished() -> None:
    """Removes the temporary files of this process; writes in progress then fail instead of completing."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


def remove_stale(folders: Iterable[Path]) -> int:
    """Removes temporary files that killed processes left in `folders`, not in their subfolders; returns how many.

    Files of this machine are removed when their process no longer runs; files of other machines and of
    unknown origin after `STALE_SECONDS`. Folders and files without permission are skipped.
    """
    removed = 0
    for folder in set(folders):
        try:
            names = [name for name in os.listdir(folder) if name.endswith(TEMPORARY_SUFFIX) and name.startswith(".")]
        except OSError:
            continue
        for name in names:
            path = folder / name
            try:
                if _is_stale(path):
                    path.unlink()
                    removed += 1
            except OSError:  # removed by another process, or no permission
                continue
    return removed


def _is_stale(path: Path) -> bool:
    written = path.lstat().st_mtime
    own = _OWN_NAME.fullmatch(path.name)
    if own and own["host"] == _HOST:
        try:
            if written < psutil.Process(int(own["pid"])).create_time() - 1:
                return True  # the process number was reused, as happens in containers
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            pass
    return time.time() - written > STALE_SECONDS
