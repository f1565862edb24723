"""What a training run is made of, apart from its pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from restore.errors import UsageError, unknown_name
from restore.tasks.distances import DISTANCES, Distance

OPTIMIZERS = ("muon", "adamw")
MAX_NORM = 1.0
WARM_UP = 200  # steps, or a tenth of a short run
LAST_LR = 0.01  # of the peak, at the last step


@dataclass(frozen=True)
class Settings:
    """steps: optimiser steps of the whole run, over which the learning rate rises and falls.

    lr: its peak. optimizer: muon or adamw. ema: decay of the averaged weights, which are the ones kept. loss: how
    values are compared (l1, charbonnier, mse or psnr); mse_share: the last share of the steps, where mse takes over: L1
    learns quicker, and PSNR is about squares in the end. encoder_lr: share of the learning rate for the network's
    encoder. precision: fp32 or bf16.
    validate_every: steps between validations. All of these shape the weights: a resumed run keeps them.
    Raises UsageError for numbers that make no run.
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-3
    seed: int = 0
    optimizer: str = "muon"
    ema: float = 0.999
    loss: str = "l1"
    mse_share: float = 0.0
    encoder_lr: float = 1.0
    precision: str = "fp32"
    validate_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"the learning rate must be above 0; got {self.lr}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be from 0 to below 1; got {self.ema}")
        if not 0 <= self.mse_share <= 1:
            raise UsageError(f"mse-share must be from 0 to 1; got {self.mse_share}")
        if not 0 <= self.encoder_lr <= 1:
            raise UsageError(f"encoder-lr must be from 0 to 1; got {self.encoder_lr}")
        if self.loss not in DISTANCES:
            raise unknown_name("loss", self.loss, DISTANCES)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step` (from 0): linear warm-up, then half a cosine down to 1 %."""
        warm = min(WARM_UP, max(1, self.steps // 10))
        if step < warm:
            return self.lr * (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return self.lr * (LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * progress)))

    def distance_at(self, step: int) -> Distance:
        """How step `step` compares values."""
        return DISTANCES["mse" if step >= self.steps * (1 - self.mse_share) else self.loss]

    def ema_at(self, step: int) -> float:
        """The decay of the average after step `step`: shorter at first, when the weights change most."""
        return min(self.ema, (step + 1) / (step + 10))

    def values(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return asdict(self)
