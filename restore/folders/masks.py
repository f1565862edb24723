"""Mask files: reading and encoding them, and matching a folder of masks to pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.errors import UsageError
from restore.folders.names import Naming, name_key, unique_outputs
from restore.images import Image, encode_image, find_images, read_image
from restore.images.failures import printable
from restore.images.masks import as_mask, hints_from


@dataclass(frozen=True)
class MaskPaths:
    """Where masks are read and written."""

    given: Path | None = None  # a mask file or a folder of masks; None: the damage is looked for
    saved: Path | None = None  # the folder to which masks are written; None: they are not
    hints: bool = False  # they are pictures of colours that a person gives, not masks

    @property
    def flag(self) -> str:
        """The flag that `given` comes from; that of `saved` is `--save-` and the same."""
        return "--hints" if self.hints else "--mask"

    @property
    def folders(self) -> list[Path]:
        """The existing folders of masks, which hold no pictures to restore."""
        return [path for path in (self.given, self.saved) if path is not None and os.path.isdir(path)]


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask, as `as_mask` does: (H,W) bool, upright. Raises ImageError where the file cannot be read."""
    image = read_image(path)
    return as_mask(image.pixels, image.alpha)


def encode_mask(mask: np.ndarray | None, size: tuple[int, int]) -> bytes:
    """Encodes a mask (H,W) bool of a picture of `size` (width, height) as PNG, 0 and 255; None: all of it is masked."""
    if mask is None:
        mask = np.ones(size[::-1], bool)
    return encode_image(Image(mask[..., None].astype(np.uint8) * np.uint8(255)), "png")


def read_hints(path: Path) -> np.ndarray:
    """Reads hints of colours, as `hints_from` does: (H,W,4). Raises ImageError where the file cannot be read."""
    return hints_from(read_image(path))


def encode_hints(hints: np.ndarray | None, size: tuple[int, int]) -> bytes:
    """Encodes hints (H,W,4) of a picture of `size` (width, height) as PNG with transparency; None: there are none."""
    if hints is None:
        hints = np.zeros((*size[::-1], 4), np.uint8)
    return encode_image(Image(hints[..., :3], alpha=hints[..., 3]), "png")


def match_masks(
    names: Sequence[Path | None], given: Path, *, more_expected: bool = False, flag: str = "--mask"
) -> list[tuple[Path | None, str]]:
    """Finds the mask of each picture by relative path and stem; the order of files never matters.

    Args:
        names: the pictures' paths relative to the input that was named; None is stdin.
        given: one mask for one picture, or a folder of masks.
        more_expected: pictures and masks may still arrive, so an empty folder is no error.
        flag: what `given` was given by: --mask or --hints.

    Returns:
        For each picture its mask, or None and the reason why it has none.

    Raises:
        UsageError: `given` does not exist, holds no picture, or is one mask for several pictures.
    """
    one, many = ("mask", "masks") if flag == "--mask" else ("picture of hints", "hints")
    if not os.path.lexists(given):
        raise UsageError(f"{flag} {printable(given)}: no such file or folder; name a {one}, or a folder of {many}")
    if not os.path.isdir(given):
        if more_expected or len(names) > 1:
            raise UsageError(
                f"{flag} {printable(given)}: is one {one}, and there are several pictures;"
                f" give a folder of {many} with the names of the pictures"
            )
        return [(given, "")] * len(names)
    if None in names:
        raise UsageError(f"{flag} {printable(given)}: is a folder, and a picture from stdin has no name; give a file")
    files = find_images(given)
    if not files and not more_expected:
        raise UsageError(f"{flag} {printable(given)}: no pictures here; put {many} there, named as the pictures are")
    pictures = [name for name in names if name is not None]
    folder = FilesByStem(given, files, pictures, one)
    return [folder.file_of(name) for name in pictures]


def mask_outputs(names: Sequence[Path | None], folder: Path) -> list[Path]:
    """Where each picture's mask is saved: below `folder` by the relative path and stem, no two in one file."""
    known = [Path("stdin") if name is None else name for name in names]
    return unique_outputs([(name, folder / name.parent, False) for name in known], Naming("", ".png"))


class FilesByStem:
    """The `files` in a folder that belong to `pictures`, relative to theirs, by relative path and stem.

    Without an exact match case is ignored. what: they are, for messages.
    """

    def __init__(self, folder: Path, files: Sequence[Path], pictures: Sequence[Path], what: str) -> None:
        self._folder, self._what = folder, what
        stems = [picture.with_suffix("") for picture in pictures]
        self._pictures, self._pictures_by_key = Counter(map(str, stems)), Counter(map(name_key, stems))
        self._files: dict[str, list[Path]] = {}
        self._files_by_key: dict[str, list[Path]] = {}
        for path in files:
            stem = path.relative_to(folder).with_suffix("")
            self._files.setdefault(str(stem), []).append(path)
            self._files_by_key.setdefault(name_key(stem), []).append(path)

    def file_of(self, name: Path) -> tuple[Path | None, str]:
        """The file of the picture `name`, or None and the reason."""
        found = self._find(name.with_suffix(""))
        if self._pictures[str(name.with_suffix(""))] > 1:  # their files are saved under the whole name, `a.jpg.png`
            whole = self._find(name)
            found = whole or [path for path in found if path.name == name.name] or found
            if len(found) == 1 and not whole and found[0].name != name.name:
                others = f"other pictures are called '{printable(name.stem)}' too"
                return None, f"{others}; call its {self._what} '{printable(name.name)}.png'"
        if len(found) == 1:
            return found[0], ""
        if found:
            which = " and ".join(printable(path.name) for path in found)
            return (
                None,
                f"{which} in {printable(found[0].parent)} may both be its {self._what}; leave one of them there",
            )
        place = self._folder / name.parent
        missing = f"none is called '{printable(name.stem)}' in {printable(place)}"
        return None, f"has no {self._what}: {missing}; put it there"

    def _find(self, stem: Path) -> list[Path]:
        exact = self._files.get(str(stem), [])
        if exact or self._pictures_by_key[name_key(stem)] > 1:
            return exact
        return self._files_by_key.get(name_key(stem), [])
