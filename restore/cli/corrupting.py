"""`restore corrupt TASK INPUT OUTPUT`: damage pictures as training does, to try a task on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.files import FileFlags, plan_files
from restore.cli.flags import add_command, group
from restore.cli.reporting import run_jobs
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    import numpy as np

    from restore.images import Image


@dataclass(frozen=True)
class SeedFlags:
    PANEL = "Damage"

    seed: int = option(0, "Seed; the same seed and picture give the same damage, in a folder or alone.", min=0)


@dataclass(frozen=True)
class SaveMaskFlags:
    """Flags of `restore corrupt`, for damage that has a place."""

    PANEL = "Mask"

    save_mask: Path | None = option(None, "Folder for masks of the damage, as PNG: white is lost.", metavar="DIR")


@dataclass(frozen=True)
class SaveHintFlags:
    """Flags of `restore corrupt`, for damage that leaves hints."""

    PANEL = "Colour hints"

    save_hints: Path | None = option(
        None, "Folder for the dots of --hints, as PNG with transparency, for `restore colorize --hints`.", metavar="DIR"
    )


def add(app: typer.Typer) -> None:
    """Adds `corrupt`, with a command for every task."""
    corrupting = group("Damage pictures as training does.")
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = f"Damage pictures so that `restore {spec.name}` has something to do."
        more = [SaveMaskFlags] if spec.masks else [SaveHintFlags] if spec.hints else []
        saved = {SaveMaskFlags: " --save-mask masks/", SaveHintFlags: " --hints 10 --save-hints dots/"}
        examples = (
            f"restore corrupt {spec.name} clean.png damaged.png",
            f"restore corrupt {spec.name} clean/ damaged/ -r{saved[more[0]] if more else ' --seed 1'}",
        )
        kinds, panels = (FileFlags, SeedFlags, spec.damage, *more), {spec.damage: "Damage"}
        add_command(corrupting, spec.name, body, *kinds, examples=examples, panels=panels)
    app.add_typer(corrupting, name="corrupt")


def _body(spec: TaskSpec) -> Any:
    def body(
        files: FileFlags,
        seed: SeedFlags,
        damage: Options,
        saved: SaveMaskFlags | SaveHintFlags = SaveMaskFlags(),
    ) -> None:
        place = saved.save_hints if isinstance(saved, SaveHintFlags) else saved.save_mask
        if count := getattr(damage, "hints", 0) if place is None else 0:
            raise UsageError(f"--hints {count} makes files of hints; say where they go with --save-hints DIR")
        if spec.hints and place is not None and not getattr(damage, "hints", 0):
            raise UsageError("--save-hints needs --hints N, how many dots there are to be")
        request = plan_files(files, "corrupted", save_mask=place, hints=spec.hints)

        import numpy as np

        from restore.folders.compute_queue import PerPicture
        from restore.folders.pipeline import FilePipeline
        from restore.inference.restored import Restored
        from restore.pixels import to_dtype, to_float
        from restore.tasks.base import load_task

        corruption = load_task(spec.name).operator(damage)

        def corrupt(image: Image, _: np.ndarray | None = None) -> Restored:
            # The seed of a picture comes from its pixels, so that neither its name nor its place in a folder matters.
            rng = np.random.default_rng((seed.seed, zlib.crc32(np.ascontiguousarray(image.pixels))))
            damaged = corruption.apply(image.pixels, corruption.sample(image.pixels.shape, rng))
            pixels = to_dtype(to_float(damaged.image), image.pixels.dtype)
            alpha = image.alpha if pixels.shape[:2] == image.pixels.shape[:2] else None
            return Restored(replace(image, pixels=pixels, alpha=alpha), damaged.hints if spec.hints else damaged.mask)

        write_options = replace(files.write_options(), done="corrupted")
        with FilePipeline(PerPicture(corrupt), write_options, files.workers) as pipeline:
            run_jobs(request, pipeline, done=write_options.done)

    return body
