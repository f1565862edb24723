"""Sheets of pictures, and where every view goes: a PNG, or a page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import RestoreError, UsageError
from restore.images import Image, encode_image
from restore.latent.extras import need
from restore.utils.atomic_write import write_atomic

GAP = 2  # pixels between the pictures of a sheet
BETWEEN = 96  # their gray
LEAST_SIDE = 56  # to which small pictures are enlarged, in whole steps
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } img { max-width: 100%; height: auto; } td img { image-rendering: pixelated; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #8885; }
canvas { border: 1px solid #8885; touch-action: none; max-width: 100%; }
"""


def enlarged(picture: np.ndarray) -> np.ndarray:
    """(H,W,C) uint8, each pixel repeated so that small pictures can be seen."""
    times = max(1, -(-LEAST_SIDE // max(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures (S,S,C) uint8 of one size in rows -> one picture, with gaps."""
    padding = ((GAP, GAP), (GAP, GAP), (0, 0))
    padded = [[np.pad(enlarged(one), padding, constant_values=BETWEEN) for one in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])


def in_rows(pictures: np.ndarray) -> list[list[np.ndarray]]:
    """(N,S,S,C) as nearly a square of rows, filled up with gray."""
    across = max(1, round(len(pictures) ** 0.5))
    missing = np.full((-len(pictures) % across, *pictures.shape[1:]), BETWEEN, np.uint8)
    filled = np.concatenate([pictures, missing])
    return [list(filled[at : at + across]) for at in range(0, len(filled), across)]


def png(pixels: np.ndarray) -> bytes:
    """(H,W,C) uint8 as a PNG."""
    return encode_image(Image(np.ascontiguousarray(pixels)), "png", metadata=False)


def inline(data: bytes, alt: str = "", kind: str = "png") -> str:
    """An `img` that carries its own data."""
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'


def page(title: str, body: str, script: str = "") -> str:
    """An HTML document; its content policy forbids anything from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n<script>{script}</script></body></html>\n"
    )


def check_output(path: Path, overwrite: bool, suffixes: tuple[str, ...] = (".png", ".html")) -> None:
    """Raises UsageError for an output that cannot be; asked before the work, not after."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: end it in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, where a file would have to go")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; --overwrite replaces what is there")


def write_bytes(path: Path, data: bytes) -> None:
    """A file that appears under its name only when it is whole.

    Raises:
        RestoreError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(data, path, overwrite=True)
    except OSError as error:
        raise RestoreError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_view(path: Path, picture: bytes, title: str, more: str = "", script: str = "") -> None:
    """Writes a PNG, or where `path` ends in .html a page with it.

    Args:
        path: Ends in .png or .html.
        picture: The PNG.
        title: Of the page.
        more: HTML below the picture.
        script: Of the page.
    """
    if path.suffix.lower() == ".html":
        write_bytes(path, page(title, f"<p>{inline(picture, title)}</p>\n{more}", script).encode())
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
