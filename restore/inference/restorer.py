"""Weights on a device, ready to take images."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.corruptions.downsample import resize_bicubic
from restore.devices import pick_device, pick_precision
from restore.errors import UsageError
from restore.images import Image
from restore.inference.tiling import SMALLEST, Tile, automatic_tile, plan
from restore.models.registry import Architecture
from restore.pixels import is_gray, luma, to_dtype, to_float, white
from restore.tasks import Options, task_spec
from restore.tasks.base import Head

logger = logging.getLogger("restore")


def load(
    task: str,
    model: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    tile: int = 0,
    *,
    overlap: int | None = None,
    strength: float = 1.0,
    tta: bool = False,
    **options: Any,
) -> Restorer:
    """A restorer for `task`: denoise, super-resolve, ...

    model: a shipped variant or a weights file (the default weights if None). tile: side of a tile in
    pixels (0: as large as memory allows). overlap: what a tile sees beyond itself (None: as far as
    the network looks). strength: from 0, the input, to 1, the restored picture. tta: average over
    the eight symmetries (eight times the work). options: those of the task, such as `scale`.
    Raises UsageError (also as WeightsError, DeviceError) for anything that is not there or does not fit.
    """
    spec = task_spec(task)
    chosen = _options(spec.options, options)
    header, network = weights.load(weights.find(task, model), task)
    head = spec.load().head(chosen)
    if head.scale not in network.scales:
        known = ", ".join(map(str, network.scales))
        raise UsageError(f"these weights enlarge by {known}, not by {head.scale}; choose another scale or model")
    where = pick_device(device)
    return Restorer(
        head,
        network,
        chosen,
        where,
        pick_precision(precision, where),
        tile,
        overlap=overlap,
        strength=strength,
        tta=tta,
        header=header,
    )


class Restorer:
    """Restores images one by one; made by `load`."""

    def __init__(
        self,
        head: Head,
        network: Architecture,
        options: Options,
        device: torch.device,
        dtype: torch.dtype,
        tile: int = 0,
        *,
        overlap: int | None = None,
        strength: float = 1.0,
        tta: bool = False,
        header: weights.Header | None = None,
    ) -> None:
        if tile < 0 or (overlap is not None and overlap < 0):
            raise UsageError("tile and overlap are sizes in pixels, from 0")
        if not 0 <= strength <= 1:
            raise UsageError(f"strength goes from 0 to 1; got {strength}")
        self.head, self.options, self.device, self.dtype, self.header = head, options, device, dtype, header
        self.tile, self.strength, self.tta = tile, strength, tta
        self.overlap = network.radius if overlap is None else overlap
        self._network = network.eval().to(memory_format=torch.channels_last)
        self._placed: dict[tuple[torch.device, torch.dtype], Architecture] = {}

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Restores an array: same dtype, same channels, sides `scale` times as long.

        image: uint8, uint16 or float (white at 1, values outside [0, 1] accepted), of shape (H,W),
        (H,W,1) gray, (H,W,2) gray and alpha, (H,W,3) RGB or (H,W,4) RGB and alpha. Alpha passes
        through (enlarged where the picture is). A gray picture stays gray.
        Raises UsageError for any other shape or dtype, an empty image, and NaN.
        """
        white(image.dtype)  # refuses other dtypes
        channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
        if channels not in (1, 2, 3, 4) or 0 in image.shape:
            raise UsageError(f"an image has shape (H,W), or (H,W,C) with C from 1 to 4; got {image.shape}")
        if image.ndim == 2:
            restored = self._restore(image[..., None])
            return restored[..., 0] if restored.shape[-1] == 1 else restored
        if channels in (1, 3):
            return self._restore(image)
        pixels, alpha = image[..., :-1], image[..., -1:]
        return np.concatenate([self._restore(pixels), self._enlarge(alpha)], axis=-1)

    def restore(self, image: Image) -> Image:
        """Restores a picture read from a file: the pixels change, its metadata and format do not."""
        pixels = self._restore(image.pixels)
        alpha = None if image.alpha is None else self._enlarge(image.alpha[..., None])[..., 0]
        return replace(image, pixels=pixels, alpha=alpha)

    def _enlarge(self, alpha: np.ndarray) -> np.ndarray:
        scale = self.head.scale
        return alpha if scale == 1 else resize_bicubic(alpha, (alpha.shape[0] * scale, alpha.shape[1] * scale))

    def _restore(self, image: np.ndarray) -> np.ndarray:
        """(H,W,1 or 3) -> the same dtype; out of memory, the tiles shrink, and then the CPU takes over."""
        device, tile = self.device, self.tile
        if not tile:
            tile = automatic_tile(self._network, self.head.scale, self.dtype, device)
        while True:
            try:
                return self._in_tiles(image, device, tile)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if tile > SMALLEST:
                tile = max(SMALLEST, min(tile, max(image.shape[:2])) // 2)
                logger.warning("out of memory on %s: going on with tiles of %d pixels", device, tile)
            elif device.type != "cpu":
                device = torch.device("cpu")
                logger.warning("out of memory on %s: going on with the CPU", self.device)
            else:
                raise MemoryError("not enough memory for the smallest tiles")

    def _in_tiles(self, image: np.ndarray, device: torch.device, tile: int) -> np.ndarray:
        height, width = image.shape[:2]
        gray = is_gray(image) and not self.head.colours
        colour = np.broadcast_to(image, (height, width, 3))  # a view: a gray picture in colour form
        context = self.head.analyse(colour, self.options)
        scale = self.head.scale
        channels = 3 if self.head.colours else image.shape[-1]
        restored = np.empty((height * scale, width * scale, channels), image.dtype)
        for part in plan(height, width, tile, self.overlap, self._network.stride):
            pixels = self._one_tile(colour, part, context, device)
            if gray and self.strength:
                pixels = np.broadcast_to(luma(pixels)[..., None], (*pixels.shape[:2], channels))
            inner = part.inner
            restored[
                inner.top * scale : (inner.top + inner.height) * scale,
                inner.left * scale : (inner.left + inner.width) * scale,
            ] = to_dtype(pixels[..., :channels], image.dtype)
        return restored

    def _one_tile(self, image: np.ndarray, part: Tile, context: Any, device: torch.device) -> np.ndarray:
        """The inner part of a tile, restored and blended: float32 (h*scale,w*scale,3)."""
        outer, inner, scale = part.outer, part.inner, self.head.scale
        pixels = to_float(image[outer.top : outer.top + outer.height, outer.left : outer.left + outer.width])
        if not np.isfinite(pixels).all():
            raise UsageError("the image holds NaN or infinite values")
        top, left = (inner.top - outer.top) * scale, (inner.left - outer.left) * scale
        kept = slice(top, top + inner.height * scale), slice(left, left + inner.width * scale)
        if self.strength == 0:
            return self.head.untouched(pixels)[kept]
        planes = self.head.planes(pixels, context, outer)[None]
        output = self._run(planes, device)[0]
        finished = self.head.finish(output, pixels, context, outer)[kept]
        if self.strength == 1:
            return finished
        untouched = self.head.untouched(pixels)[kept]
        blended: np.ndarray = untouched + np.float32(self.strength) * (finished - untouched)
        return blended

    def _run(self, planes: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A batch through the network and back to the CPU, in float32; what half precision breaks is done in full."""
        output = self._symmetric(planes.to(device), self._on(device, self.dtype)).float()
        if self.dtype != torch.float32 and not bool(torch.isfinite(output).all()):
            logger.info("a tile overflowed in half precision: computing it in fp32")
            output = self._symmetric(planes.to(device), self._on(device, torch.float32))
        return output.cpu()

    def _symmetric(self, planes: torch.Tensor, network: Architecture) -> torch.Tensor:
        """The network's output; with `tta` the mean over the eight symmetries, each turned back."""
        with torch.inference_mode():
            if not self.tta:
                return self.head.run(network, planes.contiguous(memory_format=torch.channels_last))
            total: torch.Tensor | None = None
            for turns in range(4):
                for mirrored in (False, True):
                    view = torch.rot90(planes.flip(-1) if mirrored else planes, turns, (-2, -1))
                    output = self.head.run(network, view.contiguous(memory_format=torch.channels_last))
                    output = torch.rot90(output, -turns, (-2, -1))
                    output = output.flip(-1) if mirrored else output
                    total = output if total is None else total + output
            assert total is not None
            return total / 8

    def _on(self, device: torch.device, dtype: torch.dtype) -> Architecture:
        """The network on `device` in `dtype`; made once, from the weights in full precision."""
        key = (device, dtype)
        if key not in self._placed:
            self._placed[key] = copy.deepcopy(self._network).to(device=device, dtype=dtype)
        return self._placed[key]


def _options(kind: type[Options], values: dict[str, Any]) -> Options:
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{error}".replace("__init__()", "load()").split(".")[-1]) from error


def _out_of_memory(error: RuntimeError) -> bool:
    """torch has a type for a full GPU, and only words for a full main memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
