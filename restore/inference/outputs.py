"""Where pictures and masks are written: what is there already, what cannot be, and whole files only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from restore.errors import ImageError
from restore.images import SUFFIXES, Image, writable_suffix
from restore.images.failures import printable
from restore.inference.bounds import Disk
from restore.inference.job import Job
from restore.inference.outcomes import Outcome, Writing
from restore.placing import place


class Outputs:
    """The files that jobs write, by what `writing` allows; remembers a disk that was full."""

    def __init__(self, writing: Writing) -> None:
        self._writing, self._disk = writing, Disk()

    def there(self, job: Job, output: Path | None, overwrite: bool) -> Outcome | None:
        """The end of a job that need not be begun: what it is to write is there, or cannot be.

        output: of the picture. Raises OSError where a name is too long.
        """
        dry, skip = self._writing.dry_run, self._writing.skip_existing
        for path in (None if dry else output, job.save_mask):
            if path is not None and (refusal := self._disk.refusal(job.input, path.parent)):
                return Outcome(job, error=refusal)
        if overwrite:
            return None
        # With -k a dry run passes over what a real one would; a mask that is there does not keep a picture
        # from being restored.
        if (skip or not dry) and (ended := self._ended(job, output)):
            return ended
        return self._ended(job, job.save_mask) if dry or not skip else None

    def prepare(self, job: Job) -> None:
        """Makes the folders; before computing, so that hours are not spent on what cannot be written."""
        for path in (None if self._writing.dry_run else job.output, job.save_mask):
            if path is not None:
                _prepare(path.parent)

    def write(self, job: Job, data: bytes, path: Path, overwrite: bool) -> bool:
        """Writes `data` to `path`; False if it was there and is left. Raises OSError that names `path`."""
        skip = self._writing.skip_existing
        try:
            # With -k an empty file is what a power cut left, not a picture.
            empty = skip and os.path.lexists(path) and _is_empty(os.lstat(path))
            if overwrite and job.input is not None and _is_same(path, job.input):  # by a link made meanwhile
                raise ImageError(f"{printable(path)}: has become the input; nothing is written over an input")
            place(data, path, overwrite=overwrite or empty)
        except FileExistsError:
            if skip:  # another run was quicker
                return False
            raise
        except OSError as error:
            self._disk.failed(error, job.input, len(data))
            error.filename, error.filename2 = str(path), None  # not the temporary
            raise
        return True

    def _ended(self, job: Job, path: Path | None) -> Outcome | None:
        if path is None:
            return None
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if self._writing.skip_existing:
            return None if _is_empty(found) else Outcome(job, path, skipped=True)
        return Outcome(job, error=f"{printable(path)}: exists already; --skip-existing leaves it")


def target(job: Job, image: Image, writing: Writing) -> tuple[Path | None, str, str | None]:
    """Where `image` goes, in which format, and what to say if that is not the one wanted."""
    if job.output is not None:
        wanted = job.output.suffix
    else:
        wanted = writing.extension or next(suffix for suffix, kind in SUFFIXES.items() if kind == image.format)
    suffix, note = writable_suffix(image, wanted)
    note = "; ".join(filter(None, (note, *image.notes))) or None
    output = job.output if job.output is None or suffix == wanted else job.instead(suffix)
    return output, SUFFIXES[suffix.lower()], note


def signature(path: Path | None) -> tuple[int, ...] | None:
    """What changes when a regular file does; None if it is not there, or no regular file."""
    try:
        about = os.stat(path) if path is not None else None
    except (OSError, ValueError):
        return None
    if about is None or not stat.S_ISREG(about.st_mode):
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{printable(folder)}: no permission to write there; choose another folder")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_empty(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
