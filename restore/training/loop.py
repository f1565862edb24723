"""The training loop: trains the network of an objective on pictures, validates it, and keeps checkpoints."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from restore.errors import TrainingError
from restore.models import build
from restore.tasks.losses import PIXEL_LOSSES
from restore.training import checkpoint
from restore.training.data import PREFETCH, Batches, Patches, Pictures, loader, variant_of
from restore.training.logs import Log
from restore.training.objective import Objective
from restore.training.optimizers import load_moments, optimizer
from restore.training.processes import Processes, interruptible
from restore.training.settings import Settings

WORSE = "worse than the input, train longer or start with `--init default`"
MAX_NORM = 1.0  # of the gradient
CHECK_EVERY = 10  # steps between looks at the loss: a look waits for the GPU
SAVE_EVERY = 180.0  # seconds between checkpoints
PREVIEWS = 4
UNTIMED, TIMED = 3, 8  # steps of a timing, before it counts and while it does


@dataclass(frozen=True)
class Result:
    """How a run ended: `finished`, `paused` (--stop-after) or `interrupted` (Ctrl-C); its steps; its best scores.

    comparison: these beside the scores of doing nothing, in words.
    """

    status: str
    step: int
    scores: dict[str, float]
    comparison: str = ""


@dataclass
class Progress:
    """What a resumed run has to know of the past, besides the weights."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_scores: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Run:
    """One training run, from a fresh start, from given weights, or from its last checkpoint.

    Args:
        objective: What is trained.
        pictures: What it learns from.
        validation: Pictures (H,W,3) in uint8 to choose the best weights by.
        settings: With a length, a precision and a number of workers that are settled.
        processes: Those that share the run.
        init: Weights to start from; what they lack starts fresh.
        past: The checkpoint to go on from.
        asked: What the run was asked for, to be kept in its checkpoints.
        report: Takes lines for people.
    """

    def __init__(
        self,
        objective: Objective,
        pictures: Pictures,
        validation: Sequence[np.ndarray],
        settings: Settings,
        processes: Processes,
        *,
        init: dict[str, torch.Tensor] | None = None,
        past: checkpoint.Checkpoint | None = None,
        asked: dict[str, Any] | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.objective, self.settings, self.validation, self.report = objective, settings, validation, report
        self.pictures, self.processes, self.asked = pictures, processes, asked or {}
        torch.manual_seed(settings.seed)  # for the first weights; nothing else draws from torch
        self.bare = build(objective.arch, objective.config).to(memory_format=torch.channels_last).to(processes.device)
        if init is not None:
            fresh = self.bare.state_dict()
            self.bare.load_state_dict(fresh | {name: init[name] for name in fresh if name in init})
        half = settings.precision == "bf16"
        fused = processes.device.type != "cpu"
        self.optimizer = optimizer(
            settings.optimizer, self.bare, settings.lr, fused=fused, half=half, encoder_lr=settings.encoder_lr
        )
        self.progress = Progress()
        self._unrestored: dict[str, float] | None = None
        self._decay = 0.0
        self._average = AveragedModel(self.bare, multi_avg_fn=self._follow).requires_grad_(False)
        self._average.n_averaged += 1  # the average starts from the first weights, not from those of the first step
        self.average = self._average.module.eval()
        self.best: dict[str, torch.Tensor] = {}
        if past is not None:
            self._restore(past)
        network = processes.shared(self.bare, unused=len(objective.variants) > 1)
        self.network: Any = torch.compile(network) if settings.compile else network
        self._good = self._copy()

    def go(self, folder: Path, bar: bool | None) -> Result:
        """Trains until done, paused or interrupted.

        Args:
            folder: Where checkpoints and logs go.
            bar: Whether to hide the progress bar; None: unless on a terminal.

        Raises:
            TrainingError: The loss is no number any more; `best_weights` are then still good.
        """
        settings, progress, processes = self.settings, self.progress, self.processes
        started = saved = time.monotonic()
        before, status = progress.seconds, "finished"
        pause_after = math.inf if settings.stop_after is None else settings.stop_after * 60
        log = Log(folder / "tensorboard" if processes.first else None)
        hidden = bar if processes.first else True
        steps = tqdm(total=settings.length, initial=progress.step, disable=hidden, unit="step", dynamic_ncols=True)
        with interruptible() as interrupted, steps, closing(log):
            for step, batch in enumerate(self._batches(progress.step, settings.length), progress.step):
                loss = self._step(step, batch)
                now = time.monotonic()
                progress.step, progress.seconds = step + 1, before + now - started
                steps.update()
                clock = processes.first  # one clock for all
                stop, pause, save = processes.any(
                    interrupted(), clock and now - started >= pause_after, clock and now - saved >= SAVE_EVERY
                )
                last = progress.step == settings.length
                save = save or stop or pause or last
                if save or step % CHECK_EVERY == 0:
                    self._check(step, loss, steps, log)
                if last or progress.step % settings.validate_every == 0:
                    self._validate(steps, log)
                if save:
                    self._save(folder)
                    saved = time.monotonic()
                if (stop or pause) and not last:
                    status = "interrupted" if stop else "paused"
                    break
        return Result(status, progress.step, progress.best_scores, self._compared(progress.best_scores))

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights that scored best on validation, or were scored last; before any was, the latest good."""
        return self.best or self._good

    def seconds_a_step(self) -> float:
        """Seconds of a training step, the making of its batch included, in the slowest process.

        Batches and steps are timed apart, the batches after those that workers make ahead: a full queue hides for a
        while that they come too slowly. The run has learnt a little then, and is to be thrown away.
        """
        kinds, workers = len(self.objective.variants), self.settings.workers or 0

        def rounded(count: int) -> int:
            return -(-count // kinds) * kinds

        ahead, untimed = rounded(PREFETCH * workers), rounded(UNTIMED)
        count = untimed + rounded(TIMED)
        batches = self._batches(0, ahead + count)
        deque(islice(batches, ahead), maxlen=0)
        start = time.monotonic()
        ready = list(batches)
        loading = (time.monotonic() - start) / count
        times = []
        for step, batch in enumerate(ready, ahead):
            start = time.monotonic()
            self._step(step, batch).item()
            times.append(time.monotonic() - start)
        rounds = [sum(times[first : first + kinds]) for first in range(untimed, count, kinds)]
        stepping = median(rounds) / kinds
        return max(self.processes.gather(max(loading, stepping) if workers else loading + stepping))

    @cached_property
    def patches(self) -> Patches:
        """What the batches of a plain run are made of."""
        return Patches(self.pictures, self.objective, self.settings.seed, self.settings.paired)

    def _batches(self, start: int, stop: int) -> Iterator[dict[str, torch.Tensor]]:
        keys = Batches(
            len(self.pictures),
            self.settings.batch_size,
            len(self.objective.variants),
            self.settings.seed,
            start,
            stop,
            self.processes.index,
            self.processes.count,
        )
        device = self.processes.device
        for batch in loader(self.patches, keys, self.settings.workers or 0, pin=device.type == "cuda"):
            yield {
                name: planes.to(device, non_blocking=True, memory_format=torch.channels_last)
                for name, planes in batch.items()
            }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _step(self, step: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(step) * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        pixel_loss = PIXEL_LOSSES[settings.loss_at(step)]
        with self._autocast():
            variant = variant_of(step, len(self.objective.variants), settings.seed)
            loss = self.objective.loss(self.network, batch, variant, pixel_loss)
        loss.backward()
        nn.utils.clip_grad_norm_(self.bare.parameters(), MAX_NORM)
        self.optimizer.step()
        self._decay = settings.ema_at(step)
        self._average.update_parameters(self.bare)
        return loss.detach()

    @torch.no_grad()
    def _follow(self, means: Any, values: Any, _: Any) -> None:
        torch._foreach_lerp_(means, values, 1 - self._decay)

    def _check(self, step: int, loss: torch.Tensor, steps: Any, log: Log) -> None:
        """Raises TrainingError, in all processes, where a loss or a weight of any is not finite."""
        value = loss.item()
        lengths = torch.stack(torch._foreach_norm(list(self.average.parameters())))
        (failed,) = self.processes.any(not (math.isfinite(value) and bool(lengths.isfinite().all())))
        if failed:
            raise TrainingError(f"the loss is no number any more at step {step}; try again with a lower --lr")
        self._good = self._copy()
        steps.set_postfix_str(
            f"loss {value:.4f}, best {self.progress.best_score:.2f}, {self._rate:.0f} images/s", refresh=False
        )
        log.scalars(step, {"loss": value, "learning rate": self.settings.lr_at(step)})

    def _validate(self, steps: Any, log: Log) -> None:
        progress = self.progress
        if self._unrestored is None:
            self._unrestored = self._scores(None)
        scores = self._scores(self.average)
        score = _mean(list(scores.values()))
        progress.history.append({"step": progress.step, "seconds": round(progress.seconds), **scores})
        if score > progress.best_score or self.settings.keep == "last":
            progress.best_score, progress.best_scores, progress.best_step = score, scores, progress.step
            self.best = self._copy()
        if not self.processes.first:
            return
        shown = ", ".join(f"{label} {value:.2f}" for label, value in scores.items())
        steps.clear()
        compared = f"; {text}" if (text := self._compared(scores)) else ""
        self.report(f"step {progress.step}/{self.settings.length}: {shown} dB ({self._rate:.0f} images/s){compared}")
        log.scalars(progress.step, {f"validation/{label}": value for label, value in scores.items()})
        shown_ones = self.validation[:PREVIEWS]
        with self._autocast():
            log.images(progress.step, lambda: [self.objective.preview(self.average, one) for one in shown_ones])

    def _scores(self, network: Any) -> dict[str, float]:
        """The mean score of each label over the validation pictures; without a network, of doing nothing."""
        processes = self.processes
        mine = range(processes.index, len(self.validation), processes.count)
        with self._autocast():
            found = {number: self.objective.score(network, self.validation[number], number) for number in mine}
        all_found = {number: scores for part in processes.gather(found) for number, scores in part.items()}
        ordered = [all_found[number] for number in sorted(all_found)]
        labels = dict.fromkeys(label for scores in ordered for label in scores)
        return {label: _mean([scores.get(label, math.nan) for scores in ordered]) for label in labels}

    def _compared(self, scores: dict[str, float]) -> str:
        """How scores stand beside those of doing nothing; empty where these are not known."""
        if not scores or not self._unrestored or self._unrestored.keys() != scores.keys():
            return ""
        before, after = (_mean(list(values.values())) for values in (self._unrestored, scores))
        worse = "" if after > before else f": {WORSE}"
        return f"as they are {before:.2f} dB, restored {after:.2f} dB{worse}"

    @property
    def _rate(self) -> float:
        return self.progress.step * self.settings.batch_size / max(self.progress.seconds, 1e-9)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.average.state_dict().items()}

    def _save(self, folder: Path) -> None:
        moments = {
            f"{number}.{name}": torch.as_tensor(value)
            for number, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        groups = {"model": self.bare.state_dict(), "average": self.average.state_dict(), "best": self.best}
        groups["optimizer"] = moments
        state = {"settings": self.settings.shaping, "asked": self.asked, "progress": vars(self.progress)}
        self.processes.once(lambda: checkpoint.save(folder, self.progress.step, checkpoint.Checkpoint(groups, state)))

    def _restore(self, past: checkpoint.Checkpoint) -> None:
        self.progress = Progress(**past.state["progress"])
        self.bare.load_state_dict(past.groups["model"])
        self.average.load_state_dict(past.groups["average"])
        self.best = {name: tensor.to(self.processes.device) for name, tensor in past.groups.get("best", {}).items()}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in past.groups["optimizer"].items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = tensor
        load_moments(self.optimizer, moments)


def _mean(scores: list[float]) -> float:
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan
