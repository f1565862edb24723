"""From the bytes of a picture to the bytes of the restored one, for many clients at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from restore.errors import RestoreError, TooLargeError, UsageError, WeightsError
from restore.folders.compute_queue import ComputeQueue
from restore.folders.limits import MemoryLimiter, default_memory_limit
from restore.folders.masks import encode_mask
from restore.folders.names import Naming
from restore.folders.pipeline import Status, describe_result
from restore.images import SUFFIXES, encode_image, read_image, writable_suffix
from restore.images.failures import printable
from restore.images.masks import as_mask, hints_from
from restore.images.reading import header_size
from restore.inference.restored import Restored, StepResult
from restore.pixels import to_uint8
from restore.serve.limits import Limits, Refused
from restore.serve.options import Order
from restore.serve.restorers import Assigned, Dispatcher, Restorers, Watch
from restore.tasks import TaskSpec

logger = logging.getLogger("restore")

SMALL = 1_000_000  # pixels of the larger of picture and result, up to which a picture passes the large ones by
MAX_FOLDERS = 20  # of a path in a zip file
BYTES_PER_PIXEL = 12  # 16-bit RGB decoded, and what codecs hold beside it
ResultT = TypeVar("ResultT")
MEDIA_TYPES = {"jpeg": "image/jpeg", "tiff": "image/tiff", "webp": "image/webp", "bmp": "image/bmp"}


@dataclass(frozen=True)
class Upload:
    """What a client sent.

    Attributes:
        data: the bytes of the picture's file.
        name: its file name, as the client calls it; only ever shown and given back, never opened.
        mask: the bytes of a mask's file: white is what to restore. None: the damage is looked for.
        hints: those of a picture of colours that are known, on transparent or white. None: there are none.
    """

    data: bytes
    name: str = "picture"
    mask: bytes | None = None
    hints: bytes | None = None


@dataclass(frozen=True)
class Output:
    """What comes back.

    Attributes:
        data: the bytes of the restored file; empty where it was only looked at.
        name: its file name.
        kind: its format, as `png`.
        status: restored; copied (there was nothing to restore); or examined.
        size: (width, height) of the restored picture.
        seconds: time of computing.
        message: what was found in the picture, for people.
        mask_share: part of the pixels that is restored, 0 to 1; None where there is no mask.
        mask: the bytes of a PNG of it.
        steps: what auto decided of each task, and did.
    """

    data: bytes
    name: str
    kind: str
    status: str
    size: tuple[int, int]
    seconds: float
    message: str = ""
    mask_share: float | None = None
    mask: bytes | None = None
    steps: tuple[StepResult, ...] = ()

    @property
    def media_type(self) -> str:
        """Of HTTP."""
        return MEDIA_TYPES.get(self.kind, f"image/{self.kind}")


class _Lane:
    """Threads that decode and encode around one that computes."""

    def __init__(self, name: str, threads: int, memory: MemoryLimiter | None) -> None:
        self.name, self.memory = name, memory
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix=f"serve-{name}")
        self.queue = ComputeQueue(Dispatcher())

    def stop(self) -> None:
        if self.memory is not None:
            self.memory.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.queue.stop()


class Service:
    """Restores what clients send.

    Small pictures and large ones are computed in two lanes side by side, so that a small one never waits for a large
    one to end. In each lane one thread computes, in the order in which pictures come, those of one shape together.

    Args:
        restorers: of this server.
        limits: the bounds.
        workers: threads that decode and encode small pictures; None: two for every core, at most 16.
    """

    def __init__(self, restorers: Restorers, limits: Limits, workers: int | None = None) -> None:
        self.restorers, self.limits = restorers, limits
        workers = workers or min(16, 2 * (os.cpu_count() or 1))
        # Small pictures are bounded by the threads that hold them.
        self._small = _Lane("small", workers, None)
        self._large = _Lane("large", 2, MemoryLimiter(default_memory_limit(2)))
        self.stopped = False

    def submit(self, upload: Upload, order: Order, watch: Watch) -> Future[Output]:
        """Begins with a picture.

        Args:
            upload: what was sent.
            order: what is asked for.
            watch: told how far it is; cancelling it gives the picture up.

        Returns:
            The result; or Refused, with its status; or CancelledError, if given up or the service stops.

        Raises:
            Refused: 413 for a picture that is too large; 503 if the service stops.
        """
        return self._begin(upload.data, order.scale, watch, partial(self._restore, upload, order, watch))

    def preview(self, data: bytes, watch: Watch) -> Future[bytes]:
        """Begins to make a picture in any format an 8-bit PNG, for browsers; arguments and errors as of `submit`."""
        return self._begin(data, 1, watch, partial(self._preview, data))

    def _begin(self, data: bytes, scale: int, watch: Watch, work: Callable[[_Lane], ResultT]) -> Future[ResultT]:
        """Does `work` on a picture in the lane of its size, once there is memory for it."""
        if self.stopped:
            raise Refused(503, "the server stops; nothing was begun")
        size = header_size(BytesIO(data))
        if size is not None:
            self._check_size(size, scale)
        pixels = int(self.limits.max_megapixels * 1e6) if size is None else size[0] * size[1]
        lane = self._large if pixels * scale**2 > SMALL else self._small
        needed = len(data) + pixels * BYTES_PER_PIXEL * (1 + scale**2)
        try:
            return lane.threads.submit(self._process, work, watch, lane, needed)
        except RuntimeError:  # the threads were stopped meanwhile
            raise Refused(503, "the server stops; nothing was begun") from None

    def _check_size(self, size: tuple[int, int], scale: int) -> None:
        """Raises Refused (413) for a picture of (width, height) that is too large, or becomes it."""
        megapixels, limit = size[0] * size[1] / 1e6, self.limits.max_megapixels
        if megapixels > limit:
            raise Refused(413, f"{size[0]} x {size[1]} is {megapixels:.6g} megapixels, at most {limit:g} are taken")
        if megapixels * scale**2 > 4 * limit:
            larger = f"{scale} times larger it has {megapixels * scale**2:.6g} megapixels"
            raise Refused(413, f"{larger}; at most {4 * limit:g} are made")

    def stop(self) -> None:
        """Gives up all pictures; does not wait for a tile that is computed."""
        self.stopped = True
        self._small.stop()
        self._large.stop()

    def _process(self, work: Callable[[_Lane], ResultT], watch: Watch, lane: _Lane, needed: int) -> ResultT:
        try:
            watch.check()
            with nullcontext() if lane.memory is None else lane.memory.reserve(needed):
                watch.at("decoding")
                return work(lane)
        except (Refused, CancelledError):
            raise
        except WeightsError as error:  # names files of this machine
            logger.error("%s", error)
            raise Refused(500, "the weights of this task cannot be used; the server's log says why") from error
        except MemoryError as error:
            raise Refused(503, "not enough memory for this picture now; try again later", retry_after=30) from error
        except TooLargeError as error:  # its advice is for the command line
            raise Refused(413, str(error).rpartition(";")[0]) from error
        except RestoreError as error:
            raise Refused(422, " ".join(str(error).split())) from error
        except Exception as error:  # a bug, here or in a library, which shall not cost the other pictures
            logger.exception("unexpected")
            raise Refused(500, f"unexpected {type(error).__name__}; the server's log says more") from error

    def _restore(self, upload: Upload, order: Order, watch: Watch, lane: _Lane) -> Output:
        name = file_name(upload.name)
        most = self.limits.max_megapixels
        image = read_image(upload.data, name=name, max_megapixels=most, salvage=order.salvage)
        self._check_size(image.size, order.scale)  # not all headers could be read before
        given = _given(upload, order.spec, image.size)
        processor = self.restorers.get(order, lane.name)
        watch.at("computing")
        assigned = Assigned.of(image, processor, watch, order.examine)
        del image
        seconds, restored = lane.queue.compute(assigned, given)
        del assigned
        watch.at("encoding", 1.0)
        return _output(upload, order, restored, seconds, name)

    def _preview(self, data: bytes, _: _Lane) -> bytes:
        image = read_image(data, name="the picture", max_megapixels=self.limits.max_megapixels)
        return encode_image(image.with_array(to_uint8(image.array)), "png", metadata=False)


def _given(upload: Upload, spec: TaskSpec, size: tuple[int, int]) -> np.ndarray | None:
    """The mask or the hints that were sent for a picture of (width, height), as a restorer takes them."""
    found = None
    for part, data, wanted in (("mask", upload.mask, spec.masks), ("hints", upload.hints, spec.hints)):
        if data is None:
            continue
        if not wanted:
            raise UsageError(f"{spec.name} takes no {part}; leave it out")
        own = header_size(BytesIO(data))
        if own is not None and own[0] * own[1] != size[0] * size[1]:  # before it is decoded
            raise UsageError(f"the {part}, {own[0]}x{own[1]}, does not fit a picture of {size[0]}x{size[1]}")
        image = read_image(data, name=f"the {part}", max_megapixels=1 + size[0] * size[1] / 1e6)
        found = as_mask(image.pixels, image.alpha) if part == "mask" else hints_from(image)
    return found


def file_name(name: str) -> str:
    """The last part of a client's path, printable and of bounded length; `picture` where nothing is left."""
    path = Path(_plain(PurePosixPath(name.replace("\\", "/")).name) or "picture")
    return path.stem[:100] + path.suffix[:10]


def folder_name(name: str) -> PurePosixPath:
    """A client's path of folders, relative, each part of it printable and of bounded length."""
    parts = PurePosixPath(name.replace("\\", "/")).parts[:MAX_FOLDERS]
    return PurePosixPath(*filter(None, (_plain(part.strip("/"))[:100] for part in parts)))


def _plain(part: str) -> str:
    """A part of a client's path, printable, and neither hidden nor the folder above; "" where nothing is left."""
    return printable(part).replace("?", "_").lstrip(". ").strip()


def _output(upload: Upload, order: Order, restored: Restored, seconds: float, name: str) -> Output:
    image = restored.image
    own = Path(name).suffix
    if SUFFIXES.get(own.lower()) != image.format:
        own = next(suffix for suffix, kind in SUFFIXES.items() if kind == image.format)
    suffix, note = writable_suffix(image, order.extension or own)
    kind = SUFFIXES[suffix.lower()]
    naming = Naming(order.spec.file_suffix(order.options), suffix)
    may_copy = order.quality is None and order.metadata and not order.salvage
    copied = restored.nothing and kind == image.format and may_copy
    status: Status = "examined" if order.examine else "copied" if copied else "restored"
    data = upload.data if status == "copied" else b""
    notes: tuple[str | None, ...] = ()
    if status == "restored":
        data, notes = encode_image(image, kind, quality=order.quality, metadata=order.metadata), (note, *image.notes)
    share = None if restored.mask is None else float(restored.mask.mean())
    return Output(
        data,
        naming.file_name(Path(name), beside=True),
        kind,
        status,
        image.size,
        seconds,
        "; ".join(filter(None, (describe_result(restored, status, share), *notes))),
        share,
        encode_mask(restored.mask, image.size) if order.with_mask and restored.mask is not None else None,
        restored.steps,
    )
