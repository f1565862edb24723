"""Damage, restore, score: pictures stream by, only numbers stay."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from restore import weights
from restore.errors import RestoreError, UsageError
from restore.evaluation.protocols import leading, measure, protocol
from restore.evaluation.trials import Entry, Method, Prediction, Trial, trials
from restore.images import Image
from restore.images.failures import printable
from restore.inference.restorer import Restorer
from restore.tasks.base import Task
from restore.tasks.spec import Options


@dataclass(frozen=True)
class Row:
    """What one method scored on one damaged picture.

    protocol: how that was measured. scores: by the keys of `protocols.MEASURES`. leading: the key of the one
    that the task goes by. seconds: of restoring. megapixels: of the restored picture. params: of the corruption;
    None for a file's damage.
    """

    picture: str
    case: str
    method: str
    protocol: str
    scores: dict[str, float]
    leading: str
    seconds: float
    megapixels: float
    params: Any = None

    @property
    def score(self) -> float:
        """What the task goes by: higher is better, in dB; NaN where it is not defined."""
        return self.scores[self.leading]


@dataclass(frozen=True)
class Scored:
    """What became of a picture: the rows of all cases and methods, or the reason why there are none."""

    name: str
    rows: list[Row] = field(default_factory=list)
    error: str | None = None


class Model:
    """Weights that take part; a restorer is made for each head when it is first needed."""

    def __init__(
        self,
        path: Path,
        task: Task,
        device: torch.device,
        dtype: torch.dtype,
        options: Options | None = None,
        *,
        tile: int = 0,
        tta: bool = False,
    ) -> None:
        """options: of restoring, such as `aggressive`; None: as the task has them by itself.

        Raises WeightsError for a file that is not there, damaged, or made for another task.
        """
        self.path, self.device, self.dtype, self.tile, self.tta = path, device, dtype, tile, tta
        self.options = task.spec.options() if options is None else options
        self.header, self.network = weights.load(path, task.spec.name)
        self._restorers: dict[str, Restorer] = {}

    @property
    def about(self) -> str:
        """Which weights, in one line."""
        millions = sum(p.numel() for p in self.network.parameters()) / 1e6
        extra = ", averaged over eight symmetries" if self.tta else ""
        for name, value in self.options.chosen.items():
            extra += f", {name}" if value is True else f", {name} {value}"
        return f"{self.path.name}, {self.header.arch}, {millions:.2f} M parameters{extra}"

    def restore(self, trial: Trial) -> Prediction:
        """The damaged picture of a trial, restored, in its own dtype; with the mask where the case gives it."""
        label = trial.case.label
        if label not in self._restorers:
            self.check(trial.head.scale)
            self._restorers[label] = Restorer(
                trial.head,
                self.network,
                self.options,
                self.device,
                self.dtype,
                self.tile,
                tta=self.tta,
                header=self.header,
            )
        restored = self._restorers[label].restore(Image(trial.damage.image), trial.told)
        return Prediction(restored.image.pixels, restored.mask)

    def check(self, scale: int) -> None:
        """Raises UsageError if these weights cannot enlarge by `scale`."""
        if scale not in self.network.scales:
            known = ",".join(map(str, self.network.scales))
            raise UsageError(
                f"{self.path.name}: these weights enlarge by {known}, not by {scale}; choose --scales {known}"
            )


def all_methods(models: Sequence[Model], baselines: Iterable[Method]) -> list[Method]:
    """All who take part: the damaged picture as it is, the baselines, the models, under names that differ."""
    found = list(baselines)
    if not any(method.kind == "input" for method in found):
        found.insert(0, Method("corrupted", "input", "no restoration", lambda trial: Prediction(trial.untouched)))
    taken = {method.name for method in found}
    for model in models:
        name, number = model.path.stem, 2
        while name in taken:
            name, number = f"{model.path.stem} ({number})", number + 1
        taken.add(name)
        found.append(Method(name, "model", model.about, model.restore))
    return found


def evaluate(
    entries: Iterable[Entry], task: Task, damage: Options, methods: Sequence[Method], seed: int = 0
) -> Iterator[Scored]:
    """Scores `methods` on every picture, in the order of `entries`.

    All methods are scored on the same pictures: one that any of them fails on counts for none, and
    its reason is in its `Scored`.
    """
    for entry in entries:
        try:
            rows = [row for trial in trials(entry, task, damage, seed) for row in _rows(entry, trial, methods)]
        except (RestoreError, MemoryError) as error:
            yield Scored(entry.name, error=_reason(entry, error))
        else:
            yield Scored(entry.name, rows)


def _reason(entry: Entry, error: Exception) -> str:
    """One line that names the picture, and no folder of this machine: it stands in reports that travel."""
    text = " ".join(str(error).split()) or "not enough memory"
    for path, name in ((entry.clean, entry.name), (entry.corrupted, None), (entry.mask, None)):
        if path is not None:
            text = text.replace(printable(path), name or f"{path.parent.name}/{path.name}")
    return text if text.startswith(f"{entry.name}:") else f"{entry.name}: {text}"


def _rows(entry: Entry, trial: Trial, methods: Sequence[Method]) -> Iterator[Row]:
    how = protocol(trial)
    for method in methods:
        start = time.perf_counter()
        answer = method.restore(trial)
        seconds = time.perf_counter() - start
        yield Row(
            picture=entry.name,
            case=trial.case.label,
            method=method.name,
            protocol=how,
            scores=measure(trial, method, answer),
            leading=leading(trial),
            seconds=seconds,
            megapixels=trial.clean.shape[0] * trial.clean.shape[1] / 1e6,
            params=trial.params,
        )
