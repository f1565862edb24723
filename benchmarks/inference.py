"""Speed and memory of the default networks and of architectures of the literature, in one run and one precision.

    python benchmarks/inference.py --out RESULTS-inference.md     # about five minutes on two cores
    python benchmarks/inference.py --sizes 1 12 51 --repeat 3     # three: what a megapixel of large pictures costs

Other networks are implemented here from their papers, with random weights, on which time does not depend. All use the
same restorer and pictures made of one photograph. The networks alternate, so that changes in the load of the machine
affect all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

# Waiting threads of OpenMP must not spin, since the cores also decode and encode. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from reporting import machine, markdown_table, parser, publish
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restore import weights
from restore.devices import describe, keep_freed_memory, pick_device, pick_precision
from restore.folders.pipeline import FilePipeline, WriteOptions
from restore.folders.plan import Job
from restore.images import Image, read_image, write_image
from restore.inference.benchmark import peak_memory, reset_peak_memory, synthetic
from restore.inference.loading import load
from restore.inference.restorer import Restorer
from restore.metrics import psnr
from restore.models import build
from restore.models.registry import Architecture
from restore.tasks import TASKS
from restore.tasks.base import Head, Window, load_task

SMALL = (160, 257)  # sides of the small pictures, in pixels: from, to
MIN_SPEEDUP = 1.6  # over CDnCNN
MAX_GROWTH = 1.15  # of the time a megapixel, from the smallest to the largest picture
MAX_OVERHEAD = 0.15  # of a folder, relative to the computation alone
MET = {True: "met", False: "**missed**"}


def _convolutions(*channels: int) -> nn.Sequential:
    """3x3 convolutions from each number of channels to the next, ReLU between them."""
    layers = [part for pair in pairwise(channels) for part in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU(True))]
    return nn.Sequential(*layers[:-1])


class CDnCNN(Architecture):
    """Zhang et al. 2017, colour: 20 layers of 64 at full resolution; batch normalisation is folded away."""

    stride, radius, scales = 1, 20, (1,)

    def __init__(self) -> None:
        super().__init__()
        self.body = _convolutions(3, *[64] * 19, 3)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        return planes - self.body(planes.to(self.body[0].weight.dtype)).float()

    def values_a_pixel(self, scale: int) -> float:
        return 3 * 64


class FFDNet(Architecture):
    """Zhang et al. 2018, colour: 12 layers of 96 at half resolution, with the noise level as an input."""

    stride, radius, scales = 2, 26, (1,)

    def __init__(self) -> None:
        super().__init__()
        self.body = _convolutions(3 * 4 + 1, *[96] * 11, 3 * 4)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        height, width = planes.shape[-2:]
        folded = F.pixel_unshuffle(F.pad(planes, (0, width % 2, 0, height % 2), "replicate"), 2)
        planes_and_sigma = torch.cat([folded, torch.full_like(folded[:, :1], 25 / 255)], 1).to(
            self.body[0].weight.dtype
        )
        output = self.body(planes_and_sigma.contiguous(memory_format=torch.channels_last))
        return F.pixel_shuffle(output, 2)[..., :height, :width].float()

    def values_a_pixel(self, scale: int) -> float:
        return 3 * 96 / 4 + 18


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        grouped = [nn.Conv2d(64, 64, 3, padding=1, groups=4) for _ in range(2)]
        self.body = nn.Sequential(grouped[0], nn.ReLU(True), grouped[1], nn.ReLU(True), nn.Conv2d(64, 64, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.body(features) + features)


class _Cascade(nn.Module):
    """Three steps; after each a 1x1 convolution of the outputs of all steps so far."""

    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.joins = nn.ModuleList(nn.Conv2d(64 * (number + 2), 64, 1) for number in range(3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs = features
        for step, join in zip(self.steps, self.joins, strict=True):
            outputs = torch.cat([outputs, step(features)], 1)
            features = F.relu_(join(outputs))
        return features


class CarnM(Architecture):
    """CARN-M (Ahn et al. 2018), its head for x2: cascades of grouped residual blocks that share their weights."""

    stride, radius, scales = 1, 22, (2,)

    def __init__(self) -> None:
        super().__init__()
        body = _Cascade(_Cascade([_Residual()] * 3) for _ in range(3))
        up = nn.Conv2d(64, 256, 3, padding=1, groups=4)
        last = nn.Conv2d(64, 3, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), body, up, nn.ReLU(True), nn.PixelShuffle(2), last)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        return self.body(planes.to(self.body[0].weight.dtype)).float()

    def values_a_pixel(self, scale: int) -> float:
        return 9 * 64


class Method:
    """A network that is measured. seconds: of each repetition, by kind of measurement; memory: peak in bytes."""

    def __init__(self, name: str, restorer: Restorer) -> None:
        self.name, self.restorer, self.network = name, restorer, restorer.network
        self.seconds: dict[str, list[float]] = {}
        self.memory = 0

    def time(self, what: str, work: Callable[..., object], *arguments: object) -> None:
        start = time.perf_counter()
        work(*arguments)
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)

    def median(self, what: str) -> float:
        return statistics.median(self.seconds[what])


def all_methods(task: str, others: dict[str, Architecture], device: torch.device, dtype: torch.dtype) -> list[Method]:
    """The default network of `task`, with the shipped weights if there are any, and the others."""
    found, options = load_task(task), TASKS[task].options()
    path = weights.default_folder() / f"{task}{weights.SUFFIX}"
    ours = weights.load(path, task)[1] if path.is_file() else build(found.arch, found.config)
    named = {f"restore {task}{'' if path.is_file() else ' (random weights)'}": ours, **others}
    return [Method(name, Restorer(found.head(options), net, options, device, dtype)) for name, net in named.items()]


def network_input(head: Head[Any, Any], planes: torch.Tensor) -> torch.Tensor:
    """What the network gets of RGB planes (N,3,H,W) where nothing is known of a picture."""
    context = head.context(head.static_analysis(), Window(0, 0, *planes.shape[-2:]))
    return head.preprocess(planes, None if context is None else context[None])


def one_picture(found: Sequence[Method], side: int, repeat: int) -> None:
    """Times each network on one picture, alone and from array to array, and measures the peak of memory."""
    image = read_image(synthetic(side, side)).pixels
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255
    for number in range(repeat + 1):
        for one in found:
            reset_peak_memory(one.restorer.device)
            one.time("array", one.restorer, image)
            one.memory = max(one.memory, peak_memory())
            seen = network_input(one.restorer.head, planes)
            one.time("network", one.restorer._engine.predict, seen, one.restorer.device)
            if number == 0:  # a warm-up
                one.seconds.clear()


def folder(found: Sequence[Method], count: int, repeat: int) -> float:
    """Times each network on small PNG files, in memory and from folder to folder; returns their megapixels."""
    rng = np.random.default_rng(0)
    photo = skimage.data.astronaut()
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            height, width = rng.integers(*SMALL, 2)
            row, column = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
            part = np.ascontiguousarray(photo[row : row + height, column : column + width])
            write_image(Image(part), Path(name) / f"{number}.png")
        paths = sorted(Path(name).iterdir())
        pictures = [read_image(path) for path in paths]
        for _ in range(repeat):
            for one in found:
                one.time("compute", lambda restore: [restore(picture) for picture in pictures], one.restorer.restore)
                with tempfile.TemporaryDirectory() as out:
                    jobs = [Job(path, Path(out) / path.name) for path in paths]
                    one.time("folder", _restore_files, jobs, one.restorer)
                    assert len(list(Path(out).iterdir())) == count, "some failed"
    return sum(picture.megapixels for picture in pictures)


def _restore_files(jobs: list[Job], restorer: Restorer) -> None:
    with FilePipeline(restorer, WriteOptions()) as pipeline:
        list(pipeline.run(jobs))


def precision(one: Method, side: int = 256) -> list[list[str]]:
    """Rows of sigma, PSNR in fp32 and in the precision in use, and the difference."""
    ours = one.restorer
    full = Restorer(ours.head, one.network, ours.options, ours.device, torch.float32)
    photos = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    rows = []
    for sigma in (5, 15, 25, 50):
        scores = np.zeros(2)
        for number, photo in enumerate(photos):
            clean = photo[:side, :side] / np.float32(255)
            noisy = clean + np.random.default_rng(number).normal(0, sigma / 255, clean.shape).astype(np.float32)
            scores += [psnr(restorer(noisy), clean) / len(photos) for restorer in (full, ours)]
        rows.append([f"{sigma}", f"{scores[0]:.3f}", f"{scores[1]:.3f}", f"{scores[1] - scores[0]:+.4f}"])
    return rows


def report(flags: argparse.Namespace) -> str:
    """Measures everything; returns a section in Markdown."""
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    device = pick_device(flags.device)
    dtype = pick_precision(flags.precision, device)
    denoisers = all_methods("denoise", {"CDnCNN": CDnCNN(), "FFDNet": FFDNet()}, device, dtype)
    enlargers = all_methods("super-resolve", {"CARN-M": CarnM()}, device, dtype)
    ours, slow = denoisers[:2]
    one_picture(denoisers, flags.side, flags.repeat)
    one_picture(enlargers, flags.side // 2, flags.repeat)
    passes = min(3, flags.repeat)
    total = folder(denoisers, flags.files, passes)
    speedup = slow.median("array") / ours.median("array")
    more = {one.name: one.median("folder") / one.median("compute") - 1 for one in denoisers}
    head = ["network", "parameters", "MFLOP a pixel", "network alone", "array to array", "peak memory"]
    seconds = [
        [one.name, f"{one.median('compute'):.2f}", f"{one.median('folder'):.2f}", f"{more[one.name]:+.1%}"]
        for one in denoisers
    ]
    parts = [
        "## Speed",
        f"{machine()}, {describe(device, dtype)}, channels_last, torch {torch.__version__}, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}. Medians of {flags.repeat} alternating runs. Other "
        "networks have random weights; all use the same restorer.",
        f"**One picture** of {flags.side}x{flags.side}: seconds a megapixel of input. Memory is that of the process.",
        markdown_table([*head, "against CDnCNN"], [_row(one, slow, flags.side) for one in denoisers]),
        f"Target: {MIN_SPEEDUP} times as fast as CDnCNN: {MET[speedup >= MIN_SPEEDUP]} ({speedup:.2f}).",
        f"**Enlarging x2** a picture of {flags.side // 2}x{flags.side // 2}: seconds a megapixel of input.",
        markdown_table([*head, "against CARN-M"], [_row(one, enlargers[1], flags.side // 2) for one in enlargers]),
        f"**A folder** of {flags.files} PNG files, {SMALL[0]} to {SMALL[1] - 1} pixels a side, {total:.1f} megapixels: "
        f"seconds, medians of {passes}. Compute: the same pictures from array to array, one after the other.",
        markdown_table(["network", "compute", "folder to folder", "more"], seconds),
        f"Target: at most {MAX_OVERHEAD:.0%} more: {MET[more[ours.name] <= MAX_OVERHEAD]} ({more[ours.name]:+.1%}).",
    ]
    if "random" not in ours.name and dtype != torch.float32:
        used = describe(device, dtype).split(", ")[-1]
        parts.append("**Precision**: PSNR in dB, mean of three photographs with unclipped noise.")
        parts.append(markdown_table(["sigma", "fp32", used, "difference"], precision(ours)))
    return "\n\n".join(parts) + "\n"


def _row(one: Method, other: Method, side: int) -> list[str]:
    millions = sum(parameter.numel() for parameter in one.network.parameters()) / 1e6
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        head = one.restorer.head
        head.run(one.network, network_input(head, torch.zeros(1, 3, 240, 240)))
    times = [f"{one.median(what) / (side / 1e3) ** 2:.3f} s" for what in ("network", "array")]
    ratio = other.median("array") / one.median("array")
    flops = counter.get_total_flops() / 240**2 / 1e6
    return [one.name, f"{millions:.2f} M", f"{flops:.2f}", *times, f"{one.memory / 1e6:.0f} MB", f"{ratio:.2f}x"]


def sizes(flags: argparse.Namespace) -> str:
    """Times the default denoiser on pictures of several sizes, in turn; returns a section in Markdown.

    Every round begins with the smallest picture, whose time is measured as often as it takes to compare.
    """
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the command does
    restorer = load("denoise", device=flags.device, precision=flags.precision)
    pictures = {}
    for megapixels in sorted(flags.sizes):
        side = round((megapixels * 1e6) ** 0.5)
        pictures[megapixels] = read_image(synthetic(side, side)).pixels
    smallest = min(pictures)
    restorer(pictures[smallest])
    seconds: dict[float, list[float]] = {megapixels: [] for megapixels in pictures}
    memory = {}
    for _ in range(flags.repeat):
        for megapixels, image in pictures.items():
            reset_peak_memory(restorer.device)
            for _ in range(5 if megapixels == smallest else 1):
                start = time.perf_counter()
                restorer(image)
                seconds[megapixels].append((time.perf_counter() - start) / megapixels)
            memory[megapixels] = peak_memory()
    medians = {megapixels: statistics.median(found) for megapixels, found in seconds.items()}
    rows = [
        [f"{size:g}", f"{median:.3f} s", f"{median / medians[smallest]:.2f}", f"{memory[size] / 1e6:.0f} MB"]
        for size, median in medians.items()
    ]
    worst = max(medians.values()) / medians[smallest]
    return "\n\n".join(
        [
            "## Large pictures",
            f"{machine()}, {describe(restorer.device, restorer.dtype)}, torch {torch.__version__}. `denoise` from "
            f"array to array, medians of {flags.repeat} rounds.",
            markdown_table(["megapixels", "seconds a megapixel", "against the smallest", "peak memory"], rows),
            f"Target: at most {MAX_GROWTH} times as much a megapixel: {MET[worst <= MAX_GROWTH]} ({worst:.2f}).\n",
        ]
    )


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--side", type=int, default=1024, help="of the one picture, in pixels")
    flags.add_argument("--files", type=int, default=200, help="small pictures in the folder")
    flags.add_argument("--sizes", type=float, nargs="+", help="measure only denoise, at these megapixels")
    flags.add_argument("--repeat", type=int, default=5)
    flags.add_argument("--device", default="auto")
    flags.add_argument("--precision", default="auto")
    given = flags.parse_args()
    publish(given, sizes if given.sizes else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
