"""`restore export TASK --onnx FILE`: a network for programs without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import typer

from restore.cli.flags import add_command, argument
from restore.errors import UsageError
from restore.tasks import task_spec
from restore.tasks.spec import option


@dataclass(frozen=True)
class ExportFlags:
    task: str = argument("What the graph is to restore.", "TASK")
    onnx: Path | None = option(None, "The file to write.", metavar="FILE.onnx")
    model: str | None = option(
        None, "A shipped variant, or a weights file [default: the task's].", flags=("-m",), metavar="VARIANT|FILE"
    )
    scale: int | None = option(None, "How many times larger each side becomes (super-resolve).", flags=("-s",))
    strength: float = option(1.0, "How much of the effect, up to 1 (denoise, super-resolve).", min=0.0, max=1.0)
    overwrite: bool = option(False, "Replace files that exist.")


def add(app: typer.Typer) -> None:
    """Adds `export`."""
    examples = (
        "restore export denoise --onnx denoise.onnx",
        "restore export super-resolve -s 4 --onnx x4.onnx --overwrite",
    )
    add_command(app, "export", export, examples=examples, pictures=False)


def export(flags: ExportFlags) -> None:
    """Write a task's network as ONNX: from pixels to pixels for denoise and super-resolve."""
    spec = task_spec(flags.task)
    if flags.onnx is None:
        raise UsageError("restore export writes ONNX: say where, with --onnx FILE.onnx")
    if flags.onnx.suffix != ".onnx" or not flags.onnx.absolute().parent.is_dir():
        raise UsageError(f"--onnx {flags.onnx}: a file that ends in .onnx, in a folder that exists")
    if flags.scale is not None and "scale" not in {known.name for known in fields(spec.options)}:
        raise UsageError(f"{spec.name} has no scale; leave out -s")
    options = spec.options() if flags.scale is None else spec.options(**{"scale": flags.scale})

    from restore.export import export_onnx

    written = export_onnx(
        spec.name, flags.onnx, flags.model, strength=flags.strength, options=options, overwrite=flags.overwrite
    )
    for path in written:
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
