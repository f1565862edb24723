"""What a training run is told, declared once: flags, the argument of `train`, and what checkpoints remember."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from restore.errors import UsageError
from restore.tasks.spec import Options, option

WARM_UP = 200  # steps, or a tenth of a short run
LAST_LR = 0.01  # of the peak, at the last step
VALIDATIONS = 24  # in a run, unless it is short
LEAST_BETWEEN = 100  # steps between two validations


def _shaping(default: Any, help: str, **flag: Any) -> Any:
    """An `option` that shapes the weights: it goes into checkpoints and headers, and a resumed run has to agree."""
    return option(default, help, shaping=True, panel="Learning", **flag)


@dataclass(frozen=True)
class Settings(Options):
    """A training run, apart from the network and the damage, which belong to the objective.

    Without `steps` and `minutes` a run takes an hour.

    Raises:
        UsageError: A value is out of its range, or two contradict each other.
    """

    PANEL = "Training"

    folders: list[Path] = option(
        MISSING, "Folders of clean pictures, searched through and through.", metavar="FOLDER...", argument=True
    )
    output: Path | None = option(
        None, "Weights file to write [default: TASK.safetensors].", flags=("-o",), metavar="FILE"
    )
    val: list[Path] | None = option(
        None, "Pictures to choose the best weights by; else some of FOLDER are held out.", metavar="FOLDER"
    )
    corrupted: Path | None = option(
        None,
        "Corrupted pictures of the same scenes, aligned: those of FOLDER that have a namesake here are pairs, "
        "the others are damaged on the fly.",
        metavar="DIR",
    )
    keep: str = option(
        "best",
        "Which weights to write: those of the best validation score, or the last, where few pictures decide it.",
        choices=("best", "last"),
    )
    paired: float = _shaping(0.15, "Share of patches from such pairs, where there are others too.", min=0.0, max=1.0)
    steps: int | None = _shaping(None, "Length of the run in optimiser steps.", min=1)
    minutes: float | None = option(
        None, "Length of the run in minutes, made into steps by a short timing [default: 60]."
    )
    stop_after: float | None = option(
        None, "Pause after so many minutes; the same command with --resume goes on.", metavar="MINUTES"
    )
    resume: bool = option(False, "Go on from the checkpoint beside the output.")
    overwrite: bool = option(False, "Replace an output, or a checkpoint, that exists.")
    init: str | None = _shaping(
        None, "Start from these weights: a shipped variant, `default`, or a file.", metavar="VARIANT|FILE"
    )
    batch_size: int = _shaping(16, "Patches a step.", min=1)
    lr: float = _shaping(1e-3, "Peak learning rate.")
    optimizer: str = _shaping("muon", "How weights follow the gradient.", choices=("muon", "adamw"))
    loss: str = _shaping("l1", "How pixels are compared.", choices=("l1", "charbonnier", "mse", "psnr"))
    mse_share: float = _shaping(0.0, "Last share of the steps, where the loss is --late-loss.", min=0.0, max=1.0)
    late_loss: str = _shaping("mse", "How pixels are compared then.", choices=("l1", "charbonnier", "mse", "psnr"))
    encoder_lr: float = _shaping(1.0, "Share of the learning rate for the network's encoder.", min=0.0, max=1.0)
    ema: float = _shaping(0.999, "Decay of the averaged weights, which are the ones kept; 0 keeps the last.")
    precision: str = _shaping(
        "auto", "Precision of the convolutions.", choices=("auto", "fp32", "bf16"), metavar="auto|fp32|bf16"
    )
    seed: int = _shaping(0, "Seed of everything random.", min=0)
    device: str = option("auto", "Where to train.", metavar="auto|cpu|mps|cuda|cuda:N")
    compile: bool = option(False, "Compile the network first (slow start, quicker steps).")
    workers: int | None = option(None, "Processes that prepare patches.", flags=("-j",), min=0)
    cache: float | None = option(
        None, "Gigabytes of decoded pictures to keep in memory [default: 40 % of what is free].", min=0.0
    )
    variant: str = option("", "Variant name for the header of the weights.")
    data_terms: str = option("", "Under which terms the pictures stand, for the header of the weights.", metavar="TEXT")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.minutes is not None:
            raise UsageError("--steps and --minutes are two ways to say one thing; give one")
        for name in ("minutes", "stop_after", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{flag(name)} must be above 0; got {value}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"--ema must be from 0 to below 1; got {self.ema}")

    @property
    def shaping(self) -> dict[str, Any]:
        """The options that shape the weights, by name, as JSON holds them."""
        return {known.name: getattr(self, known.name) for known in fields(self) if known.metadata.get("shaping")}

    @property
    def length(self) -> int:
        """The steps of a run whose length is settled."""
        assert self.steps is not None
        return self.steps

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return max(LEAST_BETWEEN, math.ceil(self.length / VALIDATIONS))

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step` (from 0): linear warm-up, then half a cosine down to 1 %."""
        warm = min(WARM_UP, max(1, self.length // 10))
        if step < warm:
            return self.lr * (step + 1) / warm
        progress = (step - warm) / max(1, self.length - warm)
        return self.lr * (LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * progress)))

    def loss_at(self, step: int) -> str:
        """How step `step` compares values: `loss`, and `late_loss` in the last `mse_share` of the run.

        L1 learns quicker, and PSNR is about squares in the end.
        """
        return self.late_loss if step >= self.length * (1 - self.mse_share) else self.loss

    def ema_at(self, step: int) -> float:
        """The decay of the average after step `step`: shorter at first, when the weights change most."""
        return min(self.ema, (step + 1) / (step + 10))


def flag(name: str) -> str:
    """The command-line flag of a setting: `mse_share` -> `--mse-share`."""
    return f"--{name.replace('_', '-')}"
