"""What programs that measure share: the machine in words, tables in Markdown, and where the result goes."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def machine() -> str:
    """Name of the processor and number of cores."""
    model = platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser of flags that knows `--out`."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, help="also write the section to this file")
    return made


def publish(flags: argparse.Namespace, report: Callable[[argparse.Namespace], str]) -> None:
    """Prints the text that `report` makes, and writes it to the file that `--out` names."""
    text = report(flags)
    print(text)
    if flags.out:
        flags.out.write_text(text, encoding="utf-8")
