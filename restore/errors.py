"""Exceptions with messages for users: one line that names what is wrong, where, and what to do.

The library raises these; only the command line turns them into exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RestoreError(Exception):
    """Base of the errors of this package; `exit_code` is that of the command line."""

    exit_code = 1


class UsageError(RestoreError):
    """The call is wrong: a missing input, an unknown name, conflicting options."""

    exit_code = 2


class DeviceError(UsageError):
    """The requested device does not exist on this machine."""


class WeightsError(UsageError):
    """Weights are missing, unreadable, damaged, or made for another task."""


class ImageError(RestoreError):
    """An image cannot be read or written; the message names the file."""


class TooLargeError(ImageError):
    """An image has more pixels than are allowed."""


class TrainingError(RestoreError):
    """Training cannot start or continue."""


def install_hint(extra: str) -> str:
    """What to type to install an extra of this package, such as `heic`."""
    return f"pip install 'restore-toolkit[{extra}]'"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Makes an error for an unknown name that lists the known ones.

    Args:
        kind: what the name is of, such as "task".
        name: the unknown name.
        known: the known names, of which the most similar is suggested.

    >>> str(unknown_name("task", "denoize", ["denoise", "inpaint"]))
    "unknown task 'denoize'; did you mean 'denoise'? Known: denoise, inpaint"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return UsageError(f"unknown {kind} '{name}'{hint} Known: {', '.join(names) or 'none'}")
