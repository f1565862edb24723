"""Restorers: weights on a device, ready to restore images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.colour import BAND, bands
from restore.devices import single_thread_after_fork
from restore.errors import UsageError
from restore.images import Image
from restore.inference.engine import Engine, PixelModel
from restore.inference.inputs import InputAdapter
from restore.inference.restored import Change, MaskedImage, Pending, Restored, Stream, root_mean_square_change
from restore.inference.tiling import Item, Tile, TilePlanner, is_out_of_memory
from restore.inference.transfer import transfer_for
from restore.models.registry import Architecture
from restore.pixels import bleed, is_gray, white
from restore.tasks import Options
from restore.tasks.base import Analysis, Head, Picture, Window

# Overlap of tiles in pixels. With the radius of the network tiles are exact, but distant pixels hardly matter.
# Denoising gradients and photographs with sigma 0 to 50 in tiles of 256, in fp32, differs from the whole picture by at
# most 2.6 levels of 255 with 24 pixels, 2.0 with 32, 0.9 with 40, 0.5 with 48 and 0.02 with 64. Blending overlapping
# tiles instead of cropping them is worse at each of these.
MAX_OVERLAP = 48
QUESTIONED = 0.5  # share of a picture from which on a given mask may be inverted


@dataclass(frozen=True)
class Deferred:
    """A `Pending` that asks a function for its result, or raises an error."""

    finish: Callable[[], Restored] | Exception

    def result(self) -> Restored:
        if isinstance(self.finish, Exception):
            raise self.finish
        return self.finish()


@dataclass(eq=False)
class _Work:
    """A picture being restored."""

    # Source and result: (H,W,1 or 3) and (H*scale,W*scale,C), on the device, or on the host if it is too large
    source: torch.Tensor
    result: torch.Tensor
    analysis: Analysis
    gray: bool  # the restored picture must be gray
    # The array on the host that the result is downloaded into; `whole`: with the alpha after it, if any
    out: np.ndarray
    whole: np.ndarray
    mask: torch.Tensor | None = None  # (H,W) bool, on the device of `source`, the pixels that may change; None: all
    filled: np.ndarray | None = None  # (H,W) bool, the pixels that become opaque; None: none
    # For each tile, on the device, whether it is finite
    flags: list[tuple[torch.Tensor, Item[_Work]]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the source."""
        return self.source.shape[0], self.source.shape[1]


class Restorer(InputAdapter):
    """Restores images; made by `restore.load`. One thread at a time may call it; the `result` of what it began any.

    On a CPU equal inputs give equal bytes; on a GPU a picture may change by one level with the other pictures in its
    batch.

    Args:
        head: fits the network to the damage.
        network: in float32 on the CPU.
        options: of the task.
        device: where to compute.
        dtype: of the convolutions; tiles that overflow in half precision are repeated in float32.
        tile: this and `overlap`, `strength`, `tta` and `compile` are as in `restore.load`.
        header: of the weights, if they are from a file.

    Raises:
        UsageError: `tile`, `overlap` or `strength` is out of range.
    """

    def __init__(
        self,
        head: Head[Any, Any],
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
        if not 0 <= strength <= head.max_strength:
            raise UsageError(f"strength goes from 0 to {head.max_strength:g}; got {strength}")
        if strength > 1:
            head = head.stronger(strength)
        head.check(network)
        dtype = dtype if dtype in network.precisions else torch.float32
        self.head, self.options, self.device, self.dtype, self.header = head, options, device, dtype, header
        self.network, self.tile, self.strength, self.tta = network, tile, strength, tta
        self.hinted, self.masked = head.hinted, head.masked
        self.overlap = min(network.radius, MAX_OVERLAP) + head.reach if overlap is None else overlap
        self._engine = Engine(PixelModel(head, network, min(strength, 1.0), tta), dtype, compile=compile)
        self._planner = TilePlanner(network, head.scale, dtype, device, tile, self.overlap)
        self._transfer = transfer_for(device)
        single_thread_after_fork()
        self._lock = threading.RLock()  # tiles that overflow are repeated by the thread that waits for the result

    def batch_size(self, image: Image) -> int:
        return self._planner.batch_size(*image.pixels.shape[:2])

    def enqueue(self, pictures: Sequence[MaskedImage]) -> list[Pending]:
        with self._lock:
            works = [self._attempt(image, mask) for image, mask in pictures]
            begun = [work for work in works if isinstance(work, _Work)]
            try:
                self._compute(begun)
            except Exception as error:
                if len(begun) == 1:
                    works = [error if isinstance(work, _Work) else work for work in works]
                else:  # one by one, to find the picture that causes it
                    return [self.enqueue([picture])[0] for picture in pictures]
            return [self._pending(image, work) for (image, _), work in zip(pictures, works, strict=True)]

    def stream(self, size: tuple[int, int], read: Callable[[int, int], np.ndarray]) -> Stream | None:
        """Restores a picture that is too large for memory, a row of tiles at a time: the same pixels as of the whole.

        Args:
            size: height and width of the picture.
            read: gives the rows from a first to before a last one, (h,W,1 or 3).

        Returns:
            None in tasks that have to see the whole picture, or enlarge it.
        """
        if self.head.static_analysis() is None or self.head.scale != 1:
            return None
        change = Change(*size)
        return Stream(self._restore_bands(size, read, change), change, self._describe_change)

    def _describe_change(self, change: float) -> str:
        return self.head.describe_change(change) if self.strength else "left as it is by a strength of 0"

    def _restore_bands(
        self, size: tuple[int, int], read: Callable[[int, int], np.ndarray], change: Change
    ) -> Iterator[np.ndarray]:
        height, width = size
        rows = max(1, BAND // width)
        gray = all(_is_gray(read(top, min(top + rows, height))) for top in range(0, height, rows))
        for _, group in groupby(self._planner.plan(height, width), lambda tile: tile.inner.top):
            tiles = list(group)
            outer, inner = tiles[0].outer, tiles[0].inner
            before = read(outer.top, outer.top + outer.height)
            after = np.empty_like(before)
            with self._lock:
                work = self._begin(before, None, after, after, gray)
                self._compute(
                    [work], [Tile(tile.outer.lower(outer.top), tile.inner.lower(outer.top)) for tile in tiles]
                )
                self._collect(work)()
            kept = slice(inner.top - outer.top, inner.top - outer.top + inner.height)
            change.add(before[kept], after[kept])
            yield after[kept]

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Analyses a picture as `restore` does, without restoring it."""
        with self._lock:
            analysis = self._analysed(self._picture(image.pixels, self._transfer.upload(image.pixels)), mask)
        return Restored(image, analysis.mask, analysis.nothing, analysis.note, confidence=analysis.confidence)

    def _attempt(self, image: Image, mask: np.ndarray | None) -> _Work | Exception:
        try:
            channels = 3 if self.head.colours else image.pixels.shape[-1]
            height, width = (side * self.head.scale for side in image.pixels.shape[:2])
            whole = np.empty((height, width, channels + (image.alpha is not None)), image.pixels.dtype)
            if image.alpha is not None:  # beside the pixels, so that nobody has to join the two
                self._restore_alpha(image.alpha, whole[..., channels])
            pixels = image.pixels
            if image.alpha is not None and self.head.scale > 1:  # else hidden colours mix into visible ones
                pixels = bleed(pixels, image.alpha)
            return self._begin(pixels, mask, whole[..., :channels], whole)
        except Exception as error:  # must not affect the other pictures
            return error

    def _pending(self, image: Image, work: _Work | Exception) -> Pending:
        if isinstance(work, Exception):
            return Deferred(work)
        alpha = None if image.alpha is None else work.whole[..., -1]
        if alpha is not None and work.filled is not None:  # what was erased is there again
            opaque = alpha[work.filled] + min(self.strength, 1.0) * (white(alpha.dtype) - alpha[work.filled])
            alpha[work.filled] = opaque if alpha.dtype.kind == "f" else np.rint(opaque)
        collect = self._collect(work)

        def finish() -> Restored:
            collect()
            analysis, change = work.analysis, root_mean_square_change(image.pixels, work.out)
            note = analysis.note or ("" if change is None else self._describe_change(change))
            restored = replace(image, pixels=work.out, alpha=alpha)
            return Restored(restored, analysis.mask, analysis.nothing, note, change, analysis.confidence)

        return Deferred(finish)

    def _begin(
        self, image: np.ndarray, mask: np.ndarray | None, out: np.ndarray, whole: np.ndarray, gray: bool | None = None
    ) -> _Work:
        """Uploads and analyses (H,W,1 or 3). gray: whether the result is; None: as `image` is."""
        if not _is_finite(image):
            raise UsageError("the image holds NaN or infinite values; np.nan_to_num(x) replaces them")
        source = self._transfer.upload(image)
        picture = self._picture(image, source)
        analysis = self._analysed(picture, mask)
        if not self._leaves(analysis):
            with torch.inference_mode():
                analysis = self.head.complete(picture, analysis, self)
        work = _Work(
            source,
            self._transfer.allocate(out),
            analysis,
            gray=(not self.head.colours and _is_gray(image)) if gray is None else gray,
            out=out,
            whole=whole,
        )
        if mask is not None and self.head.fills:
            work.filled = analysis.mask
        if analysis.mask is not None:
            work.mask = torch.from_numpy(analysis.mask).to(source.device)
        return work

    def _picture(self, image: np.ndarray, source: torch.Tensor) -> Picture:
        return Picture(image, source, self._planner.device)

    def _leaves(self, analysis: Analysis) -> bool:
        """Whether a picture is left as it is."""
        return analysis.nothing or (self.strength == 0 and self.head.scale == 1)

    def _analysed(self, picture: Picture, mask: np.ndarray | None) -> Analysis:
        if mask is not None:
            self._check_given(mask, picture.size)
        with torch.inference_mode():
            analysis: Analysis = self.head.analyse(picture, self.options, self, mask)
        if mask is not None and mask.dtype == bool and (share := float(mask.mean())) > QUESTIONED:
            question = f"the mask covers {100 * share:.0f} % of the picture; is it inverted?"
            return replace(analysis, note="; ".join(filter(None, (analysis.note, question))))
        return analysis

    def _check_given(self, given: np.ndarray, size: tuple[int, ...]) -> None:
        """Raises UsageError for a mask, or hints, that do not belong to this task and a picture of `size`."""
        if not (self.head.hinted or self.head.masked):
            raise UsageError("this task takes no mask: it restores every pixel")
        kind, do = ("hints", "do") if self.head.hinted else ("a mask", "does")
        if given.shape[2:] != ((4,) if self.head.hinted else ()):
            shape = (*size, 4) if self.head.hinted else size
            raise UsageError(f"{kind} for this picture has shape {shape} in this task; got {given.shape}")
        if given.shape[:2] != tuple(size):
            (height, width), (h, w) = size, given.shape[:2]
            raise UsageError(
                f"{kind} of {w}x{h} {do} not fit a picture of {width}x{height}; scale one to the size of the other"
            )
        if self.head.hinted and not (given[..., 3] > white(given.dtype) / 2).any():
            raise UsageError("the hints show no colour: dot those that you know on transparent or white")
        if not self.head.hinted and not given.any():
            raise UsageError("the mask marks nothing: white, or what is painted on transparency, is what to restore")

    def _compute(self, works: Sequence[_Work], tiles: Sequence[Tile] | None = None) -> None:
        items = []
        with torch.inference_mode():
            for work in works:
                unchanged = self._leaves(work.analysis)
                if unchanged or work.mask is not None:
                    work.result.copy_(work.source)
                if not unchanged:
                    mask = work.analysis.mask
                    key = work.source.dtype, work.source.shape[-1], work.gray
                    items += [
                        Item(work, tile, key)
                        for tile in tiles or self._planner.plan(*work.size)
                        if mask is None or mask[tile.inner.slices].any()
                    ]
            for group, (restored, finite) in self._planner.run(items, self._restore_tiles):
                for number, item in enumerate(group):
                    self._place(item, restored[number])
                    if finite is not None:
                        item.picture.flags.append((finite[number], item))

    def _restore_tiles(
        self, group: list[Item[_Work]], dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Restores a batch of tiles; returns as `Engine.restore`."""
        device, head = self._planner.device, self.head
        tiles = [item.picture.source[item.tile.outer.slices] for item in group]
        contexts = [
            context for item in group if (context := head.context(item.picture.analysis, item.tile.outer)) is not None
        ]
        return self._engine.restore(
            tiles[0][None] if len(tiles) == 1 else torch.stack(tiles),
            torch.stack(contexts) if contexts else None,
            group[0].picture.gray,
            device,
            dtype,
        )

    def _place(self, item: Item[_Work], restored: torch.Tensor) -> None:
        work, scale, outer, inner = item.picture, self.head.scale, item.tile.outer, item.tile.inner
        top, left = (inner.top - outer.top) * scale, (inner.left - outer.left) * scale
        kept = restored[top : top + inner.height * scale, left : left + inner.width * scale]
        rows, columns = Window(inner.top * scale, inner.left * scale, inner.height * scale, inner.width * scale).slices
        target = work.result[rows, columns]
        if work.mask is not None:
            inside = work.mask[inner.slices][..., None].to(kept.device)
            kept = _where(inside, kept, work.source[inner.slices].to(kept.device))
        target.copy_(kept)

    def _collect(self, work: _Work) -> Callable[[], None]:
        """Starts the download of a result; the returned function waits for it, and repeats tiles that overflowed."""
        items = [item for _, item in work.flags]
        flags = self._transfer.flags(torch.stack([flag for flag, _ in work.flags])) if items else None
        download = self._transfer.download(work.result, work.out)

        def finish() -> None:
            download()
            overflowed = [] if flags is None else [item for item, ok in zip(items, flags(), strict=True) if not ok]
            if overflowed:
                with self._lock, torch.inference_mode():
                    for item in overflowed:  # one by one, so that the result does not depend on their number
                        self._place(item, self._restore_tiles([item], torch.float32)[0][0])
                    self._transfer.download(work.result, work.out)()

        return finish

    def _restore_alpha(self, alpha: np.ndarray, out: np.ndarray) -> None:
        """Writes alpha (H,W) into `out` (H*scale,W*scale), enlarged as a gray picture is."""
        if self.head.scale == 1 or alpha.min() == alpha.max():
            out[...] = alpha if self.head.scale == 1 else alpha.flat[0]
            return
        work = self._begin(alpha[..., None], None, out[..., None], out[..., None])
        self._compute([work])
        self._collect(work)()

    # The interface `Predictor` for the head.

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        while True:
            try:
                return self._engine.predict(planes[None], self._planner.device, stage)[0]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._planner.use_cpu()

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        picture = _Area(size)
        items = [Item(picture, tile) for tile in self._planner.plan(*size)]

        def compute(group: list[Item[_Area]]) -> torch.Tensor:
            inputs = [planes(item.tile.outer) for item in group]
            return self._engine.predict(torch.stack(inputs), self._planner.device, stage)

        for group, outputs in self._planner.run(items, compute):
            for item, output in zip(group, outputs, strict=True):
                inner, outer = item.tile.inner, item.tile.outer
                top, left = inner.top - outer.top, inner.left - outer.left
                yield inner, output[:, top : top + inner.height, left : left + inner.width]


@dataclass(frozen=True)
class _Area:
    """A picture of which only the size is known."""

    size: tuple[int, int]


def _where(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`torch.where` also for uint16, for which torch has no kernels."""
    if one.dtype != torch.uint16:
        return torch.where(condition, one, other)
    return torch.where(condition, one.view(torch.int16), other.view(torch.int16)).view(torch.uint16)


def _is_gray(image: np.ndarray) -> bool:
    """Whether (H,W,1 or 3) has equal channels; tests a few rows, which most often tell, then band by band."""
    few = image[:: max(1, len(image) // 16)]
    return image.shape[-1] == 1 or all(is_gray(part) for part in (few, *bands(image)))


def _is_finite(image: np.ndarray) -> bool:
    return image.dtype.kind != "f" or all(bool(np.isfinite(band).all()) for band in bands(image))
