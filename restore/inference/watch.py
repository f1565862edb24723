"""A folder that is watched: what arrives in it is restored once it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from restore.inference.batch import Outcome, Runner
from restore.inference.job import Job

POLL = 1.0  # seconds between two looks
PATIENCE = 5.0  # seconds that a file which cannot be read is given to become whole

_Signature = tuple[tuple[int, int], ...]  # (bytes, nanoseconds) of the picture, and of its mask


@dataclass
class _Seen:
    """A file as it was at the last look. done: nothing more is to be done unless it changes."""

    signature: _Signature
    since: float
    failed: bool = False
    done: bool = False


def watch(look: Callable[[], list[Job]], runner: Runner, *, poll: float = POLL) -> Iterator[Outcome | None]:
    """Outcomes of what `look` finds, for ever; None after each round, in which a caller may rest or leave.

    look: all jobs there are now, by files that may still be being written; called every `poll` seconds, or less
    often where it takes long. A file is tried when its size and time have stood still for a whole
    `poll`; one that fails is tried again when it or its mask changes, and once more after `PATIENCE` seconds: only
    then is its failure told, for a copy over a network may have paused.
    """
    seen: dict[object, _Seen] = {}
    while True:
        began = time.monotonic()
        jobs = {job.input: job for job in look()}
        for gone in seen.keys() - jobs.keys():
            del seen[gone]
        due = [job for job in jobs.values() if _is_due(job, seen, began, poll)]
        for outcome in runner.run(due):
            state = seen[outcome.job.input]
            state.done = outcome.error is None or state.failed
            state.failed = outcome.error is not None
            if state.done and not outcome.skipped:
                yield outcome
        yield None
        time.sleep(poll if due else max(poll, 5 * (time.monotonic() - began)))


def _is_due(job: Job, seen: dict[object, _Seen], now: float, poll: float) -> bool:
    try:
        files = [os.stat(path) for path in (job.input or "", job.mask) if path is not None]
    except OSError:
        seen.pop(job.input, None)
        return False
    signature = tuple((about.st_size, about.st_mtime_ns) for about in files)
    state = seen.get(job.input)
    if state is None or state.signature != signature:
        # What was there long before we came has stood still already.
        quiet = time.time() - max(about.st_mtime for about in files) > max(PATIENCE, poll)
        state = seen[job.input] = _Seen(signature, now if not quiet else now - poll)
    return not state.done and now - state.since >= (PATIENCE if state.failed else poll)
