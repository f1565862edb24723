"""Files that are whole or not there: written to temporaries that say whose they are, then renamed."""

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
STALE = 24 * 3600.0  # seconds after which a temporary is nobody's, if it does not say whose it is

_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"  # folders may be shared between machines
_OURS = re.compile(
    rf"\..*\.(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL
)

_NO_LINKS = {
    errno.EPERM,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EACCES,
    errno.EXDEV,
}
_being_written: set[Path] = set()


def place(data: bytes, path: Path, *, overwrite: bool) -> None:
    """Writes `data` to `path`, which appears when it is whole: temporary beside it, to the disk, renamed.

    Raises OSError; FileExistsError if `path` is there and not to be replaced, even if it came meanwhile.
    """
    # Cut by bytes: file systems count those, and a name in CJK has three to a letter.
    stem = os.fsencode(path.name[:80])[:80].decode("utf-8", "ignore")
    whose = f"{_HOST}-{os.getpid()}-{secrets.token_hex(6)}"
    temporary = path.with_name(f".{stem}.{whose}{TEMPORARY_SUFFIX}")
    _being_written.add(temporary)
    try:
        # Not tempfile: its files are readable by their owner alone; this one gets what the umask allows.
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
        if error.filename is not None:  # not the temporary, which means nothing to a person
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)
        _being_written.discard(temporary)


def abandon() -> None:
    """Removes the temporaries of this process; what is being written then cannot get its final name."""
    for temporary in list(_being_written):
        temporary.unlink(missing_ok=True)


def sweep(folders: Iterable[Path]) -> int:
    """Removes temporaries that a killed run left in `folders`; returns how many.

    Those of this machine go when their process is gone, those of others (a shared disk) and of unknown
    ones after a day. What cannot be listed or removed is left.
    """
    swept = 0
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
                    swept += 1
            except OSError:  # gone meanwhile, or not ours to remove
                continue
    return swept


def _is_stale(path: Path) -> bool:
    written = path.lstat().st_mtime
    ours = _OURS.fullmatch(path.name)
    if ours and ours["host"] == _HOST:
        try:
            if written < psutil.Process(int(ours["pid"])).create_time() - 1:
                return True  # the number went to another process, as it does in containers
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            pass
    return time.time() - written > STALE


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Renames, and raises FileExistsError where `path` exists, in one step of the file system."""
    if os.name == "nt":
        os.rename(temporary, path)  # refuses there by itself
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        _claim_and_replace(temporary, path)


def _claim_and_replace(temporary: Path, path: Path) -> None:
    """For file systems without hard links (FAT, some network shares): claim the name, then rename over the
    claim.

    For a moment the name shows an empty file, but a file of someone else's is never replaced.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
