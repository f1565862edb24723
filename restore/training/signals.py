"""Ctrl-C during training: the step is finished and saved first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C (or SIGTERM) into a question that can be asked; the second one interrupts at once."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def remember(number: int, _: Any) -> None:
        seen.append(number)
        for known, handler in previous.items():
            signal.signal(known, handler)

    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        for name in (signal.SIGINT, signal.SIGTERM):
            previous[name] = signal.signal(name, remember)
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
