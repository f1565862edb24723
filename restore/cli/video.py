"""`restore TASK - - --raw WIDTHxHEIGHT`: the frames of a video from stdin to stdout, as ffmpeg pipes them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import typer

from restore.cli.files import FileFlags, inputs_and_output
from restore.cli.flags import picture_size
from restore.cli.reporting import discard_stdout, say
from restore.errors import RestoreError, UsageError
from restore.tasks.spec import option

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from restore.inference.inputs import InputAdapter


@dataclass(frozen=True)
class RawFlags:
    """The flag of frames without a container."""

    PANEL = "Files"

    raw: str | None = option(
        None,
        "Frames of a video from stdin to stdout (`- -`), as rawvideo rgb24 of this size; a --mask is that of all.",
        metavar="WIDTHxHEIGHT",
    )


def check_raw(raw: RawFlags, files: FileFlags, *, still: bool) -> tuple[int, int]:
    """Width and height of the frames. still: flags of the mask that frames do not have were given.

    Raises:
        UsageError: That is no size, or there are flags that mean files.
    """
    size = picture_size("--raw", raw.raw or "")
    inputs, output = inputs_and_output(files)
    if inputs != ["-"] or output not in (None, "-"):
        raise UsageError(f"--raw takes frames from stdin to stdout: give - - --raw {raw.raw}")
    if still or files.watch or files.json or files.ext or files.quality:
        raise UsageError("--raw writes frames and no files: leave out --save-mask, --dry-run, --json and the like")
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UsageError("--raw needs pipes: ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - | restore ... | ffmpeg ...")
    return size


def restore_frames(restorer: InputAdapter, size: tuple[int, int], mask: Path | None, *, verbose: bool) -> None:
    """Restores the frames on stdin, of `size`, with one mask or hints for all, and writes them to stdout, one by one.

    Raises:
        RestoreError: stdin holds no frame, or ends inside of one; what came before is written.
    """
    from tqdm import tqdm

    start, count = time.perf_counter(), 0
    given, hints = (None, mask) if restorer.hinted else (mask, None)
    restored = restorer.frames(read_frames(sys.stdin.buffer, *size), given, hints=hints)
    hidden = None if verbose else True  # None: shown on a terminal only
    try:
        for frame in tqdm(restored, disable=hidden, unit="frame", dynamic_ncols=True):
            sys.stdout.buffer.write(frame.tobytes())
            sys.stdout.buffer.flush()
            count += 1
            if count == 1 and verbose:
                say(f"writing rawvideo rgb24 of {frame.shape[1]}x{frame.shape[0]}")
    except BrokenPipeError:  # the reader of stdout has ended
        discard_stdout()
        say(f"stdout was closed after {count} frames")
        raise typer.Exit(1) from None
    if not count:
        raise RestoreError("stdin: no frames came; does the program before this one run?")
    if verbose:
        seconds = time.perf_counter() - start
        say(f"{count} frames restored in {seconds:.1f} s ({count / seconds:.2f} frames/s)")


def read_frames(stream: BinaryIO, width: int, height: int) -> Iterator[np.ndarray]:
    """The frames (H,W,3) uint8 of rawvideo rgb24. Raises RestoreError where the stream ends inside of one."""
    import numpy as np

    size, number = width * height * 3, 0
    while data := stream.read(size):
        if len(data) < size:
            raise RestoreError(
                f"stdin: ends after {len(data)} of the {size} bytes of frame {number}; is it rgb24 of {width}x{height}?"
            )
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        number += 1
