"""Which files are restored to where: decided, and refused if need be, before anything is written."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from restore.errors import UsageError
from restore.images import SUFFIXES, find_images
from restore.images.failures import printable
from restore.inference.collisions import refuse_inputs_as_outputs, refuse_masks_as_pictures, same
from restore.inference.job import Job
from restore.inference.masks import MaskPlaces, given_masks, saved_masks
from restore.inference.naming import (
    Naming,
    clashing_instead,
    distinct,
    is_picture,
    known_suffixes,
    originals,
)

STREAM = "-"  # stdin as an input, stdout as an output
NO_MASKS = MaskPlaces()


@dataclass(frozen=True)
class Plan:
    """The jobs in a fixed order; how many earlier outputs were not taken for inputs; which folders below the
    inputs could not be looked into, with the reason."""

    jobs: list[Job] = field(default_factory=list)
    left_out: int = 0
    unlisted: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Wanted:
    """A picture to restore: the folder of its output, whether that is beside it, and its place among the inputs."""

    path: Path
    folder: Path
    beside: bool
    name: Path


def plan(
    inputs: Sequence[str],
    output: str | None,
    naming: Naming,
    *,
    recursive: bool = False,
    empty: bool = False,
    masks: MaskPlaces = NO_MASKS,
) -> Plan:
    """The jobs for what a person typed; nothing is written.

    inputs: files, folders (with `recursive` all below them), globs, or `-`. output: a file, a folder
    or `-`; None puts files beside their input and folders into `<folder>.<suffix>`. Folders are mirrored,
    and globs from where they begin to vary. masks: where those of the pictures are, and go to, mirrored as well.
    No two jobs have one output, and no output is an input.
    Raises UsageError for inputs that are missing or hold no picture (`empty` allows folders without), for
    an output that would be an input, or cannot hold them all, and for masks that are not there.
    """
    if STREAM in inputs or output == STREAM:
        job = _stream_job(inputs, output)
        return Plan(_masked([job], [None if job.input is None else Path(job.input.name)], masks))
    if len(inputs) == 1 and os.path.lexists(inputs[0]) and not os.path.isdir(inputs[0]):
        job = _file_job(Path(inputs[0]), output, naming)
        return Plan(_masked([job], [Path(os.path.basename(inputs[0]))], masks))
    with warnings.catch_warnings(record=True) as caught:  # a subfolder that cannot be listed
        warnings.simplefilter("always")
        wanted, left_out = _wanted(inputs, output, naming, recursive, masks)
        if not wanted and not empty:
            hint = "" if recursive else "; -r looks into its subfolders too"
            only = ", but earlier outputs" if left_out else ""
            raise UsageError(f"{printable(inputs[0])}: no pictures here{only}{hint}")
        outputs = distinct([(one.path, one.folder, one.beside) for one in wanted], naming)
        clashing = clashing_instead(outputs)
        jobs = [Job(one.path, to, to in clashing) for one, to in zip(wanted, outputs, strict=True)]
        jobs = _masked(jobs, [one.name for one in wanted], masks, empty=empty)
    return Plan(jobs, left_out, [str(warning.message) for warning in caught])


def existing(jobs: Iterable[Job], *, dry_run: bool = False) -> list[Path]:
    """What is to be written, but is already there; in a dry run only masks are written."""
    paths = [path for job in jobs for path in ([job.save_mask] if dry_run else job.written)]
    return [path for path in paths if path is not None and os.path.lexists(path)]


def _masked(jobs: Sequence[Job], names: Sequence[Path | None], masks: MaskPlaces, *, empty: bool = False) -> list[Job]:
    """`jobs` with their masks. names: of the inputs, relative to what was named as input; None is stdin."""
    done = list(jobs)
    if masks.given is not None and masks.saved is not None and same(masks.given, masks.saved):
        raise UsageError(f"--mask and --save-mask are both {printable(masks.given)}; give one of them another folder")
    if masks.hints:
        done = [replace(job, hints=True) for job in done]
    if masks.given is not None:
        given = given_masks(names, masks.given, empty=empty, flag="--hints" if masks.hints else "--mask")
        done = [replace(job, mask=mask, trouble=why) for job, (mask, why) in zip(done, given, strict=True)]
    if masks.saved is not None:
        _refuse_file_as_folder(masks.saved)
        saved = saved_masks(names, masks.saved)
        done = [replace(job, save_mask=path) for job, path in zip(done, saved, strict=True)]
    refuse_inputs_as_outputs(done)
    refuse_masks_as_pictures(done)
    return done


def _stream_job(inputs: Sequence[str], output: str | None) -> Job:
    names = [name for text in inputs for name in ([STREAM] if text == STREAM else _expand(text))]
    if len(names) != 1 or os.path.isdir(names[0]):
        raise UsageError("'-' stands for one picture; give one file, or - for both")
    source = None if names[0] == STREAM else Path(names[0])
    if output in (None, STREAM):
        return Job(source, None)
    if os.path.isdir(str(output)) or str(output).endswith(("/", os.sep)):
        raise UsageError(f"{output}: is a folder, and a picture from stdin has no name; give a file")
    return Job(source, _picture_path(str(output)))


def _file_job(path: Path, output: str | None, naming: Naming) -> Job:
    if output is None:
        return Job(path, path.with_name(naming.name(_named(path, naming), beside=True)))
    if os.path.isdir(output) or output.endswith(("/", os.sep)):
        return Job(path, Path(output) / naming.name(_named(path, naming), beside=False))
    target = _picture_path(output)
    if naming.extension and SUFFIXES[target.suffix.lower()] != SUFFIXES[naming.extension]:
        raise UsageError(f"{output} and --ext {naming.extension.lstrip('.')} contradict each other")
    return Job(path, target)


def _picture_path(output: str) -> Path:
    kind = SUFFIXES.get(os.path.splitext(output)[1].lower())
    if kind is None or kind == "heic":
        known = " ".join(suffix for suffix, known in SUFFIXES.items() if known != "heic")
        raise UsageError(f"{printable(output)}: no format that can be written goes by that name; use one of {known}")
    return Path(output)


def _named(path: Path, naming: Naming) -> Path:
    if not naming.extension and not is_picture(path):
        raise UsageError(f"{printable(path)}: its name says no picture format; give --ext or an OUTPUT")
    return path


def _wanted(
    inputs: Sequence[str], output: str | None, naming: Naming, recursive: bool, masks: MaskPlaces
) -> tuple[list[_Wanted], int]:
    """Every picture once. And how many were left out."""
    target = None if output is None else Path(output)
    if target is not None:
        _refuse_file_as_folder(target)
    suffixes = known_suffixes() | {naming.suffix}
    wanted: dict[Path, _Wanted] = {}  # by input: one that is named twice is restored once
    left_out = 0

    def add(path: Path, folder: Path | None, name: Path) -> None:
        wanted.setdefault(path, _Wanted(path, path.parent if folder is None else folder, folder is None, name))

    def pictures_of(found: list[Path], top: Path, root: Path | None) -> list[Path]:
        nonlocal left_out
        for folder in masks.folders:
            if same(folder, top):
                raise UsageError(f"{printable(top)}: holds the pictures; give masks a folder of their own")
            found = _outside(found, top, folder)
        pictures = originals(_outside(found, top, root) if root else found, top, suffixes)
        left_out += len(found) - len(pictures)
        return pictures

    for text in inputs:
        if os.path.isdir(text):
            folder = Path(text)
            root = _root(folder, target, naming, named=len(inputs) > 1)
            above = Path(root.name) if len(inputs) > 1 else Path()  # masks are told apart as outputs are
            for path in pictures_of(find_images(folder, recursive=recursive), folder, root):
                name = path.relative_to(folder)
                add(path, root / name.parent, above / name)
        elif os.path.lexists(text):
            path = _named(Path(text), naming)
            add(path, target, Path(path.name))
        else:
            names = _expand(text)
            start = _fixed_part(text)
            found = [path for path in map(Path, names) if is_picture(path) and os.path.isfile(path)]
            for path in pictures_of(found, start, target):
                name = path.relative_to(start)
                add(path, target and target / name.parent, name)
    return list(wanted.values()), left_out


def _expand(text: str) -> list[str]:
    """The files and folders that a glob means, sorted; without hidden ones."""
    if os.path.lexists(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
    if not found:
        raise UsageError(f"{printable(text)}: no such file or folder")
    return found


def _fixed_part(pattern: str) -> Path:
    """The folder from which on a glob varies: `in` of `in/**/*.png`."""
    parts = Path(pattern).parts
    count = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:count])


def _root(folder: Path, target: Path | None, naming: Naming, *, named: bool) -> Path:
    """The output folder for a whole input folder; with several inputs one of its own, `named` after it."""
    whole = Path(os.path.abspath(folder))
    if not whole.name and (target is None or named):
        raise UsageError(f"{folder}: has no name to make another from; give an OUTPUT")
    if target is None:
        typed = folder if folder.name not in ("", "..") else whole
        root = typed.with_name(f"{typed.name}.{naming.suffix}")
    else:
        root = target / whole.name if named else target
    if os.path.exists(root) and os.path.samefile(root, folder):
        raise UsageError(f"{printable(folder)}: input and output are the same folder; give another OUTPUT")
    _refuse_file_as_folder(root)
    return root


def _refuse_file_as_folder(folder: Path) -> None:
    for part in (folder, *folder.parents):
        if os.path.lexists(part):
            if not os.path.isdir(part):
                raise UsageError(f"{printable(part)}: is not a folder, and several pictures need one")
            return


def _outside(files: list[Path], top: Path, folder: Path) -> list[Path]:
    """`files` below `top` without those in `folder`, an output folder inside of it, whatever links lead there."""
    real = os.path.join(os.path.realpath(folder), "")

    def within(path: Path) -> bool:
        return os.path.join(os.path.realpath(path), "").startswith(real)

    if within(top):  # the outputs go to a folder above
        return files
    inside = {parent for parent in {path.parent for path in files} if within(parent)}
    return [path for path in files if path.parent not in inside]
