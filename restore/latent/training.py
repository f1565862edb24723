"""From a folder of pictures to the weights of an autoencoder, by the package's training loop."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device
from restore.errors import TrainingError, UsageError
from restore.images import SUFFIXES
from restore.latent.data import Pictures, moved, read_folder, to_planes
from restore.latent.kinds import kind_of
from restore.latent.kinds.stacked import Layer
from restore.latent.networks import LatentConfig
from restore.latent.objective import LatentObjective, config_for
from restore.latent.options import ModelOptions, TrainingOptions, check_together
from restore.training import checkpoint
from restore.training.checkpoint import checkpoint_folder
from restore.training.loop import Result, Run
from restore.training.processes import Processes
from restore.training.settings import Settings, flag

VALIDATIONS = 12  # in a run, unless it is short
LEAST_BETWEEN = 25  # steps between two validations
HELD_OUT = 20  # every so many pictures one is held out where there is no --val
MAX_VALIDATION = 1000  # pictures
Report = Callable[[str], None]


@dataclass(frozen=True)
class LatentSettings(Settings):
    """Settings of a run whose steps and validations are short."""

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return max(LEAST_BETWEEN, math.ceil(self.length / VALIDATIONS))


class LatentRun(Run):
    """A run over pictures that are in memory: each epoch takes them in another order.

    Args:
        pictures: What is learnt from.
        augment: How far they are moved; see `moved`.
        snapshots: Steps after which the weights are written, and where to.
        keywords: As of `Run`.
    """

    objective: LatentObjective

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
            yield {"clean": clean.to(self.processes.device), "seed": torch.tensor([chance + 1])}

    def _step(self, step: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = super()._step(step, batch)
        if step + 1 in self._snapshots:
            weights.save(self._snapshots[step + 1], self.header({}), self.average.state_dict())
        return loss

    def _scores(self, network: Any) -> dict[str, float]:
        """Of all validation pictures at once, which takes less time than one by one."""
        return {} if network is None else self.objective.validate(network, self.validation)

    def header(self, provenance: dict[str, Any], data_terms: str = "") -> weights.Header:
        """The header of the weights that this run makes.

        Args:
            provenance: What is known besides the settings and the progress.
            data_terms: Under which terms the pictures stand.
        """
        objective, progress = self.objective, self.progress
        done = {
            **self.settings.shaping,
            "steps": progress.step,
            "best_step": progress.best_step,
            "minutes": round(progress.seconds / 60, 1),
            "patch": objective.patch,
        }
        return weights.Header(
            task=objective.name,
            variant=objective.config.kind,
            arch=objective.arch,
            config=weights.config_values(objective.config),
            scores={label: round(score, 3) for label, score in progress.best_scores.items()},
            provenance={**provenance, **done},
            data_terms=data_terms,
        )


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
    if out.suffix.lower() in SUFFIXES:
        raise UsageError(f"{out}: a picture goes by that name; end -o in {weights.SUFFIX}")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder, where the weights file would have to go")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is in the way; choose another -o")
    layers = _layers(folder)
    begun = any(checkpoint.exists(place) for place in (folder, *layers))
    if training.resume:
        if not begun:
            raise UsageError(f"{folder}: no checkpoint to resume; leave out --resume")
        return
    for path, found in ((out, out.exists()), (folder, begun)):
        if found and not training.overwrite:
            hint = " (--resume goes on with it)" if path == folder else ""
            raise UsageError(f"{path} exists{hint}; choose another -o or use --overwrite")
    places = [*layers, folder]
    for place in places:
        if foreign := checkpoint.foreign(place, layers):
            raise UsageError(f"{place}: holds {foreign}, which is no part of a checkpoint; choose another -o")
    for place in places:
        checkpoint.clear(place)


def _layers(folder: Path) -> list[Path]:
    """Where the layers that were trained one at a time have their checkpoints."""
    return [path for path in sorted(folder.glob("layer-*")) if path.is_dir() and not path.is_symlink()]


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
    processes = Processes(pick_device(training.device), named=":" in training.device)
    if processes.count > 1:
        raise UsageError("latent autoencoders train in one process; leave out torchrun")
    # A swap learns from a picture of either folder at once.
    channels = pictures.pixels.shape[3] // (2 if model.kind == "swap" else 1)
    config = config_for(model, pictures.pixels.shape[1], channels)
    if model.kind == "overcomplete" and config.code <= config.values:
        raise UsageError(f"an overcomplete code is larger than the picture: --code must be above {config.values}")
    pixels = list(validation.pixels[:MAX_VALIDATION])
    report(
        f"training {model.kind}, a code of {config.code} for {config.size}x{config.size}x{config.channels}, on "
        f"{len(pictures)} pictures, choosing by {len(pixels)}; {training.steps} steps of {training.batch_size}"
    )
    asked = _asked(model, training)
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
        past = checkpoint.load(place, report) if training.resume else None
        if past is not None:
            _check_resumed(place, past, settings, asked)
        run = LatentRun(
            objective,
            pictures,
            pixels,
            settings,
            processes,
            init=best,
            past=past,
            asked=asked,
            report=report if last else _silent,
            pictures=pictures,
            augment=training.augment,
            snapshots=snapshots if last else {},
        )
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
    if config.kind == "swap":
        single, parts = replace(config, kind="undercomplete"), np.split(pixels, 2, axis=3)
        first, second = (first_weights(single, part) for part in parts)
        first["mean"] = second["mean"] = (first["mean"] + second["mean"]) / 2
        named = (("first", first), ("second", second))
        return {f"{part}.{name}": tensor for part, tensors in named for name, tensor in tensors.items()}
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


def _settings(training: TrainingOptions, steps: int) -> LatentSettings:
    return LatentSettings(
        folders=[],
        steps=steps,
        stop_after=training.stop_after,
        batch_size=training.batch_size,
        lr=training.lr,
        seed=training.seed,
        optimizer=training.optimizer,
        ema=training.ema,
        loss="mse",
        precision="fp32",
        workers=0,
    )


def _asked(model: ModelOptions, training: TrainingOptions) -> dict[str, Any]:
    """What shapes the weights besides the settings of a layer's run, by name, as JSON holds it."""
    whole = {name: getattr(training, name) for name in ("steps", "augment", "layerwise")}
    asked: dict[str, Any] = json.loads(json.dumps({**vars(model), **whole}))
    return asked


def _check_resumed(place: Path, past: checkpoint.Checkpoint, settings: Settings, asked: dict[str, Any]) -> None:
    """Checks that a run is the one that the checkpoint in `place` is of.

    Raises:
        UsageError: It was started with something else; the text names what differs.
        TrainingError: The checkpoint does not say what of.
    """
    if not all(isinstance(past.state.get(part), dict) for part in ("settings", "asked", "progress")):
        raise TrainingError(f"{place}: damaged checkpoint (its state is incomplete); train anew with --overwrite")
    known, wanted = past.state["settings"] | past.state["asked"], settings.shaping | asked
    differing = [f"{flag(name)} was {known.get(name)}" for name, value in wanted.items() if known.get(name) != value]
    if differing:
        raise UsageError(f"the run to resume was started with other options: {', '.join(differing)}")


def _go(run: LatentRun, place: Path, training: TrainingOptions, folder: str, bar: bool | None) -> Result:
    try:
        return run.go(place, bar)
    except TrainingError as error:
        _write(run, training, folder)
        raise TrainingError(f"{error}. The last good weights are in {training.output}") from error


def _write(run: LatentRun, training: TrainingOptions, folder: str) -> None:
    provenance = {
        "folders": [folder],
        "pictures": len(run.patches.pictures),
        "hardware": f"{platform.machine()} {run.processes.device.type}",
        "torch": torch.__version__,
        "augment": training.augment,
        "options": {name: value for name, value in run.objective.options.items() if value is not None},
    }
    weights.save(training.output, run.header(provenance, training.data_terms), run.best_weights())


def _silent(text: str) -> None:
    """A report nobody reads."""
