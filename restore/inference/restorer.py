"""Weights on a device, ready to take images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device, pick_precision
from restore.errors import UsageError
from restore.images import Image
from restore.inference import bands
from restore.inference.engine import Engine
from restore.inference.lockstep import lockstep
from restore.inference.restored import Restored
from restore.inference.room import Room
from restore.inference.sharing import Asking, Request, Sharing
from restore.inference.tiled import Tiled
from restore.inference.tiling import Tile
from restore.models.registry import Architecture
from restore.pixels import luma, to_dtype, to_float, white
from restore.tasks import Options, task_spec
from restore.tasks.base import Finding, Head, Window

# Pixels of surroundings that a tile needs. Beyond the network's radius tiles are exact; but what lies
# far away hardly counts. Denoising gradients and photographs with sigma 0 to 50 in tiles of 256, in fp32, the
# whole picture and the tiles are at most 2.6 levels of 255 apart with 24 pixels, 2.0 with 32, 0.9 with 40, 0.5
# with 48 and 0.02 with 64. Blending the surroundings instead of cutting them off is worse at each of these.
ENOUGH = 48


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
    compile: bool = False,
    **options: Any,
) -> Restorer:
    """A restorer for `task`: denoise, super-resolve, ...

    model: a shipped variant or a weights file (the default weights if None). tile: side of a tile in
    pixels (0: as large as memory allows). overlap: what a tile sees beyond itself (None: as far as
    matters). strength: from 0, the input, to 1, the restored picture. tta: average over
    the eight symmetries (eight times the work). compile: through torch.compile, which takes long for the
    first picture of a size. options: those of the task, such as `scale`.
    Raises UsageError (also as WeightsError, DeviceError) for anything that is not there or does not fit.
    """
    spec = task_spec(task)
    chosen = _options(spec.options, options)
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    header, network = weights.load(weights.find(task, model), task)
    head = spec.load().head(chosen)
    if head.scale not in network.scales:
        known = ", ".join(map(str, network.scales))
        raise UsageError(f"these weights enlarge by {known}, not by {head.scale}; choose another scale or model")
    return Restorer(
        head,
        network,
        chosen,
        where,
        dtype,
        tile,
        overlap=overlap,
        strength=strength,
        tta=tta,
        compile=compile,
        header=header,
    )


class Restorer:
    """Restores images one by one; made by `load`. A call at a time: it remembers what did not fit into memory."""

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
        compile: bool = False,
        header: weights.Header | None = None,
    ) -> None:
        if tile < 0 or (overlap is not None and overlap < 0):
            raise UsageError("tile and overlap are sizes in pixels, from 0")
        if not 0 <= strength <= 1:
            raise UsageError(f"strength goes from 0 to 1; got {strength}")
        self.head, self.options, self.device, self.dtype, self.header = head, options, device, dtype, header
        self.tile, self.strength, self.tta = tile, strength, tta
        self.overlap = min(network.radius, ENOUGH) if overlap is None else overlap
        self._network = network
        self._engine = Engine(head, network, dtype, tta=tta, compile=compile)
        self._room = Room(network, head.scale, dtype, device, tile, self.overlap)
        self._tiled = Tiled(self._engine, self._room)
        self._sharing = Sharing(self._engine)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None = None, *, hints: np.ndarray | None = None
    ) -> np.ndarray:
        """Restores an array: same dtype, same channels, sides `scale` times as long.

        image: uint8, uint16 or float (white at 1, values outside [0, 1] accepted), of shape (H,W),
        (H,W,1) gray, (H,W,2) gray and alpha, (H,W,3) RGB or (H,W,4) RGB and alpha. Alpha passes
        through (enlarged where the picture is). A gray picture stays gray, unless the task is to colour it:
        then 1 becomes 3 channels, and 2 become 4. mask: (H,W) bool, where the damage is, for tasks that look for it.
        hints: (H,W,4) RGB and alpha, the colours that are known where alpha is opaque, for tasks that give colours.
        Raises UsageError for any other shape or dtype, an empty image, NaN, and a mask or hints that do not fit;
        MemoryError where not even the smallest tiles fit into the CPU's memory.
        """
        white(image.dtype)  # refuses other dtypes
        channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
        if channels not in (1, 2, 3, 4) or 0 in image.shape:
            raise UsageError(f"an image has shape (H,W), or (H,W,C) with C from 1 to 4; got {image.shape}")
        given = mask if hints is None else hints
        if image.ndim == 2:
            restored = self._restore(image[..., None], given)[0]
            return restored[..., 0] if restored.shape[-1] == 1 else restored
        return self._restore(image, given)[0]

    def restore(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Restores a picture read from a file: the pixels change, its metadata and format do not."""
        alpha = image.alpha
        if alpha is not None and self.head.scale > 1:
            enlarged = np.empty((*self._size(alpha), 1), alpha.dtype)
            bands.enlarge(alpha[..., None], enlarged)
            alpha = enlarged[..., 0]
        pixels, finding = self._restore(image.pixels, mask)
        return Restored(replace(image, pixels=pixels, alpha=alpha), finding.mask, finding.nothing, finding.note)

    def at_once(self, image: Image) -> int:
        """How many pictures of this one's size `restore_all` had best be given; 1 where more are no quicker."""
        # Each number of pictures would be compiled anew.
        return 1 if self._engine.compile else self._room.pictures(*image.pixels.shape[:2])

    def restore_all(self, pictures: Sequence[tuple[Image, np.ndarray | None]]) -> list[Restored | BaseException]:
        """What `restore` gives, or raises, for each picture and mask: the same bits, quicker for small ones of a size.

        Their tiles share batches where that was found to change nothing.
        """

        def alone(picture: tuple[Image, np.ndarray | None], ask: Callable[[Request], torch.Tensor]) -> Restored:
            restorer = copy.copy(self)
            restorer._tiled = Tiled(Asking(ask), self._room)
            return restorer.restore(*picture)

        return lockstep([partial(alone, picture) for picture in pictures], self._sharing.run)

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """What `restore` finds in a picture, without restoring it."""
        colours = image.pixels[..., : image.pixels.shape[-1] - (image.pixels.shape[-1] % 2 == 0)]
        finding = self.find(colours, mask)
        return Restored(image, finding.mask, finding.nothing, finding.note)

    def find(self, image: np.ndarray, mask: np.ndarray | None = None) -> Finding:
        """What there is to do in (H,W,1 or 3), in its own dtype. mask: or hints, where the head takes those.

        Raises UsageError for a mask, or hints, that do not fit.
        """
        if mask is not None:
            kind, shape = ("hints", (*image.shape[:2], 4)) if self.head.hinted else ("a mask", image.shape[:2])
            if mask.ndim != len(shape) or (self.head.hinted and mask.shape[-1] != 4):
                raise UsageError(f"{kind} of shape {mask.shape} do not go with this task; it takes {shape}")
            if mask.shape != shape:
                (height, width), (h, w) = image.shape[:2], mask.shape[:2]
                raise UsageError(f"{kind} of {w}x{h} does not fit a picture of {width}x{height}")
        finding: Finding = self.head.analyse(_colour(image), self.options, self._tiled, mask)
        return finding

    def _restore(self, image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, Finding]:
        """(H,W,1 to 4) -> the same dtype. Beside the two, memory for a batch of tiles is all that it takes."""
        colours = image.shape[-1] - (image.shape[-1] % 2 == 0)
        channels = 3 if self.head.colours else colours
        restored = np.empty((*self._size(image), channels + image.shape[-1] - colours), image.dtype)
        if colours < image.shape[-1]:
            bands.enlarge(image[..., colours:], restored[..., channels:])
        if not bands.finite(image):
            raise UsageError("the image holds NaN or infinite values")
        finding = self.find(image[..., :colours], mask)
        self._fill(image[..., :colours], restored[..., :channels], finding)
        return restored, finding

    def _size(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width of what `image` becomes."""
        return image.shape[0] * self.head.scale, image.shape[1] * self.head.scale

    def _fill(self, image: np.ndarray, restored: np.ndarray, finding: Finding) -> None:
        """Fills `restored` from (H,W,1 or 3): what the network makes of it, or the same where that may not change."""
        if finding.mask is not None or self.strength == 0:
            bands.enlarge(np.broadcast_to(image, (*image.shape[:2], restored.shape[-1])), restored)
        if self.strength == 0 or finding.nothing:
            return
        stay_gray = not self.head.colours and bands.gray(image)
        colour = _colour(image)

        def planes(window: Window) -> torch.Tensor:
            return self.head.planes(_pixels(colour, window), finding, window)

        def wanted(tile: Tile) -> bool:
            return finding.mask is None or bool(finding.mask[tile.inner.slices].any())

        compute = self._tiled.each if self.head.tiles else self._tiled.without
        for tile, output in compute(image.shape[:2], planes, wanted=wanted):
            self._place(colour, tile, output, finding, restored, stay_gray)

    def _place(
        self, image: np.ndarray, tile: Tile, output: torch.Tensor, finding: Finding, restored: np.ndarray, gray: bool
    ) -> None:
        """Puts the inner part of a tile into `restored`. gray: the picture is, and stays so."""
        scale, outer, inner = self.head.scale, tile.outer, tile.inner
        pixels = _pixels(image, outer)
        top, left = (inner.top - outer.top) * scale, (inner.left - outer.left) * scale
        kept = slice(top, top + inner.height * scale), slice(left, left + inner.width * scale)
        result = self.head.finish(output, pixels, finding, outer)[kept]
        if self.strength < 1:
            untouched = self.head.untouched(pixels)[kept]
            result = untouched + np.float32(self.strength) * (result - untouched)
        if gray:
            result = luma(result)[..., None]  # and broadcast to as many channels as there are
        place = Window(inner.top * scale, inner.left * scale, inner.height * scale, inner.width * scale).slices
        made = to_dtype(result[..., : restored.shape[-1]], restored.dtype)
        if finding.mask is None:
            restored[place] = made
        else:
            np.copyto(restored[place], made, where=finding.mask[inner.slices][..., None])


def _colour(image: np.ndarray) -> np.ndarray:
    """(H,W,1 or 3) as (H,W,3); of a gray picture a view."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _pixels(image: np.ndarray, window: Window) -> np.ndarray:
    """What the network sees of (H,W,3): float32, white at 1."""
    return to_float(image[window.slices])


def _options(kind: type[Options], values: dict[str, Any]) -> Options:
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{error}".replace("__init__()", "load()").split(".")[-1]) from error
