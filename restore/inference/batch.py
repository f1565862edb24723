"""Folders: decode, compute and encode overlap; one bad file never stops the others."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from restore.errors import ImageError, RestoreError
from restore.images import Image, encode_image, read_image, writable_suffix, write_image
from restore.inference.jobs import Job

Transform = Callable[[Image], Image]


@dataclass(frozen=True)
class Writing:
    """How pictures are written.

    overwrite: replace outputs that exist. quality: 1-100 of lossy formats (None: as the input).
    metadata: carry EXIF and XMP.
    """

    overwrite: bool = False
    quality: int | None = None
    metadata: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a job. error: why it failed, else None. note: what a person should know of a success.

    size: (width, height) of the output. seconds: of computing.
    """

    job: Job
    output: Path | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None


def run(
    jobs: Sequence[Job], transform: Transform, writing: Writing, *, workers: int = 2, fail_fast: bool = False
) -> Iterator[Outcome]:
    """Applies `transform` to every job's picture; outcomes come in the order of the jobs.

    workers: threads that decode and encode beside the computing; they change nothing but the time.
    With `fail_fast` the first failure is the last outcome. Only bad calls raise; whatever is wrong
    with a file is in its outcome.
    """
    workers = max(1, workers)
    waiting, reading, done = deque(jobs), deque[tuple[Job, Future[Image]]](), deque[Future[Outcome]]()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="codec")
    try:
        while waiting or reading or done:
            while waiting and len(reading) < workers:
                job = waiting.popleft()
                reading.append((job, pool.submit(_read, job)))
            if reading:
                done.append(_compute(*reading.popleft(), transform, writing, pool))
            while done and (done[0].done() or len(done) > workers or not (waiting or reading)):
                outcome = done.popleft().result()
                yield outcome
                if outcome.error and fail_fast:
                    return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # a file being written is finished or removed


def _read(job: Job) -> Image:
    if job.input is None:
        return read_image(sys.stdin.buffer.read(), name="stdin")
    return read_image(job.input)


def _compute(
    job: Job, reading: Future[Image], transform: Transform, writing: Writing, pool: ThreadPoolExecutor
) -> Future[Outcome]:
    start = time.perf_counter()
    try:
        image = reading.result()
        start = time.perf_counter()
        restored = transform(image)
    except (RestoreError, MemoryError) as error:
        failed: Future[Outcome] = Future()
        failed.set_result(Outcome(job, error=_reason(job, error)))
        return failed
    return pool.submit(_write, job, restored, writing, time.perf_counter() - start)


def _write(job: Job, image: Image, writing: Writing, seconds: float) -> Outcome:
    height, width = image.pixels.shape[:2]
    try:
        if job.output is None:
            data = encode_image(image, quality=writing.quality, metadata=writing.metadata)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return Outcome(job, None, (width, height), seconds)
        suffix, note = writable_suffix(image, job.output.suffix)
        output = job.output.with_suffix(suffix)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_image(image, output, quality=writing.quality, metadata=writing.metadata, overwrite=writing.overwrite)
    except (RestoreError, MemoryError) as error:
        return Outcome(job, error=_reason(job, error))
    except OSError as error:
        return Outcome(job, error=_reason(job, ImageError(f"{job.output}: {error.strerror or error}")))
    return Outcome(job, output, (width, height), seconds, note=note)


def _reason(job: Job, error: Exception) -> str:
    """One line that names the file."""
    name = str(job.input or "stdin")
    text = " ".join(str(error).split()) or "not enough memory"
    return text if name in text or (job.output is not None and str(job.output) in text) else f"{name}: {text}"
