"""The network on its device: restores batches of tiles, from pixels to pixels."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import nn

from restore.errors import UsageError
from restore.inference.tiling import is_out_of_memory
from restore.models.blocks import crop, pad_to_multiple
from restore.models.registry import Architecture
from restore.tasks.base import Head
from restore.tasks.functional import luma, to_pixels, to_planes

logger = logging.getLogger("restore")


class PixelModel(nn.Module):
    """Head, network, self-ensemble, strength and rounding in one module, which can be compiled or exported as a whole.

    Args:
        head: fits the network to the damage.
        network: the autoencoder, in any floating point dtype.
        strength: weight of the restored pixels in the blend with the input, from 0 to 1.
        tta: average over the eight symmetries of the square (two if `head.upright`), else over those of `head.turns`.
    """

    def __init__(self, head: Head[Any, Any], network: Architecture, strength: float = 1.0, tta: bool = False) -> None:
        super().__init__()
        self.head, self.network, self.strength, self.tta = head, network, strength, tta
        self._turns = () if not tta else (0,) if head.upright else (0, 1, 2, 3)

    def forward(
        self, pixels: torch.Tensor, context: torch.Tensor | None = None, gray: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Restores a batch of tiles.

        Args:
            pixels: (N,h,w,1 or 3) uint8, uint16 or floating point.
            context: (N,K,h,w) float32, the result of the head's `context` for each tile; None if it needs none.
            gray: return the luma of the restored tiles.

        Returns:
            (N,h*scale,w*scale,3 or, if `gray`, 1) in the dtype of `pixels`; and (N,) bool, whether all values of
            the network's output are finite.
        """
        head = self.head
        planes = to_planes(pixels).expand(-1, 3, -1, -1)
        finite = torch.ones(planes.shape[0], dtype=torch.bool, device=planes.device)
        restored = None
        if self.strength > 0:
            output = torch.empty(0, device=planes.device)
            if head.runs_network:
                output = self._mean(head.preprocess(planes, context), "", self._turns or head.turns)
                # Cheaper than isfinite of every value; the sum of finite values rarely overflows.
                finite = output.sum((1, 2, 3)).isfinite()
            restored = head.postprocess(output, planes, context)
        if restored is None:
            restored = head.identity(planes)
        elif self.strength != 1:
            restored = torch.lerp(head.identity(planes), restored, self.strength)
        return to_pixels(luma(restored) if gray else restored, pixels.dtype), finite

    def predict(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """The network's output (N,C',h,w) float32 for (N,C,h,w); with `tta` the mean over the symmetries.

        The stages that look for damage see one view: the mean of logits is lower, and thresholds are set for one.
        """
        return self._mean(planes, stage, () if stage else self._turns)

    def _mean(self, planes: torch.Tensor, stage: str, turns: Sequence[int]) -> torch.Tensor:
        """The mean of the outputs for the planes turned by each of `turns` quarters, and mirrored; () for neither."""
        if not turns:
            return self._run(planes, stage)
        views = [(quarters, mirrored) for quarters in turns for mirrored in (False, True)]
        tiled = self.head.runs_network
        # Networks pad at the bottom and right, which would shift their grid in a mirrored tile against that of the
        # mirrored picture.
        padded = pad_to_multiple(planes, self.network.stride) if tiled else planes
        mean = reduce(torch.add, (self._turned(padded, stage, *view) for view in views)) / len(views)
        height, width = (side * (mean.shape[-1] // padded.shape[-1]) for side in planes.shape[-2:])
        return crop(mean, height, width) if tiled else mean

    def _turned(self, planes: torch.Tensor, stage: str, quarters: int, mirrored: bool) -> torch.Tensor:
        view = torch.rot90(planes.flip(-1) if mirrored else planes, quarters, (-2, -1))
        output = torch.rot90(self._run(view, stage), -quarters, (-2, -1))
        return output.flip(-1) if mirrored else output

    def _run(self, planes: torch.Tensor, stage: str) -> torch.Tensor:
        return self.head.run(self.network, planes.contiguous(memory_format=torch.channels_last), stage).float()


class Engine:
    """Copies of a `PixelModel`, whose network is in float32 on the CPU, on the devices and in the precisions needed.

    dtype: of the convolutions. compile: use torch.compile; the first batch of a shape is slow.
    """

    def __init__(self, model: PixelModel, dtype: torch.dtype, *, compile: bool = False) -> None:
        self.model, self.dtype, self.compile = model, dtype, compile
        model.network.eval().to(memory_format=torch.channels_last)
        self._models: dict[tuple[torch.device, torch.dtype], PixelModel] = {}

    def restore(
        self,
        pixels: torch.Tensor,
        context: torch.Tensor | None,
        gray: bool,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Runs `PixelModel.forward` on `device`, without waiting for a GPU.

        Args:
            pixels, context, gray: as in `PixelModel.forward`, on any device.
            device: where to compute.
            dtype: of the convolutions; None: that of the engine.

        Returns:
            The restored pixels on `device`, and (N,) bool, whether each tile is finite; None in float32.

        Raises:
            UsageError: the network cannot be compiled on this machine.
            RuntimeError: also if memory is exhausted, see `is_out_of_memory`.
        """
        dtype = dtype or self.dtype
        on_host = device.type == "mps" and pixels.dtype == torch.uint16  # Metal has no uint16 conversion
        sent = to_planes(pixels).permute(0, 2, 3, 1) if on_host else pixels
        with torch.inference_mode():
            model = self._model_on(device, dtype)
            try:
                restored, finite = model(sent.to(device), None if context is None else context.to(device), gray)
            except RuntimeError as error:
                compiling = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
                if not compiling or is_out_of_memory(error):
                    raise
                first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                raise UsageError(f"the network cannot be compiled here ({first}); leave out --compile") from error
        if on_host:
            restored = to_pixels(restored.cpu().permute(0, 3, 1, 2), pixels.dtype)
        return restored, None if dtype == torch.float32 else finite

    def predict(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        """Runs `PixelModel.predict` on `device`; samples that overflow in half precision are repeated in float32."""
        with torch.inference_mode():
            moved = planes.to(device)
            output = self._model_on(device, self.dtype).predict(moved, stage)
            if self.dtype != torch.float32 and device.type != "meta":
                # One by one, so that the result does not depend on the number of samples.
                for number in (~output.sum((1, 2, 3)).isfinite()).nonzero().flatten().tolist():
                    output[number] = self._model_on(device, torch.float32).predict(moved[number : number + 1], stage)[0]
            return output

    def _model_on(self, device: torch.device, dtype: torch.dtype) -> PixelModel:
        """The model with its network on `device` in `dtype`; copied once, from the float32 weights."""
        key = (device, dtype)
        if key not in self._models:
            network = copy.deepcopy(self.model.network).to(device=device, dtype=dtype)
            model = PixelModel(self.model.head, network, self.model.strength, self.model.tta).eval()
            if self.compile:
                model.compile()
            self._models[key] = model
        return self._models[key]
