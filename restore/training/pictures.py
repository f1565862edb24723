"""The clean pictures of a training folder, decoded once and kept in memory within a budget."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from restore.errors import ImageError, TrainingError, UsageError
from restore.images import find_images, image_size, read_image
from restore.pixels import to_dtype, to_float

Report = Callable[[str], None]


def list_pictures(folders: Sequence[Path]) -> list[Path]:
    """All pictures below `folders` (or the files named), sorted, each once.

    Raises UsageError for a folder that is missing or holds no picture.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if folder.is_file():
            paths = [folder]
        elif folder.is_dir():
            paths = find_images(folder)
        else:
            raise UsageError(f"{folder}: no such folder")
        if not paths:
            raise UsageError(f"{folder}: no pictures in this folder")
        found.update(dict.fromkeys(paths))
    return sorted(found)


def default_budget() -> int:
    """Bytes of decoded pictures to keep: 40 % of the memory that is free now."""
    return int(psutil.virtual_memory().available * 0.4)


class Pictures:
    """Clean pictures as uint8 RGB (H,W,3) by number; alpha is dropped, deeper pictures are rounded to 8 bits.

    Those that fit into `budget` bytes are decoded once, here; the others each time they are asked
    for. A picture that cannot be read is left out and reported, also when that shows only later.
    corrupted: of some paths the picture that a camera or scanner made of the same scene, aligned. Such a pair is
    one array (H,W,6), the clean picture first.
    Raises TrainingError if none can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        budget: int | None = None,
        report: Report = print,
        corrupted: Mapping[Path, Path] | None = None,
    ) -> None:
        self._report = report
        self._corrupted = dict(corrupted or {})
        self._lock = threading.Lock()
        budget = default_budget() if budget is None else budget
        entries: list[tuple[Path, tuple[int, ...], np.ndarray | None]] = []
        plan: list[tuple[Path, tuple[int, int], bool]] = []
        for path, size in zip(paths, self._each(self._size, paths), strict=True):
            if size is not None:
                need = size[0] * size[1] * (6 if path in self._corrupted else 3)
                plan.append((path, size, need <= budget))
                budget -= need if need <= budget else 0
        decoded = self._each(lambda entry: self._decode(entry[0]) if entry[2] else None, plan)
        for (path, size, kept), pixels in zip(plan, decoded, strict=True):
            if pixels is not None:
                entries.append((path, pixels.shape[:2], pixels))
            elif not kept:
                entries.append((path, size, None))
        if not entries:
            raise TrainingError("none of the training pictures can be read")
        self.paths = [path for path, _, _ in entries]
        self.sizes = [size for _, size, _ in entries]
        self.paired = [path in self._corrupted for path in self.paths]
        self._pixels = [pixels for _, _, pixels in entries]
        uncached = sum(pixels is None for pixels in self._pixels)
        if uncached:
            report(f"{uncached} of {len(entries)} pictures do not fit into memory and are decoded as needed")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray | None:
        """Picture `number`, or None if it turns out not to be readable."""
        kept = self._pixels[number]
        return self._decode(self.paths[number]) if kept is None else kept

    def without(self, numbers: Collection[int]) -> Pictures:
        """The same pictures but for those with these numbers."""
        rest = copy.copy(self)
        kept = [number for number in range(len(self)) if number not in numbers]
        rest.paths = [self.paths[number] for number in kept]
        rest.sizes = [self.sizes[number] for number in kept]
        rest.paired = [self.paired[number] for number in kept]
        rest._pixels = [self._pixels[number] for number in kept]
        return rest

    def _each(self, function: Callable, items: Sequence) -> list:
        """`function` of all items in threads: codecs release the interpreter's lock."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(function, items))

    def _size(self, path: Path) -> tuple[int, int] | None:
        try:
            return image_size(path)
        except ImageError as error:
            self._skip(error)
            return None

    def _decode(self, path: Path) -> np.ndarray | None:
        try:
            pixels = _rgb(read_image(path).pixels)
            if path not in self._corrupted:
                return pixels
            return np.concatenate([pixels, _rgb(read_image(self._corrupted[path]).pixels)], axis=-1)
        except ImageError as error:
            self._skip(error)
            return None

    def _skip(self, error: ImageError) -> None:
        with self._lock:
            self._report(f"skipped: {error}")


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """(H,W,1 or 3), any dtype, as uint8 RGB."""
    if pixels.dtype != np.uint8:
        pixels = to_dtype(to_float(pixels), np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def list_pairs(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Of which of the clean `paths` there is a corrupted picture below `folder`: the same stem, the same size.

    Raises UsageError, naming files, where a corrupted picture has no clean one or more than one, and for other sizes;
    ImageError for one that cannot be read.
    """
    clean: dict[str, list[Path]] = {}
    for path in paths:
        clean.setdefault(path.stem, []).append(path)
    pairs: dict[Path, Path] = {}
    for corrupted in list_pictures([folder]):
        found = clean.get(corrupted.stem, [])
        if len(found) != 1 or found[0] in pairs:
            count = "no clean picture" if not found else "more than one picture"
            raise UsageError(f"{corrupted}: {count} called {corrupted.stem} in the folders; pairs go by their names")
        sizes = [image_size(path) for path in (found[0], corrupted)]
        if sizes[0] != sizes[1]:
            (height, width), (h, w) = sizes
            raise UsageError(f"{corrupted}: is {w}x{h}, but its clean picture {found[0]} is {width}x{height}")
        pairs[found[0]] = corrupted
    return pairs
