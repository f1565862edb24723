"""Sheets of pictures, and where every view goes: a PNG, or a page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import UsageError
from restore.evaluation.page import SCRIPT, page, refuse_existing, write_bytes
from restore.images import Image, encode_image
from restore.latent.extras import need

GAP = 2  # pixels between the pictures of a sheet
BETWEEN = 96  # their gray
LEAST_SIDE = 56  # to which small pictures are enlarged, in whole steps


def enlarged(picture: np.ndarray) -> np.ndarray:
    """(H,W,C) uint8, each pixel repeated so that small pictures can be seen."""
    times = max(1, -(-LEAST_SIDE // max(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)


def sheet(rows: Iterable[Iterable[np.ndarray]]) -> np.ndarray:
    """Pictures (S,S,C) uint8 of one size in rows -> one picture, with gaps."""
    padding = ((GAP, GAP), (GAP, GAP), (0, 0))
    padded = [[np.pad(enlarged(one), padding, constant_values=BETWEEN) for one in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])


def in_rows(pictures: np.ndarray) -> np.ndarray:
    """(N,S,S,C) as nearly a square of rows, filled up with gray: (R,K,S,S,C)."""
    across = max(1, round(len(pictures) ** 0.5))
    missing = np.full((-len(pictures) % across, *pictures.shape[1:]), BETWEEN, np.uint8)
    return np.concatenate([pictures, missing]).reshape(-1, across, *pictures.shape[1:])


def png(pixels: np.ndarray) -> bytes:
    """(H,W,C) uint8 as a PNG."""
    return encode_image(Image(np.ascontiguousarray(pixels)), "png", metadata=False)


def inline(data: bytes, alt: str = "") -> str:
    """An `img` of a PNG that carries its own data, no wider than the page."""
    style, encoded = "max-width: 100%; height: auto; image-rendering: auto", base64.b64encode(data).decode("ascii")
    return f'<img style="{style}" alt="{html.escape(alt)}" src="data:image/png;base64,{encoded}">'


def write_sheet(path: Path, rows: Iterable[Iterable[np.ndarray]], title: str, more: str = "") -> None:
    """Writes pictures (S,S,C) uint8 in rows; the other arguments are those of `write_view`."""
    write_view(path, png(sheet(rows)), title, more)


def png_targets(folder: Path, names: Iterable[str], overwrite: bool) -> list[Path]:
    """A PNG file in `folder` for each of `names`. Raises UsageError where one cannot be written, or exists."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, where a folder would have to go")
    targets = [folder / f"{name}.png" for name in names]
    for target in targets:
        refuse_existing(target, overwrite)
    return targets


def write_view(path: Path, picture: bytes, title: str, more: str = "", script: str = SCRIPT) -> None:
    """Writes a PNG, or where `path` ends in .html a page with it.

    Args:
        path: Ends in .png or .html.
        picture: The PNG.
        title: Of the page.
        more: HTML below the picture.
        script: Of the page.
    """
    if path.suffix.lower() == ".html":
        body = f"<h1>{html.escape(title)}</h1>\n<p>{inline(picture, title)}</p>\n{more}"
        write_bytes(path, page(title, body, script).encode())
    else:
        write_bytes(path, picture)


def figure_png(figure: Any) -> bytes:
    """A matplotlib figure as a PNG; the figure is closed."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, bbox_inches="tight")
    plotting().close(figure)
    return target.getvalue()


def plotting() -> Any:
    """matplotlib.pyplot that draws into files only."""
    need("matplotlib").use("Agg")
    return need("matplotlib.pyplot")
