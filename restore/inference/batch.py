"""Folders: decode, compute and encode overlap; one bad file never stops the others."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from restore.errors import ImageError, RestoreError
from restore.images import SUFFIXES, Image, encode_image, read_image, writable_suffix
from restore.images.failures import printable, reason
from restore.inference.bounds import Budget, Disk, bytes_needed
from restore.inference.gate import Gate
from restore.inference.jobs import Job
from restore.placing import abandon, place

logger = logging.getLogger("restore")

Transform = Callable[[Image], Image]
PATIENCE = 1.5  # seconds that a stopped run waits for files that are on their way to the disk


@dataclass(frozen=True)
class Writing:
    """How pictures are written.

    overwrite: replace outputs that exist. skip_existing: leave them, and do not restore their inputs.
    quality: 1-100 of lossy formats (None: as the input). metadata: carry EXIF and XMP.
    extension: the format (`.png`) of what goes to stdout (None: the input's).
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    metadata: bool = True
    extension: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job: restored, skipped (its `output` was there), or failed (`error` says why).

    size: (width, height) of the output. seconds: of computing. note: what a person should know of a success.
    """

    job: Job
    output: Path | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None
    skipped: bool = False

    @property
    def status(self) -> str:
        """restored, skipped or failed."""
        return "failed" if self.error is not None else "skipped" if self.skipped else "restored"


class Runner(Protocol):
    """Takes jobs and gives outcomes; may be asked again, until it is left."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """The outcomes of `jobs`. With `fail_fast` nothing is begun after the first failure."""
        ...


def run(
    jobs: Iterable[Job],
    transform: Transform,
    writing: Writing,
    *,
    workers: int = 2,
    fail_fast: bool = False,
    scale: int = 1,
) -> Iterator[Outcome]:
    """Applies `transform` to every job's picture; outcomes come in the order of the jobs.

    workers: threads that decode and encode beside the computing; they change nothing but the time.
    scale: how many times longer `transform` makes the sides, so that memory can be bounded.
    Whatever is wrong with a file is in its outcome; only BrokenPipeError is raised, when nobody reads stdout.
    An iterator that is closed early leaves no half-written file.
    """
    with Pipeline(transform, writing, workers, scale=scale) as pipeline:
        yield from pipeline.run(jobs, fail_fast=fail_fast)


class Pipeline:
    """Threads that take a picture each from file to file, and one that computes for all of them in turn.

    So one picture is computed while the next is decoded and the one before encoded, and every result
    depends on its own input alone. transform: called in one thread only. workers: pictures in flight
    beside the one that is computed, at most; `budget` bounds their bytes as well. scale: how many times
    longer `transform` makes the sides, for that bound.
    """

    def __init__(
        self,
        transform: Transform,
        writing: Writing,
        workers: int = 2,
        *,
        scale: int = 1,
        budget: Budget | None = None,
    ) -> None:
        self._transform, self._writing, self._scale = transform, writing, scale
        self.width = max(1, workers) + 1
        self._lanes = ThreadPoolExecutor(self.width, thread_name_prefix="lane")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._budget, self._disk, self._gate = budget or Budget(), Disk(), Gate()
        self._stopped = False

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """The outcomes of `jobs`, in their order. With `fail_fast` nothing is begun after the first failure."""
        pending: deque[Future[Outcome | None]] = deque()
        source = iter(jobs)
        more = True
        while more or pending:
            while more and not self._stopped and len(pending) < 2 * self.width:
                job = next(source, None)
                if more := job is not None:
                    pending.append(self.submit(job))
            if not pending:
                return
            while not wait([pending[0]], timeout=0.5).done:
                pass  # in steps: on Windows Ctrl-C does not break into a longer wait
            outcome = pending.popleft().result()
            if outcome is None:
                continue
            if outcome.error is not None and fail_fast:
                self._stopped, more = True, False  # what is being encoded by now is still written, and told
            yield outcome

    def submit(self, job: Job, *, overwrite: bool = False) -> Future[Outcome | None]:
        """Begins a job. Its outcome is None if the pipeline was stopped before anything was written.

        overwrite: replace the output even where `Writing` does not say so.
        """
        return self._lanes.submit(self._one, job, overwrite or self._writing.overwrite)

    def close(self) -> None:
        """Ends: nothing is written any more, no temporary is left. Does not wait for what is being computed."""
        self._stopped = True
        if not self._gate.shut(PATIENCE):
            abandon()
        self._budget.release_all()
        self._lanes.shutdown(wait=False, cancel_futures=True)
        self._computing.shutdown(wait=False, cancel_futures=True)

    def _one(self, job: Job, overwrite: bool) -> Outcome | None:
        try:
            if self._stopped:
                return None
            if (there := self._there(job, job.output, overwrite)) is not None:
                return there
            with self._budget.taking(bytes_needed(job.input, self._scale)):
                return None if self._stopped else self._restore(job, overwrite)
        except (BrokenPipeError, CancelledError):  # not faults of the picture
            if self._stopped:
                return None
            raise
        except (RestoreError, OSError, MemoryError) as error:
            return Outcome(job, error=_why(job, error))
        except Exception as error:  # a bug, ours or a library's, but not one that costs the other pictures
            logger.debug("%s", job.input, exc_info=True)
            return Outcome(job, error=f"unexpected {type(error).__name__}: {reason(error)}")

    def _restore(self, job: Job, overwrite: bool) -> Outcome | None:
        before = _signature(job.input)
        image = read_image(sys.stdin.buffer.read(), name="stdin") if job.input is None else read_image(job.input)
        output, _, _ = _target(job, image, self._writing)
        if output != job.output and (there := self._there(job, output, overwrite)) is not None:
            return there
        if job.output is not None:
            _prepare(job.output.parent)
        seconds, restored = self._computing.submit(self._compute, image).result()
        del image
        output, kind, note = _target(job, restored, self._writing)
        data = encode_image(restored, kind, quality=self._writing.quality, metadata=self._writing.metadata)
        with self._gate.passing() as allowed:
            if not allowed:
                return None
            if _signature(job.input) != before:
                raise ImageError("changed or vanished while it was being restored; run again with --skip-existing")
            if output is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif (there := self._write(job, data, output, overwrite)) is not None:
                return there
        return Outcome(job, output, restored.size, seconds, note=note)

    def _compute(self, image: Image) -> tuple[float, Image]:
        if self._stopped:
            raise CancelledError
        start = time.perf_counter()
        restored = self._transform(image)
        return time.perf_counter() - start, restored

    def _there(self, job: Job, output: Path | None, overwrite: bool) -> Outcome | None:
        """The end of a job that need not be begun: its output is there, or cannot be."""
        if output is None:
            return None
        if refusal := self._disk.refusal(job.input, output.parent):
            return Outcome(job, error=refusal)
        try:
            found = os.lstat(output)  # raises if the name is too long
        except (FileNotFoundError, NotADirectoryError):
            return None
        if overwrite or (self._writing.skip_existing and _is_empty(found)):
            return None
        if self._writing.skip_existing:
            return Outcome(job, output, skipped=True)
        return Outcome(job, error=f"{printable(output)}: exists already; --skip-existing leaves it")

    def _write(self, job: Job, data: bytes, output: Path, overwrite: bool) -> Outcome | None:
        skip = self._writing.skip_existing
        try:
            # With -k an empty file is what a power cut left, not a picture.
            empty = skip and os.path.lexists(output) and _is_empty(os.lstat(output))
            place(data, output, overwrite=overwrite or empty)
        except FileExistsError:
            if skip:  # another run was quicker
                return Outcome(job, output, skipped=True)
            raise
        except OSError as error:
            self._disk.failed(error, job.input, len(data))
            error.filename, error.filename2 = str(output), None  # not the temporary
            raise
        return None


def _target(job: Job, image: Image, writing: Writing) -> tuple[Path | None, str, str | None]:
    """Where `image` goes, in which format, and what to say if that is not the one wanted."""
    if job.output is not None:
        wanted = job.output.suffix
    else:
        wanted = writing.extension or next(suffix for suffix, kind in SUFFIXES.items() if kind == image.format)
    suffix, note = writable_suffix(image, wanted)
    output = job.output if job.output is None or suffix == wanted else job.instead(suffix)
    return output, SUFFIXES[suffix.lower()], note


def _prepare(folder: Path) -> None:
    """Makes `folder`; before computing, so that hours are not spent on what cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{printable(folder)}: no permission to write there; choose another folder")


def _signature(path: Path | None) -> tuple[int, ...] | None:
    """What changes when a regular file does; None if it is not there, or no regular file."""
    try:
        about = os.stat(path) if path is not None else None
    except (OSError, ValueError):
        return None
    if about is None or not stat.S_ISREG(about.st_mode):
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _is_empty(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def _why(job: Job, error: Exception) -> str:
    """One line, without the name of the input: that stands beside it."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else job.output
        where = "" if name is None or name == str(job.input) else f"{printable(name)}: "
        return f"{where}{reason(error)}"
    text = " ".join(str(error).split()) or reason(error)
    return text.removeprefix(f"{printable(job.input or 'stdin')}: ")
