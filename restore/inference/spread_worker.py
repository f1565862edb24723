"""What runs in each process of a `Spread`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock

from restore.errors import RestoreError
from restore.inference.batch import Outcome, Pipeline, Together, Transform, Writing
from restore.inference.bounds import Budget


@dataclass(frozen=True)
class Ready:
    """A device with its network. about: device and precision in words; scale: of the sides of what it restores.

    together: does what `transform` does, to several pictures at once; None: one by one.
    """

    transform: Transform
    about: str = ""
    scale: int = 1
    together: Together | None = None

    def pipeline(self, writing: Writing, workers: int, budget: Budget | None = None) -> Pipeline:
        """Threads that restore files with it."""
        return Pipeline(self.transform, writing, workers, scale=self.scale, budget=budget, together=self.together)


# (device, how many processes share this machine) -> Ready; called in the process that restores.
Preparing = Callable[[str, int], Ready]


def work(
    connection: Connection, preparing: Preparing, device: str, writing: Writing, threads: int, processes: int
) -> None:
    """Restores what comes through `connection` until that is closed; then ends at once, leaving no temporary.

    Says first what it is ready with, or why it is not; then (index, outcome) for each (index, job, overwrite).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides
    lock = Lock()

    def tell(message: object) -> None:
        with lock, suppress(OSError):  # the first process is gone: there is nobody to tell
            connection.send(message)

    try:
        ready = preparing(device, processes)
    except RestoreError as error:
        tell(error)
        return
    tell(ready.about)
    budget = Budget(Budget().limit // processes)
    pipeline = ready.pipeline(writing, threads, budget)
    with suppress(EOFError, OSError), pipeline:
        while True:
            index, job, overwrite = connection.recv()
            pipeline.submit(job, overwrite=overwrite).add_done_callback(_teller(tell, index))
    os._exit(0)  # threads may still compute what nobody waits for


def _teller(tell: Callable[[object], None], index: int) -> Callable[[Future[Outcome | None]], None]:
    def told(future: Future[Outcome | None]) -> None:
        if not future.cancelled() and (outcome := future.result()) is not None:
            tell((index, outcome))

    return told


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is left; processes started in it never see one, not even while they begin."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: then a beginner may print a traceback
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # would let signals through again if it were started in the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
