"""`benchmarks/floors.py`: what it prints is what it exits by."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from restore.images import read_image

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "floors.py"


SAID = {
    "denoise-jpeg-noise": ("the better of corrupted", "nl-means 15", "least gain over the picture as it is"),
    "denoise-grain": ("the better of corrupted", "nl-means 3"),
    "denoise-camera": ("the better of corrupted", "nl-means 6"),
    "denoise-blocks": ("over corrupted",),
    "denoise-real": ("the better of corrupted", "nl-means 10"),
    "denoise-clean": ("PSNR of pictures without damage", "lowest of them"),
    "super-resolve-x2": ("the better of bicubic",),
    "super-resolve-x4": ("the better of bicubic",),
    "inpaint-png": ("the better of telea", "mask given: over", "mask found: mean IoU"),
    "inpaint-jpg": ("the better of telea", "mask given: over", "mask found: mean IoU"),
    "dewatermark-png": ("over the marked picture", "telea with the true mask"),
    "dewatermark-jpg": ("over the marked picture", "telea with the true mask"),
    "inpaint-scratches": ("found unaided, gain inside the mask", "mask given: over", "mask found: mean IoU"),
    "inpaint-clean": ("pictures of 4 left byte for byte", "lowest PSNR of the others"),
    "dewatermark-clean": ("pictures of 4 left byte for byte", "lowest PSNR of the others"),
    "colorize-color24": ("RGB PSNR over gray", "RGB PSNR over table", "correlation of ab"),
}


def test_weights_that_know_nothing_miss_their_floors(bench: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["--limit", 1, "--sheets", tmp_path, "--device", "cpu"]
    for task in ("denoise", "super-resolve", "inpaint", "dewatermark", "colorize"):
        words += ["-m", tiny(task)]
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, words)], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    for name, lines in SAID.items():
        count = 4 if name in ("inpaint-clean", "dewatermark-clean") else 1  # one of each of their folders
        part = done.stdout.partition(f"{name}, {count} pictures")[2].partition(".png\n")[0]
        assert "MISSED" in part or count > 1, name  # weights that know nothing may leave clean pictures alone
        assert all(line in part for line in lines), name
    sheets = {path.stem.partition("-")[2].removeprefix("resolve-"): path for path in tmp_path.glob("*.png")}
    assert set(sheets) == set(SAID)
    assert read_image(sheets["colorize-color24"]).pixels.shape == (248, 6 * 248, 3)


def test_variants_have_floors_only_if_they_are_named(monkeypatch: pytest.MonkeyPatch, capsys, denoiser: Path) -> None:
    """What ships under another name than its task's is for other pictures than these."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    floors = importlib.import_module("floors")
    monkeypatch.setattr(floors.weights, "shipped", lambda: [denoiser])
    monkeypatch.setattr(sys, "argv", ["floors.py"])
    monkeypatch.setenv("RESTORE_DATA", "nowhere")
    assert floors.main() == 2
    assert "no weights for" in capsys.readouterr().err
