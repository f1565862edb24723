"""The training loop: an objective, pictures, settings, and out come weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from tqdm import tqdm

from restore import weights
from restore.errors import TrainingError
from restore.models import build
from restore.training import checkpoint
from restore.training.data import Batches, Patches, loader, variant_of
from restore.training.logs import Log
from restore.training.objective import Objective
from restore.training.optimizers import optimizer
from restore.training.pictures import Pictures
from restore.training.settings import MAX_NORM, Settings
from restore.training.signals import interruptible

CHECK_EVERY = 10  # steps between looks at the loss: a look waits for the GPU
PREVIEWS = 4


@dataclass(frozen=True)
class Result:
    """How a run ended: `finished`, `paused` (--stop-after) or `interrupted` (Ctrl-C), and the best scores so far."""

    status: str
    step: int
    scores: dict[str, float]


@dataclass
class Progress:
    """What a resumed run has to know of the past, besides the weights."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_scores: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute; none of this changes what is computed, up to rounding.

    cpu: compute on the CPU even where there is a GPU. workers: processes that make batches.
    """

    cpu: bool = False
    workers: int = 0
    compile: bool = False


def checkpoint_folder(out: Path) -> Path:
    """Where a run that writes `out` keeps its checkpoints and logs."""
    return out.with_suffix(".checkpoint")


class Run:
    """One training run, from a fresh start, from given weights, or from its last checkpoint."""

    def __init__(
        self,
        objective: Objective,
        pictures: Pictures,
        validation: Sequence[np.ndarray],
        settings: Settings,
        hardware: Hardware,
        *,
        init: dict[str, torch.Tensor] | None = None,
        past: checkpoint.Checkpoint | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.objective, self.settings, self.validation, self.report = objective, settings, validation, report
        unused_heads = DistributedDataParallelKwargs(find_unused_parameters=len(objective.variants) > 1)
        self.accelerator = Accelerator(
            cpu=hardware.cpu,
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            kwargs_handlers=[unused_heads],
        )
        torch.manual_seed(settings.seed)  # for the first weights; nothing else draws from torch
        network = build(objective.arch, objective.config).to(memory_format=torch.channels_last)
        if init is not None:
            fresh = network.state_dict()
            network.load_state_dict(fresh | {name: init[name] for name in fresh if name in init})
        self.progress = Progress()
        chosen = optimizer(
            settings.optimizer,
            network,
            settings.lr,
            fused=not hardware.cpu,
            half=settings.precision == "bf16",
            encoder_lr=settings.encoder_lr,
        )
        network, self.optimizer = self.accelerator.prepare(network, chosen)
        self.bare = self.accelerator.unwrap_model(network)
        self.average = copy.deepcopy(self.bare).eval().requires_grad_(False)
        self.best: dict[str, torch.Tensor] = {}
        if past is not None:
            self._restore(past)
        self.network = torch.compile(network) if hardware.compile else network
        self._good = self._copy()
        self.patches = Patches(pictures, objective, settings.seed)
        self.workers = hardware.workers

    def go(self, folder: Path, stop_after: float | None, save_every: float, bar: bool | None) -> Result:
        """Trains until done, paused after `stop_after` seconds, or interrupted; checkpoints in `folder`.

        Raises TrainingError when the loss is no number any more; `best_weights` are then still good.
        """
        started = saved = time.monotonic()
        before = self.progress.seconds
        log = Log(folder / "tensorboard") if self.accelerator.is_main_process else None
        status = "finished"
        steps = tqdm(
            total=self.settings.steps,
            initial=self.progress.step,
            disable=bar,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
        )
        with interruptible() as interrupted, steps:
            for step, batch in enumerate(self._batches(self.progress.step, self.settings.steps), self.progress.step):
                loss = self._step(step, batch)
                now = time.monotonic()
                self.progress.step, self.progress.seconds = step + 1, before + now - started
                steps.update()
                if step % CHECK_EVERY == 0 or step + 1 == self.settings.steps:
                    self._check(step, loss, steps, log)
                if (step + 1) % self.settings.validate_every == 0 or step + 1 == self.settings.steps:
                    self._validate(steps, log)
                if interrupted() or (stop_after is not None and now - started >= stop_after):
                    status = "interrupted" if interrupted() else "paused"
                    break
                if now - saved >= save_every:
                    self._save(folder)
                    saved = time.monotonic()
        if status != "finished" or self.progress.step == self.settings.steps:
            self._save(folder)
        if log:
            log.close()
        done = self.progress.step >= self.settings.steps
        return Result("finished" if done else status, self.progress.step, self.progress.best_scores)

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights that scored best on validation, or the latest good ones before any was."""
        return self.best or self._good

    def seconds_a_step(self, count: int = 8) -> float:
        """Median seconds of a training step, measured on `count` steps that leave no trace in the run."""
        trial = copy.copy(self)
        trial.network = trial.bare = copy.deepcopy(self.bare)
        trial.optimizer = optimizer(
            self.settings.optimizer, trial.bare, 0.0, fused=False, half=self.settings.precision == "bf16"
        )
        trial.average = copy.deepcopy(self.average)
        times = []
        last = time.monotonic()
        for step, batch in enumerate(self._batches(0, count + 3)):
            trial._step(step, batch).item()
            times.append(time.monotonic() - last)
            last = time.monotonic()
        return sorted(times[3:])[count // 2]

    def _batches(self, start: int, stop: int) -> Iterator[dict[str, torch.Tensor]]:
        accelerator = self.accelerator
        keys = Batches(
            len(self.patches.pictures),
            self.settings.batch_size,
            len(self.objective.variants),
            self.settings.seed,
            start,
            stop,
            accelerator.process_index,
            accelerator.num_processes,
        )
        for batch in loader(self.patches, keys, self.workers, pin=accelerator.device.type == "cuda"):
            yield {
                name: planes.to(accelerator.device, non_blocking=True, memory_format=torch.channels_last)
                for name, planes in batch.items()
            }

    def _step(self, step: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr_at(step) * group.get("share", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            variant = variant_of(step, len(self.objective.variants), self.settings.seed)
            loss = self.objective.loss(self.network, batch, variant, self.settings.distance_at(step))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.bare.parameters(), MAX_NORM)
        self.optimizer.step()
        with torch.no_grad():
            weight = 1 - self.settings.ema_at(step)
            for mean, value in zip(self.average.parameters(), self.bare.parameters(), strict=True):
                mean.lerp_(value, weight)
        return loss.detach()

    def _check(self, step: int, loss: torch.Tensor, steps: Any, log: Log | None) -> None:
        value = loss.item()
        finite = math.isfinite(value) and all(bool(p.isfinite().all()) for p in self.average.parameters())
        if not finite:
            raise TrainingError(f"the loss is no number any more at step {step}; try again with a lower --lr")
        self._good = self._copy()
        steps.set_postfix_str(
            f"loss {value:.4f}, best {self.progress.best_score:.2f}, "
            f"{self.progress.step * self.settings.batch_size / max(self.progress.seconds, 1e-9):.0f} images/s",
            refresh=False,
        )
        if log:
            log.numbers(step, {"loss": value, "learning rate": self.settings.lr_at(step)})

    def _validate(self, steps: Any, log: Log | None) -> None:
        with self.accelerator.autocast():
            scores = self.objective.validate(self.average, self.validation)
        score = float(np.mean(list(scores.values())))
        self.progress.history.append({"step": self.progress.step, "seconds": round(self.progress.seconds), **scores})
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_scores = score, scores
            self.progress.best_step = self.progress.step
            self.best = self._copy()
        if not self.accelerator.is_main_process or log is None:
            return
        shown = ", ".join(f"{label} {value:.2f}" for label, value in scores.items())
        rate = self.progress.step * self.settings.batch_size / max(self.progress.seconds, 1e-9)
        steps.clear()
        self.report(f"step {self.progress.step}/{self.settings.steps}: {shown} dB ({rate:.0f} images/s)")
        log.numbers(self.progress.step, {f"validation/{label}": value for label, value in scores.items()})
        with self.accelerator.autocast():
            log.pictures(
                self.progress.step, [self.objective.preview(self.average, p) for p in self.validation[:PREVIEWS]]
            )

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.average.state_dict().items()}

    def _save(self, folder: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        moments = {
            f"{number}.{name}": torch.as_tensor(value)
            for number, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        groups = {
            "model": dict(self.bare.state_dict()),
            "average": dict(self.average.state_dict()),
            "optimizer": moments,
            "best": self.best,
        }
        state = {"settings": self.settings.values(), "progress": vars(self.progress)}
        checkpoint.save(folder, self.progress.step, checkpoint.Checkpoint(groups, state))

    def _restore(self, past: checkpoint.Checkpoint) -> None:
        self.progress = Progress(**past.state["progress"])
        self.bare.load_state_dict(past.groups["model"])
        self.average.load_state_dict(past.groups["average"])
        self.best = {name: tensor.to(self.accelerator.device) for name, tensor in past.groups.get("best", {}).items()}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in past.groups["optimizer"].items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def header(self, provenance: dict[str, Any], data_terms: str, variant: str) -> weights.Header:
        """The header of the weights this run makes."""
        done = {
            "steps": self.progress.step,
            "best_step": self.progress.best_step,
            "minutes": round(self.progress.seconds / 60, 1),
            **{name: value for name, value in self.settings.values().items() if name != "steps"},
            "patch": self.objective.patch,
        }
        return weights.Header(
            task=self.objective.name,
            variant=variant,
            arch=self.objective.arch,
            config=weights.config_values(self.objective.config),
            scores={label: round(score, 3) for label, score in self.progress.best_scores.items()},
            provenance={**provenance, **done},
            data_terms=data_terms,
        )
