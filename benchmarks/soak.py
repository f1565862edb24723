"""Restores a folder of many small files, some of them broken: checks that no file is lost and memory does not grow.

    python benchmarks/soak.py --files 10000 [--kill 60]

Makes the files (PNG, 48 to 80 pixels a side) in a temporary folder, breaks some in each of several ways, puts the bombs
of tests/hostile in the place of others, lets some vanish while the run goes on, and watches the process from outside.
With --kill the process is killed after so many seconds of computing, which other work on the machine does not change,
and started again with --skip-existing, until a run ends by itself. After --kills of them it may take its time: what is
refused is tried again by every run.
Exits with 1 if a file was lost, an original changed, a temporary was left, or memory at the end is more than 10 % above
that after the first 500 files.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil

from restore.errors import ImageError
from restore.images import Image, read_image, write_image

EARLY = 500  # files after which the reference of memory is measured
MAX_GROWTH = 1.10


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def huge(path: Path) -> None:
    """Writes a size of 60,000 x 60,000 pixels into the header."""
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(data)


FAULTS = (truncated, flipped, emptied, text, huge)
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "hostile"))


def bombs() -> list[tuple[bytes, bool]]:
    """The hostile files of less than a megabyte, and whether each is refused; some are pictures all the same."""
    from bombs import BOMBS

    found = []
    for generate in BOMBS.values():
        if len(data := generate()) < 1 << 20:
            try:
                refused = not read_image(data)
            except ImageError:
                refused = True
            found.append((data, refused))
    return found


def make(folder: Path, count: int, share: float) -> dict[Path, str]:
    """Makes `count` pictures in folders of 1000; returns the damaged ones with the kind of damage."""
    rng = np.random.default_rng(0)
    faults: dict[Path, str] = {}
    hostile = bombs()
    for number in range(count):
        path = folder / f"{number // 1000:02}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (rng.integers(48, 81), rng.integers(48, 81), 3), np.uint8)
        write_image(Image(pixels), path)
        if rng.random() < share:
            number = int(rng.integers(2 * len(FAULTS)))
            if number < len(FAULTS):
                FAULTS[number](path)
                faults[path] = FAULTS[number].__name__
                continue
            data, refused = hostile[int(rng.integers(len(hostile)))]
            path.write_bytes(data)
            if refused:
                faults[path] = "hostile"
    return faults


def tiny_weights(path: Path) -> Path:
    """Weights of a tiny network, since its own time does not matter here."""
    import torch

    from restore import weights
    from restore.models import build
    from restore.models.autoencoder import ConvAutoencoderConfig

    torch.manual_seed(0)
    config = ConvAutoencoderConfig(widths=(8,), blocks=(1,), fold=1)
    network = build("conv-autoencoder", config)
    weights.save(path, weights.Header("denoise", "conv-autoencoder", asdict(config)), network.state_dict())
    return path


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by path."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def memory(process: psutil.Process) -> float:
    """MiB of the process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.03, help="of files that are broken")
    parser.add_argument(
        "--kill", type=int, metavar="SECONDS", help="of computing, at which every run but the last is killed"
    )
    parser.add_argument("--kills", type=int, default=8, help="after so many a run may take its time")
    parser.add_argument("--device", default="cpu", help="as for restore; a list spreads the work")
    asked = parser.parse_args()

    def limit() -> None:  # the kernel kills at both limits
        if asked.kill and kills < asked.kills:
            resource.setrlimit(resource.RLIMIT_CPU, (asked.kill, asked.kill))

    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        faults = make(top / "in", asked.files, asked.share)
        files = sorted((top / "in").rglob("*.png"))
        # Files that are processed late: one device processes files by name, several devices the largest first.
        late = [path for path in files[len(files) // 2 :] if path not in faults]
        vanishing = sorted(late, key=lambda path: path.stat().st_size)[: asked.files // 100]
        before = digest(top / "in")
        command = [sys.executable, "-m", "restore", "denoise", str(top / "in"), str(top / "out"), "-r", "--json"]
        command += ["-m", str(tiny_weights(top / "tiny.safetensors")), "--device", asked.device]
        command += ["--skip-existing"] if asked.kill else []
        start, told, used, kills = time.perf_counter(), {}, [], -1
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            kills += 1
            told.clear()  # what counts is said by the last run
            with (
                open(top / "log", "w") as log,
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, preexec_fn=limit) as run,
            ):
                process = psutil.Process(run.pid)
                for line in run.stdout or ():
                    if not line.endswith(b"\n"):  # killed in the middle of it
                        break
                    outcome = json.loads(line)
                    told[Path(outcome["input"])] = outcome
                    if len(told) == EARLY:
                        used.append(memory(process))
                        for path in vanishing:
                            path.unlink(missing_ok=True)
                            faults[path] = "vanished"
                    elif len(told) % 100 == 0 and len(told) > EARLY:
                        with contextlib.suppress(psutil.Error):  # killed meanwhile
                            used.append(memory(process))
            code = run.returncode
        seconds = time.perf_counter() - start
        after = digest(top / "in")
        left = list((top / "out").rglob("*.restore-tmp"))
        written = {path.relative_to(top / "out") for path in (top / "out").rglob("*") if path.is_file()}
        listed = [path for path, outcome in told.items() if outcome["error"] is not None]
        # A picture that vanished before a kill is in no list of the next run, which does not find it.
        gone = {path for path, fault in faults.items() if fault == "vanished"} if kills else set()
        missing = [path for path in files if path not in listed and path not in gone]
        lost = [path for path in missing if path.relative_to(top / "in") not in written]
        changed = [path for path, known in after.items() if before[path] != known]
        log_lines = (top / "log").read_text().count("failed: ")
    growth = used[-1] / used[0] if used else 0.0
    good = (
        not lost
        and not changed
        and not left
        and growth <= MAX_GROWTH
        and run.returncode == bool(faults)
        # A picture that was restored before it vanished, or before a kill, is in no list of the last run.
        and set(listed) <= set(faults)
        and all(path in listed or faults[path] == "vanished" for path in faults)
    )
    print(f"files             {len(files)}")
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(Counter(faults.values()).items()))
    print(f"faults injected   {len(faults)} ({kinds})")
    print(f"restored          {len(written)}")
    print(f"listed            {len(listed)} as JSON, {log_lines} in words; exit code {run.returncode}")
    print(f"lost              {len(lost)}")
    print(f"killed            {kills} times; {len(left)} temporaries left")
    print(f"originals changed {len(changed)}")
    print(
        f"memory            {used[0]:.0f} MiB after {EARLY} files, {used[-1]:.0f} at the end, {max(used):.0f} at most"
    )
    print(
        f"time              {seconds:.0f} s, {len(files) / seconds:.0f} files/s on {asked.device}, {platform.machine()}"
    )
    print("good" if good else "NOT GOOD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
