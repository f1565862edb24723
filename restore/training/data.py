"""Training samples: a patch of a picture, turned, damaged. Sample n is the same however many workers there are."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from restore.corruptions.augment import augment, mirror, symmetries
from restore.training.objective import Objective
from restore.training.pictures import Pictures

SHRINK = 4.0  # pictures are shrunk by up to this factor: shrunk photographs are clean and sharp
KEEP_SIDE = 480  # but not below this short side: small pictures have been shrunk already
FIT = 0.9  # share of the pictures that a patch has to fit into


@dataclass(frozen=True)
class Key:
    """Which sample: its number within the epoch, and the kind of batch that it belongs to."""

    epoch: int
    index: int
    variant: int


def fitting_patch(pictures: Pictures, wanted: int) -> int:
    """`wanted`, or the largest side that nine in ten of the pictures can give."""
    sides = sorted(min(size) for size in pictures.sizes)
    return min(wanted, sides[int((1 - FIT) * len(sides))])


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
        picture = _at_least(picture, taken)
        top, left = (int(rng.integers(length - taken + 1)) for length in picture.shape[:2])
        crop = picture[top : top + taken, left : left + taken]
        return crop if taken == side else cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)


class Batches(Sampler[list[Key]]):
    """Keys of this process' share of each batch, from batch `start` to batch `stop`.

    Batch b holds samples b * size to (b + 1) * size - 1; an epoch has as many as there are pictures.
    """

    def __init__(
        self,
        count: int,
        size: int,
        variants: int,
        seed: int,
        start: int,
        stop: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.count, self.size, self.variants, self.seed = count, size, variants, seed
        self.start, self.stop, self.process, self.processes = start, stop, process, processes

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


def loader(patches: Patches, batches: Batches, workers: int, pin: bool) -> DataLoader[dict[str, torch.Tensor]]:
    """Batches of planes (N,C,h,w), made by `workers` processes beside the training (0: within it).

    Workers share the decoded pictures with this process by forking; where there is no fork, there are none.
    """
    fork = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    workers = workers if fork else 0
    return DataLoader(
        patches,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process: it ends them in order


def _at_least(picture: np.ndarray, side: int) -> np.ndarray:
    """`picture` (H,W,C), extended by mirroring where it is smaller than `side`."""
    down, right = (max(0, side - length) for length in picture.shape[:2])
    return np.pad(picture, ((0, down), (0, right), (0, 0)), mode="symmetric") if down or right else picture
