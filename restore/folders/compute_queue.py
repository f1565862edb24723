"""The one thread that computes, for all threads that decode and encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock, Semaphore
from typing import TypeVar

import numpy as np

from restore.images import Image
from restore.inference.restored import MaskedImage, Pending, Processor, Restored

BATCHES_IN_FLIGHT = 3  # one on its way to the GPU, one that is computed, one on its way back

ResultT = TypeVar("ResultT")


class PerPicture:
    """Makes a `Processor` of a function that processes one picture after the other.

    Args:
        function: maps an image and its mask, (H,W) bool or None, to the result.
    """

    def __init__(self, function: Callable[[Image, np.ndarray | None], Restored]) -> None:
        self._function = function

    def batch_size(self, image: Image) -> int:
        """Always 1."""
        return 1

    def enqueue(self, pictures: Sequence[MaskedImage]) -> list[Future[Restored]]:
        """Processes `pictures` before it returns."""
        results: list[Future[Restored]] = []
        for image, mask in pictures:
            result: Future[Restored] = Future()
            try:
                result.set_result(self._function(image, mask))
            except Exception as error:  # raised to the thread that asks for this result
                result.set_exception(error)
            results.append(result)
        return results


@dataclass(eq=False)
class _Batch:
    """Pictures that were enqueued together: when (time.perf_counter()), how many, and whether one is finished."""

    start: float
    size: int
    finished: bool = False


@dataclass(eq=False)
class _Request:
    image: Image
    mask: np.ndarray | None
    enqueued: Future[tuple[_Batch, Pending]] = field(default_factory=Future)

    def fits(self, other: _Request) -> bool:
        """Whether both can be in one batch."""
        one, two = self.image.pixels, other.image.pixels
        return one.shape == two.shape and one.dtype == two.dtype


class ComputeQueue:
    """Passes pictures to `processor` in the order in which they come, always in the same thread.

    Pictures of one shape that wait at that moment are passed together, as many as `processor.batch_size` says.
    The queue never waits for more of them, but keeps only `BATCHES_IN_FLIGHT` on the device: meanwhile others gather.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._slots = Semaphore(BATCHES_IN_FLIGHT)
        self._lock = Lock()
        self._waiting: list[_Request] = []
        self._stopped = False

    def compute(self, image: Image, mask: np.ndarray | None) -> tuple[float, Restored]:
        """Waits for the result of one picture.

        Returns:
            The seconds from the start of its batch to its result, divided by the pictures of the batch; and the result.

        Raises:
            CancelledError: the queue was stopped.
            Exception: what the processor raised for this picture.
        """
        request = _Request(image, mask)
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._waiting.append(request)
            self._thread.submit(self._next)
        batch, pending = request.enqueued.result()
        try:
            restored = pending.result()
        finally:
            with self._lock:
                if not batch.finished:
                    batch.finished = True
                    self._slots.release()
        return (time.perf_counter() - batch.start) / batch.size, restored

    def run(self, function: Callable[[], ResultT]) -> ResultT:
        """The result of a function that is called in the computing thread. Raises CancelledError after `stop`."""
        with self._lock:
            if self._stopped:
                raise CancelledError
            future = self._thread.submit(function)
        return future.result()

    def stop(self) -> None:
        """Cancels, now and later, what has not begun; does not wait for what has."""
        with self._lock:
            self._stopped = True
            for request in self._waiting:
                request.enqueued.cancel()
            self._waiting = []
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Runs once for each request; finds nothing to do where several were taken at once."""
        self._slots.acquire()
        start = time.perf_counter()
        requests = self._take(1)
        try:
            if requests:
                first = requests[0]
                requests += self._take(self._processor.batch_size(first.image) - 1, like=first)
            results = self._processor.enqueue([(one.image, one.mask) for one in requests]) if requests else []
            enqueued = list(zip(requests, results, strict=True))
        except BaseException as error:  # raised to the threads that wait for these pictures
            for request in requests:
                request.enqueued.set_exception(error)
            enqueued = []
        if not enqueued:
            self._slots.release()
        batch = _Batch(start, len(enqueued))
        for request, pending in enqueued:
            request.enqueued.set_result((batch, pending))

    def _take(self, most: int, *, like: _Request | None = None) -> list[_Request]:
        with self._lock:
            taken = [one for one in self._waiting if like is None or one.fits(like)][:most]
            self._waiting = [one for one in self._waiting if one not in taken]
            return taken
