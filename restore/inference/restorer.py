"""Weights on a device, ready to take images."""

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
from restore.inference.engine import Engine, PixelModel
from restore.inference.restored import Restored
from restore.inference.tiling import Item, TilePlanner, is_out_of_memory
from restore.inference.transfer import transfer_for
from restore.models.registry import Architecture
from restore.pixels import is_gray, to_float, white
from restore.tasks import Options, task_spec
from restore.tasks.base import Analysis, Head, Picture, Window, load_task
from restore.tasks.functional import to_pixels, to_planes

# Pixels of surroundings that a tile needs. Beyond the network's radius tiles are exact; but what lies
# far away hardly counts. Denoising gradients and photographs with sigma 0 to 50 in tiles of 256, in fp32, the
# whole picture and the tiles are at most 2.6 levels of 255 apart with 24 pixels, 2.0 with 32, 0.9 with 40, 0.5
# with 48 and 0.02 with 64. Blending the surroundings instead of cutting them off is worse at each of these.
MAX_OVERLAP = 48
CHANGE_PIXELS = 250_000  # of a large picture that tell by how much it has changed
BAND_PIXELS = 1 << 20  # of a picture that are checked at once, so that nothing of its size is held beside it


class Pending:
    """A picture whose computation has begun; made by `Restorer.enqueue`."""

    def __init__(self, finish: Callable[[], Restored]) -> None:
        self._finish = finish

    def result(self) -> Restored:
        """Waits for the device. To be called once, from any thread; raises what went wrong with this picture."""
        return self._finish()


@dataclass(eq=False)
class _Work:
    """A picture being restored.

    Args:
        source: (H,W,1 or 3), on the device, or on the host if it is too large for that.
        result: (H*scale,W*scale,C), likewise.
        alpha: (H,W,1) to be enlarged into `enlarged`, where the picture is enlarged.
        analysis: of the head.
        mask: (H,W) bool, beside `source`: the pixels that may change; None: all.
        gray: the restored picture is to be gray.
        out: the array of the result on the host.
        flags: whether tiles are finite, on the device, with their tiles.
    """

    source: torch.Tensor
    result: torch.Tensor
    analysis: Analysis
    gray: bool
    out: np.ndarray
    mask: torch.Tensor | None = None
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
    """A restorer for a task.

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
        UsageError: (also as WeightsError, DeviceError) for anything that is not there or does not fit.
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

    On a CPU the same input gives the same bytes every time; on a GPU a batch of other pictures beside it may change a
    picture by one level.
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
        self._lock = threading.RLock()  # tiles that overflowed are computed again in the thread that waits for them

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None = None, *, hints: np.ndarray | None = None
    ) -> np.ndarray:
        """Restores an array.

        Args:
            image: uint8, uint16 or float (white at 1, values outside [0, 1] accepted), of shape (H,W), (H,W,1) gray,
                (H,W,2) gray and alpha, (H,W,3) RGB or (H,W,4) RGB and alpha.
            mask: (H,W) bool, where the damage is, for tasks that look for it.
            hints: (H,W,4) RGB and alpha, the colours that are known where alpha is opaque, for tasks that give colours.

        Returns:
            The same dtype and channels, sides `scale` times as long. Alpha passes through (enlarged where the picture
            is). A gray picture stays gray, unless the task is to colour it: then 1 becomes 3 channels, and 2 become 4.

        Raises:
            UsageError: any other shape or dtype, an empty image, NaN, a mask or hints that do not fit.
            MemoryError: not even the smallest tiles fit into the CPU's memory.
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
            self._compute([work])
            self._collect(work)()
        return out

    def restore(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Restores a picture read from a file: the pixels change, its metadata and format do not."""
        return self.enqueue([(image, mask)])[0].result()

    def batch_size(self, image: Image) -> int:
        """How many pictures of this one's size `enqueue` had best be given at once; 1 where more are no quicker."""
        return self._planner.batch_size(*image.pixels.shape[:2])

    def enqueue(self, pictures: Sequence[tuple[Image, np.ndarray | None]]) -> list[Pending]:
        """Begins to restore pictures, in shared batches of tiles; does not wait for a GPU.

        Args:
            pictures: each with its mask (H,W) bool, or its hints (H,W,4) where the head takes those, or None.

        Returns:
            One `Pending` for each, which raises what went wrong with that picture.
        """
        with self._lock:
            works = [self._attempt(image, mask) for image, mask in pictures]
            begun = [work for work in works if isinstance(work, _Work)]
            try:
                self._compute(begun)
            except Exception as error:
                if len(begun) == 1:
                    works = [error if isinstance(work, _Work) else work for work in works]
                else:  # whose picture it comes from, if from any, each of them alone will show
                    return [self.enqueue([picture])[0] for picture in pictures]
            return [self._pending(image, work) for (image, _), work in zip(pictures, works, strict=True)]

    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """What `restore` finds in a picture, without restoring it."""
        with self._lock:
            analysis = self.find(image.pixels, mask)
        return Restored(image, analysis.mask, analysis.nothing, analysis.note)

    def find(self, image: np.ndarray, mask: np.ndarray | None = None) -> Analysis:
        """The head's analysis of (H,W,1 or 3) in its own dtype. Raises UsageError for a mask that does not fit."""
        return self._analysed(image, self._transfer.upload(image), mask)

    def _attempt(self, image: Image, mask: np.ndarray | None) -> _Work | Exception:
        try:
            channels = 3 if self.head.colours else image.pixels.shape[-1]
            height, width = (side * self.head.scale for side in image.pixels.shape[:2])
            return self._begin(image.pixels, mask, np.empty((height, width, channels), image.pixels.dtype))
        except Exception as error:  # a fault of this picture, which must not cost the others
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
        collect = self._collect(work)

        def finish() -> Restored:
            collect()
            analysis, change = work.analysis, _change(image.pixels, work.out)
            note = analysis.note or ("" if change is None else self.head.describe_change(change))
            restored = replace(image, pixels=work.out, alpha=alpha)
            return Restored(restored, analysis.mask, analysis.nothing, note, change)

        return Pending(finish)

    def _begin(self, image: np.ndarray, mask: np.ndarray | None, out: np.ndarray) -> _Work:
        """The picture (H,W,1 or 3) on the device, analysed. out: where the result goes."""
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
        if analysis.mask is not None:
            work.mask = torch.from_numpy(analysis.mask).to(source.device)
        return work

    def _analysed(self, image: np.ndarray, source: torch.Tensor, mask: np.ndarray | None) -> Analysis:
        if mask is not None:
            self._check_given(mask, image.shape[:2])
        picture = Picture(image, source, self._planner.device)
        with torch.inference_mode():
            analysis: Analysis = self.head.analyse(picture, self.options, self, mask)
        return analysis

    def _check_given(self, given: np.ndarray, size: tuple[int, ...]) -> None:
        """Raises UsageError for a mask, or hints, that do not belong to this task and a picture of `size`."""
        kind, shape = ("hints", (*size, 4)) if self.head.hinted else ("a mask", size)
        if given.ndim != len(shape) or given.shape[2:] != shape[2:]:
            raise UsageError(f"{kind} for this picture has shape {shape} in this task; got {given.shape}")
        if given.shape != shape:
            (height, width), (h, w) = size, given.shape[:2]
            raise UsageError(f"{kind} of {w}x{h} does not fit a picture of {width}x{height}")

    def _compute(self, works: Sequence[_Work]) -> None:
        """Fills the results of `works`."""
        scale, items = self.head.scale, []
        with torch.inference_mode():
            for work in works:
                unchanged = work.analysis.nothing or (self.strength == 0 and scale == 1)
                if unchanged or work.mask is not None:
                    work.result.copy_(work.source)
                if not unchanged:
                    found = work.analysis.mask
                    key = work.source.dtype, work.source.shape[-1], work.gray
                    items += [
                        Item(work, tile, key)
                        for tile in self._planner.plan(*work.size)
                        if found is None or found[tile.inner.slices].any()
                    ]
            for group, (restored, finite) in self._planner.run(items, self._restore_tiles):
                for number, item in enumerate(group):
                    self._place(item, restored[number])
                    if finite is not None:
                        item.picture.flags.append((finite[number], item))

    def _restore_tiles(
        self, group: list[Item[_Work]], dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The restored pixels of a batch of tiles, and whether they are finite."""
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
        """Puts the inner part of a restored tile (h*scale,w*scale,C) into its picture."""
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
        """Begins the download of a result. The call that is returned waits for it, and mends what overflowed."""
        items = [item for _, item in work.flags]
        flags = self._transfer.flags(torch.stack([flag for flag, _ in work.flags])) if items else None
        download = self._transfer.download(work.result, work.out)

        def finish() -> None:
            download()
            broken = [] if flags is None else [item for item, good in zip(items, flags(), strict=True) if not good]
            if broken:
                with self._lock, torch.inference_mode():
                    for item in broken:  # one by one, so that how many there are changes nothing in any of them
                        self._place(item, self._restore_tiles([item], torch.float32)[0][0])
                    self._transfer.download(work.result, work.out)()

        return finish

    def _enlarge(self, alpha: np.ndarray, out: np.ndarray) -> None:
        """Fills `out` with alpha (H,W,1), enlarged as the head does it without restoring, a tile at a time."""
        if self.head.scale == 1:
            out[...] = alpha
            return
        scale, result = self.head.scale, torch.from_numpy(out)
        source = torch.from_numpy(np.ascontiguousarray(alpha))
        for tile in self._planner.plan(*alpha.shape[:2]):
            outer, inner = tile.outer, tile.inner
            enlarged = to_pixels(self.head.identity(to_planes(source[outer.slices][None])), source.dtype)[0]
            top, left = (inner.top - outer.top) * scale, (inner.left - outer.left) * scale
            rows, columns = Window(
                inner.top * scale, inner.left * scale, inner.height * scale, inner.width * scale
            ).slices
            result[rows, columns] = enlarged[top : top + inner.height * scale, left : left + inner.width * scale]

    # What follows makes a restorer the `Predictor` of its head.

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """As `Predictor.whole`. Raises MemoryError if that does not fit, not even into the CPU's memory."""
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
            seen = [planes(item.tile.outer) for item in group]
            return self._engine.predict(torch.stack(seen), self._planner.device, stage)

        for group, outputs in self._planner.run(items, compute):
            for item, output in zip(group, outputs, strict=True):
                inner, outer = item.tile.inner, item.tile.outer
                top, left = inner.top - outer.top, inner.left - outer.left
                yield inner, output[:, top : top + inner.height, left : left + inner.width]


@dataclass(frozen=True)
class _Area:
    """A picture of which nothing but the size is known."""

    size: tuple[int, int]


def _where(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`torch.where` for pixels: it has no kernels for uint16."""
    if one.dtype != torch.uint16:
        return torch.where(condition, one, other)
    return torch.where(condition, one.view(torch.int16), other.view(torch.int16)).view(torch.uint16)


def _is_gray(image: np.ndarray) -> bool:
    """Whether (H,W,1 or 3) has equal channels; looks at a band of rows at a time, and no further than it takes."""
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
