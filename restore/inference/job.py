"""One picture of a run: where it comes from, where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One picture: where it comes from and where it goes; None is stdin or stdout.

    whole_name: where the output's format cannot hold the picture, `a.jpg` becomes `a.jpg.png`, for `a.png`
    is another's. mask: says where the picture is damaged. save_mask: where the mask goes that was found, or given.
    hints: what `mask` and `save_mask` name are colours that a person gives. trouble: why it cannot be done.
    """

    input: Path | None
    output: Path | None
    whole_name: bool = False
    mask: Path | None = None
    save_mask: Path | None = None
    hints: bool = False
    trouble: str = ""

    @property
    def written(self) -> list[Path]:
        """The files that it makes, but for stdout."""
        return [path for path in (self.output, self.save_mask) if path is not None]

    def instead(self, suffix: str) -> Path:
        """The output under another `suffix`."""
        assert self.output is not None
        return self.output.with_name(self.output.name + suffix) if self.whole_name else self.output.with_suffix(suffix)
