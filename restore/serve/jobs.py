"""Asynchronous jobs: pictures whose result a client fetches later."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import RawIOBase
from itertools import zip_longest
from pathlib import Path
from typing import Any

from restore.serve.limits import Admitted, Limits, Refused
from restore.serve.restorers import Watch
from restore.serve.service import Output, folder_name

CHUNK = 1 << 20
ENDED = ("done", "failed", "cancelled")
CANCELLED = 410  # the status of a job that its client gave up


@dataclass(eq=False)
class Job:
    """One picture.

    Attributes:
        id: cannot be guessed.
        task, name: of the picture.
        watch: how far it is.
        path: of the bytes of the result; those of its mask are beside it, in `mask_path`.
        output: the result without these bytes.
        bytes, mask_bytes: how many there are of either.
        error: why there is none. Set once, by what comes first: a failure, a client that cancels, the time or the end.
        ended: when (time.monotonic()), or None.
    """

    id: str
    task: str
    name: str
    path: Path
    watch: Watch = field(default_factory=Watch)
    output: Output | None = None
    bytes: int = 0
    mask_bytes: int = 0
    error: Refused | None = None
    ended: float | None = None
    future: Future[Output] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What a client is told, as JSON."""
        found: dict[str, Any] = {
            "id": self.id,
            "task": self.task,
            "name": self.name,
            "stage": self.watch.stage,
            "share": round(self.watch.share, 4),
            "url": f"/api/v1/jobs/{self.id}",
        }
        if self.error is not None:
            found |= {"error": self.error.detail, "status": self.error.status_code}
        if self.output is not None:
            found |= found_in(self.output) | {"bytes": self.bytes, "mask": self.mask_bytes > 0}
        return found

    @property
    def mask_path(self) -> Path:
        """Where the mask is kept."""
        return self.path.with_suffix(".mask")

    def keep(self, output: Output) -> Output:
        """Writes the result to disk, and gives it without its bytes. Raises OSError."""
        self.bytes = self.path.write_bytes(output.data)
        if output.mask is not None:
            self.mask_bytes = self.mask_path.write_bytes(output.mask)
        return replace(output, data=b"", mask=None)

    def discard(self) -> None:
        """Removes the result from the disk."""
        for path in (self.path, self.mask_path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def found_in(output: Output) -> dict[str, Any]:
    """What is known of a result, as JSON."""
    return {
        "result": output.status,
        "file": output.name,
        "format": output.kind,
        "width": output.size[0],
        "height": output.size[1],
        "seconds": round(output.seconds, 4),
        "message": output.message,
        "mask_share": output.mask_share,
        **({"steps": [step.record for step in output.steps]} if output.steps else {}),
    }


class Jobs:
    """The jobs of a server; results are files in a folder of their own that goes when the server does.

    Args:
        limits: how long and how much is kept.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="restore-serve-", ignore_cleanup_errors=True)
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    def create(self, task: str, name: str) -> Job:
        """A new job, which has not begun."""
        self.forget()
        name_of = secrets.token_urlsafe(18)
        job = Job(name_of, task, name, Path(self._folder.name) / name_of)
        with self._lock:
            self._jobs[job.id] = job
        return job

    def begin(self, job: Job, future: Future[Output], place: Admitted) -> None:
        """The job ends when `future` does, and gives its place back."""
        job.future = future

        def ended(done: Future[Output]) -> None:
            try:
                self._end(job, done)
            finally:
                place.leave()
                job.watch.tell()

        future.add_done_callback(ended)

    def drop(self, job: Job) -> None:
        """Forgets a job and its result."""
        with self._lock:
            self._jobs.pop(job.id, None)
        job.discard()

    def get(self, id: str) -> Job:
        """The job called `id`. Raises Refused (404)."""
        with self._lock:
            job = self._jobs.get(id)
        if job is None:
            raise Refused(404, "no such job; results are kept for a limited time")
        return job

    def finished(self, id: str) -> Job:
        """The job called `id`, which has a result. Raises Refused: 404, 409 if it has none yet, or why it has none."""
        job = self.get(id)
        if job.error is not None:
            raise job.error.with_traceback(None)
        if job.output is None:
            raise Refused(409, "this job has not ended yet", retry_after=1)
        return job

    def cancel(self, id: str) -> Job:
        """Gives up a job, and forgets it if it had ended. Raises Refused (404)."""
        job = self.get(id)
        if not self._give_up(job, Refused(CANCELLED, "cancelled")):
            self.drop(job)
        return job

    def expire(self, job: Job) -> None:
        """Gives up a job for which the time is over."""
        self._give_up(job, Refused(504, f"took longer than {self._limits.job_seconds:g} seconds"))

    def _give_up(self, job: Job, why: Refused) -> bool:
        """Ends a job without a result, at its next tile; False if it has ended already. From any thread."""
        with self._lock:  # a thread that computes may end it at this moment
            if job.ended is not None:
                return False
            job.error = job.error or why
            future = job.future
        job.watch.cancel()
        if future is not None:
            future.cancel()  # which may end it here and now
        return True

    def forget(self) -> None:
        """Removes results that are too old, or the oldest where they are too many."""
        with self._lock:
            ended = sorted(
                (job for job in self._jobs.values() if job.ended is not None), key=lambda one: one.ended or 0
            )
        total = sum(job.bytes + job.mask_bytes for job in ended)
        for job in ended:
            old = time.monotonic() - (job.ended or 0) > self._limits.keep_seconds
            if not old and total <= self._limits.keep_bytes and len(ended) <= 10_000:
                continue
            total -= job.bytes + job.mask_bytes
            self.drop(job)

    def stop(self) -> None:
        """All that have not ended are told that they never will."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            self._give_up(job, Refused(503, "the server was stopped"))

    def close(self) -> None:
        """Removes all results."""
        self._folder.cleanup()

    def archive(self, ids: Sequence[str], folders: Sequence[str] = ()) -> Iterator[bytes]:
        """A zip file of results, piece by piece. Raises Refused before the first piece where one is missing.

        folders: those that the results are in, for each of `ids`; missing ones are "".
        """
        pairs = zip_longest(ids, folders[: len(ids)], fillvalue="")
        return _zipped([(self.finished(id), folder) for id, folder in pairs])

    def _end(self, job: Job, future: Future[Output]) -> None:
        output, error = None, None
        try:
            output = job.keep(future.result())
        except CancelledError:
            error = Refused(CANCELLED, "cancelled")
        except Refused as refused:
            error = refused
        except OSError:
            error = Refused(507, "the server has no space left for the result")
        with self._lock:
            job.error = job.error or error
            if job.error is None:
                job.output, job.watch.stage = output, "done"
            else:
                job.watch.stage = "cancelled" if job.error.status_code == CANCELLED else "failed"
                job.bytes = job.mask_bytes = 0
            job.future, job.watch.share, job.ended = None, 1.0, time.monotonic()
        if job.error is not None:
            job.discard()


class _Pieces(RawIOBase):
    """What a zip file writes, until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """All that was written since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _zipped(jobs: Sequence[tuple[Job, str]]) -> Iterator[bytes]:
    pieces, used = _Pieces(), set[str]()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for job, folder in jobs:
            assert job.output is not None
            path, number = folder_name(folder) / job.output.name, 1
            name = str(path)
            while name.casefold() in used:
                number += 1
                name = str(path.with_name(f"{path.stem}~{number}{path.suffix}"))
            used.add(name.casefold())
            about = zipfile.ZipInfo(name, time.localtime()[:6])
            with job.path.open("rb") as source, archive.open(about, "w", force_zip64=True) as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    yield pieces.take()
    yield pieces.take()
