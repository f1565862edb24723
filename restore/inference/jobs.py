"""Which files are restored to where: decided, and refused if need be, before anything is written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import UsageError
from restore.images import SUFFIXES, find_images

STREAM = "-"  # stdin as an input, stdout as an output


@dataclass(frozen=True)
class Job:
    """One picture: where it comes from and where it goes; None is stdin or stdout."""

    input: Path | None
    output: Path | None


@dataclass(frozen=True)
class Naming:
    """How outputs are called: `photo.<suffix>.png` beside an input; `extension` (`.png`) instead of the input's."""

    suffix: str
    extension: str | None = None

    def name(self, path: Path, *, beside: bool) -> str:
        """The file name for the restored `path`; `beside` the input it needs the suffix to differ."""
        extension = self.extension or path.suffix
        return f"{path.stem}.{self.suffix}{extension}" if beside else f"{path.stem}{extension}"

    def is_output(self, path: Path) -> bool:
        """Whether `path` is named as an earlier output beside its input."""
        return path.stem.endswith(f".{self.suffix}")


def plan(inputs: Sequence[str], output: str | None, naming: Naming, *, recursive: bool = False) -> list[Job]:
    """The jobs for what a person typed, in a fixed order.

    inputs: files, folders (with `recursive` all below them), globs, or `-`. output: a file, a folder
    or `-`; None puts files beside their input and folders into `<folder>.<suffix>`.
    Raises UsageError for inputs that are missing or hold no picture, and for an output that would
    be an input, or cannot hold them all.
    """
    expanded = [path for text in inputs for path in _expand(text)]
    if STREAM in expanded or output == STREAM:
        return [_stream_job(expanded, output)]
    paths = [Path(text) for text in expanded]
    if len(paths) == 1 and paths[0].is_file():
        jobs = [_file_job(paths[0], output, naming)]
    else:
        jobs = _folder_jobs(paths, output, naming, recursive)
    jobs = _distinct(jobs)
    _refuse_inputs_as_outputs(jobs)
    return jobs


def existing(jobs: Sequence[Job]) -> list[Path]:
    """The outputs that are already there."""
    return [job.output for job in jobs if job.output is not None and os.path.lexists(job.output)]


def _expand(text: str) -> list[str]:
    if text == STREAM or os.path.lexists(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
    if not found:
        raise UsageError(f"{text}: no such file or folder")
    return found


def _stream_job(inputs: list[str], output: str | None) -> Job:
    if len(inputs) != 1 or os.path.isdir(inputs[0]):
        raise UsageError("'-' stands for one picture; give one file, or - for both")
    source = None if inputs[0] == STREAM else Path(inputs[0])
    if output in (None, STREAM):
        if source is not None and output is None:
            raise UsageError("give an OUTPUT, or - for stdout")
        return Job(source, None)
    return Job(source, Path(str(output)))


def _file_job(path: Path, output: str | None, naming: Naming) -> Job:
    if output is None:
        return Job(path, path.with_name(naming.name(path, beside=True)))
    target = Path(output)
    if target.is_dir() or output.endswith(("/", os.sep)):
        return Job(path, target / naming.name(path, beside=False))
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{output}: no picture format goes by that name; end it in one of {' '.join(sorted(SUFFIXES))}"
        )
    if naming.extension and target.suffix.lower() != naming.extension.lower():
        raise UsageError(f"{output} and --ext {naming.extension.lstrip('.')} contradict each other")
    return Job(path, target)


def _folder_jobs(paths: list[Path], output: str | None, naming: Naming, recursive: bool) -> list[Job]:
    target = None if output is None else Path(output)
    if target is not None and target.exists() and not target.is_dir():
        raise UsageError(f"{output}: is a file; several pictures need a folder")
    jobs = []
    for path in paths:
        if path.is_file():
            folder, beside = (target, False) if target else (path.parent, True)
            jobs.append(Job(path, folder / naming.name(path, beside=beside)))
            continue
        root = path.resolve().with_name(f"{path.resolve().name}.{naming.suffix}") if target is None else target
        if root.exists() and os.path.samefile(root, path):
            raise UsageError(f"{path}: input and output are the same folder; give another OUTPUT")
        if target is not None and len(paths) > 1:
            root = target / path.resolve().name
        found = [p for p in find_images(path, recursive=recursive) if not naming.is_output(p) and not _inside(p, root)]
        if not found:
            hint = "" if recursive else "; -r looks into its subfolders too"
            raise UsageError(f"{path}: no pictures in this folder{hint}")
        for file in found:
            jobs.append(Job(file, root / file.relative_to(path).parent / naming.name(file, beside=False)))
    return jobs


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` lies in `folder`, an output folder that may not exist yet."""
    return folder.resolve() in path.resolve().parents


def _distinct(jobs: list[Job]) -> list[Job]:
    """Jobs whose outputs would be one file (`a.jpg` and `a.png` as PNG) keep their whole name: `a.jpg.png`."""
    counts = Counter(_key(job.output) for job in jobs)
    distinct = []
    for job in jobs:
        if job.input is not None and job.output is not None and counts[_key(job.output)] > 1:
            job = Job(job.input, job.output.with_name(f"{job.input.name}{job.output.suffix}"))
        distinct.append(job)
    again = Counter(_key(job.output) for job in distinct)
    for job in distinct:
        if again[_key(job.output)] > 1:
            raise UsageError(
                f"{job.output}: several inputs would be written to this file; restore them in separate calls"
            )
    return distinct


def _key(path: Path | None) -> str:
    """A path as a file system that ignores case sees it."""
    return str(path).casefold()


def _refuse_inputs_as_outputs(jobs: list[Job]) -> None:
    inputs = {job.input.resolve() for job in jobs if job.input}
    for job in jobs:
        if job.output is None:
            continue
        if job.output.resolve() in inputs:
            raise UsageError(f"{job.output}: is an input, and inputs are never written over; give another OUTPUT")
        if job.output.exists() and job.input and os.path.samefile(job.output, job.input):
            raise UsageError(f"{job.output}: is the input itself under another name; give another OUTPUT")
        if job.output.is_dir():
            raise UsageError(f"{job.output}: is a folder, where a file would have to go")
