"""Measurements: speed of a restorer from file to file, memory, and the share of the host."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from restore.errors import ImageError, UsageError
from restore.images import SUFFIXES, Image, encode_image, read_image, writable_suffix
from restore.inference.engine import Engine, PixelModel
from restore.inference.restorer import Restorer

PHASES = ("decode", "compute", "encode")


def measure(restorer: Restorer, sources: Sequence[Path | bytes], repeat: int) -> dict[str, Any]:
    """Measures decoding, restoring and encoding (in memory, in the format of the input), without any overlap.

    Args:
        restorer: the restorer.
        sources: files, or their bytes.
        repeat: number of passes; a first picture is restored before, to warm up.

    Returns:
        By name: the number of pictures, and of those left out as unreadable; megapixels of input; seconds and share of
        each of `PHASES` for all pictures together, the median of the passes; speed; and the peaks of main memory and of
        the GPU's (None on a CPU) in bytes.

    Raises:
        UsageError: no source can be read.
    """
    readable = _readable(sources)
    _pass(restorer, readable[:1])
    reset_peak_memory(restorer.device)
    seconds, megapixels = _medians([_pass(restorer, readable) for _ in range(repeat)])
    total = max(sum(seconds.values()), 1e-9)
    cuda = restorer.device.type == "cuda"
    return {
        "pictures": len(readable),
        "unreadable": len(sources) - len(readable),
        "megapixels": round(megapixels, 4),
        "repeat": repeat,
        "seconds": {phase: round(value, 5) for phase, value in seconds.items()},
        "share": {phase: round(value / total, 4) for phase, value in seconds.items()},
        "megapixels_per_second": {
            "compute": round(megapixels / max(seconds["compute"], 1e-9), 4),
            "all": round(megapixels / total, 4),
        },
        "peak_memory": peak_memory(),
        "peak_device_memory": torch.cuda.max_memory_allocated(restorer.device) if cuda else None,
    }


class _IdleEngine(Engine):
    """Returns empty tensors of the right shapes, which a stage of the network is asked for once, on the meta device."""

    def __init__(self, model: PixelModel, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        self._shapes: dict[tuple[torch.Size, str], torch.Size] = {}  # of what `predict` gives, by input and stage

    def restore(
        self,
        pixels: torch.Tensor,
        context: torch.Tensor | None,
        gray: bool,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        count, height, width, _ = pixels.shape
        scale, channels = self.model.head.scale, 1 if gray else 3
        restored = torch.empty((count, height * scale, width * scale, channels), dtype=pixels.dtype, device=device)
        return restored, torch.empty(count, dtype=torch.bool, device=device)

    def predict(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        key = planes.shape, stage
        if key not in self._shapes:
            self._shapes[key] = super().predict(planes, device, stage).shape
        return torch.empty(self._shapes[key], device=device)


def measure_host(restorer: Restorer, sources: Sequence[Path | bytes], repeat: int) -> dict[str, Any]:
    """Measures the share of the host, on torch's meta device with an engine that does nothing.

    Args:
        restorer: any; its head gets an output of zeros, in which it detects no damage.
        sources: files, or their bytes.
        repeat: number of passes, of which the median is taken, after one to warm up.

    Returns:
        Processor time in milliseconds a megapixel of output: of the thread that drives the device, without the work of
        the device, and of those that decode and encode. And the most megapixels a second with any device, if one of 16
        cores drives it and the others handle files.

    Raises:
        UsageError: no source can be read.
    """
    readable = _readable(sources)
    bare = Restorer(restorer.head, restorer.network, restorer.options, torch.device("meta"), torch.bfloat16)
    bare._engine = _IdleEngine(bare._engine.model, torch.bfloat16)
    seconds, megapixels = _medians([_pass(bare, readable, time.thread_time) for _ in range(repeat + 1)][1:])
    cost = {phase: 1000 * value / (megapixels * restorer.head.scale**2) for phase, value in seconds.items()}
    files = 15 * 1000 / max(cost["decode"] + cost["encode"], 1e-9)
    return {
        "repeat": repeat,
        "ms_per_megapixel": round(cost["compute"], 3),
        "decode_ms_per_megapixel": round(cost["decode"], 3),
        "encode_ms_per_megapixel": round(cost["encode"], 3),
        "megapixels_per_second_at_16_cores": round(min(1000 / max(cost["compute"], 1e-9), files), 1),
    }


def synthetic(width: int, height: int) -> bytes:
    """Makes a PNG file (8-bit RGB) of a repeated photograph.

    Slight noise keeps the repetition from compressing better, and decoding faster, than a photograph.
    """
    import skimage.data

    photo = skimage.data.astronaut()
    rng = np.random.default_rng(0)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = photo.shape[0]
    for top in range(0, height, rows):
        band = np.tile(photo, (1, -(-width // photo.shape[1]), 1))[: height - top, :width]
        noisy = band + rng.integers(-3, 4, band.shape, np.int16)
        pixels[top : top + rows] = noisy.clip(0, 255)
    return encode_image(Image(pixels), "png")


def peak_memory() -> int:
    """Peak of the main memory of this process in bytes, since `reset_peak_memory` on Linux."""
    with suppress(OSError):  # Linux, where ru_maxrss may be that of the parent process
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Resets the peaks of main memory (on Linux only) and of `device`."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _readable(sources: Sequence[Path | bytes]) -> list[Path | bytes]:
    """The sources that can be decoded. Raises UsageError if there are none."""
    readable = []
    for source in sources:
        with suppress(ImageError):
            read_image(source)
            readable.append(source)
    if not readable:
        raise UsageError("no picture can be read; give another folder")
    return readable


def _pass(
    restorer: Restorer, sources: Sequence[Path | bytes], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of each phase and megapixels, of all sources together."""
    total = dict.fromkeys((*PHASES, "megapixels"), 0.0)
    for source in sources:
        times = [clock()]
        image = read_image(source)
        times.append(clock())
        total["megapixels"] += image.megapixels
        kind = image.format
        image = restorer.restore(image).image  # the result is on the host: nothing is left running on a device
        times.append(clock())
        suffix = next(suffix for suffix, known in SUFFIXES.items() if known == kind)
        encode_image(image, SUFFIXES[writable_suffix(image, suffix)[0]])
        times.append(clock())
        for phase, start, end in zip(PHASES, times[:-1], times[1:], strict=True):
            total[phase] += end - start
    return total


def _medians(passes: Sequence[dict[str, float]]) -> tuple[dict[str, float], float]:
    return {phase: statistics.median(one[phase] for one in passes) for phase in PHASES}, passes[0]["megapixels"]
