"""Files that must not be the same: no input, nor mask, is written over, and no two things go to one file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from restore.errors import UsageError
from restore.images.failures import printable
from restore.inference.job import Job
from restore.inference.naming import key


def refuse_inputs_as_outputs(jobs: Iterable[Job]) -> None:
    """Raises UsageError where a job would write over what another reads, or over a folder.

    By device and inode: sees through links, and through names that differ in case on a disk that ignores it.
    """
    jobs = list(jobs)
    inputs = {_identity(path): path for job in jobs for path in (job.mask, job.input) if path is not None}
    inputs.pop(None, None)
    for job in jobs:
        for path in job.written:
            if (there := _identity(path)) is None:
                continue
            if there in inputs:
                what = "is an input"
                if path != inputs[there]:
                    what = f"is the input {printable(inputs[there])} under another name"
                other = "OUTPUT" if path == job.output else "--save-mask"
                raise UsageError(f"{printable(path)}: {what}, and inputs are never written over; give another {other}")
            if os.path.isdir(path):
                raise UsageError(f"{printable(path)}: is a folder, where a file would have to go")


def refuse_masks_as_pictures(jobs: Iterable[Job]) -> None:
    """No mask is a picture to restore, and none is saved where a picture goes, whatever format that turns out to be."""
    jobs = list(jobs)
    if any(job.mask is not None for job in jobs):
        inputs = {_identity(job.input) for job in jobs if job.input is not None} - {None}
        for job in jobs:
            if job.mask is not None and _identity(job.mask) in inputs:
                raise UsageError(f"{printable(job.mask)}: is an input, and no mask of one; give another --mask")
    if any(job.save_mask is not None for job in jobs):
        real = cache(os.path.realpath)
        pictures = [path for job in jobs if job.output is not None for path in (job.output, job.instead(".png"))]
        taken = {key(Path(real(path.parent), path.name)) for path in pictures}
        for job in jobs:
            if job.save_mask is not None and key(Path(real(job.save_mask.parent), job.save_mask.name)) in taken:
                raise UsageError(f"{printable(job.save_mask)}: a picture goes there; give another --save-mask")


def same(one: Path, other: Path) -> bool:
    """Whether both names are of one file or folder, be it there or not."""
    return os.path.realpath(one) == os.path.realpath(other)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino
