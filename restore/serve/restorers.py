"""Restorers that tell how far they are and stop where they are told, and the one thread that drives them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device, pick_precision
from restore.images import Image
from restore.inference.automatic import AutoPipeline
from restore.inference.restored import MaskedImage, Pending, Restored
from restore.inference.restorer import Restorer
from restore.inference.tiling import Item
from restore.models.registry import Architecture
from restore.serve.options import Order
from restore.tasks import TASKS
from restore.tasks.base import Window, load_head
from restore.tasks.steps import AUTO, AutoOptions

KEPT = 8  # restorers with their options; those of one task share the weights in full precision


class Watch:
    """How far a picture is; and the way to stop it. Any thread may call anything here."""

    def __init__(self) -> None:
        self.stage = "queued"
        self.share = 0.0
        self.cancelled = False
        self._listeners: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    def at(self, stage: str, share: float = 0.0) -> None:
        """Says what is being done, and which part of that is done. Raises CancelledError if that is not wanted."""
        self.check()
        self.stage, self.share = stage, share
        self.tell()

    def check(self) -> None:
        """Raises CancelledError if nobody waits for the picture any more."""
        if self.cancelled:
            raise CancelledError

    def cancel(self) -> None:
        """Nobody waits for the picture any more: it is dropped at the next tile."""
        self.cancelled = True
        self.tell()

    def tell(self) -> None:
        """Wakes all listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener`, in any thread, whenever something has changed."""
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)


class WatchedRestorer(Restorer):
    """A restorer whose picture can be watched, and given up between two tiles."""

    watch: Watch | None = None
    _part = (0.0, 1.0)  # of the work on a picture, from where to where this restorer does it
    _area, _done = 1, 0

    @contextmanager
    def watched(self, watch: Watch, start: float, end: float) -> Iterator[None]:
        """The one picture that is restored meanwhile is watched: this restorer does it from `start` to `end`."""
        with self._lock:  # other threads repeat tiles of other pictures
            self.watch, self._part = watch, (start, end)
            try:
                yield
            finally:
                self.watch = None

    def enqueue(self, pictures: Sequence[MaskedImage]) -> list[Pending]:
        self._area, self._done = sum(image.size[0] * image.size[1] for image, _ in pictures), 0
        return super().enqueue(pictures)

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        for found in super().tiles(size, planes, stage):
            if self.watch is not None:
                self.watch.check()
            yield found

    def _restore_tiles(
        self, group: list[Item[Any]], dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        watch = self.watch
        if watch is not None:
            watch.check()
        restored = super()._restore_tiles(group, dtype)
        if watch is not None:
            self._done += sum(item.tile.inner.height * item.tile.inner.width for item in group)
            start, end = self._part
            # Auto may restore the middle of a picture before the whole: it never goes back.
            watch.at("computing", max(watch.share, start + (end - start) * min(1.0, self._done / self._area)))
        return restored


def watching(processor: WatchedRestorer | AutoPipeline, watch: Watch) -> ExitStack:
    """Watches the one picture that `processor` restores meanwhile."""
    steps = processor.steps if isinstance(processor, AutoPipeline) else (processor,)
    stack = ExitStack()
    for number, step in enumerate(cast(Sequence[WatchedRestorer], steps)):
        stack.enter_context(step.watched(watch, number / len(steps), (number + 1) / len(steps)))
    return stack


@dataclass(frozen=True, eq=False)
class Assigned(Image):
    """A picture, and who is to do what with it."""

    processor: WatchedRestorer | AutoPipeline = field(kw_only=True)
    watch: Watch = field(kw_only=True)
    examine: bool = field(kw_only=True)

    @classmethod
    def of(cls, image: Image, processor: WatchedRestorer | AutoPipeline, watch: Watch, examine: bool) -> Assigned:
        """`image` with an assignment."""
        values = {known.name: getattr(image, known.name) for known in fields(Image)}
        return cls(**values, processor=processor, watch=watch, examine=examine)


class Dispatcher:
    """A `Processor` for pictures that are `Assigned`: each goes to its own, those of one together."""

    def batch_size(self, image: Image) -> int:
        """As that of the picture's own processor."""
        one = cast(Assigned, image)
        return 1 if one.examine else one.processor.batch_size(image)

    def enqueue(self, pictures: Sequence[MaskedImage]) -> list[Pending]:
        """Begins with `pictures`; those that nobody waits for any more are not begun."""
        results: list[Pending | None] = [None] * len(pictures)
        groups: dict[WatchedRestorer | AutoPipeline, list[int]] = {}
        for number, (image, mask) in enumerate(pictures):
            one = cast(Assigned, image)
            if one.watch.cancelled or one.examine:
                results[number] = _now(one, mask)
            else:
                groups.setdefault(one.processor, []).append(number)
        for processor, numbers in groups.items():
            alone = len(numbers) == 1
            with watching(processor, cast(Assigned, pictures[numbers[0]][0]).watch) if alone else nullcontext():
                begun = processor.enqueue([pictures[number] for number in numbers])
            for number, pending in zip(numbers, begun, strict=True):
                results[number] = pending
        return cast(list[Pending], results)


def _now(one: Assigned, mask: np.ndarray | None) -> Pending:
    result: Future[Restored] = Future()
    try:
        one.watch.check()
        with watching(one.processor, one.watch):
            result.set_result(one.processor.examine(one, mask))
    except BaseException as error:  # raised to the thread that waits for this picture
        result.set_exception(error)
    return result


class Restorers:
    """Restorers by task and options, made when they are first asked for.

    Args:
        device: auto, cpu, mps, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        tile: side of a tile in pixels; 0: as large as memory allows.
        models: task -> variant or weights file; the default weights of the others.

    Raises:
        UsageError: there is no such device or precision, or no such weights.
    """

    def __init__(
        self, device: str = "auto", precision: str = "auto", tile: int = 0, models: dict[str, str] | None = None
    ) -> None:
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self._tile = tile
        self._files = {task: weights.find(task, model) for task, model in (models or {}).items()}
        self._networks: dict[str, tuple[weights.Header, Architecture]] = {}
        self._made: OrderedDict[tuple[Any, ...], WatchedRestorer | AutoPipeline] = OrderedDict()
        self._lock = threading.RLock()  # a pipeline gets its restorers as all do

    @property
    def loaded(self) -> list[str]:
        """The tasks whose weights are in memory."""
        return sorted(self._networks)

    def get(self, order: Order, lane: str) -> WatchedRestorer | AutoPipeline:
        """What restores for an order.

        Args:
            order: what is asked for.
            lane: restorers of different lanes may be used in different threads at once.

        Raises:
            UsageError: there are no such weights (as WeightsError), or they do not fit the options.
        """
        key = (lane, order.spec.name, order.options, order.strength, order.tta)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._pipeline(order, lane) if order.spec.name == AUTO else self._restorer(order)
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]

    def _pipeline(self, order: Order, lane: str) -> AutoPipeline:
        steps = cast(AutoOptions, order.options).steps()
        orders = [Order(TASKS[task], TASKS[task].options(**own), tta=order.tta) for task, own in steps.items()]
        return AutoPipeline([cast(WatchedRestorer, self.get(one, lane)) for one in orders])

    def _restorer(self, order: Order) -> WatchedRestorer:
        task = order.spec.name
        if task not in self._networks:
            self._networks[task] = weights.load(self._files.get(task) or weights.find(task), task)
        header, network = self._networks[task]
        head = load_head(task, order.options, network)
        return WatchedRestorer(
            head,
            network,
            order.options,
            self.device,
            self.dtype,
            self._tile,
            strength=order.strength,
            tta=order.tta,
            header=header,
        )
