"""From a folder of pictures to the weights of an autoencoder, by the package's training loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device
from restore.errors import TrainingError, UsageError
from restore.latent.data import Pictures, moved, read_folder, silent
from restore.latent.kinds import kind_of
from restore.latent.kinds.stacked import Layer
from restore.latent.networks import LatentConfig
from restore.latent.objective import LatentObjective, config_for
from restore.latent.options import ModelOptions, TrainingOptions
from restore.training import checkpoint
from restore.training.checkpoint import checkpoint_folder
from restore.training.loop import Result, Run
from restore.training.processes import Processes
from restore.training.settings import Settings, flag
from restore.training.train import header, refuse_to_overwrite, resumed, write

VALIDATIONS = 12  # in a run, unless it is short
LEAST_BETWEEN = 25  # steps between two validations
MAX_VALIDATION = 1000  # pictures
AVERAGED = 0.99  # decay of the averaged weights: runs are short
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
        objective: What is trained.
        pictures: What is learnt from, of `restore.latent.data`.
        arguments, keywords: As of `Run`.
        augment: How far they are moved; see `moved`.
        snapshots: Steps after which the weights are written, and where to.
    """

    objective: LatentObjective

    def __init__(
        self,
        objective: LatentObjective,
        pictures: Any,
        *arguments: Any,
        augment: float,
        snapshots: dict[int, Path],
        **keywords: Any,
    ) -> None:
        super().__init__(objective, pictures, *arguments, **keywords)
        self._planes, self._augment, self._snapshots = pictures.planes, augment, snapshots

    def _batches(self, start: int, stop: int) -> Iterator[dict[str, torch.Tensor]]:
        count, size, seed = len(self._planes), self.settings.batch_size, self.settings.seed
        order = lru_cache(2)(lambda epoch: np.random.default_rng((seed, 0, epoch)).permutation(count))
        for step in range(start, stop):
            numbers = [order(place // count)[place % count] for place in range(step * size, (step + 1) * size)]
            chance = int(np.random.default_rng((seed, 1, step)).integers(2**62))
            clean = self._planes[numbers]
            if self._augment:
                clean = moved(clean, self._augment, torch.Generator().manual_seed(chance))
            yield {"clean": clean.to(self.processes.device), "seed": torch.tensor([chance + 1])}

    def _step(self, step: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = super()._step(step, batch)
        if step + 1 in self._snapshots:
            weights.save(self._snapshots[step + 1], header(self), self.average.state_dict())
        return loss

    def _scores(self, network: Any) -> dict[str, float]:
        """Of all validation pictures at once, which takes less time than one by one."""
        return {} if network is None else self.objective.validate(network, self.validation)


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
        UsageError: The call is wrong: outputs exist, the folder is missing or empty, options contradict each other.
        TrainingError: The loss is no longer finite; the last good weights are then still written.
    """
    check_outputs(training)
    pictures = read_folder(folder, model.size, None, report, shrink=True)
    if training.val is not None:
        validation = read_folder(training.val, pictures.pixels.shape[1], pictures.pixels.shape[3], report)
    elif len(pictures) < 2:
        report("a single picture: the weights are chosen by the picture they learn from")
        validation = pictures
    else:
        pictures, validation = pictures.split()
        report(f"no --val: {len(validation)} pictures are held out to choose by, {len(pictures)} left to learn from")
    return train(pictures, validation, model, training, report, bar, folder=folder.name)


def check_outputs(training: TrainingOptions) -> None:
    """`refuse_to_overwrite` for a run that may train its layers one at a time, and keep snapshots."""
    old = _old_snapshots(training)
    if old and not training.overwrite:
        raise UsageError(f"{old[0].parent} holds snapshots; choose another -o or use --overwrite")
    layers = _layers(checkpoint_folder(training.output))
    refuse_to_overwrite(training.output, resume=training.resume, overwrite=training.overwrite, parts=layers)


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
    if training.layerwise and (model.kind != "stacked" or model.net != "dense"):
        raise UsageError("--layerwise trains the dense layers of --kind stacked one at a time")
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
    for path in _old_snapshots(training):
        path.unlink()
    if training.overwrite and not training.resume:
        for place in (*_layers(checkpoint_folder(out)), checkpoint_folder(out)):
            checkpoint.clear(place)
    # Each layer gets a part of the steps, and the whole network the last one.
    steps = max(1, training.steps // (layers + 1))
    for number in range(layers + 1):
        last = number == layers
        kind = kind_of(model) if last else Layer(model, number)
        objective = LatentObjective(kind, config)
        place = checkpoint_folder(out) if last else checkpoint_folder(out) / f"layer-{number}"
        settings = _settings(model, training, steps, folder)
        past = checkpoint.load(place, report) if training.resume else None
        if past is not None:
            resumed(settings, asked, past, place)
        run = LatentRun(
            objective,
            pictures,
            pixels,
            settings,
            processes,
            init=best,
            past=past,
            asked=asked,
            report=report if last else silent,
            augment=training.augment,
            snapshots=snapshots if last else {},
        )
        more = {"augment": training.augment, "options": objective.options}
        try:
            result = run.go(place, bar)
        except TrainingError as error:
            write(run, out, **more)
            raise TrainingError(f"{error}. The last good weights are in {out}") from error
        best = run.best_weights()
        if result.status != "finished":
            report(f"{result.status} at step {result.step} of {steps}; the same command with --resume goes on")
            return result
        if not last:
            report(f"layer {number + 1} of {layers}: trained")
    write(run, out, **more)
    shown = ", ".join(f"{label} {score:.2f} dB" for label, score in result.scores.items())
    report(f"wrote {out}: {shown}. {checkpoint_folder(out)} can be deleted")
    return result


def first_weights(config: LatentConfig, pixels: np.ndarray) -> dict[str, torch.Tensor]:
    """Initial values that are not random, from pictures (N,S,S,C): their mean, subtracted and as the output's bias."""
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
    folder, count = _snapshot_folder(training), training.snapshots
    if not count:
        return {}
    steps = np.unique(np.geomspace(min(10, training.steps), training.steps, count).round().astype(int))
    return {int(step): folder / f"step-{step:06d}{weights.SUFFIX}" for step in steps}


def _old_snapshots(training: TrainingOptions) -> list[Path]:
    """Another run's, which `map` would take for this one's."""
    if training.resume or not training.snapshots:
        return []
    return sorted(_snapshot_folder(training).glob(f"step-*{weights.SUFFIX}"))


def _snapshot_folder(training: TrainingOptions) -> Path:
    return training.output.with_suffix(".snapshots")


def _settings(model: ModelOptions, training: TrainingOptions, steps: int, folder: str) -> LatentSettings:
    same = ("stop_after", "batch_size", "lr", "seed", "data_terms")
    return LatentSettings(
        folders=[Path(folder)],
        steps=steps,
        optimizer="adamw",
        ema=AVERAGED,
        loss="mse",
        precision="fp32",
        workers=0,
        variant=model.kind,
        **{name: getattr(training, name) for name in same},
    )


def _asked(model: ModelOptions, training: TrainingOptions) -> dict[str, Any]:
    """What shapes the weights besides the settings of a layer's run, by the name of the flag, as JSON holds it."""
    whole = {name: getattr(training, name) for name in ("steps", "augment", "layerwise")}
    asked: dict[str, Any] = json.loads(json.dumps({flag(name): value for name, value in (vars(model) | whole).items()}))
    return asked
