"""Self-contained HTML pages: styles, slider, pictures as data URIs; and writing of text files."""

from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path

from restore.errors import RestoreError, UsageError
from restore.images import Image, encode_image
from restore.images.failures import printable, reason
from restore.utils.atomic_write import write_atomic

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #888; --accent: #c2410c; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; } h3 { font-size: 1rem; }
pre { padding: .7rem 1rem; border: 1px solid var(--line); border-radius: .4rem; white-space: pre-wrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.first td { border-top: 2px solid var(--soft); } tr.model td { font-weight: 600; }
.scroll { overflow-x: auto; } .row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
figure { margin: 0; } figcaption, .note { color: var(--soft); font-size: .87rem; }
.slider { position: relative; display: inline-block; line-height: 0; --cut: 50%; overflow: hidden; max-width: none; }
.slider .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut)); }
.slider .edge { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.slider:focus-within { outline: 2px solid var(--accent); }
.slider b { position: absolute; bottom: .4rem; padding: .15rem .45rem; font: 12px/1.3 system-ui, sans-serif;
  color: #fff; background: #000a; border-radius: .2rem; pointer-events: none; }
.slider b.left { left: .4rem; } .slider b.right { right: .4rem; }
img { image-rendering: pixelated; } svg { max-width: 100%; height: auto; } svg text { fill: currentColor; }
svg circle:hover { stroke: currentColor; stroke-width: 2; }
"""

# Tests wait for `data-ready`, which shows that the script has run.
SCRIPT = """
for (const slider of document.querySelectorAll('.slider')) {
  const handle = slider.querySelector('input');
  const move = () => slider.style.setProperty('--cut', handle.value + '%');
  handle.addEventListener('input', move);
  move();
}
document.documentElement.dataset.ready = 'yes';
"""


def page(title: str, body: str, script: str = SCRIPT) -> str:
    """Makes an HTML document of `body`; its content security policy forbids external resources."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        f"<script>{script}</script>\n</body></html>\n"
    )


def picture(image: Image, alt: str, kind: str = "") -> str:
    """Makes an `img` element at 1:1 with a lossless data URI; `kind` is its CSS class."""
    width, height = image.size
    data = base64.b64encode(encode_image(image, "png", metadata=False)).decode("ascii")
    css = f' class="{kind}"' if kind else ""
    return f'<img{css} width="{width}" height="{height}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def slider(before: Image, after: Image, left: str, right: str) -> str:
    """Makes a before-and-after slider of two pictures of the same size with their labels."""
    return (
        f'<div class="slider">{picture(before, left)}{picture(after, right, "after")}'
        f'<span class="edge"></span><b class="left">{escape(left)}</b><b class="right">{escape(right)}</b>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="{escape(left)} or {escape(right)}">'
        "</div>"
    )


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises UsageError if `path` is a folder, or exists without `overwrite`; to be called before long computations."""
    if path.is_dir():
        raise UsageError(f"{printable(path)}: is a folder; give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{printable(path)} exists; use --overwrite to replace it")


def check_output(path: Path, overwrite: bool, suffixes: tuple[str, ...] = (".png", ".html")) -> None:
    """As `refuse_existing`, and raises UsageError if `path` ends in none of `suffixes`."""
    if path.suffix.lower() not in suffixes:
        known = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise UsageError(f"{printable(path)}: end it in {known}")
    refuse_existing(path, overwrite)


def write_text(path: Path, text: str) -> None:
    """Writes `text` in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` atomically, replacing `path` and creating its folder.

    Raises:
        RestoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(data, path, overwrite=True)
    except OSError as error:
        raise RestoreError(f"{printable(path)}: cannot be written: {reason(error)}") from error
