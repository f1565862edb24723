"""Selection of device and precision, and their memory."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import torch

from restore.errors import DeviceError, UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device called `auto` (CUDA, else Apple's MPS, else the CPU), `cpu`, `mps`, `cuda` or `cuda:N`.

    Raises:
        DeviceError: this machine does not have it.
        UsageError: unknown name.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise UsageError(f"unknown device '{name}'; use auto, cpu, mps, cuda or cuda:N")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: this machine has no Metal GPU; use --device auto or cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            have = f"{count} of them" if count else "none that torch can use"
            raise DeviceError(f"--device {name}: this machine has {have}; use --device auto or cpu")
        return torch.device(f"cuda:{number or 0}")
    return torch.device(kind)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the convolutions: `fp32`, `bf16`, `fp16`, or `auto`.

    `auto` is bf16 where the hardware supports it natively, else fp16 on CUDA, else fp32.

    Raises:
        UsageError: unknown name.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise UsageError(f"unknown precision '{name}'; use auto, fp32, bf16 or fp16")
    if device.type == "cuda":
        with torch.cuda.device(device):  # is_bf16_supported asks the current device
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this processor has native bfloat16 instructions (AVX-512 BF16, AMX, or Arm's BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # not Linux
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags)) or ("bf16" in flags and platform.machine() == "aarch64")


@cache
def single_thread_after_fork() -> None:
    """Makes forked children compute in one thread: they would wait forever for the thread pool of their parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def available_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next tensors; fresh pages would cost a twentieth of the time.

    It affects the whole process, so only the command line calls it. It does nothing without glibc.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on `device`; what torch has reserved on a GPU but not allocated counts as free."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + reserve)
    free: int = psutil.virtual_memory().available
    limit = _container_limit()
    return free if limit is None else max(0, min(free, limit - psutil.Process().memory_info().rss))


def _container_limit(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of memory that this container may use; None where there is no limit (or no Linux).

    The smallest limit of the control group of this process and of those above it, in version 2 (`memory.max`) and
    version 1 (`memory.limit_in_bytes`).
    """
    limits = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/", "0:memory:/"]:  # in a container the path may be one of the machine outside
        kinds, _, path = line.partition(":")[2].partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (mounted / "memory", "memory.limit_in_bytes") if kinds else (mounted, "memory.max")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # ValueError: "max"
                limits.append(int((folder / name).read_text()))
            if folder == top:
                break
    return min(limits, default=None)


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """Describes a device and precision for users, such as `cuda:0 (NVIDIA H200), bf16`."""
    precision = next(name for name, kind in PRECISIONS.items() if kind == dtype)
    threads = torch.get_num_threads()
    host = f", {threads} thread{'s' * (threads != 1)}"
    what = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else host
    return f"{device}{what if device.type != 'mps' else ''}, {precision}"
