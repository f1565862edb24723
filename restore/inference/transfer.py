"""Transfer of pictures to the computing device and back, once each, in their own dtype.

On a CPU tensors share the memory of arrays. On CUDA copies go through pinned memory, in a stream of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from restore.devices import free_memory
from restore.tasks.functional import as_tensor

RESIDENT_SHARE = 0.25  # of the free memory of a device: larger pictures stay on the host, and are sent by tiles


class Transfer:
    """Transfer between the host and a device; on a CPU nothing is copied. Synchronous, for devices but CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, array: np.ndarray) -> torch.Tensor:
        """Sends (H,W,C) to the device in its own dtype; it stays on the host if it is too large.

        The array must not change until the download of the result is complete.
        """
        host = as_tensor(array)
        return host.to(self.device) if self._fits(array) else host

    def allocate(self, out: np.ndarray) -> torch.Tensor:
        """Allocates a tensor like `out` (H,W,C), for a result that is downloaded into it."""
        host = as_tensor(out)
        return torch.empty(out.shape, dtype=host.dtype, device=self.device) if self._fits(out) else host

    def download(self, tensor: torch.Tensor, out: np.ndarray) -> Callable[[], None]:
        """Starts a copy of `tensor`, made by `allocate`, into `out`; the returned function waits for it."""
        if tensor.device.type != "cpu":
            as_tensor(out).copy_(tensor)
        return _nothing

    def flags(self, flags: torch.Tensor) -> Callable[[], list[bool]]:
        """Starts a copy of (N,) bool to the host; the returned function waits for it and gives the values."""
        return flags.tolist

    def _fits(self, array: np.ndarray) -> bool:
        if self.device.type == "cpu" or (self.device.type == "mps" and array.dtype == np.uint16):
            return False
        return array.nbytes <= free_memory(self.device) * RESIDENT_SHARE


class CudaTransfer(Transfer):
    """Asynchronous copies beside the computation: a copy stream, events, and pinned memory.

    torch keeps freed pinned memory for reuse, and what is being copied from or to until that is done.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream: Any = torch.cuda.Stream(device)

    def upload(self, array: np.ndarray) -> torch.Tensor:
        if not self._fits(array):
            return as_tensor(array)
        host = _pinned(as_tensor(array)).copy_(as_tensor(array))
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            uploaded = host.to(self.device, non_blocking=True)
        compute = torch.cuda.current_stream(self.device)
        compute.wait_stream(self._stream)
        uploaded.record_stream(compute)
        return uploaded

    def download(self, tensor: torch.Tensor, out: np.ndarray) -> Callable[[], None]:
        if tensor.device.type == "cpu":  # too large for the device; its tiles were copied synchronously
            return _nothing
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            wait = self._to_host(tensor)
            tensor.record_stream(self._stream)
        return lambda: np.copyto(out, wait().numpy())

    def flags(self, flags: torch.Tensor) -> Callable[[], list[bool]]:
        wait = self._to_host(flags)
        return lambda: list(wait().tolist())

    def _to_host(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Starts a copy in the current stream; the returned function waits for it."""
        host = _pinned(tensor).copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> torch.Tensor:
            done.synchronize()
            return host

        return wait


class MetaTransfer(Transfer):
    """For torch's meta device: does only the copies within the host, to time them."""

    _staged = np.empty(0, np.uint8)

    def upload(self, array: np.ndarray) -> torch.Tensor:
        if self._staged.nbytes < array.nbytes:
            self._staged = np.empty(array.nbytes, np.uint8)
        np.copyto(self._staged[: array.nbytes].view(array.dtype).reshape(array.shape), array)
        return torch.empty(array.shape, dtype=as_tensor(array).dtype, device="meta")

    def allocate(self, out: np.ndarray) -> torch.Tensor:
        return torch.empty(out.shape, dtype=as_tensor(out).dtype, device="meta")

    def download(self, tensor: torch.Tensor, out: np.ndarray) -> Callable[[], None]:
        return lambda: out.fill(0)

    def flags(self, flags: torch.Tensor) -> Callable[[], list[bool]]:
        return lambda: [True] * len(flags)


def transfer_for(device: torch.device) -> Transfer:
    """The transfer for a device."""
    return {"cuda": CudaTransfer, "meta": MetaTransfer}.get(device.type, Transfer)(device)


def _pinned(like: torch.Tensor) -> torch.Tensor:
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


def _nothing() -> None:
    """Nothing to wait for."""
