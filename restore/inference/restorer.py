"""Restorers: weights on a device, ready to restore images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device, pick_precision, single_thread_after_fork
from restore.errors import UsageError
from restore.images import Image
from restore.images.masks import as_mask
from restore.inference.engine import Engine, PixelModel
from restore.inference.restored import Restored
from restore.inference.tiling import Item, TilePlanner, is_out_of_memory
from restore.inference.transfer import transfer_for
from restore.models.registry import Architecture
from restore.pixels import is_gray, to_float, white
from restore.tasks import Options, task_spec
from restore.tasks.base import Analysis, Head, Picture, Window, load_task
from restore.tasks.functional import as_tensor, to_pixels, to_planes

# Overlap of tiles in pixels. With the radius of the network tiles are exact, but distant pixels hardly matter.
# Denoising gradients and photographs with sigma 0 to 50 in tiles of 256, in fp32, differs from the whole picture by at
# most 2.6 levels of 255 with 24 pixels, 2.0 with 32, 0.9 with 40, 0.5 with 48 and 0.02 with 64. Blending overlapping
# tiles instead of cropping them is worse at each of these.
MAX_OVERLAP = 48
QUESTIONED = 0.5  # share of a picture from which on a given mask may be inverted
CHANGE_PIXELS = 250_000  # of a large picture that tell by how much it has changed
BAND_PIXELS = 1 << 20  # of a picture that are checked at once, so that nothing of its size is held beside it


class Pending:
    """A picture whose computation has begun; made by `Restorer.enqueue`."""

    def __init__(self, finish: Callable[[], Restored]) -> None:
        self._finish = finish

    def result(self) -> Restored:
        """Waits for the device; to be called once, from any thread. Raises the error of this picture, if any."""
        return self._finish()


@dataclass(eq=False)
class _Work:
    """A picture being restored.

    Args:
        source: (H,W,1 or 3), on the device, or on the host if it is too large.
        result: (H*scale,W*scale,C), likewise.
        analysis: of the head.
        gray: the restored picture must be gray.
        out: the array on the host that the result is downloaded into.
        mask: (H,W) bool, on the device of `source`, the pixels that may change; None: all.
        filled: (H,W) bool, the pixels that become opaque; None: none.
        flags: for each tile, on the device, whether it is finite.
    """

    source: torch.Tensor
    result: torch.Tensor
    analysis: Analysis
    gray: bool
    out: np.ndarray
    mask: torch.Tensor | None = None
    filled: np.ndarray | None = None
    flags: list[tuple[torch.Tensor, Item[_Work]]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the source."""
        return self.source.shape[0], self.source.shape[1]


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
    """Loads weights and makes a restorer of them.

    Args:
        task: denoise, super-resolve, inpaint, dewatermark or colorize.
        model: a shipped variant or a weights file; None: the default weights.
        device: auto, cpu, mps, cuda or cuda:N.
        precision: of the convolutions: auto, fp32, bf16 or fp16.
        tile: side of a tile in pixels; 0: as large as memory allows.
        overlap: what a tile sees beyond itself, in pixels; None: as far as matters.
        strength: from 0, the input, to 1, the restored picture; denoise takes up to 2.
        tta: average over the eight symmetries of the square: a little better, eight times the work.
        compile: use torch.compile, which takes long for the first picture of a size.
        options: those of the task, such as `scale`.

    Raises:
        UsageError: (also as WeightsError, DeviceError) the task, weights or device do not exist, or an option does
            not fit.
    """
    spec = task_spec(task)
    chosen = _options(spec.options, options)
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    header, network = weights.load(weights.find(task, model), task)
    head = load_task(task).head(chosen)
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
    """Restores images; made by `load`. One thread at a time may call it; `Pending.result` any.

    On a CPU equal inputs give equal bytes; on a GPU a picture may change by one level with the other pictures in its
    batch.

    Args:
        head: fits the network to the damage.
        network: in float32 on the CPU.
        options: of the task.
        device: where to compute.
        dtype: of the convolutions; tiles that overflow in half precision are repeated in float32.
        tile, overlap, strength, tta, compile: as in `load`.
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
        self.head, self.options, self.device, self.dtype, self.header = head, options, device, dtype, header
        self.network, self.tile, self.strength, self.tta = network, tile, strength, tta
        self.overlap = min(network.radius, MAX_OVERLAP) if overlap is None else overlap
        self._engine = Engine(PixelModel(head, network, min(strength, 1.0), tta), dtype, compile=compile)
        self._planner = TilePlanner(network, head.scale, dtype, device, tile, self.overlap)
        self._transfer = transfer_for(device)
        single_thread_after_fork()
        self._lock = threading.RLock()  # tiles that overflow are repeated by the thread that waits for the result

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None = None, *, hints: np.ndarray | None = None
    ) -> np.ndarray:
        """Restores an array.

        Args:
            image: uint8, uint16 or float (white at 1, values outside [0, 1] accepted), of shape (H,W), (H,W,1) gray,
                (H,W,2) gray and alpha, (H,W,3) RGB or (H,W,4) RGB and alpha.
            mask: the damaged pixels, for tasks that detect damage, in any form that `as_mask` takes: (H,W) bool, 0
                and 1, 0 to 255, on transparency, an array or a Pillow image; None: they are detected.
            hints: (H,W,4) RGB and alpha, the colours that are known where alpha is opaque, for tasks that give colours.

        Returns:
            The same dtype and channels, sides `scale` times as long. Alpha is kept, or enlarged like the picture. Gray
            pictures stay gray, except in colorize, where 1 channel becomes 3, and 2 become 4.

        Raises:
            UsageError: any other shape or dtype, an empty image, NaN, or a mask or hints that do not fit.
            MemoryError: the smallest tiles do not fit into main memory.
        """
        white(image.dtype)  # refuses other dtypes
        channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
        if channels not in (1, 2, 3, 4) or 0 in image.shape:
            raise UsageError(f"an image has shape (H,W), or (H,W,C) with C from 1 to 4; got {image.shape}")
        if image.ndim == 2:
            restored = self(image[..., None], mask, hints=hints)
            return restored[..., 0] if restored.shape[-1] == 1 else restored
        colours = channels - (channels % 2 == 0)
        made = 3 if self.head.colours else colours
        height, width = image.shape[:2]
        out = np.empty((height * self.head.scale, width * self.head.scale, made + channels - colours), image.dtype)
        with self._lock:
            work = self._begin(image[..., :colours], mask if hints is None else hints, out[..., :made])
            if colours < channels:
                self._enlarge(image[..., colours:], out[..., made:])
                if work.filled is not None:
                    out[..., made:][work.filled] = white(image.dtype)
            self._compute([work])
            self._collect(work)()
        return out

    def restore(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Restores a decoded file; its metadata and format are kept. `mask` as in `__call__`."""
        return self.enqueue([(image, mask)])[0].result()

    def batch_size(self, image: Image) -> int:
        """How many pictures of this size to give to `enqueue` at once; 1 where more are not faster."""
        return self._planner.batch_size(*image.pixels.shape[:2])

    def enqueue(self, pictures: Sequence[tuple[Image, np.ndarray | None]]) -> list[Pending]:
        """Starts to restore pictures, in shared batches of tiles, without waiting for a GPU.

        Args:
            pictures: each with its mask (H,W) bool, or its hints (H,W,4) where the head takes those, or None.

        Returns:
            One `Pending` for each; an error of one picture is raised by its `Pending` only.
        """
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

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Analyses a picture as `restore` does, without restoring it."""
        with self._lock:
            analysis = self.find(image.pixels, mask)
        return Restored(image, analysis.mask, analysis.nothing, analysis.note)

    def find(self, image: np.ndarray, mask: np.ndarray | None = None) -> Analysis:
        """Runs the analysis of the head.

        Args:
            image: (H,W,1 or 3), any supported dtype.
            mask: as in `__call__`.

        Raises:
            UsageError: a mask of another size.
        """
        return self._analysed(image, self._transfer.upload(image), mask)

    def _attempt(self, image: Image, mask: np.ndarray | None) -> _Work | Exception:
        try:
            channels = 3 if self.head.colours else image.pixels.shape[-1]
            height, width = (side * self.head.scale for side in image.pixels.shape[:2])
            return self._begin(image.pixels, mask, np.empty((height, width, channels), image.pixels.dtype))
        except Exception as error:  # must not affect the other pictures
            return error

    def _pending(self, image: Image, work: _Work | Exception) -> Pending:
        if isinstance(work, Exception):
            return Pending(lambda: _raise(work))
        alpha = image.alpha
        if alpha is not None and self.head.scale > 1:
            height, width = (side * self.head.scale for side in alpha.shape)
            enlarged = np.empty((height, width, 1), alpha.dtype)
            self._enlarge(alpha[..., None], enlarged)
            alpha = enlarged[..., 0]
        if alpha is not None and work.filled is not None:
            alpha = np.where(work.filled, np.asarray(white(alpha.dtype), alpha.dtype), alpha)
        collect = self._collect(work)

        def finish() -> Restored:
            collect()
            analysis, change = work.analysis, _change(image.pixels, work.out)
            note = analysis.note or ("" if change is None else self.head.describe_change(change))
            restored = replace(image, pixels=work.out, alpha=alpha)
            return Restored(restored, analysis.mask, analysis.nothing, note, change)

        return Pending(finish)

    def _begin(self, image: np.ndarray, mask: np.ndarray | None, out: np.ndarray) -> _Work:
        """Uploads and analyses (H,W,1 or 3). out: array for the result."""
        if not _is_finite(image):
            raise UsageError("the image holds NaN or infinite values")
        source = self._transfer.upload(image)
        analysis = self._analysed(image, source, mask)
        work = _Work(
            source,
            self._transfer.allocate(out),
            analysis,
            gray=not self.head.colours and _is_gray(image),
            out=out,
        )
        if mask is not None and self.head.fills:
            work.filled = analysis.mask
        if analysis.mask is not None:
            work.mask = torch.from_numpy(analysis.mask).to(source.device)
        return work

    def _analysed(self, image: np.ndarray, source: torch.Tensor, mask: np.ndarray | None) -> Analysis:
        if mask is not None:
            mask = self._checked(mask, image.shape[:2])
        picture = Picture(image, source, self._planner.device)
        with torch.inference_mode():
            analysis: Analysis = self.head.analyse(picture, self.options, self, mask)
        if mask is not None and mask.dtype == bool and (share := float(mask.mean())) > QUESTIONED:
            return replace(analysis, note=f"the mask covers {100 * share:.0f} % of the picture; is it inverted?")
        return analysis

    def _checked(self, given: Any, size: tuple[int, ...]) -> np.ndarray:
        """A mask (H,W) bool, or hints (H,W,4), for a picture of `size`.

        Raises:
            UsageError: they do not belong to this task or this picture, or nothing is marked.
        """
        kind = "hints" if self.head.hinted else "a mask"
        given = given if self.head.hinted else as_mask(given)
        if self.head.hinted and (given.ndim != 3 or given.shape[2] != 4):
            raise UsageError(f"hints for this picture have shape {(*size, 4)} in this task; got {given.shape}")
        if given.shape[:2] != tuple(size):
            (height, width), (h, w) = size, given.shape[:2]
            raise UsageError(
                f"{kind} of {w}x{h} does not fit a picture of {width}x{height}; scale one to the size of the other"
            )
        if not self.head.hinted and not given.any():
            raise UsageError("the mask marks nothing: white, or what is painted on transparency, is what to restore")
        return np.asarray(given)

    def _compute(self, works: Sequence[_Work]) -> None:
        """Computes the results of `works`."""
        scale, items = self.head.scale, []
        with torch.inference_mode():
            for work in works:
                unchanged = work.analysis.nothing or (self.strength == 0 and scale == 1)
                if unchanged or work.mask is not None:
                    work.result.copy_(work.source)
                if not unchanged:
                    mask = work.analysis.mask
                    key = work.source.dtype, work.source.shape[-1], work.gray
                    items += [
                        Item(work, tile, key)
                        for tile in self._planner.plan(*work.size)
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
        """Copies the inner part of a restored tile (h*scale,w*scale,C) into its picture."""
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

    def _enlarge(self, alpha: np.ndarray, out: np.ndarray) -> None:
        """Enlarges alpha (H,W,1) into `out` by `Head.identity`, tile by tile."""
        if self.head.scale == 1:
            out[...] = alpha
            return
        scale, result = self.head.scale, torch.from_numpy(out)
        source = as_tensor(alpha)
        for tile in self._planner.plan(*alpha.shape[:2]):
            outer, inner = tile.outer, tile.inner
            enlarged = to_pixels(self.head.identity(to_planes(source[outer.slices][None])), source.dtype)[0]
            top, left = (inner.top - outer.top) * scale, (inner.left - outer.left) * scale
            rows, columns = Window(
                inner.top * scale, inner.left * scale, inner.height * scale, inner.width * scale
            ).slices
            result[rows, columns] = enlarged[top : top + inner.height * scale, left : left + inner.width * scale]

    # The interface `Predictor` for the head.

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """As `Predictor.whole`. Raises MemoryError if it does not fit into main memory either."""
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
        """As `Predictor.tiles`."""
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
    """Whether (H,W,1 or 3) has equal channels; tests band by band up to the first difference."""
    return image.shape[-1] == 1 or all(is_gray(band) for band in _bands(image))


def _is_finite(image: np.ndarray) -> bool:
    return image.dtype.kind != "f" or all(bool(np.isfinite(band).all()) for band in _bands(image))


def _bands(image: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, BAND_PIXELS // image.shape[1])
    return (image[top : top + rows] for top in range(0, image.shape[0], rows))


def _change(before: np.ndarray, after: np.ndarray) -> float | None:
    """Root mean square difference on the 0-255 scale, on a regular grid of large pictures; None for other shapes."""
    if before.shape != after.shape:
        return None
    step = max(1, int((before.shape[0] * before.shape[1] / CHANGE_PIXELS) ** 0.5))
    first, second = (to_float(image[::step, ::step]) for image in (before, after))
    return 255 * float(np.sqrt(np.mean(np.square(first - second))))


def _raise(error: Exception) -> Restored:
    raise error


def _options(kind: type[Options], values: dict[str, Any]) -> Options:
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{error}".replace("__init__()", "load()").split(".")[-1]) from error
