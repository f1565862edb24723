"""`benchmarks/floors.py`: what it prints is what it exits by."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from restore.images import read_image

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "floors.py"


# One set of each kind, and what is printed of it.
SAID = {
    "denoise-jpeg-noise": (
        "the better of corrupted",
        "nl-means 15",
        "wavelets 5",
        "total-variation 25",
        "least gain over the picture as it is",
    ),
    "denoise-clean": ("PSNR of pictures without damage", "lowest of them"),
    "super-resolve-x2": ("the better of bicubic",),
    "inpaint-png": ("the better of telea", "mask given: over", "mask found: mean IoU"),
    "dewatermark-png": ("over the marked picture", "telea with the true mask"),
    "inpaint-scratches": ("found unaided, gain inside the mask", "mask given: over", "mask found: mean IoU"),
    "inpaint-clean": ("pictures of 4 left byte for byte", "lowest PSNR of the others"),
    "dewatermark-clean": ("pictures of 4 left byte for byte", "lowest PSNR of the others"),
    "colorize-color24": ("RGB PSNR over gray", "RGB PSNR over table", "correlation of ab"),
}


@pytest.fixture
def floors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return importlib.import_module("floors")


def test_weights_that_know_nothing_miss_their_floors(
    bench: Path, floors: ModuleType, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    for task, sets in floors.SETS.items():
        monkeypatch.setitem(floors.SETS, task, [known for known in sets if known.title in SAID])
    words = ["--limit", 1, "--peers", "--sheets", tmp_path, "--device", "cpu"]
    for task in ("denoise", "super-resolve", "inpaint", "dewatermark", "colorize"):
        words += ["-m", tiny(task)]
    monkeypatch.setattr(sys, "argv", ["floors.py", *map(str, words)])
    assert floors.main() == 1
    printed = capsys.readouterr().out
    for name, lines in SAID.items():
        count = 4 if name in ("inpaint-clean", "dewatermark-clean") else 1  # one of each of their folders
        part = printed.partition(f"{name}, {count} pictures")[2].partition(".png\n")[0]
        assert "MISSED" in part or count > 1, name  # weights that know nothing may leave clean pictures alone
        assert all(line in part for line in lines), name
    sheets = {path.stem.partition("-")[2].removeprefix("resolve-"): path for path in tmp_path.glob("*.png")}
    assert set(sheets) == set(SAID)
    assert read_image(sheets["colorize-color24"]).pixels.shape == (248, 6 * 248, 3)


def test_variants_have_floors_only_if_they_are_named(floors: ModuleType, monkeypatch, capsys, denoiser: Path) -> None:
    """What ships under another name than its task's is for other pictures than these."""
    monkeypatch.setattr(floors.weights, "shipped", lambda: [denoiser])
    monkeypatch.setattr(sys, "argv", ["floors.py"])
    monkeypatch.setenv("RESTORE_DATA", "nowhere")
    assert floors.main() == 2
    assert "no weights for" in capsys.readouterr().err
