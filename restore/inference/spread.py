"""A folder over several devices: a process for each, work handed out by size; a process that dies loses nothing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType

from restore.errors import RestoreError
from restore.inference.batch import PATIENCE, Outcome, Writing
from restore.inference.job import Job
from restore.inference.spread_worker import Preparing, interrupts_held, work
from restore.placing import sweep

logger = logging.getLogger("restore")

DEATHS = 10  # of processes in a row, with no outcome between them, after which there is no use in going on


@dataclass(eq=False)
class _Worker:
    """A process, and the jobs given to it that it has not told of yet; alone: its one job may have killed another."""

    device: str
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    alone: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)


class Spread:
    """A process for each of `devices`, each with the threads of a `Pipeline`; cores are shared out evenly.

    preparing: must be importable where a new process can find it. Entering the `with` block waits until every
    process is ready, and raises what `preparing` raises there, before anything is written. about: devices in words.
    """

    def __init__(self, devices: Sequence[str], preparing: Preparing, writing: Writing, workers: int = 2) -> None:
        self._devices, self._preparing, self._writing = list(devices), preparing, writing
        self._threads = max(1, -(-workers // len(devices)))
        self._workers: list[_Worker] = []
        self._waiting: dict[int, Job] = {}
        self._suspects: dict[int, Job] = {}  # in the hands of a process when it died; to be done again
        self._killed: Counter[int] = Counter()  # how many processes died that had only this job
        self._deaths = 0
        self.about: list[str] = []

    def __enter__(self) -> Spread:
        try:
            for device in self._devices:
                self._start(device)
            for worker in self._workers:
                try:
                    self._greet(worker, worker.connection.recv())
                except EOFError:
                    raise RestoreError(f"{worker.device}: the process for it died while it began") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """The outcomes of `jobs` as they come, the largest files begun first.

        A job whose process dies is done again, alone; if two processes die that had nothing else to do, it
        has failed.
        With `fail_fast` nothing is handed out after the first failure.
        """
        self._waiting = dict(enumerate(sorted(jobs, key=_size)))  # handed out from its end
        self._suspects, self._killed = {}, Counter()
        while self._waiting or self._suspects or any(worker.jobs for worker in self._workers):
            for outcome in self._round():
                if outcome.error is not None and fail_fast:
                    self._waiting, self._suspects = {}, {}
                yield outcome
            if self._deaths >= DEATHS or not self._workers:
                given_up = [*self._waiting.values(), *self._suspects.values()]
                self._waiting, self._suspects = {}, {}
                for job in given_up:
                    yield Outcome(job, error=f"not tried: {self._deaths} processes in a row died or could not begin")

    def close(self) -> None:
        """Ends all processes; what they have not written by then is not written, and no temporary is left."""
        for worker in self._workers:
            if not worker.ready:
                worker.process.kill()
            worker.connection.close()  # which it notices
        until = time.monotonic() + PATIENCE + 0.5
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join(1)
            _sweep_after(worker)
        self._workers = []

    def _round(self) -> Iterator[Outcome]:
        """Hands out what there is to do, and waits for the next messages."""
        for worker in self._workers:
            self._hand_out(worker)
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=0.5):  # Windows: Ctrl-C does not break into a longer one
            worker = by_connection[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            if isinstance(message, tuple):
                index, outcome = message
                self._deaths, worker.alone = 0, False
                worker.jobs.pop(index)
                yield outcome
                continue
            try:
                self._greet(worker, message)
            except RestoreError as error:  # of one that was to replace a dead one
                logger.warning("%s: goes on without it: %s", worker.device, error)
                self._workers.remove(worker)

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker what keeps its threads busy; to the suspects it turns when it is idle."""
        while worker.ready and not worker.alone and len(worker.jobs) < self._threads + 2:
            if self._suspects and worker.jobs:
                return
            worker.alone = bool(self._suspects)
            source = self._suspects or self._waiting
            if not source:
                return
            index, job = source.popitem()
            worker.jobs[index] = job
            try:
                # What died may have written the file and not said so: then it is written again.
                worker.connection.send((index, job, worker.alone))
            except OSError:  # dead: the next `recv` notices
                return

    def _bury(self, worker: _Worker) -> Iterator[Outcome]:
        """After a death: suspects its jobs, or gives them up, and puts another in its place."""
        self._deaths += 1
        worker.process.join(1)
        worker.connection.close()
        self._workers.remove(worker)
        _sweep_after(worker)
        died = f"the process that restored it died (exit code {worker.process.exitcode})"
        for index, job in worker.jobs.items():
            self._killed[index] += len(worker.jobs) == 1
            if self._killed[index] > 1:
                yield Outcome(job, error=f"{died}, and so did another before")
            else:
                self._suspects[index] = job
        if (self._waiting or self._suspects) and self._deaths < DEATHS:
            logger.warning("%s: %s; another takes its place", worker.device, died.replace(" that restored it", ""))
            self._start(worker.device)

    def _start(self, device: str) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork, and threads neither
        ours, theirs = context.Pipe()
        count = len(self._devices)
        arguments = (theirs, self._preparing, device, self._writing, self._threads, count)
        process = context.Process(target=work, args=arguments, daemon=True)
        with interrupts_held():
            process.start()
            self._workers.append(_Worker(device, process, ours))
        theirs.close()  # or its end would go unnoticed

    def _greet(self, worker: _Worker, message: str | RestoreError) -> None:
        if isinstance(message, RestoreError):
            raise message
        worker.ready = True
        self.about.append(message)


def _sweep_after(worker: _Worker) -> None:
    sweep(path.parent for job in worker.jobs.values() for path in job.written)


def _size(job: Job) -> int:
    try:
        return os.stat(job.input).st_size if job.input is not None else 0
    except (OSError, ValueError):
        return 0
