"""A folder that is watched: what arrives in it is restored once it is complete."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from restore.folders.pipeline import Outcome, Runner
from restore.folders.plan import Job

POLL_INTERVAL = 1.0  # seconds between two listings of the folder
RETRY_AFTER = 5.0  # seconds after which a file that failed is tried once more

_FileStates = tuple[tuple[int, int], ...]  # (bytes, nanoseconds) of the picture, and of its mask


@dataclass
class _Seen:
    """A file as it was at the last listing. done: nothing is to be done unless it changes."""

    states: _FileStates
    since: float
    failed: bool = False
    done: bool = False


def watch(
    find_jobs: Callable[[], list[Job]], runner: Runner, *, interval: float = POLL_INTERVAL
) -> Iterator[Outcome | None]:
    """Does the jobs that appear, for ever.

    A file is tried when its size and time have not changed for a whole `interval`. One that fails is tried again
    when it or its mask changes, and once more after `RETRY_AFTER` seconds; only then is the failure reported, as a
    copy over a network may have paused.

    Args:
        find_jobs: all jobs there are now, including those whose files are still being written.
        runner: does the jobs.
        interval: seconds between two calls of `find_jobs`; more where a call takes long.

    Yields:
        Outcomes; None after each round, in which the caller may wait or stop.
    """
    seen: dict[object, _Seen] = {}
    while True:
        began = time.monotonic()
        jobs = {job.input: job for job in find_jobs()}
        for gone in seen.keys() - jobs.keys():
            del seen[gone]
        due = [job for job in jobs.values() if _is_due(job, seen, began, interval)]
        for outcome in runner.run(due):
            state = seen[outcome.job.input]
            state.done = outcome.error is None or state.failed
            state.failed = outcome.error is not None
            if state.done and outcome.status != "skipped":
                yield outcome
        yield None
        time.sleep(interval if due else max(interval, 5 * (time.monotonic() - began)))


def _is_due(job: Job, seen: dict[object, _Seen], now: float, interval: float) -> bool:
    try:
        files = [os.stat(path) for path in (job.input or "", job.mask) if path is not None]
    except OSError:
        seen.pop(job.input, None)
        return False
    states = tuple((about.st_size, about.st_mtime_ns) for about in files)
    state = seen.get(job.input)
    if state is None or state.states != states:
        # A file that is older than the run has not changed for long enough already.
        quiet = time.time() - max(about.st_mtime for about in files) > max(RETRY_AFTER, interval)
        state = seen[job.input] = _Seen(states, now if not quiet else now - interval)
    return not state.done and now - state.since >= (RETRY_AFTER if state.failed else interval)
