"""Several damages together: one of many, or some of them in a random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from restore.corruptions.base import Corrupted, Corruption
from restore.errors import UsageError
from restore.pixels import to_dtype, to_float


@dataclass(frozen=True)
class Part:
    """A damage and how often it comes: its weight in a `Choice`, its probability in a `Degradation`."""

    operator: Corruption[Any]
    share: float


@dataclass(frozen=True)
class ChoiceParams:
    """Parameters of a `Choice`: the index of the chosen part, and the parameters of that."""

    number: int
    inner: Any


@dataclass(frozen=True)
class Choice:
    """One of several damages, drawn with probabilities in proportion to their shares.

    Raises:
        UsageError: there are no parts, or no share is above 0, or one is below.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts or min(part.share for part in self.parts) < 0 or not sum(p.share for p in self.parts) > 0:
            raise UsageError("a choice needs at least one damage, with shares from 0 and one of them above")

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> ChoiceParams:
        """Draws a damage, and its parameters for a picture of `shape` (H,W,C)."""
        ends = np.cumsum([part.share for part in self.parts])
        number = min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(ends) - 1)
        return ChoiceParams(number, self.parts[number].operator.sample(shape, rng))

    def apply(self, image: np.ndarray, params: ChoiceParams) -> Corrupted:
        """What the chosen damage makes of (H,W,C)."""
        return self.parts[params.number].operator.apply(image, params.inner)

    def target(self, image: np.ndarray, params: ChoiceParams) -> np.ndarray:
        """The target of the chosen damage."""
        return self.parts[params.number].operator.target(image, params.inner)


@dataclass(frozen=True)
class DegradationParams:
    """Parameters of a `Degradation`: its steps, in order."""

    steps: tuple[ChoiceParams, ...]


@dataclass(frozen=True)
class Degradation:
    """Some of the damages in a random order, once or twice over.

    After Zhang et al. 2021 (BSRGAN) and 2022 ("Practical blind denoising"), and Wang et al. 2021 (Real-ESRGAN).

    Args:
        parts: damages that keep the size of a picture; in each round every one comes with the probability `share`.
        twice: probability of two rounds.
        last: a damage that ends all of them, such as JPEG compression, with its probability.

    Raises:
        UsageError: a probability is outside [0, 1].
    """

    parts: tuple[Part, ...]
    twice: float = 0.0
    last: Part | None = None

    def __post_init__(self) -> None:
        shares = [self.twice, *(part.share for part in self._all)]
        if not self._all or min(shares) < 0 or max(shares) > 1:
            raise UsageError(f"a degradation needs damages with probabilities from 0 to 1; got {shares}")

    @property
    def _all(self) -> tuple[Part, ...]:
        return self.parts if self.last is None else (*self.parts, self.last)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> DegradationParams:
        """Draws which damages come in which order, and their parameters for a picture of `shape` (H,W,C)."""
        numbers: list[int] = []
        for _ in range(2 if rng.random() < self.twice else 1):
            order = rng.permutation(len(self.parts)).tolist()
            numbers += [number for number in order if rng.random() < self.parts[number].share]
        if self.last is not None and rng.random() < self.last.share:
            numbers.append(len(self.parts))
        return DegradationParams(tuple(ChoiceParams(n, self._all[n].operator.sample(shape, rng)) for n in numbers))

    def apply(self, image: np.ndarray, params: DegradationParams) -> Corrupted:
        """(H,W,C) -> the same shape and dtype; between the steps in float32, rounded once at the end."""
        damaged = to_float(image)
        for step in params.steps:
            damaged = to_float(self._all[step.number].operator.apply(damaged, step.inner).image)
        return Corrupted(to_dtype(damaged, image.dtype))

    def target(self, image: np.ndarray, params: DegradationParams) -> np.ndarray:
        """What is left of the picture when each of the damages is undone."""
        for step in params.steps:
            image = self._all[step.number].operator.target(image, step.inner)
        return image
