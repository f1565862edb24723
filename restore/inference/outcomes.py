"""What is asked of a run over files, and what became of each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from restore.inference.job import Job
from restore.inference.restored import Restored


@dataclass(frozen=True)
class Writing:
    """How pictures are written.

    overwrite: replace outputs that exist. skip_existing: leave them, and do not restore their inputs.
    quality: 1-100 of lossy formats (None: as the input). metadata: carry EXIF and XMP.
    extension: the format (`.png`) of what goes to stdout (None: the input's).
    dry_run: write no picture; masks that are to be saved are written all the same.
    """

    overwrite: bool = False
    skip_existing: bool = False
    quality: int | None = None
    metadata: bool = True
    extension: str | None = None
    dry_run: bool = False

    @property
    def keeps_bytes(self) -> bool:
        """Whether a picture in which nothing changed may stay as its file has it."""
        return self.quality is None and self.metadata


@dataclass(frozen=True)
class Outcome:
    """What became of a job: restored, copied (nothing was found), examined (of a dry run), skipped (its
    `output` was there), or failed (`error` says why).

    size: (width, height) of the output. seconds: of computing. note: how the file differs from what was asked
    for. found: what a person should know of the picture. mask_share: of its pixels that are to be restored,
    0 to 1; None where there is no mask. change: see `Restored.change`.
    """

    job: Job
    output: Path | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None
    skipped: bool = False
    found: str | None = None
    mask_share: float | None = None
    change: float | None = None
    copied: bool = False
    examined: bool = False

    @property
    def status(self) -> str:
        """restored, copied, examined, skipped or failed."""
        if self.error is not None:
            return "failed"
        states = {"skipped": self.skipped, "examined": self.examined, "copied": self.copied}
        return next((name for name, is_so in states.items() if is_so), "restored")


class Runner(Protocol):
    """Takes jobs and gives outcomes; may be asked again, until it is left."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, jobs: Iterable[Job], *, fail_fast: bool = False) -> Iterator[Outcome]:
        """The outcomes of `jobs`. With `fail_fast` nothing is begun after the first failure."""
        ...


def success(job: Job, restored: Restored, writing: Writing, seconds: float, *, copied: bool = False) -> Outcome:
    """The outcome for what was made of a picture; where it was written to is left to fill in."""
    share = None if restored.mask is None else float(restored.mask.mean())
    found = restored.note or None
    if restored.nothing:
        found = f"{restored.note or 'nothing found'}{', copied' if copied else ''}"
    elif writing.dry_run:
        found = f"{_percent(share)} of it would be restored{f'; {restored.note}' if restored.note else ''}"
    return Outcome(
        job,
        size=restored.image.size,
        seconds=seconds,
        found=found,
        mask_share=share,
        change=restored.change,
        copied=copied,
        examined=writing.dry_run,
    )


def _percent(share: float | None) -> str:
    if share is None:
        return "all"
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
