"""What restored files are called, and which files are restored already."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from string import Formatter

from restore.images import SUFFIXES
from restore.tasks.spec import TASKS

# Names that are not written: what is written instead. An MPO file is a JPEG with further pictures.
_READ_ONLY = {".heic": ".jpg", ".heif": ".jpg", ".mpo": ".jpg"}


@dataclass(frozen=True)
class Naming:
    """How outputs are called: `photo.<suffix>.png` beside an input; `extension` (`.png`) instead of the input's."""

    suffix: str
    extension: str | None = None

    def name(self, path: Path, *, beside: bool, number: int = 0) -> str:
        """The file name for the restored `path`; `beside` the input it needs the suffix to differ.

        number: 0 gives the plain name `a.png`; 1 keeps the whole name of the input, `a.jpg.png`, so that
        `a.jpg` and `a.webp` differ; from 2 on it is counted, `a.jpg~2.png`.
        """
        extension = self.extension or _READ_ONLY.get(path.suffix.lower(), path.suffix)
        stem = path.name if number else path.stem
        return f"{stem}{f'.{self.suffix}' if beside else ''}{f'~{number}' if number > 1 else ''}{extension}"


def key(path: Path) -> str:
    """A path as a file system sees it that ignores case and how accents are composed (macOS, Windows)."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def distinct(wanted: Sequence[tuple[Path, Path, bool]], naming: Naming) -> list[Path]:
    """A different file for every input.

    wanted: (input, folder of the output, whether that is beside the input). Where two would land on
    one name (`a.jpg` and `a.webp` as PNG) both keep their whole name, `a.jpg.png`; what still clashes is
    counted. Depends on the inputs and their order alone, not on what has been written: stable with -k.
    """
    plain = [folder / naming.name(path, beside=beside) for path, folder, beside in wanted]
    keys = [key(path) for path in plain]
    folders = {key(above) for folder in {folder for _, folder, _ in wanted} for above in (folder, *folder.parents)}
    counts = Counter(keys)
    counts.update(folders)  # `a.heic` beside a folder that somebody called `a.jpg`
    taken = folders | {name for name, count in counts.items() if count == 1}
    for index, (path, folder, beside) in enumerate(wanted):
        number = 0
        while counts[keys[index]] > 1 and (not number or key(plain[index]) in taken):
            number += 1
            plain[index] = folder / naming.name(path, beside=beside, number=number)
        taken.add(key(plain[index]))
    return plain


def clashing_instead(outputs: Iterable[Path], others: Sequence[str] = (".png", ".tif")) -> set[Path]:
    """Those of `outputs` that must not simply change their suffix where their format cannot hold the picture.

    `a.jpg` that turns out to have transparency becomes `a.png`, but not where `a.png` is another's.
    """
    outputs = list(outputs)
    claims = Counter(key(path) for path in outputs)
    for path in outputs:
        claims.update({key(path.with_suffix(other)) for other in others} - {key(path)})
    return {path for path in outputs if any(claims[key(path.with_suffix(other))] > 1 for other in others)}


def known_suffixes() -> frozenset[str]:
    """What all tasks put into names: denoised, x2, x3, ..., and `corrupted`."""
    known = {"corrupted"}
    for spec in TASKS.values():
        names = [name for _, name, _, _ in Formatter().parse(spec.suffix) if name]
        choices = {option.name: option.metadata.get("choices", (option.default,)) for option in fields(spec.options)}
        for values in product(*(choices[name] for name in names)):
            known.add(spec.suffix.format(**dict(zip(names, values, strict=True))))
    return frozenset(known)


def originals(files: Sequence[Path], top: Path, suffixes: Collection[str]) -> list[Path]:
    """`files` without what this program made of others: `photo.denoised.png` beside `photo.*`, and all that
    lies in `album.denoised/` beside `album/`, below `top`.

    Only where that other is there: a file that is merely called so is an original.
    """
    of_output = re.compile(rf"(.+)\.(?:{'|'.join(map(re.escape, suffixes))})(?:~\d+)?")
    pictures: dict[Path, set[str]] = {}
    for path in files:
        pictures.setdefault(path.parent, set()).update((path.name, path.stem))

    def is_made_folder(folder: Path) -> bool:
        if folder == top or top not in folder.parents:
            return False
        made = of_output.fullmatch(folder.name)
        return bool(made and os.path.isdir(folder.with_name(made[1]))) or is_made_folder(folder.parent)

    def is_made_file(path: Path) -> bool:
        made = of_output.fullmatch(path.stem)
        return bool(made and made[1] in pictures[path.parent])

    in_made = {folder for folder in pictures if is_made_folder(folder)}
    return [path for path in files if path.parent not in in_made and not is_made_file(path)]


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in SUFFIXES
