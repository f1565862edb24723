"""`restore models`: lists weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import typer

from restore.cli.flags import add_command
from restore.tasks.spec import option

ABOUT = """\
Scores are PSNR in dB on validation pictures, against the picture before it was damaged: higher is nearer to it, 1 dB
more is a fifth less squared error, and at 40 the two can hardly be told apart. Each file has been
scored on validation pictures of its own: they do not compare variants or tasks, for which there is `restore evaluate`
on your own pictures. Luma only in super-resolve;
inside the damage only in inpaint and dewatermark (given: told where it is; blind: left to find it; re-encoded: blind,
after resizing and JPEG; prints: scratches and dust of old prints); "10 hints": told ten colours; sigma: white noise of
that standard deviation, of 255; jpeg-noise: white noise saved as JPEG; blocks: JPEG alone.
"""


@dataclass(frozen=True)
class ModelsFlags:
    file: list[str] | None = option(
        None, "Describe these weights files instead of the shipped ones.", flags=("-m",), metavar="FILE"
    )
    json: bool = option(False, "Print JSON.")


def add(app: typer.Typer) -> None:
    """Adds `restore models` to `app`."""
    examples = ("restore models --json", "restore models -m mine.safetensors --json")
    add_command(app, "models", models, examples=examples, pictures=False)


def models(flags: ModelsFlags) -> None:
    """List the weights that come with the package, and what they score."""
    from pathlib import Path

    from restore import weights
    from restore.images.failures import printable

    paths = [Path(name) for name in flags.file or []] or weights.shipped()
    headers = [(path, weights.read_header(path)) for path in paths]
    if flags.json:
        print(
            json.dumps(
                [{"file": str(path), "bytes": path.stat().st_size, **asdict(header)} for path, header in headers],
                indent=1,
            )
        )
        return
    print(ABOUT)
    for path, header in headers:
        scores = "; ".join(f"{printable(label)} {value:.2f} dB" for label, value in header.scores.items())
        variant = header.variant or path.stem.removeprefix(header.task).lstrip("-") or "default"
        task, variant, arch = map(printable, (header.task, variant, header.arch))
        print(f"{task:14} {variant:10} {path.stat().st_size / 1e6:5.1f} MB  {arch}")
        print(f"{'':14} {'':10} validation: {scores or 'no scores'}")
