"""`restore corrupt TASK INPUT OUTPUT`: damage pictures as training does, to try a task on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.files import FileFlags, plan_jobs
from restore.cli.flags import command
from restore.cli.reporting import write_all
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.images import Image


@dataclass(frozen=True)
class SeedFlags:
    """Flags of `restore corrupt`."""

    seed: int = option(0, "Seed; the same seed and picture give the same damage, in a folder or alone.", min=0)


def add(app: typer.Typer) -> None:
    """Adds `corrupt`, with a command for every task."""
    group = typer.Typer(help="Damage pictures as training does.", no_args_is_help=True)
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = f"Damage pictures so that `restore {spec.name}` has something to do."
        group.command(spec.name)(command(body, FileFlags, SeedFlags, spec.damage))
    app.add_typer(group, name="corrupt")


def _body(spec: TaskSpec) -> Any:
    def body(files: FileFlags, seed: SeedFlags, damage: Options) -> None:
        errand = plan_jobs(files, "corrupted")

        import numpy as np

        from restore.inference.batch import Pipeline
        from restore.pixels import to_dtype, to_float

        corruption = spec.load().operator(damage)

        def corrupt(image: Image) -> Image:
            # The seed of a picture comes from its pixels, so that neither its name nor its place in a folder matters.
            rng = np.random.default_rng((seed.seed, zlib.crc32(np.ascontiguousarray(image.pixels))))
            damaged = corruption.apply(image.pixels, corruption.sample(image.pixels.shape, rng)).image
            same_size = damaged.shape[:2] == image.pixels.shape[:2]
            return replace(
                image, pixels=to_dtype(to_float(damaged), image.pixels.dtype), alpha=image.alpha if same_size else None
            )

        with Pipeline(corrupt, files.writing(), files.workers) as pipeline:
            write_all(errand, pipeline, done="corrupted")

    return body
