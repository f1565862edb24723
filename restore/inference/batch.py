"""Folders: decode, compute and encode overlap; one bad file never stops the others."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from restore.errors import ImageError, RestoreError
from restore.images import encode_image, read_image
from restore.images.failures import printable, reason
from restore.inference.bounds import Budget, bytes_needed
from restore.inference.computing import Computing, Together, Transform
from restore.inference.gate import Gate
from restore.inference.job import Job
from restore.inference.masks import encode_hints, encode_mask, read_hints, read_mask
from restore.inference.outcomes import Outcome, Runner, Writing, success
from restore.inference.outputs import Outputs, signature, target
from restore.placing import abandon

__all__ = ["PATIENCE", "Outcome", "Pipeline", "Runner", "Together", "Transform", "Writing", "run"]

logger = logging.getLogger("restore")

PATIENCE = 1.5  # seconds that a stopped run waits for files that are on their way to the disk


def run(
    jobs: Iterable[Job],
    transform: Transform,
    writing: Writing,
    *,
    workers: int = 2,
    fail_fast: bool = False,
    scale: int = 1,
    together: Together | None = None,
) -> Iterator[Outcome]:
    """Applies `transform` to every job's picture; outcomes come in the order of the jobs.

    workers: threads that decode and encode beside the computing; they change nothing but the time.
    scale: how many times longer `transform` makes the sides, so that memory can be bounded.
    together: does what `transform` does, to several pictures at once.
    Whatever is wrong with a file is in its outcome; only BrokenPipeError is raised, when nobody reads stdout.
    An iterator that is closed early leaves no half-written file.
    """
    with Pipeline(transform, writing, workers, scale=scale, together=together) as pipeline:
        yield from pipeline.run(jobs, fail_fast=fail_fast)


class Pipeline:
    """Threads that take a picture each from file to file, and one that computes for all of them in turn.

    So one picture is computed while the next is decoded and the one before encoded, and every result
    depends on its own input alone. transform: called in one thread only. workers: pictures in flight
    beside the one that is computed, at most; `budget` bounds their bytes as well. scale: how many times
    longer `transform` makes the sides, for that bound. together: does what `transform` does, to several pictures
    at once, where small ones wait for it; at most one more than `workers` do.
    """

    def __init__(
        self,
        transform: Transform,
        writing: Writing,
        workers: int = 2,
        *,
        scale: int = 1,
        budget: Budget | None = None,
        together: Together | None = None,
    ) -> None:
        self._writing, self._scale = writing, scale
        self.width = max(1, workers) + 1
        self._lanes = ThreadPoolExecutor(self.width, thread_name_prefix="lane")
        self._computing = Computing(transform, together)
        self._budget, self._outputs, self._gate = budget or Budget(), Outputs(writing), Gate()
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
                self._computing.stop()
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
        self._computing.stop()

    def _one(self, job: Job, overwrite: bool) -> Outcome | None:
        try:
            if self._stopped:
                return None
            if (there := self._outputs.there(job, job.output, overwrite)) is not None:
                return there
            if job.trouble:
                return Outcome(job, error=job.trouble)
            with self._budget.taking(bytes_needed(job.input, self._scale) + bytes_needed(job.mask, 0)):
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
        before, writing = signature(job.input), self._writing
        again = job.input if before is not None else None  # what is no regular file is read once
        data = _read_once(job.input) if again is None else b""
        image = read_image(data, name=printable(job.input or "stdin")) if again is None else read_image(again)
        output, _, _ = target(job, image, writing)
        if output != job.output and (there := self._outputs.there(job, output, overwrite)) is not None:
            return there
        read, encode = (read_hints, encode_hints) if job.hints else (read_mask, encode_mask)
        mask = None if job.mask is None else read(job.mask)
        self._outputs.prepare(job)
        seconds, restored = self._computing.submit(image, mask).result()
        del image, mask
        output, kind, note = target(job, restored.image, writing)
        copied = restored.nothing and kind == restored.image.format and writing.keeps_bytes and not writing.dry_run
        if copied:
            data = data if again is None else again.read_bytes()
        elif not writing.dry_run:
            data = encode_image(restored.image, kind, quality=writing.quality, metadata=writing.metadata)
        found = b"" if job.save_mask is None else encode(restored.mask, restored.image.size)
        outcome = success(job, restored, writing, seconds, copied=copied)
        with self._gate.passing() as allowed:
            if not allowed:
                return None
            if signature(job.input) != before:
                raise ImageError("changed or vanished while it was being restored; run again with --skip-existing")
            if job.save_mask is not None:  # first: where the output is, the run went to its end
                self._outputs.write(job, found, job.save_mask, overwrite)
            if writing.dry_run:
                return outcome
            if output is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif not self._outputs.write(job, data, output, overwrite):
                return Outcome(job, output, skipped=True)
        return replace(outcome, output=output, note=note)


def _read_once(path: Path | None) -> bytes:
    return sys.stdin.buffer.read() if path is None else path.read_bytes()


def _why(job: Job, error: Exception) -> str:
    """One line, without the name of the input: that stands beside it."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else job.output
        where = "" if name is None or name == str(job.input) else f"{printable(name)}: "
        return f"{where}{reason(error)}"
    text = " ".join(str(error).split()) or reason(error)
    return text.removeprefix(f"{printable(job.input or 'stdin')}: ")
