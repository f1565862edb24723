"""Folders of photographs on a CUDA GPU, from JPEG to JPEG: ours beside architectures of the literature.

    python benchmarks/cuda_folders.py --out RESULTS-cuda.md     # about half an hour on one GPU

Megapixels a second, the share of time that the GPU computes (as its driver reports it), and memory. Networks of others
have random weights; all go through the same pipeline. `--device cpu --photographs 2 --small 20` tries the program out
where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from inference import CDnCNN, all_methods
from reporting import machine, markdown_table, parser, publish
from torch import nn

from restore.devices import describe, pick_device, pick_precision
from restore.folders.pipeline import FilePipeline, WriteOptions
from restore.folders.plan import Job
from restore.images import Image, write_image
from restore.inference.benchmark import peak_memory, reset_peak_memory
from restore.inference.restorer import Restorer
from restore.models.registry import Architecture

PHOTOGRAPH, SMALL = (4000, 3000), (256, 256)
TARGET = 0.8  # share of time that the GPU is to compute


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(layers[0], nn.ReLU(True), layers[1])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.body(features)


class DRUNet(Architecture):
    """Zhang et al. 2021, colour: a U of 64 to 512 channels with four residual blocks a level, told the noise level."""

    stride, radius, scales = 8, 64, (1,)

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.head = nn.Conv2d(4, widths[0], 3, padding=1, bias=False)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(
            nn.Sequential(*(_ResidualBlock(fine) for _ in range(4)), nn.Conv2d(fine, coarse, 2, 2, bias=False))
            for fine, coarse in pairs
        )
        self.body = nn.Sequential(*(_ResidualBlock(widths[-1]) for _ in range(4)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(coarse, fine, 2, 2, bias=False), *(_ResidualBlock(fine) for _ in range(4)))
            for fine, coarse in reversed(pairs)
        )
        self.tail = nn.Conv2d(widths[0], 3, 3, padding=1, bias=False)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        height, width = planes.shape[-2:]
        padded = nn.functional.pad(planes, (0, -width % 8, 0, -height % 8), "replicate")
        told = torch.cat([padded, torch.full_like(padded[:, :1], 25 / 255)], 1).to(self.head.weight.dtype)
        skips = [self.head(told.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            skips.append(down(skips[-1]))
        features = self.body(skips[-1])
        for up in self.up:
            features = up(features + skips.pop())
        return self.tail(features + skips.pop())[..., :height, :width].float()

    def values_a_pixel(self, scale: int) -> float:
        return 6 * 64


@contextmanager
def utilisation(device: torch.device) -> Iterator[list[float]]:
    """Samples the share of time that the GPU computes, ten times a second; empty without nvidia-smi."""
    samples: list[float] = []
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        yield samples
        return
    query = ["nvidia-smi", f"--id={device.index or 0}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    process = subprocess.Popen([*query, "--loop-ms=100"], stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        samples.extend(float(line) / 100 for line in process.stdout if line.strip().isdigit())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        process.terminate()
        thread.join(5)


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of `size` (width, height): few encoded, many links, so that making them takes no longer than using."""
    rng, photo, paths = np.random.default_rng(0), skimage.data.astronaut(), []
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if number < 16:
            across, down = -(-size[0] // photo.shape[1]), -(-size[1] // photo.shape[0])
            pixels = np.roll(np.tile(photo, (down, across, 1)), 97 * number, (0, 1))[: size[1], : size[0]]
            noisy = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255)
            write_image(Image(noisy.astype(np.uint8)), path)
        else:
            os.link(paths[number % 16], path)
        paths.append(path)
    return paths


def run(restorer: Restorer, paths: list[Path], workers: int) -> tuple[float, float | None]:
    """Seconds from files to files, and the share of them that the GPU computed."""
    with tempfile.TemporaryDirectory() as out, utilisation(restorer.device) as samples:
        jobs = [Job(path, Path(out) / path.name) for path in paths]
        start = time.perf_counter()
        with FilePipeline(restorer, WriteOptions(), workers) as pipeline:
            failed = [outcome.error for outcome in pipeline.run(jobs) if outcome.error]
        seconds = time.perf_counter() - start
    assert not failed, failed[0]
    return seconds, statistics.mean(samples) if samples else None


def report(flags: argparse.Namespace) -> str:
    """Measures; a section in Markdown."""
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    device = pick_device(flags.device)
    dtype = pick_precision(flags.precision, device)
    methods = all_methods("denoise", {"CDnCNN": CDnCNN(), "DRUNet": DRUNet()}, device, dtype)
    rows, shares = [], []
    with tempfile.TemporaryDirectory() as name:
        for label, count, size in (("photographs", flags.photographs, PHOTOGRAPH), ("small", flags.small, SMALL)):
            paths = make_pictures(Path(name) / label, count, size)
            megapixels = count * size[0] * size[1] / 1e6
            for one in methods:
                run(one.restorer, paths[: min(8, count)], flags.workers)  # pays for what is made once
                reset_peak_memory(device)
                seconds, share = run(one.restorer, paths, flags.workers)
                gpu = torch.cuda.max_memory_reserved(device) / 1e6 if device.type == "cuda" else 0
                rows.append(
                    [
                        f"{count} of {size[0]}x{size[1]}",
                        one.name,
                        f"{megapixels / seconds:.1f}",
                        "-" if share is None else f"{share:.0%}",
                        f"{peak_memory() / 1e6:.0f} MB",
                        f"{gpu:.0f} MB",
                    ]
                )
                if share is not None and one is methods[0]:
                    shares.append(share)
    head = ["JPEG files", "network", "megapixels/s", "GPU computes", "memory", "GPU memory"]
    text = (
        f"## Folders on a GPU\n\n{machine()}, {describe(device, dtype)}, torch {torch.__version__},"
        f" {flags.workers} threads for files.\n\n{markdown_table(head, rows)}\n"
    )
    if shares:
        text += f"\nTarget: the GPU computes {TARGET:.0%} of the time; ours: {min(shares):.0%} at least.\n"
    return text


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--photographs", type=int, default=1000, help="of 12 megapixels")
    flags.add_argument("--small", type=int, default=10_000, help="pictures of 256x256")
    flags.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 2) - 2))
    flags.add_argument("--device", default="cuda")
    flags.add_argument("--precision", default="auto")
    publish(flags.parse_args(), report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
