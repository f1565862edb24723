"""Which file is restored to where: decided, and refused if necessary, before anything is written."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from restore.errors import ImageError, UsageError, install_hint
from restore.folders.masks import MaskPaths, mask_outputs, match_masks
from restore.folders.names import (
    Naming,
    colliding_fallbacks,
    has_image_suffix,
    known_suffixes,
    name_key,
    unique_outputs,
    without_earlier_outputs,
)
from restore.images import SUFFIXES, WRITABLE, find_images
from restore.images.failures import printable
from restore.images.formats import RAW_SUFFIXES, detect

STREAM = "-"  # stdin as an input, stdout as an output
NO_MASKS = MaskPaths()


@dataclass(frozen=True)
class Job:
    """One picture to restore."""

    input: Path | None  # the file; None is stdin
    output: Path | None  # the file to write; None is stdout
    # If the output's format cannot hold the picture, `a.jpg` becomes `a.jpg.png`, because `a.png` is the output of
    # another job
    append_suffix: bool = False
    mask: Path | None = None  # the file that says where the picture is damaged
    save_mask: Path | None = None  # the file to which the mask that was used is written
    hints: bool = False  # what `mask` and `save_mask` name are colours that a person gives
    error: str = ""  # why the job cannot be done

    @property
    def outputs(self) -> list[Path]:
        """The files that the job writes, without stdout."""
        return [path for path in (self.output, self.save_mask) if path is not None]

    def output_as(self, suffix: str) -> Path:
        """The output in the format of another `suffix`."""
        assert self.output is not None
        if self.append_suffix:
            return self.output.with_name(self.output.name + suffix)
        return self.output.with_suffix(suffix)


@dataclass(frozen=True)
class Plan:
    """What there is to do."""

    jobs: list[Job] = field(default_factory=list)  # in a fixed order; no two write to one file, none over an input
    left_out: int = 0  # how many files are outputs of earlier runs, and therefore no inputs
    unreadable: list[str] = field(default_factory=list)  # subfolders that cannot be listed, each with the reason
    others: list[Path] = field(default_factory=list)  # files that are left out for their suffix


@dataclass(frozen=True)
class _Picture:
    """An input, the folder of its output, whether that is beside the input, and its name among the inputs."""

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
    allow_empty: bool = False,
    masks: MaskPaths = NO_MASKS,
) -> Plan:
    """Plans the jobs for the inputs and the output that a user typed; writes nothing.

    Args:
        inputs: files, folders, globs, or `-` for stdin. Folders are mirrored in the output, globs from their
            first wildcard on.
        output: a file, a folder, or `-` for stdout; None puts files beside their input and folders into
            `<folder>.<suffix>`.
        naming: suffix and extension of the outputs.
        recursive: also take the pictures in subfolders.
        allow_empty: folders without pictures are no error (pictures may arrive later).
        masks: where masks are read and written; folders of masks are mirrored too.

    Raises:
        UsageError: an input is missing or holds no picture, an output is an input or cannot hold all pictures,
            or a mask is missing.
    """
    if STREAM in inputs or output == STREAM:
        job = _stream_job(inputs, output)
        return Plan(_with_masks([job], [None if job.input is None else Path(job.input.name)], masks))
    if len(inputs) == 1 and os.path.lexists(inputs[0]) and not os.path.isdir(inputs[0]):
        job = _file_job(Path(inputs[0]), output, naming)
        return Plan(_with_masks([job], [Path(os.path.basename(inputs[0]))], masks))
    with warnings.catch_warnings(record=True) as caught:  # subfolders that cannot be listed
        warnings.simplefilter("always")
        others: list[Path] = []
        pictures, left_out = _find_pictures(inputs, output, naming, recursive, masks, others)
        if not pictures and not allow_empty:
            hint = "" if recursive else "; -r looks into its subfolders too"
            only = ", but earlier outputs" if left_out else ""
            if others:
                only += f" that are read, but {printable(others[0].name)}{' and more' if len(others) > 1 else ''}"
            raise UsageError(f"{printable(inputs[0])}: no pictures here{only}{hint}")
        outputs = unique_outputs([(one.path, one.folder, one.beside) for one in pictures], naming)
        colliding = colliding_fallbacks(outputs)
        jobs = [Job(one.path, path, path in colliding) for one, path in zip(pictures, outputs, strict=True)]
        jobs = _with_masks(jobs, [one.name for one in pictures], masks, allow_empty=allow_empty)
    return Plan(jobs, left_out, [str(warning.message) for warning in caught], others)


def existing_outputs(jobs: Iterable[Job], *, dry_run: bool = False) -> list[Path]:
    """The files to be written that exist already; a dry run writes masks only."""
    paths = [path for job in jobs for path in ([job.save_mask] if dry_run else job.outputs)]
    return [path for path in paths if path is not None and os.path.lexists(path)]


def _with_masks(
    jobs: Sequence[Job], names: Sequence[Path | None], masks: MaskPaths, *, allow_empty: bool = False
) -> list[Job]:
    """`jobs` with their masks, checked. names: of the inputs, relative to what was named as input; None is stdin."""
    jobs = list(jobs)
    if masks.given is not None and masks.saved is not None and _same_file(masks.given, masks.saved):
        raise UsageError(f"--mask and --save-mask are both {printable(masks.given)}; give one of them another folder")
    if masks.hints:
        jobs = [replace(job, hints=True) for job in jobs]
    if masks.given is not None:
        matches = match_masks(names, masks.given, more_expected=allow_empty, flag=masks.flag)
        jobs = [replace(job, mask=mask, error=error) for job, (mask, error) in zip(jobs, matches, strict=True)]
    if masks.saved is not None:
        _refuse_file_as_folder(masks.saved)
        saved = mask_outputs(names, masks.saved)
        jobs = [replace(job, save_mask=path) for job, path in zip(jobs, saved, strict=True)]
    _refuse_overwriting_inputs(jobs)
    _refuse_mask_collisions(jobs)
    return jobs


def _stream_job(inputs: Sequence[str], output: str | None) -> Job:
    names = [name for text in inputs for name in ([STREAM] if text == STREAM else _expand(text))]
    if len(names) != 1 or os.path.isdir(names[0]):
        raise UsageError("'-' stands for one picture; give one file, or - for both")
    source = None if names[0] == STREAM else Path(names[0])
    if output in (None, STREAM):
        return Job(source, None)
    if os.path.isdir(str(output)) or str(output).endswith(("/", os.sep)):
        raise UsageError(f"{output}: is a folder, and a picture from stdin has no name; give a file")
    return Job(source, _writable_path(str(output)))


def _file_job(path: Path, output: str | None, naming: Naming) -> Job:
    if output is None:
        return Job(path, path.with_name(naming.file_name(_check_format(path, naming), beside=True)))
    if os.path.isdir(output) or output.endswith(("/", os.sep)):
        return Job(path, Path(output) / naming.file_name(_check_format(path, naming), beside=False))
    target = _writable_path(output)
    if naming.extension and SUFFIXES[target.suffix.lower()] != SUFFIXES[naming.extension]:
        raise UsageError(f"{output} and --ext {naming.extension.lstrip('.')} contradict each other")
    return Job(path, target)


def _writable_path(output: str) -> Path:
    suffix, known = printable(os.path.splitext(output)[1]), " ".join(WRITABLE)
    if suffix.lower() not in WRITABLE:
        raise UsageError(f"{printable(output)}: '{suffix}' is no format that can be written; use one of {known}")
    return Path(output)


def _check_format(path: Path, naming: Naming) -> Path:
    if not naming.extension and not has_image_suffix(path):
        if path.suffix.lower() in RAW_SUFFIXES:
            raise UsageError(f"{printable(path)}: is a camera raw; to read those: {install_hint('raw')}")
        try:
            with open(path, "rb") as file:
                detect(file.read(512))
        except ImageError as error:
            raise UsageError(f"{printable(path)}: {error}") from None
        raise UsageError(f"{printable(path)}: its name says no picture format; give --ext or an OUTPUT")
    return path


def _find_pictures(
    inputs: Sequence[str], output: str | None, naming: Naming, recursive: bool, masks: MaskPaths, others: list[Path]
) -> tuple[list[_Picture], int]:
    """Every picture once, and how many earlier outputs were left out; files of other suffixes go to `others`."""
    target = None if output is None else Path(output)
    if target is not None:
        _refuse_file_as_folder(target)
    suffixes = known_suffixes() | {naming.suffix}
    pictures: dict[Path, _Picture] = {}  # by input: one that is named twice is restored once
    left_out = 0

    def add(path: Path, folder: Path | None, name: Path) -> None:
        pictures.setdefault(path, _Picture(path, path.parent if folder is None else folder, folder is None, name))

    def select(found: list[Path], top: Path, root: Path | None) -> list[Path]:
        nonlocal left_out
        for folder in masks.folders:
            if _same_file(folder, top):
                raise UsageError(f"{printable(top)}: holds the pictures; give masks a folder of their own")
            found = _outside(found, top, folder)
        selected = without_earlier_outputs(_outside(found, top, root) if root else found, top, suffixes)
        left_out += len(found) - len(selected)
        return selected

    for text in inputs:
        if os.path.isdir(text):
            folder = Path(text)
            root = _output_root(folder, target, naming, several=len(inputs) > 1)
            above = Path(root.name) if len(inputs) > 1 else Path()  # masks are told apart as outputs are
            for path in select(find_images(folder, recursive=recursive, others=others), folder, root):
                name = path.relative_to(folder)
                add(path, root / name.parent, above / name)
        elif os.path.lexists(text):
            path = _check_format(Path(text), naming)
            add(path, target, Path(path.name))
        else:
            start = _before_wildcard(text)
            files = [path for path in map(Path, _expand(text)) if os.path.isfile(path)]
            found = [path for path in files if has_image_suffix(path)]
            others += [path for path in files if not has_image_suffix(path)]
            for path in select(found, start, target):
                name = path.relative_to(start)
                add(path, target and target / name.parent, name)
    return list(pictures.values()), left_out


def _expand(text: str) -> list[str]:
    """The files and folders that match a glob, sorted, without hidden ones."""
    if os.path.lexists(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
    if not found:
        what = "no files match this pattern" if glob.has_magic(text) else "no such file or folder"
        raise UsageError(f"{printable(text)}: {what}; check the path")
    return found


def _before_wildcard(pattern: str) -> Path:
    """The part of a glob without wildcards: `in` of `in/**/*.png`."""
    parts = Path(pattern).parts
    count = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:count])


def _output_root(folder: Path, target: Path | None, naming: Naming, *, several: bool) -> Path:
    """The output folder for an input folder; `several` inputs get one each, with the name of the input."""
    absolute = Path(os.path.abspath(folder))
    if not absolute.name and (target is None or several):
        raise UsageError(f"{folder}: has no name to make another from; give an OUTPUT")
    if target is None:
        typed = folder if folder.name not in ("", "..") else absolute
        root = typed.with_name(f"{typed.name}.{naming.suffix}")
    else:
        root = target / absolute.name if several else target
    if os.path.exists(root) and os.path.samefile(root, folder):
        raise UsageError(f"{printable(folder)}: input and output are the same folder; give another OUTPUT")
    _refuse_file_as_folder(root)
    return root


def _outside(files: list[Path], top: Path, folder: Path) -> list[Path]:
    """`files` below `top` without those in `folder`, wherever symbolic links lead."""
    real = os.path.join(os.path.realpath(folder), "")

    def within(path: Path) -> bool:
        return os.path.join(os.path.realpath(path), "").startswith(real)

    if within(top):  # the outputs go to a folder above
        return files
    inside = {parent for parent in {path.parent for path in files} if within(parent)}
    return [path for path in files if path.parent not in inside]


def _refuse_file_as_folder(folder: Path) -> None:
    for part in (folder, *folder.parents):
        if os.path.lexists(part):
            if not os.path.isdir(part):
                raise UsageError(f"{printable(part)}: is not a folder, and several pictures need one")
            return


def _refuse_overwriting_inputs(jobs: list[Job]) -> None:
    """Raises UsageError where a job would write over a file that any job reads, or over a folder.

    Files are compared by device and inode: through links, and names that differ in case where that is ignored.
    """
    inputs = {_file_id(path): path for job in jobs for path in (job.mask, job.input) if path is not None}
    inputs.pop(None, None)
    for job in jobs:
        for path in job.outputs:
            if (existing := _file_id(path)) is None:
                continue
            if existing in inputs:
                what = "is an input"
                if path != inputs[existing]:
                    what = f"is the input {printable(inputs[existing])} under another name"
                other = "OUTPUT" if path == job.output else f"--save-{_kind(job)}"
                raise UsageError(f"{printable(path)}: {what}, and inputs are never written over; give another {other}")
            if os.path.isdir(path):
                raise UsageError(f"{printable(path)}: is a folder, where a file would have to go")


def _refuse_mask_collisions(jobs: list[Job]) -> None:
    """Raises UsageError where a mask is also an input, or is saved where a picture may be written."""
    if any(job.mask is not None for job in jobs):
        inputs = {_file_id(job.input) for job in jobs if job.input is not None} - {None}
        for job in jobs:
            own = job.mask == job.input and job.mask is not None and not job.hints  # what was erased of it marks it
            if job.mask is not None and not own and _file_id(job.mask) in inputs:
                raise UsageError(
                    f"{printable(job.mask)}: is an input, and no {_kind(job)} of one; give another --{_kind(job)}"
                )
    if any(job.save_mask is not None for job in jobs):
        real = cache(os.path.realpath)
        pictures = [path for job in jobs if job.output is not None for path in (job.output, job.output_as(".png"))]
        taken = {name_key(Path(real(path.parent), path.name)) for path in pictures}
        for job in jobs:
            if job.save_mask is not None and name_key(Path(real(job.save_mask.parent), job.save_mask.name)) in taken:
                raise UsageError(f"{printable(job.save_mask)}: a picture goes there; give another --save-{_kind(job)}")


def _kind(job: Job) -> str:
    return "hints" if job.hints else "mask"


def _same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to one file or folder, whether or not it exists."""
    return os.path.realpath(one) == os.path.realpath(other)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino
