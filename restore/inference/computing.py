"""One thread that computes for all that decode and encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np

from restore.images import Image
from restore.inference.restorer import Restored

# A picture and its mask (H,W) bool, if a person has given one -> what was found, and made of it.
Transform = Callable[[Image, np.ndarray | None], Restored]


class Together(Protocol):
    """What can restore several pictures at once; each becomes what it becomes alone, bit for bit."""

    def at_once(self, image: Image) -> int:
        """How many pictures of this one's size to restore at once; 1 where more are no quicker."""
        ...

    def restore_all(self, pictures: Sequence[tuple[Image, np.ndarray | None]]) -> list[Restored | BaseException]:
        """What is made of each picture with its mask, or what is wrong with it."""
        ...


@dataclass(eq=False)
class _Waiting:
    image: Image
    mask: np.ndarray | None
    done: Future[tuple[float, Restored]] = field(default_factory=Future)


class Computing:
    """Calls `transform` for one picture at a time, in the order they come, always in the same thread.

    together: small pictures of one size that wait by then are handed to it at once; it never waits for more.
    """

    def __init__(self, transform: Transform, together: Together | None = None) -> None:
        self._transform, self._together = transform, together
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._lock = Lock()
        self._waiting: list[_Waiting] = []
        self._stopped = False

    def submit(self, image: Image, mask: np.ndarray | None) -> Future[tuple[float, Restored]]:
        """The seconds that a picture takes (its share, of several at once), and what becomes of it."""
        one = _Waiting(image, mask)
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._waiting.append(one)
            self._thread.submit(self._next)
        return one.done

    def stop(self) -> None:
        """Cancels what has not begun, now and later; does not wait for what has."""
        with self._lock:
            self._stopped = True
            for one in self._waiting:
                one.done.cancel()
            self._waiting = []
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Once for each picture that was submitted; finds nothing to do where several were taken at once."""
        start = time.perf_counter()
        group = self._take(1)
        if not group:
            return
        try:
            results = self._restore(group)
        except BaseException as error:  # to whoever waits for it
            results = [error for _ in group]
        seconds = (time.perf_counter() - start) / len(group)
        for one, result in zip(group, results, strict=True):
            if isinstance(result, BaseException):
                one.done.set_exception(result)
            else:
                one.done.set_result((seconds, result))

    def _restore(self, group: list[_Waiting]) -> Sequence[Restored | BaseException]:
        """Of one picture; `group` grows by those that can be restored with it."""
        first = group[0]
        if self._together is not None:
            group += self._take(self._together.at_once(first.image) - 1, first.image.size)
            if len(group) > 1:
                return self._together.restore_all([(one.image, one.mask) for one in group])
        return [self._transform(first.image, first.mask)]

    def _take(self, most: int, size: tuple[int, int] | None = None) -> list[_Waiting]:
        """At most so many pictures (of `size`, if one is given): those that have waited longest."""
        with self._lock:
            taken = [one for one in self._waiting if size is None or one.image.size == size][:most]
            self._waiting = [one for one in self._waiting if one not in taken]
            return taken
