"""What can go wrong, said in one line: what is wrong, where, and what to do.

The library raises these; only the command line turns them into exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RestoreError(Exception):
    """Base of every error this package raises on purpose; its text is one line for a person."""

    exit_code = 1


class UsageError(RestoreError):
    """The call itself is wrong: a missing input, an unknown name, options that do not fit."""

    exit_code = 2


class DeviceError(UsageError):
    """A device was asked for that this machine does not have."""


class WeightsError(UsageError):
    """Weights that are missing, unreadable, damaged, or made for another task."""


class ImageError(RestoreError):
    """A picture that cannot be read or written; the text names the file."""


class TrainingError(RestoreError):
    """Training cannot start or go on."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name nobody knows, listing those that are known and the nearest one.

    >>> str(unknown_name("task", "denoize", ["denoise", "inpaint"]))
    "unknown task 'denoize'; did you mean 'denoise'? Known: denoise, inpaint"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return UsageError(f"unknown {kind} '{name}'{hint} Known: {', '.join(names) or 'none'}")
