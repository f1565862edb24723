"""Start-up time of the command, and memory for large pictures, measured from another process.

    python benchmarks/startup.py --out RESULTS-startup.md           # half a minute
    python benchmarks/startup.py --large                            # and 25 and 100 megapixels, some minutes

Start-up: the wall time of `restore denoise` on a picture of 256x256 relative to `python -c "import torch"`, medians of
fresh processes that alternate. Large pictures: peak of resident memory from PNG file to PNG file.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reporting import machine, parser, publish

TARGET = 2.5
SIDE = 256
BUDGET = 2500  # MB for 100 megapixels
MAKE = """
import sys
from pathlib import Path
from restore.inference.benchmark import synthetic
Path(sys.argv[1]).write_bytes(synthetic(int(sys.argv[2]), int(sys.argv[2])))
"""
WEIGHTS = """
import sys
from pathlib import Path
from restore import weights
from restore.models import build
from restore.tasks import TASKS
from restore.tasks.base import load_task
path = weights.default_folder() / "denoise.safetensors"
if not path.is_file():
    path = Path(sys.argv[1])
    task = load_task("denoise")
    header = weights.Header("denoise", task.arch, weights.config_values(task.config))
    weights.save(path, header, build(task.arch, task.config).state_dict())
print(path)
"""
COUNT = """
import sys
import torch
before = set(sys.modules)
from restore.cli.app import run
assert run(sys.argv[1:]) == 0
print(len(before), len(set(sys.modules) - before))
"""
# Linux counts the memory of the parent at the time of a fork, so the parent must be small.
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6, time.perf_counter() - start)
"""


def python(script: str, *arguments: object) -> str:
    """Runs a script in another process; returns what it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def seconds(*command: str) -> float:
    """Wall time of a process, which must succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def restoring(top: Path) -> list[str]:
    """Arguments of `restore` for in.png in `top`, with the shipped weights or, without any, random ones."""
    weights = python(WEIGHTS, top / "random.safetensors")
    return ["denoise", "-i", str(top / "in.png"), "-o", str(top / "out.png"), "-q", "--overwrite", "-m", weights]


def start_up(top: Path, repeat: int) -> list[str]:
    """Measures start-up; lines of Markdown."""
    python(MAKE, top / "in.png", SIDE)
    arguments = restoring(top)
    importing, whole = [], []
    for number in range(repeat + 1):
        found = seconds("-c", "import torch"), seconds("-m", "restore", *arguments)
        if number:  # the first of each fills the page cache
            importing.append(found[0])
            whole.append(found[1])
    torch_modules, more = map(int, python(COUNT, *arguments).split())
    base, total = statistics.median(importing), statistics.median(whole)
    ratio = total / base
    return [
        "## Start-up",
        "",
        f"{machine()}, Python {platform.python_version()}. Medians of {repeat} fresh processes each.",
        "",
        "| | seconds |",
        "|---|---|",
        f'| `python -c "import torch"` | {base:.2f} |',
        f"| `restore denoise` on a picture of {SIDE}x{SIDE}, PNG to PNG | {total:.2f} |",
        "",
        f"{ratio:.2f} times as long; target: under {TARGET}: {'met' if ratio < TARGET else '**missed**'}. "
        f"Beyond the {torch_modules} modules of torch, restoring imports {more}.",
    ]


def large(top: Path, megapixels: list[int]) -> list[str]:
    """Measures the memory of large pictures; lines of Markdown."""
    rows, arguments = [], restoring(top)
    for count in megapixels:
        python(MAKE, top / "in.png", round((count * 1e6) ** 0.5))
        memory, took = map(float, python(WATCH, sys.executable, "-m", "restore", *arguments).split())
        rows.append((count, memory, took))
    rows.sort()
    growth, pixels = rows[-1][1] - rows[0][1], (rows[-1][0] - rows[0][0]) * 6
    target = "not measured"
    if rows[-1][0] >= 100:
        target = "met" if all(memory < BUDGET for count, memory, _ in rows if count <= 100) else "**missed**"
    return [
        "## Large pictures",
        "",
        f"{machine()}, Python {platform.python_version()}. `restore denoise`, PNG to PNG, 8 bits, once each.",
        "",
        "| megapixels | peak of resident memory | seconds |",
        "|---|---|---|",
        *(f"| {count} | {memory:.0f} MB | {took:.0f} |" for count, memory, took in rows),
        "",
        f"Target: 100 megapixels under {BUDGET} MB: {target}. From {rows[0][0]} to "
        f"{rows[-1][0]} megapixels it grows by {growth:.0f} MB; input and output pixels by {pixels} MB.",
    ]


def report(flags: argparse.Namespace) -> str:
    """Measures; returns a section in Markdown."""
    with tempfile.TemporaryDirectory() as name:
        lines = start_up(Path(name), flags.repeat)
        if flags.large:
            lines += ["", *large(Path(name), flags.megapixels)]
    return "\n".join(lines) + "\n"


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--repeat", type=int, default=7)
    flags.add_argument("--large", action="store_true", help="also measure the memory of large pictures")
    flags.add_argument("--megapixels", type=int, nargs="+", default=[25, 100], help="of those")
    publish(flags.parse_args(), report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
