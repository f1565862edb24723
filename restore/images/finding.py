"""Which files are pictures."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from restore.errors import ImageError
from restore.images.failures import printable, reason
from restore.images.formats import SUFFIXES


def find_images(folder: Path, *, recursive: bool = True, others: list[Path] | None = None) -> list[Path]:
    """The pictures in `folder`, by suffix (`SUFFIXES`, in any case), sorted by path.

    Hidden files and folders (a leading dot), and with them our temporaries, are left out. Linked folders
    are followed, but every real folder is entered once, so loops end; a real folder comes before links to
    it. A subfolder that cannot be listed is skipped with a warning.

    Args:
        folder: where to look.
        recursive: whether to look into subfolders.
        others: takes the files that are left out for their suffix.

    Raises:
        ImageError: `folder` itself cannot be listed.
    """
    found: list[Path] = []
    seen: set[str] = set()
    folders, links = [Path(folder)], list[Path]()
    while folders or links:
        # Links wait until every real folder is listed: files keep their real path where they have one.
        current = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if current == Path(folder):
                raise ImageError(f"{printable(folder)}: {_why(error)}") from error
            warnings.warn(f"{printable(current)}: skipped: {_why(error)}", stacklevel=2)
            continue
        for entry in listed:
            path = current / entry.name
            if entry.name.startswith("."):
                continue
            # os.path, not the entry's own methods: those raise for a link to itself.
            if os.path.isdir(path):
                if recursive:
                    (links if entry.is_symlink() else folders).append(path)
            elif os.path.isfile(path):
                if path.suffix.lower() in SUFFIXES:
                    found.append(path)
                elif others is not None:
                    others.append(path)
    return sorted(found)


def _why(error: OSError) -> str:
    if isinstance(error, NotADirectoryError):
        return "is not a folder; name a folder of pictures"
    return reason(error)
