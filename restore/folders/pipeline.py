"""From file to file: decoding, computing and encoding overlap, and one bad file never stops the others."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from restore.errors import ImageError, RestoreError, UsageError
from restore.folders.compute_queue import ComputeQueue, Processor
from restore.folders.limits import DiskSpace, MemoryLimiter, default_memory_limit, estimate_memory
from restore.folders.masks import encode_hints, encode_mask, read_hints, read_mask
from restore.folders.plan import Job
from restore.images import SUFFIXES, Image, encode_image, read_image, writable_suffix
from restore.images.failures import printable, reason
from restore.inference.restored import Restored
from restore.utils.atomic_write import discard_unfinished, write_atomic

logger = logging.getLogger("restore")

COMMIT_TIMEOUT = 1.5  # seconds that a stopped run waits for files that are being written

Status = Literal["restored", "copied", "examined", "skipped", "failed"]


@dataclass(frozen=True)
class WriteOptions:
    """How pictures are written.

    Attributes:
        overwrite: replace outputs that exist.
        skip_existing: leave outputs that exist, and do not restore their inputs.
        quality: 1 to 100, of lossy formats; None: as the input.
        metadata: write EXIF and XMP.
        extension: the format (`.png`) of what goes to stdout; None: the input's.
        dry_run: write no picture; masks that are to be saved are written all the same.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    metadata: bool = True
    extension: str | None = None
    dry_run: bool = False

    @property
    def may_copy(self) -> bool:
        """Whether the file of a picture in which nothing changed can be copied as it is."""
        return self.quality is None and self.metadata


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        status: restored; copied (there was nothing to restore); examined (in a dry run); skipped (its output
            exists); or failed.
        output: the file that was written, or found; None is stdout, or none.
        size: (width, height) of the output.
        seconds: time of computing; decoding and encoding are not counted.
        error: why it failed.
        message: what was found in the picture, for people.
        note: how the file differs from what was asked for.
        mask_share: part of the pixels that is restored, 0 to 1; None where there is no mask.
        change: root mean square difference to the input, 0-255 scale; None for pictures of another size.
    """

    job: Job
    status: Status = "restored"
    output: Path | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    error: str | None = None
    message: str | None = None
    note: str | None = None
    mask_share: float | None = None
    change: float | None = None

    @staticmethod
    def failed(job: Job, error: str) -> Outcome:
        """A failure with its reason, which does not name the input."""
        return Outcome(job, "failed", error=error)


class Runner(Protocol):
    """Does jobs, as `Pipeline` and `DevicePool` do. `run` may be called again until the `with` block is left."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """Yields the outcomes of `jobs`; with `fail_fast` nothing is begun after the first failure."""
        ...


class Pipeline:
    """Restores files in several threads: while one picture is computed others are decoded and encoded.

    Every result depends on its own input alone, not on the number of threads, timing, or other files.

    Args:
        processor: what restores the pictures; it is called in one thread only.
        options: how outputs are written.
        workers: number of threads that decode and encode, beside the one whose picture is computed.
        scale: factor by which the outputs' sides are longer, for the estimate of memory.
        memory: bound of the bytes in flight; None: `default_memory_limit`.
    """

    def __init__(
        self,
        processor: Processor,
        options: WriteOptions,
        workers: int = 2,
        *,
        scale: int = 1,
        memory: MemoryLimiter | None = None,
    ) -> None:
        self._options, self._scale = options, scale
        self._width = max(1, workers) + 1
        self._threads = ThreadPoolExecutor(self._width, thread_name_prefix="files")
        self._queue = ComputeQueue(processor)
        self._memory = memory or MemoryLimiter(default_memory_limit(workers))
        self._disk, self._gate = DiskSpace(), CommitGate()
        self._stopped = False

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """Yields the outcomes of `jobs`, in their order.

        Args:
            jobs: what to do.
            fail_fast: begin nothing after the first failure; files that are being encoded are still written.

        Raises:
            BrokenPipeError: the reader of stdout is gone. Whatever is wrong with a file is in its outcome.
        """
        pending: deque[Future[Outcome | None]] = deque()
        source = iter(jobs)
        more = True
        while more or pending:
            while more and not self._stopped and len(pending) < 2 * self._width:
                job = next(source, None)
                if more := job is not None:
                    pending.append(self.submit(job))
            if not pending:
                return
            while not wait([pending[0]], timeout=0.5).done:
                pass  # in steps: on Windows Ctrl-C does not interrupt a longer wait
            outcome = pending.popleft().result()
            if outcome is None:
                continue
            if outcome.error is not None and fail_fast:
                self._stopped, more = True, False
                self._queue.stop()
            yield outcome

    def submit(self, job: Job, *, overwrite: bool = False) -> Future[Outcome | None]:
        """Begins a job.

        Args:
            job: what to do.
            overwrite: replace the output even if the options do not say so.

        Returns:
            The outcome; None if the pipeline was stopped before anything was written.
        """
        return self._threads.submit(self._process, job, overwrite or self._options.overwrite)

    def close(self) -> None:
        """Stops: no file is written any more and no temporary file is left. Does not wait for computations."""
        self._stopped = True
        if not self._gate.close(COMMIT_TIMEOUT):
            discard_unfinished()
        self._memory.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._queue.stop()

    def _process(self, job: Job, overwrite: bool) -> Outcome | None:
        try:
            if self._stopped:
                return None
            if (done := self._done_before(job, job.output, overwrite)) is not None:
                return done
            if job.error:
                return Outcome.failed(job, job.error)
            with self._memory.reserve(estimate_memory(job.input, self._scale) + estimate_memory(job.mask, 0)):
                return None if self._stopped else self._restore(job, overwrite)
        except (BrokenPipeError, CancelledError):  # not faults of the picture
            if self._stopped:
                return None
            raise
        except (RestoreError, OSError, MemoryError) as error:
            return Outcome.failed(job, _describe(job, error))
        except Exception as error:  # a bug, here or in a library, which shall not cost the other pictures
            logger.debug("%s", job.input, exc_info=True)
            return Outcome.failed(job, f"unexpected {type(error).__name__}: {reason(error)}")

    def _restore(self, job: Job, overwrite: bool) -> Outcome | None:
        options, before = self._options, _file_state(job.input)
        # stdin and pipes can be read only once.
        source = job.input if job.input is not None and before is not None else _read_all(job.input)
        image = read_image(source, name=printable(job.input or "stdin"))
        output, _, _ = _target(job, image, options)
        if output != job.output and (done := self._done_before(job, output, overwrite)) is not None:
            return done
        read, encode = (read_hints, encode_hints) if job.hints else (read_mask, encode_mask)
        if job.mask is not None and job.mask == job.input and (image.alpha is None or image.alpha.all()):
            raise UsageError("is no mask of itself: nothing of it is transparent; give another --mask")
        mask = None if job.mask is None else read(job.mask)
        # Before computing: hours must not be spent on what cannot be written.
        for path in (None if options.dry_run else job.output, job.save_mask):
            if path is not None:
                _make_folder(path.parent)
        seconds, restored = self._queue.compute(image, mask)
        del image, mask
        output, kind, note = _target(job, restored.image, options)
        status: Status = "examined" if options.dry_run else "restored"
        data = b""
        if not options.dry_run and restored.nothing and kind == restored.image.format and options.may_copy:
            status, data = "copied", source if isinstance(source, bytes) else source.read_bytes()
        elif not options.dry_run:
            data = encode_image(restored.image, kind, quality=options.quality, metadata=options.metadata)
        mask_data = b"" if job.save_mask is None else encode(restored.mask, restored.image.size)
        with self._gate.committing() as allowed:
            if not allowed:
                return None
            if _file_state(job.input) != before:
                raise ImageError("changed or vanished while it was being restored; run again with --skip-existing")
            if job.save_mask is not None:  # first: an output says that its job is complete
                self._write(job, mask_data, job.save_mask, overwrite)
            if not options.dry_run:
                if output is None:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                elif not self._write(job, data, output, overwrite):
                    return Outcome(job, "skipped", output)
        return Outcome(
            job,
            status,
            None if options.dry_run else output,
            restored.image.size,
            seconds,
            message=_message(restored, status),
            note=None if options.dry_run else note,
            mask_share=None if job.hints else _mask_share(restored),
            change=restored.change,
        )

    def _done_before(self, job: Job, output: Path | None, overwrite: bool) -> Outcome | None:
        """The outcome of a job that need not be begun: what it writes exists, or will not fit on the disk.

        output: of the picture. Raises OSError where a name is too long.
        """
        dry, skip = self._options.dry_run, self._options.skip_existing
        for path in (None if dry else output, job.save_mask):
            if path is not None and (refusal := self._disk.refusal(job.input, path.parent)):
                return Outcome.failed(job, refusal)
        if overwrite:
            return None
        # With --skip-existing a dry run skips what a real one would; an existing mask does not keep a picture from
        # being restored.
        if (skip or not dry) and (done := self._exists(job, output)):
            return done
        return self._exists(job, job.save_mask) if dry or not skip else None

    def _exists(self, job: Job, path: Path | None) -> Outcome | None:
        if path is None or (found := _lstat(path)) is None:
            return None
        if self._options.skip_existing:
            return None if _is_empty(found) else Outcome(job, "skipped", path)
        return Outcome.failed(job, f"{printable(path)}: exists already; --skip-existing leaves it")

    def _write(self, job: Job, data: bytes, path: Path, overwrite: bool) -> bool:
        """Writes a file; False if it exists and is left. Raises OSError that names `path`."""
        skip = self._options.skip_existing
        try:
            # With --skip-existing an empty file is what a power cut left, not a picture.
            found = _lstat(path) if skip else None
            if overwrite and job.input is not None and _is_same(path, job.input):  # by a link made meanwhile
                raise ImageError(f"{printable(path)}: has become the input; nothing is written over an input")
            write_atomic(data, path, overwrite=overwrite or (found is not None and _is_empty(found)))
        except FileExistsError:
            if skip:  # another run was faster
                return False
            raise
        except OSError as error:
            self._disk.write_failed(error, job.input, len(data))
            error.filename, error.filename2 = str(path), None  # not the temporary file
            raise
        return True


class CommitGate:
    """Lets threads write files until it is closed, so that a run that is stopped leaves nothing half done."""

    def __init__(self) -> None:
        self._inside, self._closed, self._changed = 0, False, threading.Condition()

    @contextmanager
    def committing(self) -> Iterator[bool]:
        """Whether files may be written; if so, `close` waits until the block is left."""
        with self._changed:
            allowed = not self._closed
            self._inside += allowed
        try:
            yield allowed
        finally:
            with self._changed:
                self._inside -= allowed
                self._changed.notify_all()

    def close(self, timeout: float) -> bool:
        """Lets no more threads in and waits for those inside; False if some remain after `timeout` seconds."""
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout)


def _target(job: Job, image: Image, options: WriteOptions) -> tuple[Path | None, str, str | None]:
    """Where `image` is written, in which format, and a note if that is not the one asked for."""
    if job.output is not None:
        wanted = job.output.suffix
    else:
        wanted = options.extension or next(suffix for suffix, kind in SUFFIXES.items() if kind == image.format)
    suffix, note = writable_suffix(image, wanted)
    note = "; ".join(filter(None, (note, *image.notes))) or None
    output = job.output if job.output is None or suffix == wanted else job.output_as(suffix)
    return output, SUFFIXES[suffix.lower()], note


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _message(restored: Restored, status: Status) -> str | None:
    if restored.nothing:
        return f"{restored.note or 'nothing found'}{', copied' if status == 'copied' else ''}"
    if status != "examined":
        return restored.note or None
    share = _mask_share(restored)
    percent = "all" if share is None else "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
    return f"{percent} of it would be restored{f'; {restored.note}' if restored.note else ''}"


def _mask_share(restored: Restored) -> float | None:
    return None if restored.mask is None else float(restored.mask.mean())


def _describe(job: Job, error: Exception) -> str:
    """One line without the name of the input, beside which it is shown."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else job.output
        where = "" if name is None or name == str(job.input) else f"{printable(name)}: "
        return f"{where}{reason(error)}"
    text = " ".join(str(error).split()) or reason(error)
    return text.removeprefix(f"{printable(job.input or 'stdin')}: ")


def _read_all(path: Path | None) -> bytes:
    return sys.stdin.buffer.read() if path is None else path.read_bytes()


def _file_state(path: Path | None) -> tuple[int, ...] | None:
    """What changes when a regular file does; None if it does not exist, or is no regular file."""
    try:
        about = os.stat(path) if path is not None else None
    except (OSError, ValueError):
        return None
    if about is None or not stat.S_ISREG(about.st_mode):
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{printable(folder)}: no permission to write there; choose another folder")


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_empty(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
