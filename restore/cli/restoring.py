"""`restore TASK INPUT [OUTPUT]`: one command for every task."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.files import FileFlags, plan_files
from restore.cli.flags import command
from restore.cli.reporting import run_jobs, say
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.folders.devices import Prepared


@dataclass(frozen=True)
class ModelFlags:
    """Flags of the network and the device."""

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
        None, "Overlap of tiles in pixels [default: by the radius of the network].", min=0
    )
    strength: float = option(
        1.0, "How much of the effect, from 0 (none) to 1; denoise takes up to 2.", min=0.0, max=2.0
    )
    compile: bool = option(False, "Compile the network first (slow start, for many pictures of one size).")
    tta: bool = option(False, "Average over the eight symmetries: a little better, eight times slower.", flags=("-x",))


@dataclass(frozen=True)
class MaskFlags:
    """Flags of tasks that detect the damage, or take a mask of it."""

    mask: Path | None = option(
        None,
        "Mask of the damage (white), or a folder of masks by relative path and stem [default: detected].",
        metavar="FILE|DIR",
    )
    save_mask: Path | None = option(None, "Folder for the masks, detected or given, as PNG.", metavar="DIR")
    dry_run: bool = option(False, "Report what would be restored, and write only masks.")


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
    def body(files: FileFlags, model: ModelFlags, options: Options, given: MaskFlags | HintFlags = MaskFlags()) -> None:
        devices = model.device.split(",")
        if not all(devices):
            raise UsageError(f"--device {model.device}: write a list without empty entries, such as cuda:0,cuda:1")
        masks = given if isinstance(given, MaskFlags) else MaskFlags(mask=given.hints)
        # Errors in the call are reported before torch is loaded, which takes seconds.
        request = plan_files(files, spec.file_suffix(options), **asdict(masks), hints=spec.hints)
        prepare_on = partial(prepare, spec.name, model, options, masks.dry_run)
        write_options, done = files.write_options(dry_run=masks.dry_run), "examined" if masks.dry_run else "restored"
        jobs = request.plan.jobs
        if len(devices) > 1 and (files.watch or (len(jobs) > 1 and jobs[0].output is not None)):
            from restore.folders.devices import DevicePool

            with DevicePool(devices, prepare_on, write_options, files.workers) as pool:
                if files.verbose:
                    say(f"{spec.name} on {' and '.join(pool.descriptions)}")
                run_jobs(request, pool, done=done)
            return

        from restore.folders.pipeline import Pipeline

        prepared = prepare_on(devices[0], 1)
        if files.verbose:
            say(f"{spec.name} on {prepared.description}")
        with Pipeline(prepared.processor, write_options, files.workers, scale=prepared.scale) as pipeline:
            run_jobs(request, pipeline, done=done)

    return body


def prepare(task: str, model: ModelFlags, options: Options, dry_run: bool, device: str, processes: int) -> Prepared:
    """Loads the restorer for the flags.

    Args:
        task: its name.
        model: the flags of the network and the device.
        options: those of the task.
        dry_run: only detect damage.
        device: where to compute.
        processes: number of processes that share the cores of this machine.

    Raises:
        UsageError: the weights or the device do not exist, or do not fit (also as WeightsError, DeviceError).
    """
    import cv2
    import torch

    from restore.devices import available_cores, describe, keep_freed_memory
    from restore.folders.compute_queue import PerPicture
    from restore.folders.devices import Prepared
    from restore.inference import restorer

    keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # a folder has few shapes of tiles
    cv2.setNumThreads(1)  # codecs have threads of their own, and the network the cores
    if processes > 1:
        torch.set_num_threads(max(1, available_cores() // processes))
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
    description = describe(restore.device, restore.dtype)
    if dry_run:
        return Prepared(PerPicture(restore.examine), description)
    return Prepared(restore, description, restore.head.scale)
