"""Flags shared by the commands that read and write pictures, and the plan of their jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from restore.cli.flags import argument
from restore.errors import UsageError
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.folders.pipeline import WriteOptions
    from restore.folders.plan import Job, Plan


RUN = "Run"


@dataclass(frozen=True)
class FileFlags:
    """Flags shared by the commands that read and write pictures."""

    PANEL = "Files"

    paths: list[str] | None = argument(
        "A file, a folder, a quoted glob, or - for stdin; then where to write.", "INPUT [OUTPUT]", default=None
    )
    input: list[str] | None = option(None, "The same as INPUT; may be repeated.", flags=("-i",), metavar="PATH")
    output: str | None = option(
        None, "The same as OUTPUT: a file, a folder, or - for stdout.", flags=("-o",), metavar="PATH"
    )
    recursive: bool = option(False, "Also process subfolders; the output mirrors the tree.", flags=("-r",))
    ext: str | None = option(None, "Format to write, such as png [default: the input's].", metavar="EXT")
    suffix: str | None = option(None, "Inserted into the names of outputs beside their input.", metavar="TEXT")
    quality: int | None = option(None, "Quality of lossy formats [default: the input's].", min=1, max=100)
    strip_metadata: bool = option(False, "Leave out EXIF and XMP (the colour profile stays).")
    overwrite: bool = option(False, "Replace outputs that exist; a single file to replace is named with -o.")
    salvage: bool = option(False, "Take what can be decoded of truncated JPEGs, and say how much of them that is.")
    skip_existing: bool = option(False, "Skip inputs whose output exists, to resume a run.", flags=("-k",))
    watch: bool = option(
        False, "Keep processing files that arrive in the folder, until Ctrl-C; exit code 0 if none failed.", panel=RUN
    )
    fail_fast: bool = option(False, "Stop at the first file that fails.", panel=RUN)
    workers: int = option(2, "Threads that decode and encode.", flags=("-j",), min=1, panel=RUN)
    quiet: bool = option(False, "Print failures only.", flags=("-q",), panel=RUN)
    json: bool = option(False, "Print a line of JSON for each file on stdout.", panel=RUN)

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing contradict each other")
        if self.watch and self.fail_fast:
            raise UsageError("--watch and --fail-fast contradict each other")
        if self.suffix is not None and (not self.suffix.strip(".") or {"/", os.sep, "\0"} & set(self.suffix)):
            raise UsageError(f"--suffix '{self.suffix}': must be part of a file name, with letters and without slashes")

    @property
    def verbose(self) -> bool:
        """Whether to print more than failures for people."""
        return not (self.quiet or self.json)

    def write_options(self, *, dry_run: bool = False) -> WriteOptions:
        """The options of writing outputs; a dry run writes only masks."""
        from restore.folders.pipeline import WriteOptions

        return WriteOptions(
            overwrite=self.overwrite,
            skip_existing=self.skip_existing or (self.watch and not self.overwrite),
            quality=self.quality,
            metadata=not self.strip_metadata,
            extension=_extension(self),
            dry_run=dry_run,
            salvage=self.salvage,
        )


@dataclass(frozen=True)
class FileRequest:
    """The request of a command: its flags, its jobs, and what plans these again, for `--watch`."""

    files: FileFlags
    plan: Plan
    replan: Callable[[], Plan]


def plan_files(
    files: FileFlags,
    suffix: str,
    *,
    mask: Path | None = None,
    save_mask: Path | None = None,
    dry_run: bool = False,
    hints: bool = False,
) -> FileRequest:
    """Plans the jobs that the flags ask for; writes nothing and does not import torch.

    Args:
        files: the flags.
        suffix: for the names of outputs beside their input; the flags override it.
        mask: mask of the damage, a file or a folder.
        save_mask: the folder to which masks are written.
        dry_run: only masks are written.
        hints: `mask` and `save_mask` are not masks but colours that a person gives.

    Raises:
        UsageError: the flags contradict each other, inputs are missing, or outputs exist.
    """
    from restore.folders.masks import MaskPaths
    from restore.folders.names import Naming
    from restore.folders.plan import STREAM, existing_outputs, plan

    inputs, output = inputs_and_output(files)
    if files.watch and (output == STREAM or not all(os.path.isdir(path) for path in inputs)):
        raise UsageError("--watch needs folders: give folders as INPUT, and a folder or nothing as OUTPUT")
    naming = Naming((files.suffix or suffix).strip("."), _extension(files))
    masks = MaskPaths(mask, save_mask, hints)
    replan = partial(plan, inputs, output, naming, recursive=files.recursive, allow_empty=True, masks=masks)
    planned = replan(allow_empty=files.watch)
    _check_streams(planned.jobs, files, dry_run)
    may_exist = files.overwrite or files.skip_existing or files.watch
    if found := [] if may_exist else existing_outputs(planned.jobs, dry_run=dry_run):
        more = f" and {len(found) - 1} more outputs exist" if len(found) > 1 else " exists"
        raise UsageError(f"{min(found)}{more}; use --skip-existing to keep or --overwrite to replace them")
    return FileRequest(files, planned, replan)


def inputs_and_output(files: FileFlags) -> tuple[list[str], str | None]:
    """Inputs and output. Without -o the second of two paths is the output, as in cp."""
    paths, inputs = list(files.paths or []), list(files.input or [])
    output = files.output
    if output is None and len(paths) == (1 if inputs else 2):
        output = paths.pop()
        first = paths[0] if paths else inputs[0]
        # A shell may have expanded `*.png` to two paths. That an input is named twice is said by the plan.
        if files.overwrite and os.path.isfile(output) and output != first:
            raise UsageError(f"{output} exists (another input?); to replace it, name it with -o: {first} -o {output}")
    elif output is None and len(paths) > (0 if inputs else 1):
        raise UsageError("several inputs need -o FOLDER (or quote the glob)")
    if not (inputs := inputs + paths):
        raise UsageError("INPUT is missing: give a picture, a folder, or - for stdin")
    return inputs, output


def _extension(files: FileFlags) -> str | None:
    from restore.images import FORMATS, SUFFIXES, WRITABLE

    if files.ext is None:
        return None
    suffix = "." + files.ext.lower().lstrip(".")
    kind = SUFFIXES.get(suffix)
    if kind is None or suffix not in WRITABLE:
        known = " ".join(sorted(known.lstrip(".") for known in WRITABLE))
        raise UsageError(f"--ext {files.ext}: not a format that can be written; known: {known}")
    if files.quality is not None and not FORMATS[kind].lossy:
        raise UsageError(f"--quality has no effect with --ext {files.ext}, which is lossless")
    return suffix


def _check_streams(jobs: list[Job], files: FileFlags, dry_run: bool) -> None:
    for job in jobs:
        if job.input is None and sys.stdin.isatty():
            raise UsageError("stdin is a terminal; give a file, or pipe a picture into it")
        if job.output is None and sys.stdout.isatty() and not dry_run:
            raise UsageError("stdout is a terminal; give an OUTPUT, or redirect to a file")
        if job.output is None and files.json and not dry_run:
            raise UsageError("--json and the picture both go to stdout; give an OUTPUT")
