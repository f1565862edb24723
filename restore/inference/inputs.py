"""What can be restored from Python: arrays, Pillow pictures, tensors, files, and lists or iterators of these."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import PIL.Image
import torch

from restore.errors import UsageError
from restore.images import Image, read_image
from restore.images.masks import as_mask, hints_from
from restore.images.pixels import array_to_pil, split_picture
from restore.images.profiles import true_profile
from restore.inference.restored import MaskedImage, Processor, Restored
from restore.pixels import to_uint8, white
from restore.tasks.spec import TASKS

# Noise of sigma 255 reaches 7 where white is 1; a picture in 0 to 255 without a pixel above this would be black.
MOST_FLOAT = 10.0
_KEPT_INFO = ("exif", "xmp", "dpi", "comment")

T = TypeVar("T", np.ndarray, PIL.Image.Image, torch.Tensor)
Adapted = tuple[Image, Callable[[Image], Any]]
File = Image | str | os.PathLike[str]


class Found(NamedTuple):
    """What was detected in a picture.

    mask: (H,W) bool, the pixels that would be restored; None where several tasks change all of them.
    confidence: how likely it is damage, 0 to 1, also of what is left unchanged because it is uncertain; None where
        nothing was detected.
    """

    mask: np.ndarray | None
    confidence: float | None


class InputAdapter(Processor):
    """Calls of what restores pictures; a subclass brings the methods of `Processor`, and `examine`."""

    hinted = False  # whether it takes hints
    masked = False  # whether it looks for damage, or takes a mask of it

    @abstractmethod
    def examine(self, image: Image, mask: np.ndarray | None = None) -> Restored:
        """Analyses a picture without restoring it."""

    @overload
    def __call__(self, image: T, mask: Any = None, *, hints: Any = None, clip: bool = True) -> T: ...
    @overload
    def __call__(self, image: File, mask: Any = None, *, hints: Any = None, clip: bool = True) -> Image: ...
    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], mask: Any = None, *, hints: Any = None, clip: bool = True
    ) -> list[Any]: ...
    @overload
    def __call__(
        self, image: Iterator[Any], mask: Any = None, *, hints: Any = None, clip: bool = True
    ) -> Iterator[Any]: ...
    def __call__(self, image: Any, mask: Any = None, *, hints: Any = None, clip: bool = True) -> Any:
        """Restores a picture or several, and gives back what it was given.

        Args:
            image: a numpy array in RGB (not OpenCV's BGR), of shape (H,W), (H,W,1) gray, (H,W,2) gray and alpha,
                (H,W,3) or (H,W,4), uint8, uint16 or floating point with white at 1 (values outside [0, 1] are taken
                as they are); a Pillow picture; a torch tensor (C,H,W) or (N,C,H,W) on any device; the path of a file,
                or an `Image`; or a list or an iterator of these.
            mask: the damaged pixels, for tasks that detect damage; None: they are detected. (H,W) bool, 0 and 1, 0
                and 255, or floating point from 0 to 1, as an array, a Pillow picture, a tensor or a path. For
                several pictures: one mask for all, or a list or an iterator of masks.
            hints: colours that are known, for tasks that give colours: (H,W,4) RGB and alpha, known where alpha is
                opaque, or a Pillow picture or a path, where white counts as unknown if there is no alpha.
            clip: limit floating point results to [0, 1].

        Returns:
            The same kind, dtype and channels, sides `scale` times as long; an `Image` for a path; a list for a list,
            and an iterator that reads on as it is read for an iterator. Alpha is kept, or enlarged like a gray picture;
            then fully transparent pixels have the colours of those beside them. Gray pictures stay gray, except in
            colorize, where 1 channel becomes 3, and 2 become 4.

        Raises:
            UsageError: another kind, shape or dtype, floating point that reaches 255, an empty picture, NaN, or a
                mask or hints that do not fit.
            ImageError: a file cannot be read.
            MemoryError: the smallest tiles do not fit into main memory.
        """
        given, of_hints = self._chosen(mask, hints)
        tensors = isinstance(image, torch.Tensor) and image.ndim == 4
        if not tensors and isinstance(image, (np.ndarray, PIL.Image.Image, torch.Tensor, str, os.PathLike, Image)):
            return next(self._stream([image], [_given(given, of_hints)], clip))
        if not isinstance(image, Iterable):
            raise UsageError(_no_picture(image))
        one = given is None or isinstance(given, (np.ndarray, PIL.Image.Image, str, os.PathLike, Image))
        if isinstance(given, torch.Tensor):
            one = given.ndim < 4
        masks = repeat(_given(given, of_hints)) if one else (_given(each, of_hints) for each in given)
        if isinstance(image, torch.Tensor) and not len(image):
            raise UsageError(f"a tensor of shape {tuple(image.shape)} holds no picture")
        stream = self._stream(image, masks, clip)
        if tensors:
            return torch.stack(list(stream))
        return list(stream) if isinstance(image, Sequence) else stream

    def restore(self, image: Any, mask: Any = None, *, hints: Any = None) -> Restored:
        """Restores one picture; arguments as in `__call__`.

        Returns:
            The picture as an `Image` (a file's metadata and format are kept), the mask of what may have changed,
            whether there was nothing to restore, and a note.
        """
        adapted, _ = adapt(image)
        given = _given(*self._chosen(mask, hints))
        return self.enqueue([(adapted, given)])[0].result()

    def find(self, image: Any, mask: Any = None) -> Found:
        """Looks for damage without restoring it.

        Args:
            image: as in `__call__`, one picture.
            mask: the damaged pixels, if they are known: what would be restored of them.

        Raises:
            UsageError: the task looks for no damage; otherwise as `__call__`.
        """
        if not self.masked:
            tasks = " and ".join(name for name, spec in TASKS.items() if spec.masks)
            raise UsageError(f"only {tasks} look for damage that a mask can show; load one of them")
        examined = self.examine(adapt(image)[0], _given(mask, False))
        return Found(examined.mask, examined.confidence)

    def frames(self, frames: Iterable[Any], mask: Any = None, *, hints: Any = None, clip: bool = True) -> Iterator[Any]:
        """Restores the frames of a video one after the other; holds no more than a batch of them.

        Every frame is restored on its own. Where the level of the noise is judged anew in each, say it
        (`load("denoise", sigma=...)`), so that it stays the same throughout.

        Args:
            frames: arrays, Pillow pictures or tensors (C,H,W) of one size.
            mask: of all frames, such as where a logo is; None: damage is looked for in each.
            hints: of all frames.
            clip: as in `__call__`.

        Yields:
            The restored frames, in order.

        Raises:
            UsageError: a frame has another shape or dtype than the first.
        """
        return self._stream(_alike(frames), repeat(_given(*self._chosen(mask, hints))), clip)

    def _stream(self, images: Iterable[Any], given: Iterable[np.ndarray | None], clip: bool) -> Iterator[Any]:
        group: list[MaskedImage] = []
        back: list[Callable[[Image], Any]] = []
        masks = iter(given)

        def restored() -> Iterator[Any]:
            for pending, convert in zip(self.enqueue(group), back, strict=True):
                image = pending.result().image
                if clip and image.pixels.dtype.kind == "f":
                    image = replace(image, pixels=np.clip(image.pixels, 0, 1))
                yield convert(image)
            group.clear()
            back.clear()

        for one in images:
            image, convert = adapt(one)
            try:
                mask = next(masks)
            except StopIteration:
                raise UsageError("there are fewer masks than pictures; give one for each, None where none") from None
            if group and _form(image) != _form(group[0][0]):
                yield from restored()
            group.append((image, mask))
            back.append(convert)
            if len(group) >= self.batch_size(image):
                yield from restored()
        if group:
            yield from restored()

    def _chosen(self, mask: Any, hints: Any) -> tuple[Any, bool]:
        """The one of the two that was given, and whether it is the hints."""
        if hints is not None and (mask is not None or not self.hinted):
            raise UsageError("hints are colours for colorize, which takes no mask; other tasks take no hints")
        return (mask, False) if hints is None else (hints, True)


def adapt(picture: Any) -> Adapted:
    """The `Image` of a picture of any kind, and what makes that kind of a restored `Image`.

    Raises:
        UsageError: a kind, shape, dtype or scale of values that is no picture's; it says what to do.
    """
    if isinstance(picture, Image):
        return picture, lambda restored: restored
    if isinstance(picture, (str, os.PathLike)):
        return read_image(os.fspath(picture)), lambda restored: restored
    if isinstance(picture, np.ndarray):
        return _adapt_array(picture)
    if isinstance(picture, torch.Tensor):
        return _adapt_tensor(picture)
    if isinstance(picture, PIL.Image.Image):
        return _adapt_pillow(picture)
    raise UsageError(_no_picture(picture))


def _no_picture(value: Any) -> str:
    kinds = "a numpy array, a Pillow picture, a torch tensor, a path, or a list or iterator of these"
    return f"{type(value).__name__} is no picture; give {kinds}"


def _adapt_array(array: np.ndarray) -> Adapted:
    if array.ndim == 4:
        raise UsageError(f"an array of shape {array.shape} holds several pictures; give list(array)")
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if channels not in (1, 2, 3, 4) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        fix = "; np.moveaxis(x, 0, -1) brings the channels last" if first and 0 not in array.shape else ""
        raise UsageError(f"an image has shape (H,W), or (H,W,C) with C from 1 to 4; got {array.shape}{fix}")
    white(array.dtype)  # refuses other dtypes
    values = array
    if array.dtype.kind == "f":
        _check_range(float(array.max()))
        values = array.astype(np.float32, copy=False)
    planes = values[..., None] if array.ndim == 2 else values
    image = Image(planes[..., : channels - (channels % 2 == 0)], planes[..., -1] if channels % 2 == 0 else None)

    def back(restored: Image) -> np.ndarray:
        result = restored.array if array.ndim == 3 or restored.pixels.shape[2] > 1 else restored.pixels[..., 0]
        return np.ascontiguousarray(result).astype(array.dtype, copy=False)

    return image, back


def _check_range(top: float) -> None:
    if top > MOST_FLOAT:
        raise UsageError(f"floating point pixels reach {top:g}, but white is 1: divide by 255 (or by what white is)")


def _adapt_tensor(tensor: torch.Tensor) -> Adapted:
    shape = tuple(tensor.shape)
    if tensor.ndim != 3 or shape[0] not in (1, 2, 3, 4):
        fix = ""
        if tensor.ndim == 2:
            fix = "; x[None] adds the channel"
        elif tensor.ndim == 3 and shape[2] in (1, 2, 3, 4):
            fix = "; x.permute(2, 0, 1) brings the channels first"
        raise UsageError(f"a tensor has shape (C,H,W) or (N,C,H,W) with C from 1 to 4; got {shape}{fix}")
    host = tensor.detach().cpu()
    # numpy has no bfloat16, and half precision is restored in single.
    array = (host.float() if host.is_floating_point() else host).permute(1, 2, 0).numpy()
    image, convert = _adapt_array(array)

    def back(restored: Image) -> torch.Tensor:
        planes = torch.from_numpy(convert(restored)).permute(2, 0, 1).contiguous()
        return planes.to(device=tensor.device, dtype=tensor.dtype)

    return image, back


def _adapt_pillow(picture: PIL.Image.Image) -> Adapted:
    icc = picture.info.get("icc_profile")
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        array = np.asarray(picture)
        if picture.mode == "I":
            if array.min() < 0 or array.max() > 65535:
                raise UsageError("a Pillow picture of mode I goes from 0 to 65535; convert it to I;16, L or RGB")
        elif picture.mode == "F":
            _check_range(float(array.max()))
        deep = array.astype(np.float32 if picture.mode == "F" else np.uint16)
        image = Image(deep[..., None])
    else:
        image = Image(*split_picture(picture, icc))

    def back(restored: Image) -> PIL.Image.Image:
        if restored.pixels.dtype == np.uint8:
            result = array_to_pil(restored.array)
        elif restored.pixels.shape[2] == 1:
            result = PIL.Image.fromarray(restored.pixels[..., 0])
        else:  # colours of a deep gray picture, for which Pillow has no mode
            result = array_to_pil(to_uint8(restored.pixels))
        result.info = {name: picture.info[name] for name in _KEPT_INFO if name in picture.info}
        # A profile of CMYK is not true of what it was converted to, nor one of gray of colours.
        if profile := true_profile(icc, restored.pixels.shape[2]):
            result.info["icc_profile"] = profile
        return result

    return image, back


def _given(given: Any, of_hints: bool) -> np.ndarray | None:
    """A mask (H,W) bool, or hints (H,W,4), from all that they may be given as."""
    if given is None:
        return None
    if isinstance(given, torch.Tensor):
        planes = given.detach().cpu()
        given = (planes.permute(1, 2, 0) if planes.ndim == 3 else planes).numpy()
    if isinstance(given, np.ndarray):
        return given if of_hints else as_mask(given)
    image, _ = adapt(given)
    return hints_from(image) if of_hints else as_mask(image.pixels, image.alpha)


def _form(image: Image) -> tuple[tuple[int, ...], np.dtype]:
    return image.pixels.shape, image.pixels.dtype


def _alike(frames: Iterable[Any]) -> Iterator[Any]:
    first = None
    for number, frame in enumerate(frames):
        if isinstance(frame, PIL.Image.Image):
            about: tuple[Any, Any] = frame.size, frame.mode
        elif isinstance(frame, (np.ndarray, torch.Tensor)):
            about = tuple(frame.shape), frame.dtype
        else:
            raise UsageError("a frame is a numpy array, a Pillow picture or a torch tensor (C,H,W)")
        first = about if first is None else first
        if about != first:
            raise UsageError(f"frame {number} is {about[0]} {about[1]}, and those before it {first[0]} {first[1]}")
        yield frame
