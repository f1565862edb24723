"""Ablations of the denoiser and its training: short runs of equal cost on one core.

    RESTORE_DATA=... OMP_NUM_THREADS=1 python benchmarks/ablations.py --seconds 170 [ROW ...]

Every row takes as much processor time, whatever a step of it costs, and its whole schedule fits into that. Scores are
PSNR in dB on the centres of 24 pictures of `val/`, 240 pixels a side, noise unclipped. ABLATIONS.md has the tables.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from restore.images import find_images, read_image
from restore.metrics import psnr
from restore.models import autoencoder, build
from restore.models.blocks import ResidualBlock
from restore.models.nafnet import NAFNetConfig
from restore.pixels import to_dtype, to_float
from restore.tasks.base import load_task
from restore.tasks.denoise import REPORTED_SIGMAS
from restore.tasks.functional import array_to_planes
from restore.tasks.losses import PIXEL_LOSSES
from restore.tasks.objective import RestorationObjective
from restore.training.data import Batches, Patches, Pictures, list_pictures, loader
from restore.training.loop import MAX_NORM
from restore.training.optimizers import optimizer
from restore.training.settings import Settings

SIDE = 240  # of the centres that are scored, in pixels
SCHEDULE = 10_000  # steps that the schedule is cut into, whatever the number of real ones
ENDLESS = 1_000_000


class GatedBlock(nn.Module):
    """After NAFNet (Chen et al. 2022): 1x1, depthwise 3x3, product of halves, 1x1; then the same without the 3x3."""

    RADIUS = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(2))
        self.wide = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 1) for _ in range(2))
        self.deep = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.back = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        for weight in self.back.parameters():
            nn.init.normal_(weight, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for number in range(2):
            wide = self.wide[number](self.norms[number](features))
            one, other = (wide if number else self.deep(wide)).chunk(2, dim=1)
            features = features + self.back[number](one * other)
        return features


class LargeKernelBlock(nn.Module):
    """After ConvNeXt (Liu et al. 2022): depthwise 7x7, 1x1 to four times as many channels, ReLU, 1x1 back."""

    RADIUS = 3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.wide, self.back = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        nn.init.normal_(self.back.weight, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.back(F.relu(self.wide(self.deep(features))))
        return features + change


def _net(*widths: int, blocks: tuple[int, ...] = (2, 2, 2), fold: int = 2) -> dict[str, Any]:
    return {"widths": widths, "blocks": blocks, "fold": fold}


LIGHT = _net(64, 128, 192)
DEEP = _net(64, 128, 192, blocks=(3, 3, 4))
SMALL = _net(48, 96, 192)
FULL = _net(32, 64, 128, fold=1)
PLAIN = {"clip": 0.0, "gray": 0.0}  # what papers score: unclipped noise, pictures in colour


@dataclass(frozen=True)
class Row:
    """What differs from the first row. net: settings of the network. damage: of what it is trained against."""

    about: str
    patch: int = 64
    batch: int = 16
    lr: float = 2e-3
    optimizer: str = "muon"
    loss: str = "l1"
    mse_share: float = 0.0
    ema: float = 0.999
    block: type[nn.Module] = ResidualBlock
    config: Any = None  # of another architecture, which `net` is not for
    arch: str | None = None
    net: dict[str, Any] = field(default_factory=lambda: LIGHT)
    damage: dict[str, float] = field(default_factory=dict)


ROWS = {
    "base": Row("64-128-192 with 2 blocks each, patches of 64, Muon, peak learning rate 2e-3"),
    "lr-1e-3": Row("peak learning rate 1e-3", lr=1e-3),
    "lr-4e-3": Row("peak learning rate 4e-3", lr=4e-3),
    "adamw-2e-3": Row("AdamW, 2e-3", optimizer="adamw"),
    "adamw-1e-3": Row("AdamW, 1e-3", lr=1e-3, optimizer="adamw"),
    "adamw-5e-4": Row("AdamW, 5e-4", lr=5e-4, optimizer="adamw"),
    "batch-8": Row("8 patches a step", batch=8),
    "patch-128": Row("4 patches of 128 a step: as many pixels", patch=128, batch=4),
    "patch-48": Row("28 patches of 48 a step: as many pixels", patch=48, batch=28),
    "charbonnier": Row("Charbonnier instead of L1", loss="charbonnier"),
    "mse-end": Row("squared error in the last fifth", mse_share=0.2),
    "no-ema": Row("last weights instead of their average", ema=0.0),
    "unclipped": Row("unclipped noise and colour only", damage=PLAIN),
    "deeper": Row("3, 3 and 4 blocks", net=DEEP),
    "wider": Row("96-160-224", net=_net(96, 160, 224)),
    "narrower": Row("48-96-192", net=SMALL),
    "full-resolution": Row("32-64-128 at full resolution", net=FULL),
    "gated": Row("gated blocks as in NAFNet", block=GatedBlock),
    "nafnet": Row(
        "NAFNet, 48 channels, folded by 2, blocks 1-1-2, 4, 1-1-1",
        arch="nafnet",
        config=NAFNetConfig(width=48, fold=2),
    ),
    "nafnet-full-resolution": Row(
        "NAFNet, 32 channels at full resolution, blocks 1-1-2, 4, 1-1-1", arch="nafnet", config=NAFNetConfig()
    ),
    "large-kernel": Row("depthwise 7x7 blocks as in ConvNeXt", block=LargeKernelBlock),
    # Of a small network and large steps: what is seen in training.
    "small": Row("48-96-192, 16 patches of 128, 1.5e-3, unclipped, colour", 128, lr=1.5e-3, net=SMALL, damage=PLAIN),
    "small-clip": Row("half of the noise clipped", 128, lr=1.5e-3, net=SMALL, damage=PLAIN | {"clip": 0.5}),
    "small-gray": Row("a tenth gray", 128, lr=1.5e-3, net=SMALL, damage=PLAIN | {"gray": 0.1}),
    "small-mixed": Row("clipped and gray as by default", 128, lr=1.5e-3, net=SMALL),
    "small-psnr": Row("logarithm of the squared error", 128, lr=1.5e-3, loss="psnr", net=SMALL, damage=PLAIN),
    # Half or full resolution, by the same large steps.
    "large-half": Row("64-128-192 folded by 2, with 3, 3 and 4 blocks", 128, lr=1.5e-3, net=DEEP, damage=PLAIN),
    "large-full": Row("32-64-128 at full resolution, 2 blocks each", 128, lr=1.5e-3, net=FULL, damage=PLAIN),
    "large-full-deep": Row(
        "the same with 1, 3 and 4 blocks", 128, lr=1.5e-3, net=_net(32, 64, 128, blocks=(1, 3, 4), fold=1), damage=PLAIN
    ),
    "large-full-four": Row(
        "32-64-128-192 at full resolution, 2 blocks each",
        128,
        lr=1.5e-3,
        net=_net(32, 64, 128, 192, blocks=(2, 2, 2, 2), fold=1),
        damage=PLAIN,
    ),
}


def _stacked(block: type[nn.Module], channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(block(channels) for _ in range(count)))


def measure(row: Row, data: Path, seconds: float) -> str:
    """A line of the table."""
    torch.manual_seed(0)
    setattr(autoencoder, "residual_blocks", partial(_stacked, row.block))  # noqa: B010
    task = load_task("denoise")
    objective = RestorationObjective(
        task,
        task.spec.training_options(**row.damage),
        row.config or replace(task.config, **row.net),
        row.patch,
        row.arch,
    )
    settings = Settings(
        [data / "train"],
        steps=SCHEDULE,
        batch_size=row.batch,
        lr=row.lr,
        ema=row.ema,
        loss=row.loss,
        mse_share=row.mse_share,
    )
    pictures = Pictures(list_pictures(settings.folders))
    network = build(objective.arch, objective.config).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    stepper = optimizer(row.optimizer, network, row.lr, fused=True, half=True)
    batches = iter(
        loader(Patches(pictures, objective, 0), Batches(len(pictures), row.batch, 1, 0, 0, ENDLESS), 0, False)
    )
    step, started = 0, time.process_time()
    while (progress := (time.process_time() - started) / seconds) < 1:
        batch = {name: planes.to(memory_format=torch.channels_last) for name, planes in next(batches).items()}
        for group in stepper.param_groups:
            group["lr"] = settings.lr_at(int(progress * SCHEDULE))
        stepper.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            objective.loss(network, batch, 0, PIXEL_LOSSES[settings.loss_at(int(progress * SCHEDULE))]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
        stepper.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - settings.ema_at(step))
        step += 1
    millions = sum(weights.numel() for weights in network.parameters()) / 1e6
    scores = [_score(average, data / "val", sigma) for sigma in REPORTED_SIGMAS]
    values = " | ".join(f"{value:.2f}" for value in (*scores, sum(scores) / len(scores)))
    return f"| {row.about} | {millions:.2f} M | {step} | {values} |"


def _score(network: nn.Module, data: Path, sigma: float) -> float:
    """Mean PSNR in dB over 16 pictures of the one source and 8 of the other."""
    found = []
    for path in (*find_images(data / "bsds")[::2], *find_images(data / "imagenet")[::3]):
        picture = read_image(path).pixels
        top, left = (max(0, side - SIDE) // 2 for side in picture.shape[:2])
        clean = picture[top : top + SIDE, left : left + SIDE]
        noise = np.random.default_rng(int(sigma)).standard_normal(clean.shape, dtype=np.float32) * sigma / 255
        planes = array_to_planes(to_float(clean) + noise)[None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            restored = network(planes)[0].permute(1, 2, 0).numpy()
        found.append(psnr(to_dtype(restored, np.uint8), clean))
    return float(np.mean(found))


def main() -> int:
    """Measures the rows that are named, or all, and prints a table."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*ROWS, []], help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=170, help="of processor time a row")
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    print(
        f"| {flags.seconds:g} s each | parameters | steps | sigma 15 | 25 | 50 | mean |\n|---|---|---|---|---|---|---|"
    )
    for name in flags.rows or ROWS:
        print(measure(ROWS[name], Path(data), flags.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
