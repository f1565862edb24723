"""The processes that share a run (torchrun starts them), and Ctrl-C."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from restore.errors import RestoreError, UsageError

Value = TypeVar("Value")


class Processes:
    """The processes of a run, or the only one. All of them have to call each method, and in the same order.

    What depends on clocks, signals or the disk is decided once, so that they never disagree about the next step.

    Attributes:
        index, count: Number of this process, 0 is the one that speaks and writes; and how many there are.
        local_rank, local_count: The same of those that share this machine.
        device: Where this one computes.
    """

    def __init__(self, device: torch.device, *, named: bool = False) -> None:
        """Joins the others.

        Args:
            device: Where a single process computes; several take a GPU each where it is one.
            named: Whether a person asked for this very device, such as cuda:1.

        Raises:
            UsageError: Several processes are to share one named device.
        """
        state = PartialState(cpu=device.type == "cpu")
        self.index, self.count = state.process_index, state.num_processes
        if self.count > 1 and named:
            raise UsageError(f"--device {device}: under torchrun each process takes a GPU of its own; use cuda")
        # What torchrun tells each process of its machine.
        self._machine, self.local_count, self.local_rank = (
            int(os.environ.get(name, other)) if self.count > 1 else int(other)
            for name, other in (("GROUP_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
        if not hasattr(os, "memfd_create"):  # not Linux: each process keeps its own pictures
            self._machine, self.local_count, self.local_rank = self.index, 1, 0
        self.device = state.device if self.count > 1 else device
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        # Small decisions travel between processors, whatever carries the gradients: nothing waits for a GPU.
        self._group: Any = torch.distributed.new_group(backend="gloo") if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return bool(self.index == 0)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true if it is in any process."""
        if self.count == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX, group=self._group)
        return tuple(bool(value) for value in raised)

    def gather(self, value: Value) -> list[Value]:
        """What every process has, in their order."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(found, value, group=self._group)
        return found

    def gather_local(self, value: Value) -> list[Value]:
        """What every process on this machine has, in the order of `local_rank`."""
        return [found for machine, found in self.gather((self._machine, value)) if machine == self._machine]

    def shared_buffer(self, size: int) -> np.ndarray:
        """Memory (`size`,) in uint8 of all processes on this machine, each of which writes another part of it."""
        if self.local_count == 1:
            return np.empty(size, np.uint8)
        # Goes when the last process ends; no limit as /dev/shm has.
        file = os.memfd_create("restore-pictures") if self.local_rank == 0 else -1
        if file >= 0:
            os.truncate(file, max(1, size))
        with open(self.gather_local(f"/proc/{os.getpid()}/fd/{file}")[0], "r+b") as opened:
            buffer = np.frombuffer(mmap.mmap(opened.fileno(), 0), np.uint8)[:size]
        self.gather_local(None)  # all have opened it
        if file >= 0:
            os.close(file)
        return buffer

    def once(self, function: Callable[[], Value]) -> Value:
        """The result of `function` in the first process, for all; or its RestoreError, raised in all."""
        if self.count == 1:
            return function()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = function()
            except RestoreError as error:
                answer[1] = error
        torch.distributed.broadcast_object_list(answer, 0, group=self._group)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def shared(self, network: nn.Module, unused: bool) -> nn.Module:
        """`network`, on its device already, with gradients averaged over all processes.

        unused: whether a batch may leave some weights without a gradient.
        """
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=unused)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C (or SIGTERM) into a question that can be asked; the second one interrupts at once."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def remember(number: int, _: Any) -> None:
        seen.append(number)
        for known, handler in previous.items():
            signal.signal(known, handler)

    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        for name in (signal.SIGINT, signal.SIGTERM):
            previous[name] = signal.signal(name, remember)
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
