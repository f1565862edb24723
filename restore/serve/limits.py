"""The limits of a server, admission control, and refusals."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Limits:
    """Bounds of one server; every refusal has its HTTP status.

    Attributes:
        max_bytes: of one request's body (413).
        max_megapixels: of one picture, and four times as many of its result (413).
        max_queue: pictures that wait or are computed, of all clients (503).
        max_queued_bytes: of their bodies together (503).
        per_client: pictures of one client that wait or are computed (429).
        seconds: from the end of a body to its answer (504).
        job_seconds: the same for jobs, which then fail.
        body_seconds: for a body to arrive (408).
        keep_seconds: how long results of jobs are kept.
        keep_bytes: of all results that are kept; beyond that the oldest go first.
    """

    max_bytes: int = 128 << 20
    max_megapixels: float = 100.0
    max_queue: int = 256
    max_queued_bytes: int = 1 << 30
    per_client: int = 32
    seconds: float = 300.0
    job_seconds: float = 3600.0
    body_seconds: float = 120.0
    keep_seconds: float = 3600.0
    keep_bytes: int = 4 << 30


class Refused(HTTPException):
    """A request that is not served, answered in JSON.

    Args:
        status: of HTTP.
        message: one line for a person: what is wrong, what to do.
        retry_after: seconds after which trying again makes sense.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        super().__init__(status, message, headers)


class Admission:
    """Admission control: bounds the requests in flight, of each client and of all.

    Args:
        limits: the bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._clients: Counter[str] = Counter()
        self.count, self.bytes = 0, 0

    @contextmanager
    def admitted(self, client: str, size: int) -> Iterator[Admitted]:
        """Holds a place; on leaving it is given back, unless `keep` has been called.

        Args:
            client: its address.
            size: of its body, in bytes, as far as it is known.

        Raises:
            Refused: 429 or 503.
        """
        place = self._enter(client, size)
        try:
            yield place
        finally:
            if not place.kept:
                place.leave()

    def _enter(self, client: str, size: int) -> Admitted:
        limits = self._limits
        with self._lock:
            if self._clients[client] >= limits.per_client:
                raise Refused(
                    429, f"{limits.per_client} pictures of yours are being restored; wait for one", retry_after=1
                )
            if self.count >= limits.max_queue or (self.count and self.bytes + size > limits.max_queued_bytes):
                raise Refused(503, f"the queue is full ({self.count} pictures); try again soon", retry_after=5)
            self._clients[client] += 1
            self.count += 1
            self.bytes += size
        return Admitted(self, client, size)

    def _leave(self, client: str, size: int) -> None:
        with self._lock:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            self.count -= 1
            self.bytes -= size


class Admitted:
    """A place among what is in flight; made by `Admission.admitted`."""

    def __init__(self, admission: Admission, client: str, size: int) -> None:
        self._admission, self._client, self._size = admission, client, size
        self._left = threading.Lock()
        self.kept = False

    def keep(self) -> None:
        """The place outlives the `with` block; whoever calls this calls `leave`."""
        self.kept = True

    def leave(self) -> None:
        """Gives the place back; more than once does nothing."""
        if self._left.acquire(blocking=False):
            self._admission._leave(self._client, self._size)
