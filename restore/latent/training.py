"""From a folder of pictures to the weights of an autoencoder, by the package's training loop."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device
from restore.errors import TrainingError, UsageError
from restore.latent.data import Pictures, moved, read_folder, to_planes
from restore.latent.kinds import kind_of
from restore.latent.kinds.stacked import Layer
from restore.latent.networks import LatentConfig
from restore.latent.objective import LatentObjective, config_for
from restore.latent.options import ModelOptions, TrainingOptions, check_together
from restore.training import checkpoint
from restore.training.loop import Hardware, Result, Run, checkpoint_folder
from restore.training.settings import Settings

SAVE_EVERY = 180.0  # seconds between checkpoints
VALIDATIONS = 12  # in a run
HELD_OUT = 20  # every so many pictures one is held out where there is no --val
MAX_VALIDATION = 1000  # pictures
Report = Callable[[str], None]


class LatentRun(Run):
    """A run over pictures that are in memory: each epoch takes them in another order.

    Args:
        pictures: What is learnt from.
        augment: How far they are moved; see `moved`.
        snapshots: Steps after which the weights are written, and where to.
        keywords: As of `Run`.
    """

    def __init__(
        self, *args: Any, pictures: Pictures, augment: float, snapshots: dict[int, Path], **keywords: Any
    ) -> None:
        super().__init__(*args, **keywords)
        self._planes, self._augment, self._snapshots = to_planes(pictures.pixels), augment, snapshots

    def _batches(self, start: int, stop: int) -> Iterator[dict[str, torch.Tensor]]:
        count, size, seed = len(self._planes), self.settings.batch_size, self.settings.seed
        epoch, order = -1, np.arange(0)
        for step in range(start, stop):
            numbers = []
            for place in range(step * size, (step + 1) * size):
                if place // count != epoch:
                    epoch = place // count
                    order = np.random.default_rng((seed, 0, epoch)).permutation(count)
                numbers.append(order[place % count])
            chance = int(np.random.default_rng((seed, 1, step)).integers(2**62))
            clean = self._planes[numbers]
            if self._augment:
                clean = moved(clean, self._augment, torch.Generator().manual_seed(chance))
            yield {"clean": clean.to(self.accelerator.device), "seed": torch.tensor([chance + 1])}

    def _step(self, step: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = super()._step(step, batch)
        if step + 1 in self._snapshots:
            header = self.header({}, "", self.objective.config.kind)
            weights.save(self._snapshots[step + 1], header, self.average.state_dict())
        return loss


def train_folder(
    folder: Path, model: ModelOptions, training: TrainingOptions, report: Report = print, bar: bool | None = None
) -> Result:
    """Trains an autoencoder on the pictures below `folder` and writes its weights.

    Args:
        folder: Searched through and through.
        model: The network and its penalty.
        training: How long and how.
        report: Takes lines for people.
        bar: Whether to hide the progress bar; None: unless on a terminal.

    Raises:
        UsageError: The call cannot be: outputs exist, the folder is missing or empty, options contradict each other.
        TrainingError: The loss is no number any more; the last good weights are then still written.
    """
    refuse_to_overwrite(training)
    channels = {"auto": None, "gray": 1, "rgb": 3}[model.colour]
    pictures = read_folder(folder, model.size, channels, report, shrink=True)
    side, channels = pictures.pixels.shape[1], pictures.pixels.shape[3]
    if training.val is not None:
        validation = read_folder(training.val, side, channels, report)
    elif len(pictures) < 2:
        report("a single picture: the weights are chosen by the picture they learn from")
        validation = pictures
    else:
        held = np.arange(0, len(pictures), HELD_OUT)
        report(f"no --val: {len(held)} of the {len(pictures)} pictures are held out to choose by")
        validation = pictures.subset(held)
        pictures = pictures.subset(np.setdiff1d(np.arange(len(pictures)), held))
    return train(pictures, validation, model, training, report, bar, folder=folder.name)


def refuse_to_overwrite(training: TrainingOptions) -> None:
    """Raises UsageError where a run would replace something; removes what it may replace."""
    out = training.output
    folder = checkpoint_folder(out)
    if out.is_dir():
        raise UsageError(f"{out}: is a folder, where the weights file would have to go")
    if training.resume:
        if not checkpoint.exists(folder) and not any(folder.glob("layer-*")):
            raise UsageError(f"{folder}: no checkpoint to resume; leave out --resume")
        return
    for path, found in ((out, out.exists()), (folder, folder.exists())):
        if found and not training.overwrite:
            hint = " (--resume goes on with it)" if path == folder else ""
            raise UsageError(f"{path} exists{hint}; choose another -o or use --overwrite")
    shutil.rmtree(folder, ignore_errors=True)


def train(
    pictures: Pictures,
    validation: Pictures,
    model: ModelOptions,
    training: TrainingOptions,
    report: Report = print,
    bar: bool | None = None,
    *,
    folder: str = "",
) -> Result:
    """`train_folder` for pictures in memory."""
    check_together(model, training)
    device = pick_device(training.device)
    config = config_for(model, pictures.pixels.shape[1], pictures.pixels.shape[3])
    if model.kind == "overcomplete" and config.code <= config.values:
        raise UsageError(f"an overcomplete code is larger than the picture: --code must be above {config.values}")
    _check_resumed(model, training)
    pixels = list(validation.pixels[:MAX_VALIDATION])
    report(
        f"training {model.kind}, a code of {config.code} for {config.size}x{config.size}x{config.channels}, on "
        f"{len(pictures)} pictures, choosing by {len(pixels)}; {training.steps} steps of {training.batch_size}"
    )
    best: dict[str, torch.Tensor] = first_weights(config, pictures.pixels)
    out = training.output
    layers = len(config.widths) + 1 if training.layerwise else 0
    snapshots = snapshot_steps(training)
    # Each layer gets a part of the steps, and the whole network the last one.
    steps = max(1, training.steps // (layers + 1))
    for number in range(layers + 1):
        last = number == layers
        kind = kind_of(model) if last else Layer(model, number)
        objective = LatentObjective(model, kind, config)
        place = checkpoint_folder(out) if last else checkpoint_folder(out) / f"layer-{number}"
        settings = _settings(training, steps)
        past = checkpoint.load(place) if training.resume else None
        if past is not None and past.state["settings"] != settings.values():
            raise UsageError(f"{out}: the run to resume was started with other settings of its length or rate")
        run = LatentRun(
            objective,
            pictures,
            pixels,
            settings,
            Hardware(device.type == "cpu"),
            init=best,
            past=past,
            report=report if last else _silent,
            pictures=pictures,
            augment=training.augment,
            snapshots=snapshots if last else {},
        )
        _remember(place, model)
        result = _go(run, place, training, folder, bar)
        best = run.best_weights()
        if result.status != "finished":
            report(f"{result.status} at step {result.step} of {steps}; the same command with --resume goes on")
            return result
        if not last:
            report(f"layer {number + 1} of {layers}: trained")
    _write(run, training, folder)
    shown = ", ".join(f"{label} {score:.2f} dB" for label, score in result.scores.items())
    report(f"wrote {out}: {shown}. {checkpoint_folder(out)} can be deleted")
    return result


def first_weights(config: LatentConfig, pixels: np.ndarray) -> dict[str, torch.Tensor]:
    """Where a run starts besides chance: the mean picture (N,S,S,C), which networks subtract and begin at."""
    mean = torch.from_numpy(pixels.mean(0, dtype=np.float64)).permute(2, 0, 1).float() / 255
    first = {"mean": mean}
    if config.net == "dense" and not config.linear:
        last = len(config.widths)
        name = f"decoder_biases.{last}" if config.tied else f"decoder.{last}.bias"
        first[name] = torch.logit(mean.flatten().clamp(0.01, 0.99))
    elif config.net == "conv" and config.widths:
        first[f"up.{len(config.widths) - 1}.bias"] = torch.logit(mean.mean((1, 2)).clamp(0.01, 0.99))
    return first


def snapshot_steps(training: TrainingOptions) -> dict[int, Path]:
    """After which steps to write weights, closer together at first, when codes change most, and where to."""
    folder = training.output.with_suffix(".snapshots")
    count = training.snapshots
    if not count:
        return {}
    steps = np.unique(np.geomspace(min(10, training.steps), training.steps, count).round().astype(int))
    return {int(step): folder / f"step-{step:06d}{weights.SUFFIX}" for step in steps}


def _settings(training: TrainingOptions, steps: int) -> Settings:
    return Settings(
        steps=steps,
        batch_size=training.batch_size,
        lr=training.lr,
        seed=training.seed,
        optimizer=training.optimizer,
        ema=training.ema,
        loss="mse",
        validate_every=max(25, math.ceil(steps / VALIDATIONS)),
    )


def _asked(model: ModelOptions) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(json.dumps(vars(model)))
    return asked


def _remember(folder: Path, model: ModelOptions) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(_asked(model)), encoding="utf-8")


def _check_resumed(model: ModelOptions, training: TrainingOptions) -> None:
    """Raises UsageError where the run to resume was asked for another network."""
    if not training.resume:
        return
    folder = checkpoint_folder(training.output)
    for path in (folder / "model.json", folder / "layer-0" / "model.json"):
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            differing = [f"--{name} was {known.get(name)}" for name, v in _asked(model).items() if known.get(name) != v]
            if differing:
                raise UsageError(f"the run to resume was started with other options: {', '.join(differing)}")
            return


def _go(run: LatentRun, place: Path, training: TrainingOptions, folder: str, bar: bool | None) -> Result:
    stop_after = None if training.stop_after is None else training.stop_after * 60
    try:
        return run.go(place, stop_after, SAVE_EVERY, bar)
    except TrainingError as error:
        _write(run, training, folder)
        raise TrainingError(f"{error}. The last good weights are in {training.output}") from error


def _write(run: LatentRun, training: TrainingOptions, folder: str) -> None:
    provenance = {
        "folders": [folder],
        "pictures": len(run.patches.pictures),
        "hardware": f"{platform.machine()} {run.accelerator.device.type}",
        "torch": torch.__version__,
        "augment": training.augment,
        "options": {name: value for name, value in run.objective.options.items() if value is not None},  # type: ignore[attr-defined]
    }
    header = run.header(provenance, training.data_terms, run.objective.config.kind)
    weights.save(training.output, header, run.best_weights())


def _silent(text: str) -> None:
    """A report nobody reads."""
