"""Small pictures, jobs for them and what became of them; imports no torch, for new processes import it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from restore.folders.compute_queue import PerPicture
from restore.folders.pipeline import FilePipeline, Outcome, WriteOptions
from restore.folders.plan import Job
from restore.images import Image, write_image
from restore.inference.restored import Restored
from restore.utils.atomic_write import TEMPORARY_SUFFIX

Function = Callable[[Image, "np.ndarray | None"], Restored]
WRITE = WriteOptions()


def inverted(image: Image, mask: np.ndarray | None = None) -> Restored:
    return Restored(replace(image, pixels=255 - image.pixels), mask)


def run(
    jobs: Iterable[Job], function: Function, options: WriteOptions = WRITE, workers: int = 2, fail_fast: bool = False
) -> Iterator[Outcome]:
    """What a pipeline yields that applies `function` to each picture."""
    with FilePipeline(PerPicture(function), options, workers) as pipeline:
        yield from pipeline.run(jobs, fail_fast=fail_fast)


def write(path: Path, value: int = 100, size: tuple[int, int] = (16, 24), alpha: bool = False) -> Path:
    pixels = np.full((*size, 3), value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_image(Image(pixels, pixels[..., 0] if alpha else None), path, format="png", overwrite=True)


def jobs_of(*names: str, output: str = "out") -> list[Job]:
    return [Job(Path("in", name), Path(output, name)) for name in names]


def pixels(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def many(folder: str = "many", count: int = 30) -> int:
    """Pictures enough to interrupt: some seconds of work."""
    Path(folder).mkdir()
    for seed in range(count):
        write_image(Image(pixels(seed, 160 + seed, 320)), Path(folder, f"{seed:02}.png"))
    return count


def wait_for_more(folder: str, count: int, seconds: float = 60) -> None:
    """Until more than `count` pictures are done. Looks at names only: a temporary file is gone when it is read."""
    until = time.monotonic() + seconds
    while sum(not path.name.endswith(TEMPORARY_SUFFIX) for path in Path(folder).glob("*")) <= count:
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def files_in(folder: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
