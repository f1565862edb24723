"""`restore benchmark [TASK]`: speed and memory on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from restore.cli.flags import ComputeFlags, add_command, argument, picture_size
from restore.errors import UsageError
from restore.tasks import task_spec
from restore.tasks.spec import option


@dataclass(frozen=True)
class BenchmarkFlags:
    task: str = argument("The task to measure.", "TASK", default="denoise")
    size: str = option("1024x1024", "Size of the synthetic picture in pixels.", metavar="WIDTHxHEIGHT")
    folder: Path | None = option(None, "Use the pictures in this folder instead.", metavar="FOLDER")
    model: str | None = option(
        None, "A shipped variant, or a weights file [default: the task's].", flags=("-m",), metavar="VARIANT|FILE"
    )
    compile: bool = option(False, "Compile the network (slow start).")
    host: bool = option(False, "Measure the share of the host alone, without the work of the device.")
    repeat: int = option(5, "Number of passes, of which the median is taken.", min=1)
    json: bool = option(False, "Print JSON instead of the table.")


def add(app: typer.Typer) -> None:
    """Adds `restore benchmark` to `app`."""
    examples = (
        "restore benchmark denoise --size 4000x3000",
        "restore benchmark super-resolve --folder my-pictures/ --device cuda",
    )
    add_command(app, "benchmark", benchmark, examples=examples, pictures=False)


def benchmark(flags: BenchmarkFlags, compute: ComputeFlags) -> None:
    """Measure speed, memory, and the shares of decoding, computing and encoding on this device."""
    task_spec(flags.task)
    width, height = picture_size("--size", flags.size)
    if flags.folder is not None and not flags.folder.is_dir():
        raise UsageError(f"{flags.folder}: no such folder; check the path")

    import cv2

    from restore.images import find_images
    from restore.inference import benchmark as measuring
    from restore.inference.loading import load
    from restore.inference.restorer import Restorer

    cv2.setNumThreads(1)  # as when restoring
    sources: list[Path | bytes]
    if flags.folder is None:
        sources = [measuring.synthetic(width, height)]
    else:
        sources = [*find_images(flags.folder)]
        if not sources:
            raise UsageError(f"{flags.folder}: no pictures here")
    record: dict[str, Any] = {
        "task": flags.task,
        "model": Path(flags.model).name if flags.model else "default",
    }
    if flags.host:
        restore = load(flags.task, flags.model, "cpu", "fp32")
        assert isinstance(restore, Restorer)
        record |= measuring.measure_host(restore, sources, flags.repeat)
    else:
        import torch

        from restore import __version__
        from restore.devices import describe

        restore = load(flags.task, flags.model, **asdict(compute), compile=flags.compile)
        assert isinstance(restore, Restorer)
        record |= {
            "device": describe(restore.device, restore.dtype),
            "tile": compute.tile,
            "compiled": flags.compile,
            "torch": torch.__version__,
            "restore": __version__,
            **measuring.measure(restore, sources, flags.repeat),
        }
    table = _host_table if flags.host else _table
    print(json.dumps(record, indent=1) if flags.json else table(record))


def _host_table(record: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{record['task']} ({record['model']}), processor time of the host for a megapixel of output,"
            f" median of {record['repeat']}",
            f"  driving the device {record['ms_per_megapixel']:8.2f} ms, in one thread",
            f"  decoding           {record['decode_ms_per_megapixel']:8.2f} ms, in threads beside it",
            f"  encoding           {record['encode_ms_per_megapixel']:8.2f} ms, likewise",
            f"limit with 16 cores  {record['megapixels_per_second_at_16_cores']:8.1f} megapixels a second",
        ]
    )


def _table(record: dict[str, Any]) -> str:
    many = f"{record['pictures']} pictures" if record["pictures"] > 1 else "1 picture"
    compiled = ", compiled" if record["compiled"] else ""
    lines = [
        f"{record['task']} ({record['model']}) on {record['device']}{compiled}, torch {record['torch']}",
        f"{many}, {record['megapixels']:.2f} megapixels, median of {record['repeat']}",
    ]
    if record["unreadable"]:
        lines.append(f"left out {record['unreadable']} files that cannot be read")
    lines += [f"  {phase:8} {record['seconds'][phase]:9.3f} s {share:6.1%}" for phase, share in record["share"].items()]
    speed = record["megapixels_per_second"]
    lines.append(f"speed      {speed['compute']:.2f} megapixels/s computing, {speed['all']:.2f} from file to file")
    gpu = record["peak_device_memory"]
    more = "" if gpu is None else f", and {gpu / 1e6:.0f} MB on the GPU"
    lines.append(f"memory     {record['peak_memory'] / 1e6:.0f} MB at the peak, including torch{more}")
    return "\n".join(lines)
