"""Files that appear whole or not at all: written to a temporary file beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import psutil

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
_unfinished: set[Path] = set()


def write_atomic(data: bytes, path: Path, *, overwrite: bool) -> None:
    """Writes a file that other programs see only when it is complete and on the disk.

    Args:
        data: the content.
        path: the target; its folder must exist.
        overwrite: whether to replace an existing file.

    Raises:
        FileExistsError: `path` exists and `overwrite` is False, even if it appeared during the write.
        OSError: the file cannot be written; no temporary file is left.
    """
    # Cut by bytes, which file systems count: a CJK character takes three.
    stem = os.fsencode(path.name[:80])[:80].decode("utf-8", "ignore")
    temporary = path.with_name(f".{stem}.{_HOST}-{os.getpid()}-{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    _unfinished.add(temporary)
    try:
        # Not tempfile: its files are readable by their owner alone; this one gets the permissions of the umask.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path)
    except OSError as error:
        if error.filename is not None:  # not the temporary file, which means nothing to a person
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def discard_unfinished() -> None:
    """Removes the temporary files of this process; writes in progress then fail instead of completing."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


def remove_stale(folders: Iterable[Path]) -> int:
    """Removes temporary files that killed processes left behind.

    Files of this machine are removed when their process no longer runs; files of other machines and of
    unknown origin after `STALE_SECONDS`. Folders and files without permission are skipped.

    Args:
        folders: where to look; subfolders are not searched.

    Returns:
        The number of files removed.
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


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Renames in one step of the file system. Raises FileExistsError where `path` exists."""
    if os.name == "nt":
        os.rename(temporary, path)  # never replaces on Windows
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        _claim_and_replace(temporary, path)


def _claim_and_replace(temporary: Path, path: Path) -> None:
    """Renames on file systems without hard links (FAT, some network shares): claims the name with an empty
    file, then replaces that.

    The empty file is visible for a moment, but a file of another process is never replaced.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
