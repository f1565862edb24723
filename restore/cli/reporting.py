"""Runs jobs and reports their outcomes: progress bar, JSON on stdout, failures at the end, exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from restore.errors import RestoreError, install_hint

MOST_NAMES = 10  # of files that are not taken

if TYPE_CHECKING:
    from pathlib import Path

    from restore.cli.files import FileRequest
    from restore.folders.pipeline import Outcome, Runner
    from restore.folders.plan import Job


def run_jobs(request: FileRequest, runner: Runner, *, done: str = "restored") -> None:
    """Runs jobs, shows progress and lists failures; with --watch until interrupted. `done`: the verb of the summary.

    Raises:
        typer.Exit: with code 1 if any job failed.
    """
    from restore.utils.atomic_write import remove_stale

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends cleanly, as with Ctrl-C
    files, jobs = request.files, request.plan.jobs
    remove_stale(path.parent for job in jobs for path in job.outputs)
    report = _Report(request, done)
    try:
        if files.watch:
            _watch(request, runner, report)
        else:
            for outcome in runner.run(jobs, fail_fast=files.fail_fast):
                report.add(outcome)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clean-up
        report.close()
        if not files.watch:
            raise
    except BrokenPipeError:  # the reader of stdout has ended
        discard_stdout()
        raise typer.Exit(1) from None
    if report.end():
        raise typer.Exit(1)


def mute(text: str) -> None:
    """What --quiet prints."""


def say(text: str) -> None:
    """A line for people, on stderr: stdout may carry a picture. Where stderr is full or closed it is lost."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        line = "".join(c if c.isprintable() else "?" for c in text)
        print(f"{line}\n", end="", file=sys.stderr, flush=True)  # in one piece: Ctrl-C may come between two


def discard_stdout() -> None:
    """Leads stdout nowhere, to avoid another error when it is flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _watch(request: FileRequest, runner: Runner, report: _Report) -> None:
    from restore.folders.watch import watch

    if not request.files.quiet:
        say("watching; press Ctrl-C to end")
    last_error = ""

    def find_jobs() -> list[Job]:
        nonlocal last_error
        try:
            jobs, message = request.replan().jobs, ""
        except RestoreError as exception:
            jobs, message = [], str(exception)
        if message and message != last_error:  # printed once; listing is tried again until it succeeds
            say(f"waiting: {message}")
        last_error = message
        return jobs

    for outcome in watch(find_jobs, runner):
        if outcome is not None:
            report.add(outcome)


class _Report:
    """Counts and reports outcomes; keeps only the messages of failures."""

    def __init__(self, request: FileRequest, done: str) -> None:
        from tqdm import tqdm

        plan = request.plan
        self._files, self._done = request.files, done
        self._counts = Counter({"failed": len(plan.unreadable)})
        self._failures = [f"failed: {text}" for text in plan.unreadable]
        self._pixels, self._start = 0, time.perf_counter()
        if plan.left_out and self._files.verbose:
            say(f"left out {plan.left_out} earlier outputs; name a file or its folder to take it as INPUT")
        self._report_others(plan.others)
        self._bar = tqdm(  # disable=None: shown on a terminal only
            total=len(plan.jobs),
            disable=None if self._files.verbose and len(plan.jobs) > 1 and not self._files.watch else True,
            bar_format="{n_fmt}/{total_fmt} pictures |{bar}| {elapsed}, {remaining} to go{postfix}",
            dynamic_ncols=True,
        )

    def _report_others(self, others: list[Path]) -> None:
        from restore.folders.pipeline import Outcome
        from restore.folders.plan import Job
        from restore.images.failures import printable
        from restore.images.formats import RAW_SUFFIXES, UNREAD_SUFFIXES

        unread = [path for path in others if path.suffix.lower() in UNREAD_SUFFIXES]
        if self._files.json:
            for path in unread:
                why = f"{path.suffix} is not read"
                self._print(json.dumps(_record(Outcome(Job(path, None), "not taken", error=why))))
        if not self._files.verbose:
            return
        if unread:
            names = ", ".join(printable(path) for path in unread[:MOST_NAMES])
            more = f" and {len(unread) - MOST_NAMES} more (--json names all)" if len(unread) > MOST_NAMES else ""
            raw = any(path.suffix.lower() in RAW_SUFFIXES for path in unread)
            fix = f"; to read camera raws: {install_hint('raw')}" if raw else "; convert them to PNG, JPEG or TIFF"
            say(
                f"not taken: {len(unread)} pictures of formats that are not read ({_kinds(unread)}): {names}{more}{fix}"
            )
        if rest := [path for path in others if path.suffix.lower() not in UNREAD_SUFFIXES]:
            say(f"left out {len(rest)} files that are no pictures by their suffix ({_kinds(rest)})")

    def add(self, outcome: Outcome) -> None:
        """Reports one outcome."""
        self._counts[outcome.status] += 1
        if outcome.size:
            self._pixels += outcome.size[0] * outcome.size[1]
        if outcome.error is not None:
            failure = f"failed: {outcome.job.input or 'stdin'}: {outcome.error}"
            if self._files.watch:  # not at the end, which may be days away
                say(failure)
            else:
                self._failures.append(failure)
        if outcome.message and self._files.verbose:
            self._say(f"{outcome.job.input or 'stdin'}: {outcome.message}")
        if outcome.note and not self._files.quiet:
            self._say(f"{outcome.output or 'stdout'}: {outcome.note}")
        if self._files.watch and outcome.output is not None and self._files.verbose:
            say(f"{outcome.output}")
        if self._files.json:
            self._print(json.dumps(_record(outcome)))
        failed = f", {self._counts['failed']} failed" if self._counts["failed"] else ""
        self._bar.set_postfix_str(f"{self._speed():.2f} megapixels/s{failed}", refresh=False)
        self._bar.update()

    def _print(self, line: str) -> None:
        """A line on stdout. Where that is full the run goes on, and says so at its end."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._counts["failed"] += 1
            self._failures.append(f"failed: stdout: {error.strerror}; from here on the JSON is incomplete")
            discard_stdout()

    def end(self) -> bool:
        """Prints the summary; returns whether any failed."""
        self.close()
        if self._files.verbose:
            count, seconds = self._counts, time.perf_counter() - self._start
            done = f"{count['restored'] + count['examined']} {self._done}"
            copied = f", {count['copied']} copied" if count["copied"] else ""
            say(
                f"{done}{copied}, {count['skipped']} skipped, {count['failed']} failed in {seconds:.1f} s "
                f"({self._speed():.2f} megapixels/s)"
            )
        for failure in self._failures:
            say(failure)
        return self._counts["failed"] > 0

    def close(self) -> None:
        """Removes the progress bar."""
        self._bar.close()

    def _speed(self) -> float:
        return self._pixels / 1e6 / max(time.perf_counter() - self._start, 1e-9)

    def _say(self, text: str) -> None:
        self._bar.clear()
        say(text)


def _kinds(paths: list[Path]) -> str:
    counts = Counter(path.suffix.lower() for path in paths)
    return ", ".join(f"{count} {suffix or 'without'}" for suffix, count in counts.most_common(8))


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.job.input or "-"),
        "output": None if outcome.status in ("failed", "examined", "not taken") else str(outcome.output or "-"),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 4),
        "size": outcome.size,
        "error": outcome.error,
        "note": "; ".join(filter(None, (outcome.message, outcome.note))) or None,
        "mask_share": None if outcome.mask_share is None else round(outcome.mask_share, 6),
        "change": None if outcome.change is None else round(outcome.change, 3),
        **({"steps": [step.record for step in outcome.steps]} if outcome.steps else {}),
    }
