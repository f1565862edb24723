"""Files restored on several devices: a process each; one that is lost loses no file."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from restore.errors import RestoreError
from restore.folders.limits import MemoryLimiter, default_memory_limit, file_size
from restore.folders.pipeline import FilePipeline, Outcome, Runner, WriteOptions
from restore.folders.plan import Job
from restore.inference.restored import Processor
from restore.utils.atomic_write import discard_unfinished, remove_stale

logger = logging.getLogger("restore")

MAX_LOSSES = 10  # processes lost in a row, without an outcome between them, after which the rest is given up
_QUEUED = 2  # jobs that a process is given beyond those its threads work on


@dataclass(frozen=True)
class Prepared:
    """What restores pictures on one device, which `description` says for people; outputs are `scale` times as large."""

    processor: Processor
    description: str = ""
    scale: int = 1


# (device, number of processes that share this machine) -> what restores there; called in the process that does.
Prepare = Callable[[str, int], Prepared]


@dataclass(eq=False)
class _Task:
    """A job, and how many processes were lost that had no other job."""

    job: Job
    losses: int = 0


@dataclass(eq=False)
class _Worker:
    """The process of a device, the pipe to it, and the tasks that it has not finished, by number."""

    device: str
    process: BaseProcess
    pipe: Any  # a `multiprocessing.connection.Connection`, on Windows a `PipeConnection`
    ready: bool = False  # it has what it restores with
    alone: bool = False  # its task is a suspect, beside which it gets no other
    tasks: dict[int, _Task] = field(default_factory=dict)


class DevicePool(Runner):
    """Restores files with a process for each device, each with the threads of a `FilePipeline`.

    Entering the `with` block waits until all processes are ready, and raises what `prepare` raises in them.
    The processes share the cores of the machine and the memory for pictures in flight evenly.

    Args:
        devices: their names, as `prepare` takes them.
        prepare: builds what restores on a device; a new process must be able to import it.
        options: how outputs are written.
        workers: threads that decode and encode, of all processes together.
    """

    def __init__(self, devices: Sequence[str], prepare: Prepare, options: WriteOptions, workers: int = 2) -> None:
        self._devices, self._prepare, self._options = list(devices), prepare, options
        self._threads = max(1, -(-workers // len(devices)))
        self._memory = default_memory_limit(workers) // len(devices)
        self._workers: list[_Worker] = []
        self._waiting: list[_Task] = []  # the next one at the end
        self._suspects: list[_Task] = []  # were in the hands of a lost process, and are tried again one by one
        self._losses = 0
        self.descriptions: list[str] = []

    def __enter__(self) -> DevicePool:
        try:
            for device in self._devices:
                self._start(device)
            for worker in self._workers:
                while not worker.pipe.poll(0.5):
                    pass  # in steps: on Windows Ctrl-C does not interrupt a longer wait
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    raise RestoreError(f"{worker.device}: the process for it died while it began") from None
                if isinstance(answer, Exception):
                    raise answer
                self.descriptions.append(answer)
                worker.ready = True
        except BaseException:
            self.close()
            raise
        return self

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """Yields the outcomes of `jobs` as they come; the largest files are begun first.

        The jobs of a process that is lost are done again, one by one; one that is lost with two processes that had no
        other job has failed.
        """
        self._waiting = [_Task(job) for job in sorted(jobs, key=lambda job: file_size(job.input))]
        self._suspects, self._losses = [], 0
        if self._waiting:  # an earlier run may have lost processes in the end
            for device in (Counter(self._devices) - Counter(worker.device for worker in self._workers)).elements():
                self._start(device)
        while self._waiting or self._suspects or any(worker.tasks for worker in self._workers):
            for outcome in self._round():
                if outcome.error is not None and fail_fast:
                    self._waiting, self._suspects = [], []
                yield outcome
            if self._losses >= MAX_LOSSES or not self._workers:
                reason = f"not tried: {self._losses} processes in a row died or did not start"
                given_up = self._waiting + self._suspects
                self._waiting, self._suspects = [], []
                yield from (Outcome.failed(task.job, reason) for task in given_up)

    def close(self) -> None:
        """Ends all processes at once; what they have not written is not written, and no temporary file is left."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _clean_up(worker)
        self._workers = []

    def _round(self) -> Iterator[Outcome]:
        """Hands out tasks, and waits for the next outcomes."""
        for worker in self._workers:
            if worker.ready:
                self._hand_out(worker)
        workers = {worker.pipe: worker for worker in self._workers if worker.tasks or not worker.ready}
        for pipe in connection.wait(workers, timeout=0.5):  # in steps, for Ctrl-C on Windows
            worker = workers[pipe]
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._replace(worker)
                continue
            if worker.ready:
                number, outcome = answer
                if isinstance(outcome, BaseException):
                    raise outcome
                self._losses = 0
                del worker.tasks[number]
                yield outcome
            elif isinstance(answer, Exception):  # it was to replace a lost one
                logger.warning("%s: goes on without it: %s", worker.device, answer)
                self._workers.remove(worker)
                _clean_up(worker)
            else:
                worker.ready = True

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker new tasks; a suspect only alone."""
        if worker.alone and worker.tasks:
            return
        suspected, new = bool(self._suspects), list[_Task]()
        if not suspected:
            worker.alone = False
            count = self._threads + 1 + _QUEUED - len(worker.tasks)
            new = [self._waiting.pop() for _ in range(min(count, len(self._waiting)))]
        elif not worker.tasks:
            new = [self._suspects.pop()]
            worker.alone = True
        worker.tasks.update((id(task), task) for task in new)
        with suppress(OSError):  # it died, as reading from it will show
            for task in new:
                # A lost process may have written the file of a suspect: that one is replaced.
                worker.pipe.send((id(task), task.job, suspected))

    def _replace(self, worker: _Worker) -> Iterator[Outcome]:
        """After the loss of a process: its tasks become suspects or have failed, and another process is started."""
        self._losses += 1
        self._workers.remove(worker)
        _clean_up(worker)
        died = f"died (exit code {worker.process.exitcode})"
        for task in worker.tasks.values():
            task.losses += len(worker.tasks) == 1
            if task.losses > 1:
                yield Outcome.failed(task.job, f"the process that restored it {died}, and so did another before")
            else:
                self._suspects.append(task)
        if (self._waiting or self._suspects) and self._losses < MAX_LOSSES:
            logger.warning("%s: the process %s; another takes its place", worker.device, died)
            self._start(worker.device)

    def _start(self, device: str) -> None:
        context = multiprocessing.get_context("spawn")  # neither CUDA nor threads survive a fork
        ours, theirs = context.Pipe()
        arguments = (theirs, self._prepare, device, self._options, self._threads, len(self._devices), self._memory)
        process = context.Process(target=_work, args=arguments)
        with theirs, _interrupts_blocked():
            process.start()
            self._workers.append(_Worker(device, process, ours))


def _work(
    pipe: Any, prepare: Prepare, device: str, options: WriteOptions, threads: int, processes: int, memory: int
) -> None:
    """In the process of a device: prepares it, sends its description or an error, and then the outcomes of jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides
    sending = threading.Lock()

    def send(number: int, done: Future[Outcome | None]) -> None:
        with sending:
            pipe.send((number, done.exception() or done.result()))

    with suppress(EOFError, OSError):  # the first process is gone
        try:
            prepared = prepare(device, processes)
        except Exception as error:
            pipe.send(error)
            return
        limiter = MemoryLimiter(memory)
        pipeline = FilePipeline(prepared.processor, options, threads, scale=prepared.scale, memory=limiter)
        pipe.send(prepared.description)
        while True:
            number, job, overwrite = pipe.recv()
            pipeline.submit(job, overwrite=overwrite).add_done_callback(partial(send, number))
    discard_unfinished()
    os._exit(1)


def _clean_up(worker: _Worker) -> None:
    worker.process.join(1)  # until it is gone its temporary files are not stale
    worker.process.kill()
    worker.pipe.close()
    remove_stale(path.parent for task in worker.tasks.values() for path in task.job.outputs)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delays Ctrl-C until the block is left; processes started in it never see one, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: a process that is starting may print a traceback
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it within the block would unblock signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
