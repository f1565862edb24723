"""From folders of pictures to a weights file."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from restore import weights
from restore.devices import PRECISIONS, available_cores, describe, pick_device, pick_precision
from restore.errors import TrainingError, UsageError
from restore.models import build
from restore.training import checkpoint
from restore.training.checkpoint import checkpoint_folder
from restore.training.data import Pictures, Report, can_fork, fingerprint, list_pairs, list_pictures
from restore.training.loop import Result, Run
from restore.training.objective import Objective
from restore.training.processes import Processes
from restore.training.settings import Settings, flag

MAX_VALIDATION = 32  # pictures: a validation has to stay short beside the training
FIT = 0.9  # share of the pictures that a patch has to fit into
DEFAULT_MINUTES = 60.0
FEW_STEPS = 1000  # of 16 patches: a first colorize was 0.3 dB over gray after 685
# Settings of networks that may be larger than those of weights to start from.
GROWING = ("in_channels", "evidence", "print_widths", "print_blocks", "painter_channels")
ANY_LENGTH = 1_000_000  # steps of a run that is only timed
Item = TypeVar("Item")


def train(objective: Objective, settings: Settings, *, report: Report = print, bar: bool | None = None) -> Result:
    """Trains `objective` and writes the best weights to `settings.output`; checkpoints go into a folder beside it.

    Args:
        objective: What to train; its patch shrinks where the pictures are too small for it.
        settings: How.
        report: Takes lines for people.
        bar: Whether to hide the progress bar; None: unless on a terminal.

    Returns:
        How the run ended.

    Raises:
        UsageError: The settings do not fit this machine, these files or the run to resume.
        TrainingError: No picture can be read, or the loss is no number any more; in that case the last good weights
            are still written.
    """
    device = pick_device(settings.device)
    processes = Processes(device, named=":" in settings.device)
    device = processes.device
    report = report if processes.first else lambda _: None
    out = settings.output or Path(f"{objective.name}{weights.SUFFIX}")
    folder = checkpoint_folder(out)
    processes.once(lambda: refuse_to_overwrite(out, resume=settings.resume, overwrite=settings.overwrite))
    past = checkpoint.load(folder, report) if settings.resume else None
    precision = "bf16" if pick_precision(settings.precision, device) == torch.bfloat16 else "fp32"
    settings = replace(settings, precision=precision, workers=_workers(settings.workers, device, report))
    asked = _asked(objective, settings)
    if past is not None:
        settings = resumed(settings, asked, past, folder)
    pictures, validation = _pictures(settings, processes, report)
    _fit_patch(objective, pictures, report)
    cv2.setNumThreads(0)  # OpenCV's threads and torch's would fight for the same cores
    if settings.steps is None:
        minutes = DEFAULT_MINUTES if settings.minutes is None else settings.minutes
        settings = replace(settings, minutes=None, steps=ANY_LENGTH)
        seconds = Run(objective, pictures, [], settings, processes, report=lambda _: None).seconds_a_step()
        settings = replace(settings, steps=max(1, round(minutes * 60 / seconds)))
    report(
        f"training {objective.name} on {len(pictures)} pictures, choosing by {len(validation)}; "
        f"patches of {objective.patch}, {settings.steps} steps of {settings.batch_size}; "
        f"{describe(device, PRECISIONS[precision])}"
    )
    if settings.length < FEW_STEPS and settings.init is None and past is None:
        shipped = any(path.stem == objective.name for path in weights.shipped())  # none of `restore latent`
        report(
            f"{settings.steps} steps are few, {FEW_STEPS} the least that help: "
            f"give more{', or start from the shipped weights by --init default' * shipped}"
        )
    init = _initial(objective, settings)
    run = Run(objective, pictures, validation, settings, processes, init=init, past=past, asked=asked, report=report)
    if past is None:  # only now that nothing hinders the run
        processes.once(lambda: checkpoint.clear(folder))
    try:
        result = run.go(folder, bar)
    except TrainingError as error:
        processes.once(lambda: write(run, out))
        raise TrainingError(f"{error}. The last good weights are in {out}") from error
    if result.status == "finished":
        processes.once(lambda: write(run, out))
        shown = ", ".join(f"{label} {score:.2f} dB" for label, score in result.scores.items())
        compared = f"; {result.comparison}" if result.comparison else ""
        report(f"wrote {out}: {shown}{compared}. {folder} can be deleted")
    else:
        report(f"{result.status} at step {result.step} of {settings.steps}; the same command with --resume goes on")
    return result


def refuse_to_overwrite(out: Path, *, resume: bool, overwrite: bool, parts: Sequence[Path] = ()) -> None:
    """Checks that a run has what it resumes, or replaces nothing unasked.

    Args:
        out: The weights file.
        resume: Whether the run goes on from its checkpoint.
        overwrite: Whether it may replace the file and the checkpoint.
        parts: Folders within that of the checkpoint, for runs that are made of several.

    Raises:
        UsageError: Something is missing or in the way.
    """
    folder = checkpoint_folder(out)
    places = [*parts, folder]
    begun = any(checkpoint.exists(place) for place in places)
    if resume:
        if not begun:
            raise UsageError(f"{folder}: no checkpoint to resume; leave out --resume")
        return
    if out.is_dir() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{out if out.is_dir() else folder}: is in the way; choose another -o")
    if out.suffix != weights.SUFFIX:
        raise UsageError(f"{out}: weights files end in {weights.SUFFIX}; give -o {out.with_suffix(weights.SUFFIX)}")
    for path, found in ((out, out.exists()), (folder, begun)):
        if found and not overwrite:
            hint = " (--resume goes on with it)" if path == folder else ""
            raise UsageError(f"{path} exists{hint}; choose another -o or use --overwrite")
    for place in places:
        if foreign := checkpoint.foreign(place, parts):
            raise UsageError(
                f"{place}: holds {foreign}, which is no part of a checkpoint; move it or choose another -o"
            )


def _asked(objective: Objective, settings: Settings) -> dict[str, Any]:
    """What shapes the weights besides the settings, by what a person would call it, as JSON holds it."""
    asked = {
        "task": objective.name,
        "--arch": objective.arch,
        "--patch": objective.patch,
        "--minutes": settings.minutes,
        **{f"--net {name}": value for name, value in weights.config_values(objective.config).items()},
        **{flag(name): value for name, value in objective.options.items()},
        "FOLDER": _listed(settings.folders),
        "--val": _listed(settings.val or []),
        "--corrupted": _listed([settings.corrupted] if settings.corrupted else []),
    }
    return json.loads(json.dumps(asked, default=str))


def _listed(folders: Sequence[Path]) -> dict[str, Any] | None:
    if not folders:
        return None
    paths = list_pictures(folders)
    where = ", ".join(str(folder.resolve()) for folder in folders)
    return {"where": where, "pictures": len(paths), "fingerprint": fingerprint(paths)}


def resumed(settings: Settings, asked: dict[str, Any], past: checkpoint.Checkpoint, folder: Path) -> Settings:
    """The settings with the length of the run that goes on.

    Args:
        settings: Those that it is called with now.
        asked: What else shapes its weights, by the name of the flag.
        past: Its checkpoint.
        folder: Where that is.

    Raises:
        UsageError: The run was started with something else; the text names what differs.
        TrainingError: The checkpoint does not say with what.
    """
    if not all(isinstance(past.state.get(part), dict) for part in ("settings", "progress")):
        raise TrainingError(f"{folder}: damaged checkpoint (its state is incomplete); train anew with --overwrite")
    known = past.state["settings"] | past.state.get("asked", {})
    wanted = {**settings.shaping, **asked}
    for length in ("steps", "--minutes"):  # need not be said again
        if wanted.get(length, 0) is None:
            del wanted[length]
    differing = []
    for name, value in wanted.items():
        before, after = (
            one["fingerprint"] if isinstance(one, dict) else one for one in (known.get(name, value), value)
        )  # pictures may have moved
        if before == after:
            continue
        said = name if name in asked else flag(name)
        differing.append(f"{said} was {_shown(known[name])}, now it is {_shown(value)}")
    if differing:
        raise UsageError(f"the run to resume was started with other settings: {'; '.join(differing)}")
    return replace(settings, minutes=None, steps=known["steps"])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['where']} with {value['pictures']} pictures ({value['fingerprint']})"
    return "not given" if value is None else str(value)


def _pictures(settings: Settings, processes: Processes, report: Report) -> tuple[Pictures, list[np.ndarray]]:
    """Pictures to learn from and to choose by; without --val every twentieth is held out."""
    chosen = _spread(list_pictures(settings.val), MAX_VALIDATION) if settings.val else []
    budget = None if settings.cache is None else settings.cache * 1e9
    listed = list_pictures(settings.folders)
    both = list(dict.fromkeys([*listed, *chosen]))
    pairs = list_pairs(both, settings.corrupted) if settings.corrupted else {}
    if pairs:
        report(f"{len(pairs)} pairs; the other {len(both) - len(pairs)} pictures are damaged on the fly")
    pictures = Pictures(listed, budget, report, pairs, processes)
    if chosen:
        return pictures, _all(Pictures(chosen, math.inf, report, pairs, processes))
    if len(pictures) == 1:
        report("a single picture: the weights are chosen by the picture they learn from")
        return pictures, _all(pictures)
    held_out = _spread(range(0, len(pictures), 20), MAX_VALIDATION)
    report(f"no --val: {len(held_out)} of the {len(pictures)} pictures are held out to choose by")
    return pictures.without(held_out), _all(pictures.without(set(range(len(pictures))) - set(held_out)))


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _all(pictures: Pictures) -> list[np.ndarray]:
    readable = [picture for number in range(len(pictures)) if (picture := pictures[number]) is not None]
    if not readable:
        raise TrainingError("none of the pictures to choose by can be read; name others with --val")
    return readable


def _fit_patch(objective: Objective, pictures: Pictures, report: Report) -> None:
    """Shrinks the patch to what nine in ten of the pictures can give."""
    sides = [objective.clean_patch(kind) for kind in range(len(objective.variants)) if objective.coverage(kind) is None]
    largest = max(sides, default=0)  # patches that cover a share of any picture fit every one
    short = sorted(min(size) for size in pictures.sizes)
    fitting = min(largest, short[int((1 - FIT) * len(short))])
    if fitting < largest:
        wanted, objective.patch = objective.patch, max(1, objective.patch * fitting // largest)
        report(f"patches shrink from {wanted} to {objective.patch} pixels to fit the pictures")


def _workers(wanted: int | None, device: torch.device, report: Report) -> int:
    """Processes that make batches: one beside a CPU that trains, else a core each less one."""
    workers = wanted if wanted is not None else 1 if device.type == "cpu" else min(16, max(1, available_cores() - 1))
    if workers and not can_fork():
        report("patches are prepared within the training process: this system cannot fork workers")
        return 0
    return workers


def _initial(objective: Objective, settings: Settings) -> dict[str, torch.Tensor] | None:
    """The weights to start from, by name; None: those of the checkpoint.

    Raises:
        UsageError: They are of another architecture or config.
    """
    if settings.resume:
        return None
    if settings.init is None:
        return objective.initial()
    header, network = weights.load(weights.find(objective.name, settings.init), objective.name)
    # Heads for other scales do not hinder: what both have is taken, what is new starts fresh. More planes to look at
    # do not either: they begin with no effect. Nor does a judge of what was found, or what is left as it is.
    ours, theirs = (
        {**json.loads(json.dumps(weights.config_values(config))), "scales": None, "frozen": None, "trained": None}
        for config in (objective.config, network.config)
    )
    more = [name for name in GROWING if ours.get(name, 0) > theirs.get(name, 0)]
    theirs |= {name: ours[name] for name in more}
    if (header.arch, theirs) != (objective.arch, ours):
        raise UsageError(
            f"{settings.init}: these weights are of another architecture or config; "
            "leave out --arch and --net to take theirs"
        )
    tensors = dict(network.state_dict())
    return widened(tensors, build(objective.arch, objective.config).state_dict()) if more else tensors


def widened(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors` with zeros for the inputs that convolutions of `wanted` have beyond theirs.

    Further planes of a picture come last, also where it is folded: pixel_unshuffle keeps the planes in order.

    Raises:
        UsageError: Something else than the number of inputs differs.
    """
    grown = dict(tensors)
    for name, tensor in tensors.items():
        target = wanted[name].shape if name in wanted else tensor.shape
        if tensor.shape == target:
            continue
        extra = target[1] - tensor.shape[1] if tensor.ndim == len(target) == 4 else -1
        if extra < 0 or target[0] != tensor.shape[0] or target[2:] != tensor.shape[2:]:
            raise UsageError(f"{name} is {tuple(tensor.shape)} in the weights to start from, {tuple(target)} here")
        grown[name] = torch.cat([tensor, tensor.new_zeros(len(tensor), extra, *target[2:])], dim=1)
    return grown


def header(run: Run, **more: Any) -> weights.Header:
    """What the weights of a run say of how they were made; `more` goes into their provenance."""
    settings, objective, progress, device = run.settings, run.objective, run.progress, run.processes.device
    provenance = {
        "folders": [folder.name for folder in settings.folders],
        "pictures": len(run.pictures),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        **settings.shaping,
        "init": Path(settings.init).name if settings.init else "",
        "patch": objective.patch,
        "steps": progress.step,
        "best_step": progress.best_step,
        "minutes": round(progress.seconds / 60, 1),
        **more,
    }
    return weights.Header(
        task=objective.name,
        variant=settings.variant,
        arch=objective.arch,
        config=weights.config_values(objective.config),
        scores={label: round(score, 3) for label, score in progress.best_scores.items()},
        provenance=provenance,
        data_terms=settings.data_terms,
    )


def write(run: Run, out: Path, **more: Any) -> None:
    """Writes the best weights of a run; `more` goes into their provenance."""
    weights.save(out, header(run, **more), run.best_weights())
