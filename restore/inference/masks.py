"""Masks as files: which belongs to which picture, and where the ones that were found go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.errors import UsageError
from restore.images import Image, encode_image, find_images, read_image
from restore.images.failures import printable
from restore.inference.naming import Naming, distinct, key
from restore.pixels import white

PAPER = 0.97  # share of white from which on all channels of hints without alpha say nothing


@dataclass(frozen=True)
class MaskPlaces:
    """given: a mask, or a folder of masks. saved: the folder where found ones go.

    hints: they are pictures of colours that a person gives, not masks.
    """

    given: Path | None = None
    saved: Path | None = None
    hints: bool = False

    @property
    def folders(self) -> list[Path]:
        """Those that hold masks, not pictures to restore."""
        return [path for path in (self.given, self.saved) if path is not None and os.path.isdir(path)]


def read_mask(path: Path) -> np.ndarray:
    """(H,W) bool, upright: True where any channel is over 127 of 255, in any depth; alpha does not count.

    Raises ImageError, its text one line with the name.
    """
    pixels = read_image(path).pixels
    mask: np.ndarray = pixels.max(axis=-1) > white(pixels.dtype) / 2
    return mask


def read_hints(path: Path) -> np.ndarray:
    """(H,W,4) RGB and alpha: colours that a person gives, upright. Where a picture has no alpha, white gives none.

    Raises ImageError, its text one line with the name.
    """
    image = read_image(path)
    colours = np.broadcast_to(image.pixels, (*image.pixels.shape[:2], 3))
    if image.alpha is not None:
        return np.concatenate([colours, image.alpha[..., None]], axis=-1)
    full = white(colours.dtype)
    told = colours.min(axis=-1) < PAPER * full
    return np.concatenate([colours, told[..., None] * np.asarray(full, colours.dtype)], axis=-1)


def encode_hints(hints: np.ndarray | None, size: tuple[int, int]) -> bytes:
    """(H,W,4) RGB and alpha as a PNG. size: (width, height), of a picture without any hints."""
    if hints is None:
        hints = np.zeros((size[1], size[0], 4), np.uint8)
    return encode_image(Image(hints[..., :3], alpha=hints[..., 3]), "png")


def encode_mask(mask: np.ndarray | None, size: tuple[int, int]) -> bytes:
    """(H,W) bool as a PNG of 0 and 255. size: (width, height), of a picture without a mask: all may change there."""
    if mask is None:
        mask = np.ones(size[::-1], bool)
    return encode_image(Image(mask[..., None].astype(np.uint8) * np.uint8(255)), "png")


def given_masks(
    names: Sequence[Path | None], given: Path, *, empty: bool = False, flag: str = "--mask"
) -> list[tuple[Path | None, str]]:
    """The mask for each picture, or why it has none.

    names: of the pictures, relative to what was named as input; None is stdin. given: one mask, for one picture, or
    a folder of masks by the same relative path and stem; the order of files never matters. empty: more pictures and
    masks may come. flag: what they were given by.
    Raises UsageError for what is not there, holds no picture, or is one for several.
    """
    one, many = ("mask", "masks") if flag == "--mask" else ("picture of hints", "hints")
    if not os.path.lexists(given):
        raise UsageError(f"{flag} {printable(given)}: no such file or folder; name a {one}, or a folder of {many}")
    if not os.path.isdir(given):
        if empty or len(names) > 1:
            raise UsageError(
                f"{flag} {printable(given)}: is one {one}, and there are several pictures;"
                f" give a folder of {many} with the names of the pictures"
            )
        return [(given, "")] * len(names)
    if None in names:
        raise UsageError(f"{flag} {printable(given)}: is a folder, and a picture from stdin has no name; give a file")
    found = find_images(given)
    if not found and not empty:
        raise UsageError(f"{flag} {printable(given)}: no pictures here; put {many} there, named as the pictures are")
    pictures = [name for name in names if name is not None]
    folder = _MaskFolder(given, found, pictures)
    return [folder.mask_of(name) for name in pictures]


def saved_masks(names: Sequence[Path | None], folder: Path) -> list[Path]:
    """Where the mask of each picture goes: its relative path and stem below `folder`, no two to one file."""
    known = [Path("stdin") if name is None else name for name in names]
    return distinct([(name, folder / name.parent, False) for name in known], Naming("", ".png"))


class _MaskFolder:
    """Masks by relative path and stem; where none fits exactly, as a file system that ignores case finds them.

    pictures: all that masks are asked for, relative to the inputs.
    """

    def __init__(self, folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> None:
        self._folder = folder
        stems = [picture.with_suffix("") for picture in pictures]
        self._pictures, self._pictures_alike = Counter(map(str, stems)), Counter(map(key, stems))
        self._exact: dict[str, list[Path]] = {}
        self._alike: dict[str, list[Path]] = {}
        for path in files:
            stem = path.relative_to(folder).with_suffix("")
            self._exact.setdefault(str(stem), []).append(path)
            self._alike.setdefault(key(stem), []).append(path)

    def mask_of(self, name: Path) -> tuple[Path | None, str]:
        """The mask of the picture `name`, or why there is none."""
        found = self._by(name.with_suffix(""))
        if self._pictures[str(name.with_suffix(""))] > 1:  # then masks are saved under the whole name, `a.jpg.png`
            whole = self._by(name)
            found = whole or [path for path in found if path.name == name.name] or found
            if len(found) == 1 and not whole and found[0].name != name.name:
                others = f"other pictures are called '{printable(name.stem)}' too"
                return None, f"{others}; call its mask '{printable(name.name)}.png'"
        if len(found) == 1:
            return found[0], ""
        if found:
            which = " and ".join(printable(path.name) for path in found)
            return None, f"{which} in {printable(found[0].parent)} may both be its mask; leave one of them there"
        place = self._folder / name.parent
        return None, f"has no mask: none is called '{printable(name.stem)}' in {printable(place)}; put it there"

    def _by(self, stem: Path) -> list[Path]:
        exact = self._exact.get(str(stem), [])
        return self._alike.get(key(stem), []) if not exact and self._pictures_alike[key(stem)] < 2 else exact
