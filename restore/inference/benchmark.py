"""Measurements: speed of a restorer from file to file, memory, and the share of the host."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore.errors import ImageError, UsageError
from restore.images import SUFFIXES, Image, encode_image, read_image, writable_suffix
from restore.inference.engine import Engine
from restore.inference.restorer import Restorer

PHASES = ("decode", "compute", "encode")


@dataclass(frozen=True)
class Measured:
    """Time and memory of restoring pictures one after the other, without any overlap.

    Args:
        pictures: number of inputs.
        megapixels: of all inputs together.
        repeat: number of passes over them.
        decode, compute, encode: seconds for all inputs, the median of the passes.
        memory: peak of the main memory of this process in bytes.
        device_memory: peak of the GPU memory in bytes; None on a CPU.
        unreadable: number of inputs that were left out.
    """

    pictures: int
    megapixels: float
    repeat: int
    decode: float
    compute: float
    encode: float
    memory: int
    device_memory: int | None
    unreadable: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of all three phases."""
        return self.decode + self.compute + self.encode

    def speed(self, seconds: float) -> float:
        """Megapixels of input a second, if they take `seconds`."""
        return self.megapixels / max(seconds, 1e-9)

    def share(self, phase: str) -> float:
        """Share of a phase of `PHASES` in the time, from 0 to 1."""
        return float(getattr(self, phase)) / max(self.seconds, 1e-9)


def measure(restorer: Restorer, sources: Sequence[Path | bytes], repeat: int) -> Measured:
    """Measures decoding, restoring and encoding (in memory, in the format of the input).

    Args:
        restorer: the restorer.
        sources: files, or their bytes.
        repeat: number of passes; a first picture is restored before, to warm up.

    Raises:
        UsageError: no source can be read.
    """
    readable = _readable(sources)
    _pass(restorer, readable[:1])
    reset_peak_memory(restorer.device)
    passes = [_pass(restorer, readable) for _ in range(repeat)]
    medians = {phase: statistics.median(one[phase] for one in passes) for phase in PHASES}
    return Measured(
        pictures=len(readable),
        megapixels=passes[0]["megapixels"],
        repeat=repeat,
        memory=peak_memory(),
        device_memory=torch.cuda.max_memory_allocated(restorer.device) if restorer.device.type == "cuda" else None,
        unreadable=len(sources) - len(readable),
        **medians,
    )


@dataclass(frozen=True)
class HostCost:
    """Processor time of the host in milliseconds a megapixel of output.

    Args:
        compute: of the thread that drives the device, without the work of the device.
        decode, encode: of the threads that read and write files.
    """

    compute: float
    decode: float
    encode: float

    def megapixels_a_second(self, cores: int) -> float:
        """Upper bound of the throughput with any device, if one of `cores` drives it and the others handle files."""
        files = (cores - 1) * 1000 / max(self.decode + self.encode, 1e-9)
        return min(1000 / max(self.compute, 1e-9), files)


class _IdleEngine(Engine):
    """Returns empty tensors of the right shapes, which it computes once for each shape of input on the meta device."""

    _shapes: dict[tuple[Any, ...], torch.Size]

    def restore(
        self,
        pixels: torch.Tensor,
        context: torch.Tensor | None,
        gray: bool,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape = self._shape(
            (pixels.shape, gray), lambda: super(_IdleEngine, self).restore(pixels, context, gray, device)[0]
        )
        finite = torch.empty(len(pixels), dtype=torch.bool, device=device)
        return torch.empty(shape, dtype=pixels.dtype, device=device), finite

    def predict(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        shape = self._shape((planes.shape, stage), lambda: super(_IdleEngine, self).predict(planes, device, stage))
        return torch.empty(shape, device=device)

    def _shape(self, key: tuple[Any, ...], compute: Callable[[], torch.Tensor]) -> torch.Size:
        if not hasattr(self, "_shapes"):
            self._shapes = {}
        if key not in self._shapes:
            self._shapes[key] = compute().shape
        return self._shapes[key]


def measure_host(restorer: Restorer, sources: Sequence[Path | bytes], repeat: int) -> HostCost:
    """Measures the share of the host, on torch's meta device with an engine that does nothing.

    Args:
        restorer: any; its head gets an output of zeros, in which it detects no damage.
        sources: files, or their bytes.
        repeat: number of passes, of which the median is taken, after one to warm up.

    Raises:
        UsageError: no source can be read.
    """
    readable = _readable(sources)
    bare = Restorer(restorer.head, restorer.network, restorer.options, torch.device("meta"), torch.bfloat16)
    bare._engine = _IdleEngine(bare._engine.model, torch.bfloat16)
    passes = [_pass(bare, readable, time.thread_time) for _ in range(repeat + 1)][1:]
    medians = {phase: statistics.median(one[phase] for one in passes) for phase in PHASES}
    megapixels = passes[0]["megapixels"] * restorer.head.scale**2
    return HostCost(**{phase: 1000 * seconds / megapixels for phase, seconds in medians.items()})


def synthetic(width: int, height: int) -> bytes:
    """Makes a PNG file from a repeated photograph.

    Slight noise keeps the repetition from compressing better, and decoding faster, than a photograph.

    Args:
        width, height: in pixels.

    Returns:
        The bytes of the file, 8-bit RGB.
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
        import psutil

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
