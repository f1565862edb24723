"""File names of outputs, and which existing files are outputs of an earlier run."""

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

from restore.images import FORMATS, SUFFIXES
from restore.tasks.spec import TASKS
from restore.tasks.steps import SUFFIX

# Suffixes that are read but not written -> what is written instead. An MPO file is a JPEG with further pictures.
_READ_ONLY = {suffix: FORMATS[kind].instead for suffix, kind in SUFFIXES.items() if not FORMATS[kind].dtypes}
_READ_ONLY[".mpo"] = ".jpg"


@dataclass(frozen=True)
class Naming:
    """How outputs are named: `photo.<suffix>.png` beside an input; `extension` (`.png`) replaces the input's."""

    suffix: str
    extension: str | None = None

    def file_name(self, path: Path, *, beside: bool, number: int = 0) -> str:
        """The file name of the output for the input `path`.

        Args:
            path: the input.
            beside: whether the output lies beside the input, and needs the suffix to differ from it.
            number: 0 gives the plain name `a.png`; 1 keeps the whole name of the input, `a.jpg.png`, so that
                `a.jpg` and `a.webp` differ; from 2 on a number is added, `a.jpg~2.png`.
        """
        extension = self.extension or _READ_ONLY.get(path.suffix.lower(), path.suffix)
        stem = path.name if number else path.stem
        return f"{stem}{f'.{self.suffix}' if beside else ''}{f'~{number}' if number > 1 else ''}{extension}"


def name_key(path: Path) -> str:
    """Equal for paths that are one file where case and the composition of accents are ignored (macOS, Windows)."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def unique_outputs(wanted: Sequence[tuple[Path, Path, bool]], naming: Naming) -> list[Path]:
    """An output path of its own for each (input, folder of its output, whether that is beside the input).

    Where two inputs would share a name (`a.jpg` and `a.webp` as PNG) both keep their whole name, `a.jpg.png`;
    what still collides is numbered. The result depends on the inputs and their order alone, not on the files
    that exist already, so that `--skip-existing` finds them again.
    """
    outputs = [folder / naming.file_name(path, beside=beside) for path, folder, beside in wanted]
    keys = [name_key(path) for path in outputs]
    targets = {folder for _, folder, _ in wanted}
    folders = {name_key(above) for folder in targets for above in (folder, *folder.parents)}
    counts = Counter(keys)
    counts.update(folders)  # `a.heic` beside a folder named `a.jpg`
    taken = folders | {name for name, count in counts.items() if count == 1}
    for index, (path, folder, beside) in enumerate(wanted):
        number = 0
        while counts[keys[index]] > 1 and (not number or name_key(outputs[index]) in taken):
            number += 1
            outputs[index] = folder / naming.file_name(path, beside=beside, number=number)
        taken.add(name_key(outputs[index]))
    return outputs


def colliding_fallbacks(outputs: Iterable[Path], fallbacks: Sequence[str] = (".png", ".tif")) -> set[Path]:
    """The `outputs` for which another suffix would be the name of another output.

    `a.jpg` that turns out to have transparency is written as `a.png`, but not where another output is `a.png`.
    """
    outputs = list(outputs)
    claims = Counter(name_key(path) for path in outputs)
    for path in outputs:
        claims.update({name_key(path.with_suffix(suffix)) for suffix in fallbacks} - {name_key(path)})
    return {path for path in outputs if any(claims[name_key(path.with_suffix(suffix))] > 1 for suffix in fallbacks)}


def known_suffixes() -> frozenset[str]:
    """The suffixes of all tasks: denoised, x2, x3, ..., and of several, and `corrupted`."""
    known = {"corrupted", SUFFIX}
    for spec in TASKS.values():
        names = [name for _, name, _, _ in Formatter().parse(spec.suffix) if name]
        choices = {option.name: option.metadata.get("choices", (option.default,)) for option in fields(spec.options)}
        for values in product(*(choices[name] for name in names)):
            known.add(spec.suffix.format(**dict(zip(names, values, strict=True))))
    return frozenset(known)


def without_earlier_outputs(files: Sequence[Path], top: Path, suffixes: Collection[str]) -> list[Path]:
    """`files` below `top` without those that an earlier run made from other files.

    Those are `photo.denoised.png` beside `photo.*`, and everything in `album.denoised/` beside `album/`. A file
    with such a name but without its original is kept.
    """
    of_output = re.compile(rf"(.+)\.(?:{'|'.join(map(re.escape, suffixes))})(?:~\d+)?")
    names: dict[Path, set[str]] = {}
    for path in files:
        names.setdefault(path.parent, set()).update((path.name, path.stem))

    def is_output_folder(folder: Path) -> bool:
        if folder == top or top not in folder.parents:
            return False
        match = of_output.fullmatch(folder.name)
        return bool(match and os.path.isdir(folder.with_name(match[1]))) or is_output_folder(folder.parent)

    def is_output_file(path: Path) -> bool:
        match = of_output.fullmatch(path.stem)
        return bool(match and match[1] in names[path.parent])

    output_folders = {folder for folder in names if is_output_folder(folder)}
    return [path for path in files if path.parent not in output_folders and not is_output_file(path)]


def has_image_suffix(path: Path) -> bool:
    """Whether the file name ends in a known image suffix."""
    return path.suffix.lower() in SUFFIXES
