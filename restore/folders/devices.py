"""Files restored on several devices: a process each; one that is lost loses no file."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from restore.errors import RestoreError
from restore.folders.compute_queue import Processor
from restore.folders.limits import MemoryLimiter, default_memory_limit, file_size
from restore.folders.pipeline import Outcome, Pipeline, Runner, WriteOptions
from restore.folders.plan import Job
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
    """The process of a device, what it is doing, and the tasks that it has not finished, by number.

    call: preparing until it is `ready`, then `_exchange`; None while it has nothing to do.
    """

    device: str
    executor: ProcessPoolExecutor
    process: BaseProcess
    call: Future | None
    ready: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)


class DevicePool(Runner):
    """Restores files with a process for each device, each with the threads of a `Pipeline`.

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
                assert worker.call is not None
                while not wait([worker.call], timeout=0.5).done:
                    pass  # in steps: on Windows Ctrl-C does not interrupt a longer wait
                try:
                    self.descriptions.append(worker.call.result())
                except BrokenProcessPool:
                    raise RestoreError(f"{worker.device}: the process for it died while it began") from None
                worker.ready, worker.call = True, None
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
        self._suspects = []
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
            if worker.ready and worker.call is None:
                self._hand_out(worker)
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        for call in wait(calls, timeout=0.5, return_when=FIRST_COMPLETED).done:  # in steps, for Ctrl-C on Windows
            worker = calls[call]
            worker.call = None
            try:
                result = call.result()
            except BrokenProcessPool:
                yield from self._replace(worker)
            except Exception as error:
                if worker.ready:
                    raise
                # It was to replace a lost one.
                logger.warning("%s: goes on without it: %s", worker.device, error)
                self._workers.remove(worker)
                worker.process.kill()
                _clean_up(worker)
            else:
                if worker.ready:
                    self._losses = 0
                    for number, outcome in result:
                        del worker.tasks[number]
                        yield outcome
                worker.ready = True

    def _hand_out(self, worker: _Worker) -> None:
        """Gives an idle or returning worker new tasks; a suspect only alone."""
        suspected, new = bool(self._suspects), list[_Task]()
        if not suspected:
            count = self._threads + 1 + _QUEUED - len(worker.tasks)
            new = [self._waiting.pop() for _ in range(min(count, len(self._waiting)))]
        elif not worker.tasks:
            new = [self._suspects.pop()]
        worker.tasks.update((id(task), task) for task in new)
        if worker.tasks:
            # A lost process may have written the file of a suspect: that one is replaced.
            jobs = [(id(task), task.job, suspected) for task in new]
            try:
                worker.call = worker.executor.submit(_exchange, jobs)
            except BrokenProcessPool as error:  # died while it was idle
                worker.call = Future()
                worker.call.set_exception(error)

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
        # Spawned: neither CUDA nor threads survive a fork.
        executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_initialize)
        before = set(multiprocessing.active_children())
        arguments = (self._prepare, device, self._options, self._threads, len(self._devices), self._memory)
        with _interrupts_blocked():
            call = executor.submit(_build, *arguments)
            (process,) = set(multiprocessing.active_children()) - before
            self._workers.append(_Worker(device, executor, process, call))


# In the process of a device.

_pipeline: Pipeline
_running: dict[Future[Outcome | None], int] = {}


def _initialize() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    discard_unfinished()
    os._exit(1)


def _build(prepare: Prepare, device: str, options: WriteOptions, threads: int, processes: int, memory: int) -> str:
    """Prepares the device; returns its description. Not an initializer: what that raises is not passed on."""
    global _pipeline
    prepared = prepare(device, processes)
    limiter = MemoryLimiter(memory)
    _pipeline = Pipeline(prepared.processor, options, threads, scale=prepared.scale, memory=limiter)
    return prepared.description


def _exchange(jobs: list[tuple[int, Job, bool]]) -> list[tuple[int, Outcome]]:
    """Begins (number, job, overwrite) and waits for the next outcomes of those begun by now."""
    for number, job, overwrite in jobs:
        _running[_pipeline.submit(job, overwrite=overwrite)] = number
    finished = wait(_running, return_when=FIRST_COMPLETED).done
    outcomes = [(_running.pop(future), future.result()) for future in finished]
    return [(number, outcome) for number, outcome in outcomes if outcome is not None]


def _clean_up(worker: _Worker) -> None:
    # Not `join`: the executor's own thread does that. Until the process is gone its temporary files are not stale.
    ended = connection.wait([worker.process.sentinel], timeout=1)
    worker.executor.shutdown(wait=bool(ended), cancel_futures=True)
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
