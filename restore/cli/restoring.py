"""`restore denoise INPUT [OUTPUT]` and its sisters: one command for every task."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.files import FileFlags, plan_jobs
from restore.cli.flags import command
from restore.cli.reporting import say, write_all
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.inference.spread_worker import Ready


@dataclass(frozen=True)
class ModelFlags:
    """Flags of every task's command."""

    model: str | None = option(
        None, "A shipped variant, or a weights file [default: the task's].", flags=("-m",), metavar="VARIANT|FILE"
    )
    device: str = option(
        "auto",
        "Where to compute; a list spreads a folder over several devices.",
        metavar="auto|cpu|mps|cuda|cuda:N[,cuda:M...]",
    )
    precision: str = option("auto", "Precision of the convolutions.", metavar="auto|fp32|bf16|fp16")
    tile: int = option(0, "Side of a tile in pixels; 0: as large as memory allows.", flags=("-t",), min=0)
    tile_overlap: int | None = option(
        None, "What a tile sees beyond itself, in pixels [default: as far as matters].", min=0
    )
    strength: float = option(1.0, "How much of the effect, from 0 (none) to 1.", min=0.0, max=1.0)
    compile: bool = option(False, "Compile the network first (slow start, for many pictures of one size).")
    tta: bool = option(False, "Average over the eight symmetries: a little better, eight times slower.", flags=("-x",))


@dataclass(frozen=True)
class MaskFlags:
    """Flags of tasks that look for the damage, or take a mask of it."""

    mask: Path | None = option(
        None,
        "Where the damage is: white, or a folder of masks by relative path and stem [default: it is looked for].",
        metavar="FILE|DIR",
    )
    save_mask: Path | None = option(None, "Folder for the masks that were found, or given, as PNG.", metavar="DIR")
    dry_run: bool = option(False, "Say what would be restored, and write nothing but masks.")


@dataclass(frozen=True)
class HintFlags:
    """Flags of tasks that a person can tell colours."""

    hints: Path | None = option(
        None,
        "Dots or strokes of colours, on transparent or white, as large as the picture; or a folder of them by name.",
        metavar="FILE|DIR",
    )


def add(app: typer.Typer) -> None:
    """Adds a command for every task."""
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = spec.help
        more = [MaskFlags] if spec.masks else [HintFlags] if spec.hints else []
        app.command(spec.name)(command(body, FileFlags, ModelFlags, spec.options, *more))


def _body(spec: TaskSpec) -> Any:
    def body(files: FileFlags, model: ModelFlags, options: Options, given: Any = None) -> None:
        devices = model.device.split(",")
        if not all(devices):
            raise UsageError(f"--device {model.device}: a list has a device between any two commas")
        masks = given if isinstance(given, MaskFlags) else MaskFlags()
        hints = given.hints if isinstance(given, HintFlags) else None
        places = asdict(masks) if hints is None else {"mask": hints, "hints": True}
        # What is wrong with the call is said before torch loads.
        errand = plan_jobs(files, spec.file_suffix(options), **places)
        preparing = partial(prepare, spec.name, model, options, masks.dry_run)
        writing, done = files.writing(dry_run=masks.dry_run), "looked at" if masks.dry_run else "restored"
        several = files.watch or (len(errand.jobs) > 1 and errand.jobs[0].output is not None)
        if len(devices) > 1 and several:
            from restore.inference.spread import Spread

            spread = Spread(devices, preparing, writing, files.workers)
            with spread:
                if files.talkative:
                    say(f"{spec.name} on {' and '.join(spread.about)}")
                write_all(errand, spread, done=done)
            return

        ready = preparing(devices[0], 1)
        if files.talkative:
            say(f"{spec.name} on {ready.about}")
        with ready.pipeline(writing, files.workers) as pipeline:
            write_all(errand, pipeline, done=done)

    return body


def prepare(task: str, model: ModelFlags, options: Options, dry_run: bool, device: str, processes: int) -> Ready:
    """The restorer that the flags ask for on `device`, in one of so many `processes` that share the cores.

    dry_run: it looks, and restores nothing.
    Raises UsageError (also as WeightsError, DeviceError) for anything that is not there or does not fit.
    """
    import cv2
    import torch

    from restore.devices import describe
    from restore.inference import restorer
    from restore.inference.spread_worker import Ready

    cv2.setNumThreads(1)  # codecs have threads of their own, and the network the cores
    if processes > 1:
        torch.set_num_threads(max(1, _cores() // processes))
    logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)
    restore = restorer.load(
        task,
        model.model,
        device,
        model.precision,
        model.tile,
        overlap=model.tile_overlap,
        strength=model.strength,
        tta=model.tta,
        compile=model.compile,
        **asdict(options),
    )
    about, scale = describe(restore.device, restore.dtype), restore.head.scale
    return Ready(restore.examine, about) if dry_run else Ready(restore.restore, about, scale, restore)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
