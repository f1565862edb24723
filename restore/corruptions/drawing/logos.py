"""The user's own logos: small pictures with an alpha channel, ready to be laid over others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from restore.errors import UsageError
from restore.pixels import to_dtype, to_float

SIDE = 512  # pixels: no mark is drawn from more, and every worker process holds a copy
FULL = 255 * 255  # both an opaque alpha and a white that alpha has been multiplied into


class LogoPicture(Protocol):
    """What a logo is made from; `restore.images.Image` is one.

    pixels: (H,W,1) or (H,W,3), uint8, uint16 or float32. alpha: (H,W) in the same dtype, or None.
    """

    @property
    def pixels(self) -> np.ndarray: ...
    @property
    def alpha(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Logo:
    """One logo; hashable, for the values are kept as bytes.

    width, height: in pixels. premultiplied: (height,width,4) uint16, RGB times alpha, then alpha; both
    reach `FULL`, so that the quotient of the two is exactly the 8-bit colour.
    """

    width: int
    height: int
    premultiplied: bytes

    def drawn(self, size: int) -> np.ndarray:
        """The logo with its longer side at `size` pixels: (h,w,4) float32 in [0,1], RGB times alpha, then alpha."""
        stored = np.frombuffer(self.premultiplied, np.uint16).reshape(self.height, self.width, 4)
        return _resized(stored, size).astype(np.float32) / np.float32(FULL)


@dataclass(frozen=True)
class Logos:
    """One or more logos. Equal, hashed and pickled by value."""

    logos: tuple[Logo, ...]

    def __len__(self) -> int:
        return len(self.logos)

    @classmethod
    def of(cls, pictures: Iterable[tuple[str, LogoPicture]]) -> Logos:
        """Logos from pictures that are already read, each with the name that errors call it.

        A transparent border is cut off; longer sides are bounded to `SIDE` pixels. Raises UsageError for a
        picture without an alpha channel, and for one that is transparent everywhere.
        """
        return cls(tuple(_logo(name, picture) for name, picture in pictures))

    @classmethod
    def read(cls, folder: Path, find: Callable[[Path], Iterable[Path]], read: Callable[[Path], LogoPicture]) -> Logos:
        """Every picture in `folder` as a logo, in the order of `find`.

        `find` and `read`: `restore.images.find_images` and `read_image`, handed in because operators know
        no files. Raises UsageError for a folder that is missing or holds no picture, and what `of` and
        `read` raise.
        """
        if not folder.is_dir():
            wrong = "is not a folder" if folder.exists() else "does not exist"
            raise UsageError(f"{folder}: {wrong}; name a folder of logos, PNG files with transparency")
        paths = list(find(folder))
        if not paths:
            raise UsageError(f"{folder}: holds no logos; put PNG files with transparency there")
        return cls.of((str(path), read(path)) for path in paths)


def _logo(name: str, picture: LogoPicture) -> Logo:
    if picture.alpha is None:
        raise UsageError(f"{name}: has no alpha channel, which says where the logo is; save it with transparency")
    alpha = to_dtype(np.clip(to_float(picture.alpha), 0, 1), np.uint8)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not rows.size:
        raise UsageError(f"{name}: is transparent everywhere, so there is no logo to see; save it with visible parts")
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    colour = to_dtype(np.clip(to_float(picture.pixels[part]), 0, 1), np.uint8)
    seen = alpha[part][..., None].astype(np.uint16)
    joined = np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)) * seen, seen * 255], axis=2)
    small = _resized(joined, SIDE) if max(joined.shape[:2]) > SIDE else joined
    return Logo(small.shape[1], small.shape[0], small.tobytes())


def _resized(joined: np.ndarray, size: int) -> np.ndarray:
    """(h,w,4) with the longer side at `size` pixels, antialiased when shrinking."""
    height, width = joined.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(joined, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
