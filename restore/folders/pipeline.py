"""From file to file: decoding, computing and encoding overlap, and one bad file never stops the others."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from restore.errors import ImageError, RestoreError, UsageError
from restore.folders.compute_queue import ComputeQueue
from restore.folders.limits import DiskSpace, MemoryLimiter, default_memory_limit, estimate_memory, give_back_memory
from restore.folders.masks import encode_hints, encode_mask, read_hints, read_mask
from restore.folders.plan import Job
from restore.images import (
    FORMATS,
    SUFFIXES,
    Image,
    encode_image,
    open_tiff,
    read_image,
    rows_note,
    writable_suffix,
    write_rows,
)
from restore.images.failures import printable, reason
from restore.images.reading import one_line
from restore.images.tiff import TiffReader, append_page
from restore.inference.restored import Processor, Restored, StepResult, Stream, percent
from restore.utils.atomic_write import atomic_file, discard_unfinished

logger = logging.getLogger("restore")

STREAMED_PIXELS = 100_000_000  # from which on a TIFF is restored a few rows at a time
COMMIT_TIMEOUT = 1.5  # seconds that a stopped run waits for files that are being written

Status = Literal["restored", "copied", "examined", "skipped", "failed", "not taken"]


@dataclass(frozen=True)
class WriteOptions:
    """How pictures are written."""

    overwrite: bool = False  # replace outputs that exist
    skip_existing: bool = False  # leave outputs that exist, and do not restore their inputs
    quality: int | None = None  # 1 to 100, of lossy formats; None: as the input
    metadata: bool = True  # write EXIF and XMP
    extension: str | None = None  # the format (`.png`) of what goes to stdout; None: the input's
    dry_run: bool = False  # write no picture; masks that are to be saved are written all the same
    salvage: bool = False  # take what can be decoded of a truncated JPEG
    done: str = "restored"  # the verb of what is done to a picture, for people

    @property
    def may_copy(self) -> bool:
        """Whether the file of a picture in which nothing changed can be copied as it is."""
        return self.quality is None and self.metadata and not self.salvage


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    # Restored; copied (there was nothing to restore); examined (in a dry run); skipped (its output exists); failed; or
    # not taken (a picture of a format that is not read)
    status: Status = "restored"
    output: Path | None = None  # the file that was written, or found; None is stdout, or none
    size: tuple[int, int] | None = None  # (width, height) of the output
    seconds: float = 0.0  # time of computing; decoding and encoding are not counted
    error: str | None = None  # why it failed
    message: str | None = None  # what was found in the picture, for people
    note: str | None = None  # how the file differs from what was asked for
    mask_share: float | None = None  # part of the pixels that is restored, 0 to 1; None where there is no mask
    # Root mean square difference to the input, 0-255 scale; None for pictures of another size
    change: float | None = None
    steps: tuple[StepResult, ...] = ()  # what each of several tasks did

    @staticmethod
    def failed(job: Job, error: str) -> Outcome:
        """A failure with its reason, which does not name the input."""
        return Outcome(job, "failed", error=error)


class Runner(AbstractContextManager["Runner"]):
    """Does jobs. `run` may be called again until the `with` block is left, which calls `close`."""

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """Yields the outcomes of `jobs`; with `fail_fast` nothing is begun after the first failure."""

    @abstractmethod
    def close(self) -> None:
        """Stops: no file is written any more and no temporary file is left."""


class FilePipeline(Runner):
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
        self._processor, self._options, self._scale = processor, options, scale
        self._width = max(1, workers) + 1
        self._threads = ThreadPoolExecutor(self._width, thread_name_prefix="files")
        self._queue = ComputeQueue(processor)
        self._memory = memory or MemoryLimiter(default_memory_limit(workers))
        self._disk, self._gate = DiskSpace(), CommitGate()
        self._stopped = False

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """Yields the outcomes of `jobs`, in their order; what is being encoded is still written with `fail_fast`.

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
        """Begins a job; its outcome is None if the pipeline was stopped before anything was written.

        overwrite: replace the output even if the options do not say so.
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
        outcome = self._attempt(job, overwrite)
        if outcome is not None and outcome.error is not None:
            give_back_memory()  # each thread would keep as much as the worst of its files took
        return outcome

    def _attempt(self, job: Job, overwrite: bool) -> Outcome | None:
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
        with ExitStack() as files:
            if (rows := self._by_rows(job, files)) is not None:
                return self._restore_rows(job, *rows, overwrite)
        # stdin and pipes can be read only once.
        source: Path | bytes
        if job.input is None:
            source = sys.stdin.buffer.read()
        else:
            source = job.input if before is not None else job.input.read_bytes()
        image = read_image(source, name=printable(job.input or "stdin"), page=0, salvage=options.salvage)
        output, kind, _ = _target(job, image, options)
        if (pages := image.pages) > 1:
            _check_pages(job, pages, kind, options)
            source = source if isinstance(source, bytes) else source.read_bytes()
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
        share = None if restored.mask is None else float(restored.mask.mean())
        data, nothing, message = b"", restored.nothing, describe_result(restored, status, share, options.done)
        copied = not options.dry_run and kind == restored.image.format and options.may_copy
        if not options.dry_run and not (copied and nothing and pages == 1):
            data = encode_image(restored.image, kind, quality=options.quality, metadata=options.metadata)
        if pages > 1:
            assert isinstance(source, bytes)
            data, further, more = self._further_pages(source, pages, data, status)
            nothing, message, seconds = nothing and not further, f"{pages} pages", seconds + more
        if copied and nothing:
            status, data = "copied", source if isinstance(source, bytes) else source.read_bytes()
            message = describe_result(restored, status, share)
        mask_data = b"" if job.save_mask is None else encode(restored.mask, restored.image.size)
        with self._gate.committing() as allowed:
            if not allowed:
                return None
            _refuse_changed(job.input, before)
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
            message=message,
            note=None if options.dry_run else note,
            mask_share=None if job.hints else share,
            change=restored.change,
            steps=restored.steps,
        )

    def _further_pages(self, source: bytes, pages: int, data: bytes, status: Status) -> tuple[bytes, bool, float]:
        """Restores the pages of a TIFF file after its first, one at a time.

        Returns the file `data` with these pages (without in a dry run), whether any was restored, and the seconds.
        """
        out, changed, seconds = BytesIO(data), False, 0.0
        for number in range(1, pages):
            page = read_image(source, name=f"page {number + 1}", page=number)
            took, restored = self._queue.compute(page, None)
            seconds, changed = seconds + took, changed or not restored.nothing
            if status != "examined":
                append_page(out, restored.image, metadata=self._options.metadata)
        return out.getvalue(), changed, seconds

    def _by_rows(self, job: Job, files: ExitStack) -> tuple[Path, TiffReader, Stream] | None:
        """The input, open in `files`, and its restored rows, where it is a TIFF too large to be held as a whole."""
        stream_of, masked = getattr(self._processor, "stream", None), job.mask is not None or job.save_mask is not None
        if stream_of is None or masked or self._options.dry_run or job.output is None:
            return None
        # A pipe, which has no state, can be read only once.
        if SUFFIXES[job.output.suffix.lower()] != "tiff" or job.input is None or _file_state(job.input) is None:
            return None
        try:
            reader = files.enter_context(open_tiff(job.input))
        except OSError:  # reading it as a whole will report the reason
            return None
        if reader is None or not reader.fits_rows(STREAMED_PIXELS):
            return None
        stream = stream_of(reader.size, partial(_rows, job.input, reader))
        return None if stream is None else (job.input, reader, stream)

    def _restore_rows(
        self, job: Job, source: Path, reader: TiffReader, stream: Stream, overwrite: bool
    ) -> Outcome | None:
        assert job.output is not None
        (height, width), before, start = reader.size, _file_state(source), time.perf_counter()
        first = reader.image(*reader.pixels(0, 1))

        def parts() -> Iterator[np.ndarray]:
            top = 0
            for part in stream.parts:
                if self._stopped:
                    raise CancelledError
                rows = top, top + len(part)
                top += len(part)
                if first.alpha is not None:
                    part = np.concatenate([part, _rows(source, reader, *rows, alpha=True)[..., None]], axis=2)
                yield part
            _refuse_changed(source, before)

        write = partial(write_rows, first, parts(), height, metadata=self._options.metadata)
        _make_folder(job.output.parent)
        with self._gate.committing() as allowed:
            if not allowed:
                return None
            if not self._queue.run(partial(self._write, job, write, job.output, overwrite)):
                return Outcome(job, "skipped", job.output)
        change = stream.change.value()
        return Outcome(
            job,
            output=job.output,
            size=(width, height),
            seconds=time.perf_counter() - start,
            message=stream.describe(change) or None,
            note="; ".join(filter(None, (rows_note(first, height), *first.notes))) or None,
            change=change,
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

    def _write(self, job: Job, data: bytes | Callable[[BinaryIO], None], path: Path, overwrite: bool) -> bool:
        """Writes a file, or lets `data` write it; False if it exists and is left. Raises OSError that names `path`."""
        skip = self._options.skip_existing
        try:
            # With --skip-existing an empty file is what a power cut left, not a picture.
            found = _lstat(path) if skip else None
            replace = overwrite or (found is not None and _is_empty(found))
            sources = [source for source in (job.input, job.mask) if source is not None]
            with atomic_file(path, overwrite=replace, sources=sources) as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    data(file)
        except FileExistsError:
            if skip:  # another run was faster
                return False
            raise
        except OSError as error:
            self._disk.write_failed(error, job.input, len(data) if isinstance(data, bytes) else 0)
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


def _check_pages(job: Job, pages: int, kind: str, options: WriteOptions) -> None:
    """Raises ImageError where a file of several pages cannot be restored page by page."""
    if job.mask is not None or job.save_mask is not None:
        raise ImageError(f"has {pages} pages, and a mask is that of one; save the page you want as a file of its own")
    if kind != "tiff" and not options.dry_run:
        raise ImageError(f"has {pages} pages, which {FORMATS[kind].title} does not hold; write TIFF (--ext tif)")


def _rows(path: Path, reader: TiffReader, top: int, bottom: int, *, alpha: bool = False) -> np.ndarray:
    """Rows of a picture, (h,W,1 or 3), or of its alpha, (h,W). Raises ImageError."""
    with one_line(printable(path), "tiff"):
        found = reader.pixels(top, bottom)[alpha]
        assert found is not None
        return found


def _refuse_changed(path: Path | None, before: tuple[int, ...] | None) -> None:
    """Raises ImageError where a file is not what `_file_state` said of it before."""
    if _file_state(path) != before:
        raise ImageError("changed or vanished while it was being restored; run again with --skip-existing")


def describe_result(restored: Restored, status: Status, share: float | None, done: str = "restored") -> str | None:
    """What was `done`, for people. share: of the picture that is restored; None for tasks that change all of it."""
    if restored.nothing and restored.steps and status == "examined":
        return f"would be copied: {restored.note}"
    if restored.nothing:
        note = restored.note or "nothing found"
        return f"{note}{';' if ';' in note else ','} copied" if status == "copied" else note
    examined, note = status == "examined", restored.note
    if restored.steps:
        return f"would be restored: {note}" if examined else note
    if share is None and not examined:
        return note or None
    part = f"{'all' if share is None else percent(share)} of it {'would be ' if examined else ''}{done}"
    return f"{part}; {note}" if note else part


def _describe(job: Job, error: Exception) -> str:
    """One line without the name of the input, beside which it is shown."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else job.output
        where = "" if name is None or name == str(job.input) else f"{printable(name)}: "
        return f"{where}{reason(error)}"
    text = " ".join(str(error).split()) or reason(error)
    return text.removeprefix(f"{printable(job.input or 'stdin')}: ")


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
