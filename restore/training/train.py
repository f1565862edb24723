"""From folders of pictures to a weights file."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from restore import weights
from restore.devices import PRECISIONS, describe, pick_device, pick_precision
from restore.errors import TrainingError, UsageError
from restore.training import checkpoint
from restore.training.data import fitting_patch
from restore.training.loop import Hardware, Result, Run, checkpoint_folder
from restore.training.objective import Objective
from restore.training.pictures import Pictures, list_pictures
from restore.training.settings import Settings

MAX_VALIDATION = 32  # pictures: a validation has to stay short beside the training
SAVE_EVERY = 180.0  # seconds between checkpoints
VALIDATIONS = 24  # in a run, unless it is short
DEFAULT_MINUTES = 60.0
Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """All that `restore train` is told. Without `steps` and `minutes` a run takes an hour.

    val: folders to choose by; without them some training pictures are held out.
    init: a weights file to start from. resume: go on from the checkpoint beside `out`.
    stop_after: minutes after which to pause. cache: bytes of decoded pictures to keep in memory.
    """

    folders: Sequence[Path]
    out: Path
    val: Sequence[Path] = ()
    steps: int | None = None
    minutes: float | None = None
    stop_after: float | None = None
    batch_size: int = 16
    lr: float = 1e-3
    optimizer: str = "muon"
    ema: float = 0.999
    loss: str = "l1"
    mse_share: float = 0.0
    encoder_lr: float = 1.0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    compile: bool = False
    workers: int | None = None
    cache: int | None = None
    resume: bool = False
    overwrite: bool = False
    init: Path | None = None
    variant: str = ""
    data_terms: str = ""


def train(
    objective: Objective, request: Request, *, report: Callable[[str], None] = print, bar: bool | None = None
) -> Result:
    """Trains `objective` and writes the best weights to `request.out`; checkpoints go into a folder beside it.

    bar: hide the progress bar (None: unless on a terminal). Raises UsageError for a request that
    cannot be, TrainingError when no picture can be read or the loss is no number any more; in
    that case the last good weights are still written.
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun sets this) one speaks
        report = _silent
    folder = checkpoint_folder(request.out)
    _refuse_to_overwrite(request, folder)
    past = checkpoint.load(folder) if request.resume else None
    if request.resume and past is None:
        raise UsageError(f"{folder}: no checkpoint to resume; leave out --resume")
    pictures, validation = _pictures(request, report)
    _fit_patch(objective, pictures, report)
    device = pick_device(request.device)
    precision = "bf16" if pick_precision(request.precision, device) == torch.bfloat16 else "fp32"
    if request.precision == "fp16":
        raise UsageError("training in fp16 is not offered, it overflows; use bf16 or fp32")
    hardware = Hardware(device.type == "cpu", _workers(request.workers, device), request.compile)
    cv2.setNumThreads(0)  # OpenCV's threads and torch's would fight for the same cores
    settings = _settings(objective, pictures, request, precision, hardware, past)
    where = describe(device, PRECISIONS[precision])
    report(
        f"training {objective.name} on {len(pictures)} pictures, choosing by {len(validation)}; "
        f"patches of {objective.patch}, {settings.steps} steps of {settings.batch_size}; {where}"
    )
    run = Run(
        objective, pictures, validation, settings, hardware, init=_initial(objective, request), past=past, report=report
    )
    stop_after = None if request.stop_after is None else request.stop_after * 60
    try:
        result = run.go(folder, stop_after, SAVE_EVERY, bar)
    except TrainingError as error:
        _write(run, request, device)
        raise TrainingError(f"{error}. The last good weights are in {request.out}") from error
    if result.status == "finished":
        if run.accelerator.is_main_process:
            _write(run, request, device)
        shown = ", ".join(f"{label} {score:.2f} dB" for label, score in result.scores.items())
        report(f"wrote {request.out}: {shown}. {folder} can be deleted")
    else:
        report(f"{result.status} at step {result.step} of {settings.steps}; the same command with --resume goes on")
    return result


def _silent(text: str) -> None:
    """A report nobody reads."""


def _refuse_to_overwrite(request: Request, folder: Path) -> None:
    if request.resume:
        return
    for path, found in ((request.out, request.out.exists()), (folder, checkpoint.exists(folder))):
        if found and not request.overwrite:
            hint = " (--resume goes on with it)" if path == folder else ""
            raise UsageError(f"{path} exists{hint}; choose another -o or use --overwrite")
    shutil.rmtree(folder, ignore_errors=True)


def _pictures(request: Request, report: Callable[[str], None]) -> tuple[Pictures, list[np.ndarray]]:
    """Pictures to learn from and to choose by; without --val every twentieth is held out."""
    chosen = _spread(list_pictures(request.val), MAX_VALIDATION) if request.val else []
    pictures = Pictures(list_pictures(request.folders), request.cache, report)
    if chosen:
        return pictures, _all(Pictures(chosen, budget=1 << 62, report=report))
    if len(pictures) == 1:
        report("a single picture: the weights are chosen by the picture they learn from")
        return pictures, _all(pictures)
    held_out = _spread(range(0, len(pictures), 20), MAX_VALIDATION)
    report(f"no --val: {len(held_out)} of the {len(pictures)} pictures are held out to choose by")
    return pictures.without(held_out), _all(pictures.without(set(range(len(pictures))) - set(held_out)))


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of `items`, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _all(pictures: Pictures) -> list[np.ndarray]:
    """The pixels of all that can be read. Raises TrainingError if none can."""
    readable = [picture for number in range(len(pictures)) if (picture := pictures[number]) is not None]
    if not readable:
        raise TrainingError("none of the pictures to choose by can be read; name others with --val")
    return readable


def _fit_patch(objective: Objective, pictures: Pictures, report: Callable[[str], None]) -> None:
    sides = [objective.clean_patch(kind) for kind in range(len(objective.variants)) if objective.coverage(kind) is None]
    largest = max(sides, default=0)  # patches that cover a share of any picture fit every one
    fitting = fitting_patch(pictures, largest)
    if fitting < largest:
        scale = largest // objective.patch
        wanted, objective.patch = objective.patch, max(1, fitting // scale)
        report(f"patches shrink from {wanted} to {objective.patch} pixels to fit the pictures")


def _workers(wanted: int | None, device: torch.device) -> int:
    """Processes that make batches: one beside a CPU that trains, else a core each less one."""
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else min(16, max(1, cores - 1))


def _settings(
    objective: Objective,
    pictures: Pictures,
    request: Request,
    precision: str,
    hardware: Hardware,
    past: checkpoint.Checkpoint | None,
) -> Settings:
    """The settings of the run: those of the checkpoint, or those asked for, with minutes made into steps once."""
    wanted = Settings(
        request.steps or 1,
        request.batch_size,
        request.lr,
        request.seed,
        optimizer=request.optimizer,
        ema=request.ema,
        loss=request.loss,
        mse_share=request.mse_share,
        encoder_lr=request.encoder_lr,
        precision=precision,
    )
    if past is not None:
        known = Settings(**past.state["settings"])
        wanted = replace(wanted, steps=request.steps or known.steps, validate_every=known.validate_every)
        differing = [name for name, value in known.values().items() if getattr(wanted, name) != value]
        if differing:
            names = ", ".join(f"--{name.replace('_', '-')} was {getattr(known, name)}" for name in differing)
            raise UsageError(f"the run to resume was started with other settings: {names}")
        return known
    steps = request.steps
    if steps is None:
        minutes = DEFAULT_MINUTES if request.minutes is None else request.minutes
        if not 0 < minutes < math.inf:
            raise UsageError(f"--minutes must be above 0; got {minutes}")
        trial = Run(objective, pictures, [], wanted, hardware, report=_silent)
        steps = max(1, round(minutes * 60 / trial.seconds_a_step()))
    return replace(wanted, steps=steps, validate_every=max(100, math.ceil(steps / VALIDATIONS)))


def _initial(objective: Objective, request: Request) -> dict[str, torch.Tensor] | None:
    if request.resume:
        return None
    if request.init is None:
        return objective.initial()
    header, network = weights.load(request.init, objective.name)
    # Heads for other scales do not hinder: what both have is taken, what is new starts fresh.
    theirs, ours = ({**config, "scales": None} for config in (header.config, _as_json(objective.config)))
    if (header.arch, theirs) != (objective.arch, ours):
        raise UsageError(
            f"{request.init}: these weights are of another architecture or config; leave out --net to take theirs"
        )
    return dict(network.state_dict())


def _as_json(config: Any) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in weights.config_values(config).items()}


def _write(run: Run, request: Request, device: torch.device) -> None:
    provenance = {
        "folders": [folder.name for folder in request.folders],
        "pictures": len(run.patches.pictures),
        "init": request.init.name if request.init else "",
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
    }
    weights.save(request.out, run.header(provenance, request.data_terms, request.variant), run.best_weights())
