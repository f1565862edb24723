"""A gate that can be shut, so that a run that is stopped leaves nothing half done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Through which everything goes that changes the disk."""

    def __init__(self) -> None:
        self._inside, self._shut, self._changed = 0, False, threading.Condition()

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Whether the gate is open; if so it stays until the block is left."""
        with self._changed:
            allowed = not self._shut
            self._inside += allowed
        try:
            yield allowed
        finally:
            with self._changed:
                self._inside -= allowed
                self._changed.notify_all()

    def shut(self, timeout: float) -> bool:
        """Lets nobody in any more and waits for those inside; False if some are still there after `timeout` s."""
        with self._changed:
            self._shut = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout)
