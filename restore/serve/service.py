"""From the bytes of a picture to the bytes of the restored one, for many clients at once."""

from __future__ import annotations

import io
import logging
import os
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from restore.errors import ImageError, RestoreError, UsageError, WeightsError
from restore.folders.compute_queue import ComputeQueue
from restore.folders.limits import MemoryLimiter, default_memory_limit
from restore.folders.masks import encode_mask
from restore.folders.names import Naming
from restore.images import SUFFIXES, Image, encode_image, read_image, writable_suffix
from restore.images.failures import printable
from restore.images.masks import as_mask, hints_from
from restore.images.pixels import without_limit
from restore.inference.restored import Restored
from restore.pixels import white
from restore.serve.limits import Limits, Refused
from restore.serve.options import Order
from restore.serve.restorers import Assigned, Dispatcher, Restorers, Watch

logger = logging.getLogger("restore")

SMALL = 1_000_000  # pixels of the larger of picture and result, up to which a picture passes the large ones by
BYTES_PER_PIXEL = 12  # 16-bit RGB decoded, and what codecs hold beside it
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
        if self.stopped:
            raise Refused(503, "the server stops; nothing was begun")
        size = header_size(upload.data)
        scale = int(getattr(order.options, "scale", 1))
        pixels = None if size is None else size[0] * size[1]
        limit = self.limits.max_megapixels
        if pixels is not None and size is not None and pixels > limit * 1e6:
            raise Refused(413, f"{size[0]} x {size[1]} is {pixels / 1e6:.0f} megapixels, at most {limit:g} are taken")
        if pixels is not None and pixels * scale**2 > 4 * limit * 1e6:
            raise Refused(
                413, f"{scale} times larger it has {pixels * scale**2 / 1e6:.0f} megapixels; at most {4 * limit:g}"
            )
        lane = self._large if pixels is None or pixels * scale**2 > SMALL else self._small
        needed = len(upload.data) + (pixels or int(limit * 1e6)) * BYTES_PER_PIXEL * (1 + scale**2)
        try:
            return lane.threads.submit(self._process, upload, order, watch, lane, needed)
        except RuntimeError:  # the threads were stopped meanwhile
            raise Refused(503, "the server stops; nothing was begun") from None

    def stop(self) -> None:
        """Gives up all pictures; does not wait for a tile that is computed."""
        self.stopped = True
        self._small.stop()
        self._large.stop()

    def _process(self, upload: Upload, order: Order, watch: Watch, lane: _Lane, needed: int) -> Output:
        try:
            watch.check()
            with nullcontext() if lane.memory is None else lane.memory.reserve(needed):
                return self._restore(upload, order, watch, lane)
        except (Refused, CancelledError):
            raise
        except WeightsError as error:  # names files of this machine
            logger.error("%s: %s", order.spec.name, error)
            raise Refused(500, f"the weights of {order.spec.name} cannot be used; the server's log says why") from error
        except MemoryError as error:
            raise Refused(503, "not enough memory for this picture now; try again later", retry_after=30) from error
        except RestoreError as error:
            raise Refused(422, " ".join(str(error).split())) from error
        except Exception as error:  # a bug, here or in a library, which shall not cost the other pictures
            logger.exception("%s", order.spec.name)
            raise Refused(500, f"unexpected {type(error).__name__}; the server's log says more") from error

    def _restore(self, upload: Upload, order: Order, watch: Watch, lane: _Lane) -> Output:
        watch.at("decoding")
        name = file_name(upload.name)
        image = read_image(upload.data, name=name, max_megapixels=self.limits.max_megapixels)
        mask = self._given(upload, order)
        restorer = self.restorers.get(order, lane.name)
        suffix, wanted = _target(image, order, name)  # before computing what cannot be written
        watch.at("computing")
        assigned = Assigned.of(image, restorer, watch, order.examine)
        del image
        seconds, restored = lane.queue.compute(assigned, mask)
        del assigned
        watch.at("encoding", 1.0)
        return _output(upload, order, restored, seconds, suffix, wanted, name)

    def _given(self, upload: Upload, order: Order) -> np.ndarray | None:
        """The mask or the hints that were sent, as a restorer takes them."""
        spec, most = order.spec, self.limits.max_megapixels
        for part, data, wanted in (("mask", upload.mask, spec.masks), ("hints", upload.hints, spec.hints)):
            if data is not None and not wanted:
                raise UsageError(f"{spec.name} takes no {part}; leave it out")
        if upload.hints is not None:
            return hints_from(read_image(upload.hints, name="the picture of hints", max_megapixels=most))
        if upload.mask is None:
            return None
        image = read_image(upload.mask, name="the mask", max_megapixels=most)
        return as_mask(image.pixels, image.alpha)


def header_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the header of a picture's file; None where that says nothing."""
    try:
        with without_limit(), PIL.Image.open(io.BytesIO(data)) as picture:
            return picture.size
    except Exception:
        return None


def file_name(name: str) -> str:
    """The last part of a client's path, printable and of bounded length; `picture` where nothing is left."""
    last = printable(PurePosixPath(name.replace("\\", "/")).name).replace("?", "_").lstrip(".").strip()
    path = Path(last or "picture")
    return path.stem[:100] + path.suffix[:10]


def preview(data: bytes, limits: Limits) -> bytes:
    """A picture in any format as an 8-bit PNG, for browsers. Raises Refused: 413 or 422."""
    size = header_size(data)
    if size is not None and size[0] * size[1] > limits.max_megapixels * 1e6:
        raise Refused(413, f"more than {limits.max_megapixels:g} megapixels")
    try:
        image = read_image(data, max_megapixels=limits.max_megapixels)
        array = image.array
        if array.dtype != np.uint8:
            array = np.clip(array * (255.0 / white(array.dtype)) + 0.5, 0, 255).astype(np.uint8)
        return encode_image(Image(array[..., :3]) if array.shape[-1] == 3 else Image(array[..., :1]).with_array(array))
    except ImageError as error:
        raise Refused(422, str(error)) from error


def _target(image: Image, order: Order, name: str) -> tuple[str, str]:
    """The suffix to write under, and the one that was asked for."""
    own = Path(name).suffix
    if SUFFIXES.get(own.lower()) != image.format:
        own = next(suffix for suffix, kind in SUFFIXES.items() if kind == image.format)
    wanted = order.extension or own
    return writable_suffix(image, wanted)[0], wanted


def _output(
    upload: Upload, order: Order, restored: Restored, seconds: float, suffix: str, wanted: str, name: str
) -> Output:
    kind = SUFFIXES[suffix.lower()]
    naming = Naming(order.spec.file_suffix(order.options), suffix)
    unchanged = restored.nothing and kind == restored.image.format and order.quality is None and order.metadata
    status = "examined" if order.examine else "copied" if unchanged else "restored"
    data = b""
    if status == "copied":
        data = upload.data
    elif status == "restored":
        data = encode_image(restored.image, kind, quality=order.quality, metadata=order.metadata)
    share = None if restored.mask is None else float(restored.mask.mean())
    message = restored.note or ("nothing found" if restored.nothing else "")
    if suffix != wanted:
        message = "; ".join(filter(None, [message, f"written as {kind}: {wanted} does not hold all of it"]))
    mask = encode_mask(restored.mask, restored.image.size) if order.with_mask and restored.mask is not None else None
    width, height = restored.image.size
    return Output(
        data,
        naming.file_name(Path(name), beside=True),
        kind,
        status,
        (width, height),
        seconds,
        message,
        share,
        mask,
    )
