"""Runs an errand and tells of it: progress on a terminal, JSON on stdout, failures at the end, the exit code."""

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

from restore.errors import RestoreError

if TYPE_CHECKING:
    from restore.cli.files import Errand
    from restore.inference.batch import Outcome, Runner
    from restore.inference.job import Job


def write_all(errand: Errand, runner: Runner, *, done: str = "restored") -> None:
    """Runs the jobs, shows progress, lists failures. done: the word for what was done to a picture.

    With --watch it goes on until it is interrupted, which is its ordinary end. Raises typer.Exit(1) if any failed.
    """
    from restore.placing import sweep

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the same clean end as Ctrl-C
    sweep(path.parent for job in errand.jobs for path in job.written)
    report = _Report(errand, done)
    try:
        if errand.files.watch:
            _watch(errand, runner, report)
        else:
            for outcome in runner.run(errand.jobs, fail_fast=errand.files.fail_fast):
                report.add(outcome)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would break into cleaning up
        report.close()
        if not errand.files.watch:
            raise
    except BrokenPipeError:  # whoever read stdout has left; nothing more to say to them, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    if report.end():
        raise typer.Exit(1)


def say(text: str) -> None:
    """A line for people, on stderr: stdout may carry a picture. Where stderr is full or closed it is lost."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print("".join(c if c.isprintable() else "?" for c in text), file=sys.stderr, flush=True)


def _watch(errand: Errand, runner: Runner, report: _Report) -> None:
    from restore.inference.watch import watch

    if not errand.files.quiet:
        say("watching; Ctrl-C ends it")
    trouble = ""

    def look() -> list[Job]:
        nonlocal trouble
        try:
            jobs, now = errand.look(), ""
        except RestoreError as error:
            jobs, now = [], str(error)
        if now and now != trouble:  # told once, and looked again for as long as it lasts
            say(f"waiting: {now}")
        trouble = now
        return jobs

    for outcome in watch(look, runner):
        if outcome is not None:
            report.add(outcome)


class _Report:
    """Counts outcomes and tells of them; keeps nothing of those that went well."""

    def __init__(self, errand: Errand, done: str) -> None:
        from tqdm import tqdm

        self._files, self._done = errand.files, done
        self._counts = Counter({"failed": len(errand.unlisted)})
        self._failures = [f"failed: {text}" for text in errand.unlisted]
        self._pixels, self._start = 0, time.perf_counter()
        if errand.left_out and self._files.talkative:
            say(f"left out {errand.left_out} earlier outputs; name a file or its folder to take it as INPUT")
        if errand.others and self._files.talkative:
            kinds = ", ".join(f"{count} {suffix or 'without'}" for suffix, count in errand.others.most_common(5))
            say(f"left out {errand.others.total()} files by their suffix ({kinds}); convert those that are pictures")
        self._bar = tqdm(  # disable=None: shown on a terminal only
            total=len(errand.jobs),
            disable=None if self._files.talkative and len(errand.jobs) > 1 and not self._files.watch else True,
            bar_format="{n_fmt}/{total_fmt} pictures |{bar}| {elapsed}, {remaining} to go{postfix}",
            dynamic_ncols=True,
        )

    def add(self, outcome: Outcome) -> None:
        """Takes note of one outcome."""
        self._counts[outcome.status] += 1
        if outcome.size:
            self._pixels += outcome.size[0] * outcome.size[1]
        if outcome.error is not None:
            failure = f"failed: {outcome.job.input or 'stdin'}: {outcome.error}"
            if self._files.watch:  # its end is far
                say(failure)
            else:
                self._failures.append(failure)
        if outcome.found and self._files.talkative:
            self._aside(f"{outcome.job.input or 'stdin'}: {outcome.found}")
        if outcome.note and not self._files.quiet:
            self._aside(f"{outcome.output or 'stdout'}: {outcome.note}")
        if self._files.watch and outcome.output is not None and self._files.talkative:
            say(f"{outcome.output}")
        if self._files.json:
            self._tell(json.dumps(_record(outcome)))
        failed = f", {self._counts['failed']} failed" if self._counts["failed"] else ""
        self._bar.set_postfix_str(f"{self._speed():.2f} megapixels/s{failed}", refresh=False)
        self._bar.update()

    def _tell(self, line: str) -> None:
        """A line on stdout. Where that is full the run goes on, and says so at its end."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._counts["failed"] += 1
            self._failures.append(f"failed: stdout: {error.strerror}; from here on the JSON is incomplete")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def end(self) -> bool:
        """The last words; whether any failed."""
        self.close()
        if self._files.talkative:
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
        """Takes the progress bar away."""
        self._bar.close()

    def _speed(self) -> float:
        return self._pixels / 1e6 / max(time.perf_counter() - self._start, 1e-9)

    def _aside(self, text: str) -> None:
        self._bar.clear()
        say(text)


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.job.input or "-"),
        "output": None if outcome.error is not None or outcome.examined else str(outcome.output or "-"),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 4),
        "size": outcome.size,
        "error": outcome.error,
        "note": "; ".join(filter(None, (outcome.found, outcome.note))) or None,
        "mask_share": None if outcome.mask_share is None else round(outcome.mask_share, 6),
    }
