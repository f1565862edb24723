"""Damages, restores and scores pictures one by one; only the scores are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from restore import weights
from restore.errors import RestoreError, UsageError
from restore.evaluation.protocols import measure, primary_measure, protocol
from restore.evaluation.trials import Entry, Method, Prediction, Trial, trials
from restore.images import Image
from restore.images.failures import printable
from restore.inference.restorer import Restorer
from restore.tasks.base import Task
from restore.tasks.spec import Options


@dataclass(frozen=True)
class Row:
    """The scores of one method for one damaged picture."""

    picture: str  # picture and case and method: their names
    case: str
    method: str
    protocol: str  # description of how it was measured
    scores: dict[str, float]  # by the keys of `protocols.MEASURES`
    primary: str  # key of the measure that ranks methods
    seconds: float  # time of restoring
    megapixels: float  # of the restored picture
    params: Any = None  # of the corruption; None if the corrupted picture is a file

    @property
    def score(self) -> float:
        """The primary score in dB, higher is better; NaN where it is undefined."""
        return self.scores[self.primary]


@dataclass(frozen=True)
class Scored:
    """The outcome for a picture: the rows of all cases and methods, or the error."""

    name: str
    rows: list[Row] = field(default_factory=list)
    error: str | None = None


class Model:
    """Weights that are evaluated; a restorer for each case is made on first use. Arguments as of `Restorer`.

    Raises:
        WeightsError: the file is missing, damaged, or made for another task.
    """

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
        self.path, self.device, self.dtype, self.tile, self.tta = path, device, dtype, tile, tta
        self.options = task.spec.options() if options is None else options
        self.header, self.network = weights.load(path, task.spec.name)
        self._symmetries = "two" if task.head(self.options).upright else "eight"
        self._restorers: dict[str, Restorer] = {}

    @property
    def about(self) -> str:
        """File, architecture, size and options in one line."""
        millions = sum(p.numel() for p in self.network.parameters()) / 1e6
        extra = f", averaged over {self._symmetries} symmetries" if self.tta else ""
        for name, value in self.options.chosen.items():
            extra += f", {name}" if value is True else f", {name} {value}"
        return f"{self.path.name}, {self.header.arch}, {millions:.2f} M parameters{extra}"

    def restore(self, trial: Trial) -> Prediction:
        """Restores the damaged picture of a trial, in its own dtype; with the true mask if the case gives it."""
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
        given = trial.given_mask
        if given is not None and not given.any():
            return Prediction(trial.identity, given)
        kind = "hints" if trial.head.hinted else "mask"
        restored = self._restorers[label].restore(Image(trial.damage.image), **{kind: given})
        return Prediction(restored.image.pixels, restored.mask)

    def check(self, scale: int) -> None:
        """Raises UsageError if these weights do not support `scale`."""
        if scale not in self.network.scales:
            known = ",".join(map(str, self.network.scales))
            raise UsageError(
                f"{self.path.name}: these weights enlarge by {known}, not by {scale}; choose --scales {known}"
            )


def all_methods(models: Sequence[Model], baselines: Iterable[Method]) -> list[Method]:
    """The methods of an evaluation: no restoration, the baselines, and the models, with unique names."""
    found = list(baselines)
    if not any(method.kind == "input" for method in found):
        found.insert(0, Method("corrupted", "input", "no restoration", lambda trial: Prediction(trial.identity)))
    taken = {method.name for method in found}
    for model in models:
        name, number = model.path.stem, 2
        while name in taken:
            name, number = f"{model.path.stem} ({number})", number + 1
        taken.add(name)
        found.append(Method(name, "model", model.about, model.restore))
    return found


def evaluate(
    entries: Iterable[Entry],
    task: Task,
    damage: Options,
    methods: Sequence[Method],
    seed: int = 0,
    begun: Callable[[str, str], None] | None = None,
) -> Iterator[Scored]:
    """Scores methods on every picture, in the order of `entries`.

    A picture for which any method fails counts for none of them, so that all are scored on the same pictures.

    Args:
        entries, task, damage, seed: as in `trials`.
        methods: the methods.
        begun: told the case and the method that begins.
    """
    for entry in entries:
        try:
            rows = [row for trial in trials(entry, task, damage, seed) for row in _rows(entry, trial, methods, begun)]
        except (RestoreError, MemoryError) as error:
            yield Scored(entry.name, error=_reason(entry, error))
        else:
            yield Scored(entry.name, rows)


def _reason(entry: Entry, error: Exception) -> str:
    """The error in one line that names the picture, without folders of this machine, as reports are shared."""
    text = " ".join(str(error).split()) or "not enough memory"
    for path, name in ((entry.clean, entry.name), (entry.corrupted, None), (entry.mask, None)):
        if path is not None:
            text = text.replace(printable(path), name or f"{path.parent.name}/{path.name}")
    return text if text.startswith(f"{entry.name}:") else f"{entry.name}: {text}"


def _rows(
    entry: Entry, trial: Trial, methods: Sequence[Method], begun: Callable[[str, str], None] | None
) -> Iterator[Row]:
    description = protocol(trial)
    for method in methods:
        if begun:
            begun(trial.case.label, method.name)
        start = time.perf_counter()
        prediction = method.restore(trial)
        seconds = time.perf_counter() - start
        yield Row(
            picture=entry.name,
            case=trial.case.label,
            method=method.name,
            protocol=description,
            scores=measure(trial, method, prediction),
            primary=primary_measure(trial),
            seconds=seconds,
            megapixels=trial.clean.shape[0] * trial.clean.shape[1] / 1e6,
            params=trial.params,
        )
