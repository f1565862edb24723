"""Training data: a folder of pictures, and patches of them, damaged. Sample n is the same for any number of workers."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from restore.corruptions.augment import augment, mirror, symmetries
from restore.devices import free_memory
from restore.errors import ImageError, TrainingError, UsageError
from restore.images import find_images, image_size, read_image
from restore.pixels import to_rgb, to_uint8
from restore.training.objective import Objective
from restore.training.processes import Processes

SHRINK = 4.0  # pictures are shrunk by up to this factor: shrunk photographs are clean and sharp
KEEP_SIDE = 480  # but not below this short side: small pictures have been shrunk already
PREFETCH = 4  # batches that each worker makes ahead
CACHED = 0.4  # of the memory that is free: for decoded pictures, unless told otherwise
Report = Callable[[str], None]


def list_pictures(folders: Sequence[Path]) -> list[Path]:
    """All pictures below `folders` (or the files named), sorted, each once.

    Raises:
        UsageError: A folder is missing or holds no picture.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if folder.is_file():
            paths = [folder]
        elif folder.is_dir():
            paths = find_images(folder)
        else:
            raise UsageError(f"{folder}: no such file or folder; check the path")
        if not paths:
            raise UsageError(f"{folder}: no pictures in this folder")
        found.update(dict.fromkeys(paths))
    return sorted(found)


def fingerprint(paths: Sequence[Path]) -> str:
    """Tells one list of pictures from another by their names and their sizes in bytes, wherever they lie."""
    names = "\n".join(f"{path.name} {path.stat().st_size if path.exists() else 0}" for path in paths)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Pictures:
    """Clean pictures as uint8 RGB (H,W,3) by number; alpha is dropped, deeper pictures are rounded to 8 bits.

    A picture that cannot be read is left out and reported, also when that shows only later. Processes on one machine
    decode a part each, into memory that they share.

    Args:
        paths: The files.
        budget: Bytes of pictures to decode once, here; the others are decoded each time they are asked for.
            None: `CACHED` of the memory that is free.
        report: Takes lines for people.
        corrupted: Of some paths the picture that a camera or a scanner made of the same scene, aligned. Such a pair is
            one array (H,W,6), the clean picture first.
        processes: Those that train on these pictures together; None: this one alone.

    Raises:
        TrainingError: None can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        budget: float | None = None,
        report: Report = print,
        corrupted: Mapping[Path, Path] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._report, self._corrupted = report, dict(corrupted or {})
        self._lock = threading.Lock()
        self._here, self._index = (processes.local_count, processes.local_rank) if processes else (1, 0)
        self._gather: Callable[[Any], list[Any]] = processes.gather_local if processes else lambda value: [value]
        budget = min(self._gather(CACHED * free_memory(torch.device("cpu")) if budget is None else budget))
        readable: list[tuple[Path, tuple[int, int]]] = []
        kept: list[Path] = []
        ends = [0]  # of those in the buffer, in bytes
        for path, size in zip(paths, self._each(image_size, paths), strict=True):
            if size is None:
                continue
            readable.append((path, size))
            need = size[0] * size[1] * (6 if path in self._corrupted else 3)
            if need <= budget:
                budget -= need
                kept.append(path)
                ends.append(ends[-1] + need)
        buffer = processes.shared_buffer(ends[-1]) if processes else np.empty(ends[-1], np.uint8)
        places = [slice(*edges) for edges in pairwise(ends)]

        def fill(number: int) -> tuple[int, ...] | None:
            pixels = self._decode(kept[number])
            if pixels.size != places[number].stop - places[number].start:
                raise ImageError(f"{kept[number]}: is not of the size that its header gives; get a whole copy")
            buffer[places[number]] = pixels.reshape(-1)
            return pixels.shape

        shapes = dict(zip(kept, self._each(fill, range(len(kept))), strict=True))
        cached = {
            path: buffer[place].reshape(shapes[path])
            for path, place in zip(kept, places, strict=True)
            if shapes[path] is not None
        }
        entries = [(path, size) for path, size in readable if path in cached or path not in shapes]
        if not entries:
            raise TrainingError("none of the training pictures can be read")
        self.paths = [path for path, _ in entries]
        self.sizes = [cached[path].shape[:2] if path in cached else size for path, size in entries]
        self.paired = [path in self._corrupted for path in self.paths]
        self._pixels = [cached.get(path) for path in self.paths]
        uncached = len(entries) - len(cached)
        if uncached:
            report(f"{uncached} of {len(entries)} pictures do not fit into memory and are decoded as needed")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray | None:
        """Picture `number`, or None if it turns out not to be readable."""
        kept = self._pixels[number]
        if kept is not None:
            return kept
        try:
            return self._decode(self.paths[number])
        except ImageError as error:
            with self._lock:
                self._report(f"skipped: {error}")
            return None

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
        """`function` of all items, or None where it raises ImageError, which is reported.

        In threads, since codecs release the interpreter's lock, and a part of the items in each process.
        """

        def attempt(item: Any) -> Any:
            try:
                return function(item)
            except ImageError as error:
                return error

        with ThreadPoolExecutor() as pool:
            done = list(pool.map(attempt, items[self._index :: self._here]))
        results: list[Any] = [None] * len(items)
        for index, part in enumerate(self._gather(done)):
            results[index :: self._here] = part
        for result in results:
            if isinstance(result, ImageError):
                self._report(f"skipped: {result}")
        return [None if isinstance(result, ImageError) else result for result in results]

    def _decode(self, path: Path) -> np.ndarray:
        pixels = to_rgb(to_uint8(read_image(path).pixels))
        if path not in self._corrupted:
            return pixels
        return np.concatenate([pixels, to_rgb(to_uint8(read_image(self._corrupted[path]).pixels))], axis=-1)


@dataclass(frozen=True)
class Key:
    """Which sample: its number within the epoch, and the kind of batch that it belongs to."""

    epoch: int
    index: int
    variant: int


def list_pairs(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Of which of the clean `paths` there is a corrupted picture below `folder`: the same stem, the same size.

    Raises:
        UsageError: A corrupted picture has no clean one or more than one, or another size; the text names both.
        ImageError: One cannot be read.
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


class Patches(Dataset[dict[str, torch.Tensor]]):
    """Damaged patches of `pictures`. All chance comes from (seed, epoch, index).

    How often a picture is seen grows with its side, the root of its area: a large one shows more, but of one scene.
    Half of the patches come from a shrunk copy of their picture where it is large enough; all are turned and mirrored.
    Pairs of a clean and a corrupted picture are the share `paired` of all patches, and never shrunk.
    But where patches are to cover most of a scene (`Objective.coverage`), every picture is equally likely, and none
    is turned.
    """

    def __init__(self, pictures: Pictures, objective: Objective, seed: int, paired: float = 0.0) -> None:
        self.pictures, self.objective, self.seed = pictures, objective, seed
        sides = np.sqrt([height * width for height, width in pictures.sizes])
        pairs = np.array(pictures.paired)
        if pairs.any() and not pairs.all():
            for kind, share in ((pairs, paired), (~pairs, 1 - paired)):
                sides[kind] *= share / sides[kind].sum()
        self._cumulative = np.cumsum(sides / sides.sum())
        self._symmetries, self._mirror = symmetries(), mirror()

    def __getitem__(self, key: Key) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        side = self.objective.clean_patch(key.variant)
        coverage = self.objective.coverage(key.variant)
        crop = self._crop(self._picture(coverage is None, rng), side, coverage, rng)
        patch = augment(self._symmetries if coverage is None else self._mirror, crop, rng)
        return self.objective.example(patch, key.variant, rng)

    def _picture(self, by_side: bool, rng: np.random.Generator) -> np.ndarray:
        for _ in range(100):  # only pictures that were not decoded beforehand can fail
            share = rng.random()
            number = np.searchsorted(self._cumulative, share, side="right") if by_side else share * len(self.pictures)
            picture = self.pictures[min(int(number), len(self.pictures) - 1)]
            if picture is not None:
                return picture
        raise RuntimeError("the training pictures cannot be read any more")

    def _crop(
        self, picture: np.ndarray, side: int, coverage: tuple[float, float] | None, rng: np.random.Generator
    ) -> np.ndarray:
        short = min(picture.shape[:2])
        if picture.shape[-1] > 3:  # shrunk, the noise of a pair would be another
            taken = side
        elif coverage is None:
            shrink = max(1.0, min(SHRINK, short / max(side, KEEP_SIDE)))
            taken = round(side * (shrink ** rng.random() if rng.random() < 0.5 else 1.0))
        else:
            taken = max(1, round(short * rng.uniform(*coverage)))
        missing = [(0, max(0, taken - length)) for length in picture.shape[:2]]
        if any(after for _, after in missing):
            picture = np.pad(picture, (*missing, (0, 0)), mode="symmetric")
        top, left = (int(rng.integers(length - taken + 1)) for length in picture.shape[:2])
        crop = picture[top : top + taken, left : left + taken]
        return crop if taken == side else cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)


@dataclass(eq=False)
class Batches(Sampler[list[Key]]):
    """Keys of this process' share of batches `start` to before `stop`, of so many kinds (`variants`).

    Batch b holds samples b * size to (b + 1) * size - 1, in all processes together; an epoch has `count` of them, one a
    picture.
    """

    count: int
    size: int
    variants: int
    seed: int
    start: int
    stop: int
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(self.start, self.stop):
            variant = variant_of(batch, self.variants, self.seed)
            numbers = range(batch * self.size + self.process, (batch + 1) * self.size, self.processes)
            yield [Key(*divmod(number, self.count), variant) for number in numbers]


def variant_of(batch: int, variants: int, seed: int) -> int:
    """The kind of batch number `batch`: in each run of `variants` batches every kind comes once, in random order."""
    turn, place = divmod(batch, variants)
    return int(np.random.default_rng((seed, turn)).permutation(variants)[place])


def can_fork() -> bool:
    """Whether workers can be forked, which is how they share the decoded pictures; elsewhere there are none."""
    return sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()


def loader(patches: Patches, batches: Batches, workers: int, pin: bool) -> DataLoader[dict[str, torch.Tensor]]:
    """Batches of planes (N,C,h,w) in the order of `batches`.

    Args:
        patches, batches: The samples.
        workers: Processes beside this one that make them; 0: this one does. See `can_fork`.
        pin: Whether to put them into memory from which a GPU takes them quicker.
    """
    return DataLoader(
        patches,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=PREFETCH if workers else None,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process: it ends them in order
