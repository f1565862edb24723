"""`restore TASK INPUT [OUTPUT]`: one command for every task."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.files import FileFlags, FileRequest, plan_files
from restore.cli.flags import ComputeFlags, add_command
from restore.cli.reporting import run_jobs, say
from restore.cli.video import RawFlags, check_raw, restore_frames
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import WeightsOptions, option

if TYPE_CHECKING:
    from restore.folders.devices import Prepared


@dataclass(frozen=True)
class DeviceFlags(ComputeFlags):
    """The same for a folder, which several devices may restore."""

    device: str = option(
        "auto",
        "Where to compute; a list spreads a folder over several devices.",
        metavar="auto|cpu|mps|cuda|cuda:N[,cuda:M...]",
    )
    tile_overlap: int | None = option(
        None, "Overlap of tiles in pixels [default: by the radius of the network].", min=0
    )
    compile: bool = option(False, "Compile the network first (slow start, for many pictures of one size).")
    tta: bool = option(
        False,
        "Average over the eight symmetries (colorize: two): a little better, as many times slower.",
        flags=("-x",),
        panel="Effect",
    )

    @property
    def names(self) -> list[str]:
        """The devices. Raises UsageError for an empty one."""
        names = self.device.split(",")
        if not all(names):
            raise UsageError(f"--device {self.device}: write a list without empty entries, such as cuda:0,cuda:1")
        return names

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `restore.load` that these flags set, but for the device."""
        flags = {"precision": self.precision, "tile": self.tile, "overlap": self.tile_overlap}
        return {**flags, "tta": self.tta, "compile": self.compile}


@dataclass(frozen=True)
class MaskFlags:
    """Flags of tasks that detect the damage, or take a mask of it."""

    PANEL = "Mask"

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

    PANEL = "Colour hints"

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
        kinds = (FileFlags, spec.weights, DeviceFlags, spec.options, RawFlags, *more)
        add_command(app, spec.name, body, *kinds, examples=spec.examples, panels={spec.options: "Effect"})


def _body(spec: TaskSpec) -> Any:
    def body(
        files: FileFlags,
        network: WeightsOptions,
        flags: DeviceFlags,
        options: Options,
        raw: RawFlags,
        given: MaskFlags | HintFlags = MaskFlags(),
    ) -> None:
        masks = given if isinstance(given, MaskFlags) else MaskFlags(mask=given.hints)
        loading = spec.name, flags, {**asdict(network), **asdict(options)}
        if raw.raw is not None:
            size = check_raw(raw, files, still=masks.dry_run or masks.save_mask is not None or len(flags.names) > 1)
            from restore.inference.inputs import InputAdapter

            prepared = prepare(*loading, False, flags.device, 1)
            if files.verbose:
                say(f"{spec.name} on {prepared.description}")
            assert isinstance(prepared.processor, InputAdapter)
            restore_frames(prepared.processor, size, masks.mask, verbose=files.verbose)
            return
        # Errors in the call are reported before torch is loaded, which takes seconds.
        request = plan_files(files, spec.file_suffix(options), **asdict(masks), hints=spec.hints)
        run_on_devices(request, flags.names, partial(prepare, *loading, masks.dry_run), dry_run=masks.dry_run)

    return body


def run_on_devices(request: FileRequest, devices: list[str], prepare_on: partial[Prepared], *, dry_run: bool) -> None:
    """Restores files on one device, or spread over several; `prepare_on` is `prepare` but for its last two arguments.

    Raises:
        typer.Exit: with code 1 if any file failed.
    """
    files, jobs, name = request.files, request.plan.jobs, prepare_on.args[0]
    write_options, done = files.write_options(dry_run=dry_run), "examined" if dry_run else "restored"
    if len(devices) > 1 and (files.watch or (len(jobs) > 1 and jobs[0].output is not None)):
        from restore.folders.devices import DevicePool

        with DevicePool(devices, prepare_on, write_options, files.workers) as pool:
            if files.verbose:
                say(f"{name} on {' and '.join(pool.descriptions)}")
            run_jobs(request, pool, done=done)
        return

    from restore.folders.pipeline import FilePipeline

    prepared = prepare_on(devices[0], 1)
    if files.verbose:
        say(f"{name} on {prepared.description}")
    with FilePipeline(prepared.processor, write_options, files.workers, scale=prepared.scale) as pipeline:
        run_jobs(request, pipeline, done=done)


def prepare(
    task: str,
    flags: DeviceFlags,
    options: dict[str, Any],
    dry_run: bool,
    device: str,
    processes: int,
    *,
    pipeline: bool = False,
) -> Prepared:
    """Prepares this process, one of `processes` on this machine, for restoring folders, and loads what restores.

    Args:
        task, options: as in `restore.load`, and so are the errors.
        flags: those of the device.
        dry_run: only detect damage.
        device: where to compute.
        processes: number of those that share the cores.
        pipeline: also of a single task.
    """
    import cv2
    import torch

    from restore.devices import available_cores, describe, keep_freed_memory
    from restore.folders.compute_queue import PerPicture
    from restore.folders.devices import Prepared
    from restore.inference.loading import load
    from restore.inference.pipeline import Pipeline

    keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # a folder has few shapes of tiles
    cv2.setNumThreads(1)  # codecs have threads of their own, and the network the cores
    if processes > 1:
        torch.set_num_threads(max(1, available_cores() // processes))
    logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)
    restore = load(task, device=device, **flags.loading, **options)
    description = describe(restore.device, restore.dtype)
    if isinstance(restore, Pipeline):
        return Prepared(restore, description, restore.scale)
    if pipeline:
        return Prepared(Pipeline([restore]), description, restore.head.scale)
    if dry_run:
        return Prepared(PerPicture(restore.examine), description)
    return Prepared(restore, description, restore.head.scale)
