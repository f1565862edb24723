"""How quick a restorer is from file to file, how much memory that takes, and what of it stays on the host."""

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
    """What restoring took, a picture after the other, nothing at once.

    megapixels: of all inputs together. decode, compute, encode: seconds for all of them, the median of
    `repeat` passes. memory: bytes of main memory of this process, at its peak; device_memory: of the
    GPU's, None on a CPU. unreadable: how many inputs were left out.
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
        """All three phases."""
        return self.decode + self.compute + self.encode

    def speed(self, seconds: float) -> float:
        """Megapixels of input a second."""
        return self.megapixels / max(seconds, 1e-9)

    def share(self, phase: str) -> float:
        """Of the time, from 0 to 1."""
        return float(getattr(self, phase)) / max(self.seconds, 1e-9)


def measure(restorer: Restorer, sources: Sequence[Path | bytes], repeat: int) -> Measured:
    """Decodes, restores and encodes (into memory, in the input's format) all `sources`, `repeat` times.

    A first picture goes ahead uncounted: it pays for what is made once. Raises UsageError if no source can be read.
    """
    readable = [source for source in sources if _first(source) is not None]
    if not readable:
        raise UsageError("there is no picture that can be read; name another folder")
    _pass(restorer, readable[:1])
    forget_peak(restorer.device)
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
    """Milliseconds of processor time that stay on the host for a megapixel of output.

    Args:
        compute: of the one thread that drives the device, the device's own work left out.
        decode, encode: of the threads that read and write files.
    """

    compute: float
    decode: float
    encode: float

    def megapixels_a_second(self, cores: int) -> float:
        """What so many cores let through, one of them driving the device: an upper bound for any device."""
        files = (cores - 1) * 1000 / max(self.decode + self.encode, 1e-9)
        return min(1000 / max(self.compute, 1e-9), files)


class _IdleEngine(Engine):
    """Gives empty tensors of the shapes that an engine gives, which it computes once a shape, on the meta device."""

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
    """The host's share of restoring, on torch's meta device, with an engine that does nothing.

    Args:
        restorer: any; what its head finds in the pictures is what zeros say, no damage.
        sources: files, or their bytes.
        repeat: how often to measure; the median counts. A first pass is not counted.

    Raises:
        UsageError: no source can be read.
    """
    readable = [source for source in sources if _first(source) is not None]
    if not readable:
        raise UsageError("there is no picture that can be read; name another folder")
    bare = Restorer(restorer.head, restorer.network, restorer.options, torch.device("meta"), torch.bfloat16)
    bare._engine = _IdleEngine(bare._engine.model, torch.bfloat16)
    passes = [_pass(bare, readable, time.thread_time) for _ in range(repeat + 1)][1:]
    medians = {phase: statistics.median(one[phase] for one in passes) for phase in PHASES}
    megapixels = passes[0]["megapixels"] * restorer.head.scale**2
    return HostCost(**{phase: 1000 * seconds / megapixels for phase, seconds in medians.items()})


def synthetic(width: int, height: int) -> bytes:
    """A PNG file of (height, width) in colour: a photograph again and again, with a little noise.

    Without the noise the repetition would make the file smaller, and quicker to read, than a photograph's.
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
    """Bytes of main memory that this process held at most, since `forget_peak` where the system allows that."""
    with suppress(OSError):  # Linux; its ru_maxrss may be that of the process which started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak(device: torch.device) -> None:
    """Lets the peaks of memory begin anew, as far as the system allows (main memory: on Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _first(source: Path | bytes) -> Image | None:
    try:
        return read_image(source)
    except ImageError:
        return None


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
        image = restorer.restore(image).image  # returns what the CPU holds: nothing is left running on a device
        times.append(clock())
        suffix = next(suffix for suffix, known in SUFFIXES.items() if known == kind)
        encode_image(image, SUFFIXES[writable_suffix(image, suffix)[0]])
        times.append(clock())
        for phase, start, end in zip(PHASES, times[:-1], times[1:], strict=True):
            total[phase] += end - start
    return total
