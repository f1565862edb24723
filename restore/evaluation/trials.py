"""The damaged pictures of an evaluation: clean pictures damaged here, or pairs of files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from restore.corruptions.base import Corrupted
from restore.errors import ImageError, UsageError
from restore.folders.masks import FilesByStem, read_mask
from restore.images import find_images, read_image
from restore.images.failures import printable
from restore.pixels import to_rgb
from restore.tasks.base import Case, Head, Task, identity
from restore.tasks.spec import Options

MIN_OPACITY = 0.02  # above which a pixel counts as covered by a mark


@dataclass(frozen=True)
class Entry:
    """A picture to be scored."""

    name: str  # its path below the folder, with forward slashes
    clean: Path  # file of the clean picture
    corrupted: Path | None = None  # corrupted and mask: the matching files, if given
    mask: Path | None = None
    problem: str | None = None  # why it cannot be scored; None if it can


@dataclass(frozen=True)
class Trial:
    """One damaged picture and its ground truth."""

    case: Case
    clean: np.ndarray  # the target, (H,W,1 or 3)
    damage: Corrupted  # the corrupted picture, and what is known of its damage
    params: Any  # of the corruption; None if the corrupted picture is a file

    @property
    def head(self) -> Head:
        """The head that restores from this damage."""
        return self.case.pair.head

    @property
    def identity(self) -> np.ndarray:
        """The corrupted picture at the size of the clean one, (H,W,C), see `Head.identity`."""
        return identity(self.head, self.damage.image)

    @property
    def visible_damage(self) -> np.ndarray | None:
        """(H,W) bool, the damaged pixels, of marks those with an opacity over `MIN_OPACITY`; None if unknown."""
        return self.damage.mask if self.damage.opacity is None else self.damage.opacity > MIN_OPACITY

    @property
    def given_mask(self) -> np.ndarray | None:
        """The mask (H,W), or the hints (H,W,4), that the head gets; None if it has to detect the damage."""
        given = self.damage.mask if self.damage.hints is None else self.damage.hints
        return given if self.case.given else None


@dataclass(frozen=True)
class Prediction:
    """The result of a method: pixels (H,W,C), any dtype, and the mask (H,W) that it detected, if it does."""

    pixels: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Method:
    """A method that is evaluated."""

    name: str  # in tables
    kind: str  # `input` (no restoration), `baseline` or `model`
    about: str  # its settings, for the notes below a table
    restore: Callable[[Trial], Prediction]


def find_entries(
    folder: Path, corrupted: Path | None = None, masks: Path | None = None, limit: int | None = None
) -> list[Entry]:
    """Lists clean pictures with their corrupted versions and masks.

    Files match by relative path and stem. A picture without a match, or with several, becomes an entry with a
    `problem`.

    Args:
        folder: of clean pictures, searched recursively, or a single picture.
        corrupted: folder of corrupted pictures; None: they are made from the clean ones.
        masks: folder of masks of the corrupted pictures.
        limit: number of pictures, the first by path; None: all.

    Raises:
        UsageError: a folder is missing or empty, or there are masks without corrupted pictures.
    """
    if masks and not corrupted:
        raise UsageError("--masks needs --corrupted, the pictures that the masks belong to")
    if not folder.exists():
        raise UsageError(f"{folder}: no such file or folder; check the path")
    root, paths = (folder, find_images(folder)) if folder.is_dir() else (folder.parent, [folder])
    for other in (corrupted, masks):
        if other and not other.is_dir():
            raise UsageError(f"{other}: no such folder; check the path")
        if other and root.resolve() in other.resolve().parents:  # else the clean pictures would be their own partners
            paths = [path for path in paths if not _inside(path, other)]
    if not paths:
        raise UsageError(f"{folder}: no pictures in this folder")
    names = [path.relative_to(root) for path in paths]
    given = [
        FilesByStem(place, find_images(place), names, what) if place else None
        for place, what in ((corrupted, "corrupted picture"), (masks, "mask"))
    ]
    entries = []
    for path, name in list(zip(paths, names, strict=True))[:limit]:
        (damaged, problem), (mask, unclear) = (files.file_of(name) if files else (None, "") for files in given)
        reason = problem or unclear or None
        for place in (corrupted, masks):
            if reason and place:  # without folders of this machine, as reports are shared
                reason = reason.replace(printable(place), place.name)
        entries.append(Entry(name.as_posix(), path, damaged, mask, reason))
    return entries


def trials(entry: Entry, task: Task, damage: Options, seed: int) -> Iterator[Trial]:
    """Makes the trials of a picture: one for each case of the task, or those of its files.

    The damage depends on `seed` and the pixels alone, not on names or the order of files; the noise of different cases
    is the same except for its scale. `damage` is an instance of the task's `trial_options`.

    Raises:
        ImageError: files cannot be read or do not match.
    """
    if entry.problem:
        raise ImageError(entry.problem)
    clean = read_image(entry.clean).pixels
    if entry.corrupted is not None:
        yield from _pairs(entry, clean, task, damage)
        return
    for case in task.cases(damage):
        corruption = case.pair.corruption
        rng = np.random.default_rng((seed, zlib.crc32(np.ascontiguousarray(clean))))
        params = corruption.sample(clean.shape, rng)
        damaged = corruption.apply(clean, params)
        yield Trial(case, corruption.target(clean, params), damaged, params)


def _pairs(entry: Entry, clean: np.ndarray, task: Task, damage: Options) -> Iterator[Trial]:
    """Trials of a pair of files, as in the cases of the task: with a detected mask and, if there is one, with the mask.

    Raises ImageError for sizes that do not match.
    """
    assert entry.corrupted is not None
    corrupted = read_image(entry.corrupted).pixels
    (height, width), (h, w) = clean.shape[:2], corrupted.shape[:2]
    cases: dict[tuple[int, bool], Case] = {}
    for case in task.cases(damage):
        cases.setdefault((case.pair.head.scale, case.given), case)
    scales = list(dict.fromkeys(scale for scale, _ in cases))
    scale = next((scale for scale in scales if (height // scale, width // scale) == (h, w)), None)
    if scale is None:
        raise ImageError(
            f"{entry.corrupted.name}: {w}x{h} does not match the clean picture of {width}x{height}"
            f" (enlarged by {', '.join(map(str, scales))})"
        )
    clean = clean[: h * scale, : w * scale]
    if any(case.pair.head.colours for case in cases.values()):
        clean = to_rgb(clean)
    elif clean.shape[-1] != corrupted.shape[-1]:
        clean, corrupted = to_rgb(clean), to_rgb(corrupted)
    mask = None if entry.mask is None else read_mask(entry.mask)
    if entry.mask is not None and mask is not None and mask.shape != (h, w):
        raise ImageError(
            f"{entry.mask.name}: a mask of {mask.shape[1]}x{mask.shape[0]} does not fit a picture of {w}x{h}"
        )
    label = f"pairs x{scale}" if len(scales) > 1 else "pairs"
    for (enlarged, given), case in cases.items():
        told = mask is not None and not case.pair.head.hinted  # files of hints are not paired
        if enlarged == scale and (told or not given):
            named = replace(case, label=f"{label}, mask given" if given else label)
            yield Trial(named, clean, Corrupted(corrupted, mask=mask), None)


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents
