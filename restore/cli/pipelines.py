"""`restore run` and `restore auto`: several tasks, with one decoding and one encoding of each picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import typer

from restore.cli.files import FileFlags, plan_files
from restore.cli.flags import add_command, argument
from restore.cli.restoring import DeviceFlags, HintFlags, MaskFlags, prepare, run_on_devices
from restore.errors import UsageError
from restore.tasks.spec import Options, option
from restore.tasks.steps import AUTO, SUFFIX, AutoOptions, StepOptions, options_by_task, parse_steps, step_with_input


@dataclass(frozen=True)
class StepsArgument:
    """What `restore run` runs."""

    steps: str = argument("Tasks in their order, such as denoise+inpaint+super-resolve.", "STEPS")


@dataclass(frozen=True)
class AutoFlags:
    """Flags of `restore auto` that other commands have too."""

    save_mask: Path | None = option(None, "Folder for masks of the damage that was found, as PNG.", metavar="DIR")
    dry_run: bool = option(False, "Report what would be restored, and why, and write only masks.")


def add(app: typer.Typer) -> None:
    """Adds `run` and `auto`."""
    examples = (
        "restore run denoise+inpaint old/ new/             # a folder, each picture read and written once",
        "restore run denoise+super-resolve photo.jpg -s 2  # noise first, then larger",
    )
    kinds = (StepsArgument, FileFlags, DeviceFlags, StepOptions, MaskFlags, HintFlags)
    add_command(app, "run", _run, *kinds, examples=examples, panels={StepOptions: "Effect"})
    examples = (
        "restore auto scans/ restored/          # does to each picture what it needs",
        "restore auto scans/ --dry-run          # says what that would be, and why",
    )
    add_command(app, "auto", _auto, examples=examples, panels={AutoOptions: "Effect", AutoFlags: "Mask"})


def _run(
    steps: StepsArgument, files: FileFlags, device: DeviceFlags, options: Options, masks: MaskFlags, hints: HintFlags
) -> None:
    """Restore pictures in several steps, each read and written once: restore run denoise+inpaint old/ new/.

    The options of a task are those of its own command; those that several tasks have carry the name of the task:
    --denoise-strength 0.5.
    """
    specs, chosen = parse_steps(steps.steps), options.chosen
    by_task = options_by_task(specs, chosen)
    if len(specs) == 1:
        chosen = by_task[specs[0].name]
    if hints.hints is not None and (masks.mask is not None or masks.save_mask is not None):
        raise UsageError("--hints together with --mask or --save-mask: give one of them to a run of its own")
    for given, of_hints in ((masks.mask, False), (hints.hints, True)):
        if given is not None:
            step_with_input(specs, hints=of_hints)
    if masks.save_mask is not None and not any(spec.masks for spec in specs):
        raise UsageError("--save-mask: none of the steps looks for damage")
    mask = masks.mask if hints.hints is None else hints.hints
    request = plan_files(
        files, SUFFIX, mask=mask, save_mask=masks.save_mask, dry_run=masks.dry_run, hints=hints.hints is not None
    )
    prepare_on = partial(prepare, steps.steps, device, chosen, masks.dry_run, pipeline=True)
    run_on_devices(request, device.names, prepare_on, dry_run=masks.dry_run)


def _auto(files: FileFlags, device: DeviceFlags, options: AutoOptions, flags: AutoFlags) -> None:
    """Look at each picture and do what it needs: noise and JPEG blocks, then watermarks, then scratches and bars.

    What was found is said for each picture; one that needs nothing is copied byte for byte. restore auto old/ new/
    --dry-run says it, and writes nothing.
    """
    request = plan_files(files, SUFFIX, **asdict(flags))
    prepare_on = partial(prepare, AUTO, device, asdict(options), flags.dry_run)
    run_on_devices(request, device.names, prepare_on, dry_run=flags.dry_run)
