"""A network on its device: batches go in, float32 planes come back to the CPU."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import torch

from restore.errors import UsageError
from restore.models.registry import Architecture
from restore.tasks.base import Head

logger = logging.getLogger("restore")

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # CUDA and MPS; the CPU; cuDNN and cuBLAS


class Engine:
    """Runs batches through a network, in `dtype` where that holds their values.

    tta: average over the eight symmetries. compile: through torch.compile; the first batch of a shape is slow.
    """

    def __init__(
        self, head: Head, network: Architecture, dtype: torch.dtype, *, tta: bool = False, compile: bool = False
    ) -> None:
        self.head, self.dtype, self.tta, self.compile = head, dtype, tta, compile
        self._network = network.eval().to(memory_format=torch.channels_last)
        self._placed: dict[tuple[torch.device, torch.dtype], Any] = {}

    def run(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        """(N,C,h,w) on the CPU -> (N,C',h*scale,w*scale) on the CPU, computed on `device`, in float32.

        stage: what the head's `run` is told.
        A tile of the batch that overflows in half precision is computed again in full.
        Raises UsageError if the network cannot be compiled; `is_out_of_memory` tells a lack of memory.
        """
        with torch.inference_mode():
            there = planes.to(device)
            output = self._symmetric(there, self._on(device, self.dtype), stage).float()
            if self.dtype != torch.float32 and not _all_finite(output):
                broken = [number for number, tile in enumerate(output) if not _all_finite(tile)]
                logger.info("%d tiles overflowed in half precision: computing them in fp32", len(broken))
                for number in broken:  # one by one, so that how many there are changes nothing in any of them
                    tile = there[number : number + 1]
                    output[number] = self._symmetric(tile, self._on(device, torch.float32), stage)[0].float()
            return output.cpu()

    def _symmetric(self, planes: torch.Tensor, network: Any, stage: str) -> torch.Tensor:
        """The network's output; with `tta` the mean over the symmetries of the head, each turned back."""
        if not self.tta:
            return self._forward(planes, network, stage)
        total: torch.Tensor | None = None
        turning = 1 if self.head.upright else 4
        for turns in range(turning):
            for mirrored in (False, True):
                view = torch.rot90(planes.flip(-1) if mirrored else planes, turns, (-2, -1))
                output = torch.rot90(self._forward(view, network, stage), -turns, (-2, -1))
                output = output.flip(-1) if mirrored else output
                total = output if total is None else total + output
        assert total is not None
        return total / (2 * turning)

    def _forward(self, planes: torch.Tensor, network: Any, stage: str) -> torch.Tensor:
        try:
            return self.head.run(network, planes.contiguous(memory_format=torch.channels_last), stage)
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) and not is_out_of_memory(error):
                raise UsageError(f"the network cannot be compiled here ({_first_line(error)}); do without") from error
            raise

    def _on(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network on `device` in `dtype`; made once, from the weights in full precision."""
        key = (device, dtype)
        if key not in self._placed:
            placed = copy.deepcopy(self._network).to(device=device, dtype=dtype)
            self._placed[key] = torch.compile(placed) if self.compile else placed
        return self._placed[key]


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type for a full GPU, but only words for a full main memory and for its libraries' errors."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _all_finite(planes: torch.Tensor) -> bool:
    # The sum of finite numbers is finite but for rare overflows, and quicker: it needs no mask of the same size.
    return math.isfinite(float(planes.sum())) or bool(torch.isfinite(planes).all())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
