"""`restore denoise INPUT [OUTPUT]` and its sisters: one command for every task."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.flags import argument, command
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.inference.batch import Outcome
    from restore.inference.jobs import Job


@dataclass(frozen=True)
class FileFlags:
    """Flags of every command that turns picture files into picture files."""

    paths: list[str] | None = argument(
        "A file, a folder, a quoted glob, or - for stdin; then where to write.", "INPUT [OUTPUT]"
    )
    input: list[str] | None = option(None, "The same as INPUT; may be repeated.", flags=("-i",), metavar="PATH")
    output: str | None = option(
        None, "The same as OUTPUT: a file, a folder, or - for stdout.", flags=("-o",), metavar="PATH"
    )
    recursive: bool = option(False, "Look into subfolders; the tree is mirrored.", flags=("-r",))
    ext: str | None = option(None, "Format to write, such as png [default: the input's].", metavar="EXT")
    suffix: str | None = option(None, "What is put into names of outputs beside their input.", metavar="TEXT")
    quality: int | None = option(None, "Quality of lossy formats [default: the input's].", min=1, max=100)
    strip_metadata: bool = option(False, "Leave out EXIF and XMP (the colour profile stays).")
    overwrite: bool = option(False, "Replace outputs that exist.")
    skip_existing: bool = option(False, "Skip inputs whose output exists: goes on where a run stopped.", flags=("-k",))
    fail_fast: bool = option(False, "Stop at the first file that fails.")
    workers: int = option(2, "Threads that decode and encode.", flags=("-j",), min=1)
    quiet: bool = option(False, "Print failures only.", flags=("-q",))
    json: bool = option(False, "Print a line of JSON for each file on stdout.")


@dataclass(frozen=True)
class ModelFlags:
    """Flags of every task's command."""

    model: str | None = option(
        None, "A shipped variant, or a weights file [default: the task's].", flags=("-m",), metavar="VARIANT|FILE"
    )
    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")
    precision: str = option("auto", "Precision of the convolutions.", metavar="auto|fp32|bf16|fp16")
    tile: int = option(0, "Side of a tile in pixels; 0: as large as memory allows.", flags=("-t",), min=0)
    tile_overlap: int | None = option(
        None, "What a tile sees beyond itself, in pixels [default: as far as the network looks].", min=0
    )
    strength: float = option(1.0, "How much of the effect, from 0 (none) to 1.", min=0.0, max=1.0)
    tta: bool = option(False, "Average over the eight symmetries: a little better, eight times slower.", flags=("-x",))


def add(app: typer.Typer) -> None:
    """Adds a command for every task."""
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = spec.help
        app.command(spec.name)(command(body, FileFlags, ModelFlags, spec.options))


def _body(spec: TaskSpec) -> Any:
    def body(files: FileFlags, model: ModelFlags, options: Options) -> None:
        jobs = plan_jobs(files, spec.file_suffix(options))  # what is wrong with the call is said before torch loads

        import cv2

        from restore.devices import describe
        from restore.inference import restorer

        cv2.setNumThreads(1)  # codecs have threads of their own, and the network the cores
        logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)
        restore = restorer.load(
            spec.name,
            model.model,
            model.device,
            model.precision,
            model.tile,
            overlap=model.tile_overlap,
            strength=model.strength,
            tta=model.tta,
            **asdict(options),
        )
        if not files.quiet and not files.json:
            say(f"{spec.name} on {describe(restore.device, restore.dtype)}")
        write_all(jobs, restore.restore, files)

    return body


def plan_jobs(files: FileFlags, suffix: str) -> list[Job]:
    """The jobs that the flags ask for. Raises UsageError for a call that cannot be."""
    from restore.inference.jobs import Naming, existing, plan

    inputs, output = _places(files)
    naming = Naming(_checked_suffix(files.suffix or suffix), _extension(files.ext))
    jobs = plan(inputs, output, naming, recursive=files.recursive)
    if files.overwrite and files.skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other")
    there = set(existing(jobs))
    if there and files.skip_existing:
        return [job for job in jobs if job.output not in there]
    if there and not files.overwrite:
        more = f" and {len(there) - 1} more outputs exist" if len(there) > 1 else " exists"
        raise UsageError(f"{min(there)}{more}; --skip-existing leaves, --overwrite replaces what is there")
    return jobs


def write_all(jobs: list[Job], transform: Any, files: FileFlags) -> None:
    """Runs the jobs, shows progress, lists failures. Raises typer.Exit(1) if any failed."""
    from restore.inference.batch import Writing, run

    writing = Writing(files.overwrite, files.quality, not files.strip_metadata)
    start, failed, pixels, count = time.perf_counter(), [], 0, 0
    for outcome in _shown(
        run(jobs, transform, writing, workers=files.workers, fail_fast=files.fail_fast), len(jobs), files
    ):
        count += outcome.error is None
        pixels += outcome.size[0] * outcome.size[1] if outcome.size else 0
        if outcome.error:
            failed.append(outcome.error)
        if outcome.note and not files.quiet:
            say(outcome.note)
        if files.json:
            print(json.dumps(_record(outcome)), flush=True)
    if not files.quiet and not files.json:
        seconds = time.perf_counter() - start
        say(
            f"{count} of {len(jobs)} pictures written in {seconds:.1f} s ({pixels / 1e6 / max(seconds, 1e-9):.2f} megapixels/s)"
        )
    for reason in failed:
        say(f"failed: {reason}")
    if failed:
        raise typer.Exit(1)


def say(text: str) -> None:
    """A line for people, on stderr: stdout may carry a picture."""
    print(text, file=sys.stderr, flush=True)


def _places(files: FileFlags) -> tuple[list[str], str | None]:
    """Inputs and output. Without -o the second of two paths is the output, as in cp."""
    paths, inputs = list(files.paths or []), list(files.input or [])
    output = files.output
    if output is None and not inputs and len(paths) == 2:
        output = paths.pop()
    elif output is None and inputs and len(paths) == 1:
        output = paths.pop()
    elif output is None and len(paths) > 2:
        raise UsageError("several inputs need -o FOLDER (or quote the glob)")
    if not (inputs := inputs + paths):
        raise UsageError("no INPUT: name a picture, a folder, or - for stdin")
    return inputs, output


def _extension(ext: str | None) -> str | None:
    from restore.images import SUFFIXES

    if ext is None:
        return None
    suffix = "." + ext.lower().lstrip(".")
    if suffix not in SUFFIXES:
        raise UsageError(
            f"--ext {ext}: unknown picture format; known: {' '.join(s.lstrip('.') for s in sorted(SUFFIXES))}"
        )
    return suffix


def _checked_suffix(suffix: str) -> str:
    if "/" in suffix or "\\" in suffix:
        raise UsageError(f"--suffix {suffix}: part of a file name, so without slashes")
    return suffix.strip(".")


def _shown(outcomes: Iterator[Outcome], total: int, files: FileFlags) -> Iterator[Outcome]:
    """The outcomes, under a progress bar where a person watches several."""
    from tqdm import tqdm

    hidden = True if files.quiet or files.json or total < 2 else None  # None: only on a terminal
    return iter(tqdm(outcomes, total=total, disable=hidden, unit="picture", dynamic_ncols=True))


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.job.input or "-"),
        "output": None if outcome.error else str(outcome.output or "-"),
        "seconds": round(outcome.seconds, 4),
        "size": outcome.size,
        "error": outcome.error,
    }
