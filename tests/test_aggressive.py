"""--aggressive: what may be damage, or part of the picture, is left and reported, and restored when asked."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from conftest import ROOT

from restore.cli import app
from restore.images import read_image
from restore.metrics import psnr
from restore.tasks.dewatermark import task as dewatermark
from restore.tasks.inpaint import detection


@pytest.mark.parametrize(
    ("task", "folder", "doubting", "flag"),
    [
        ("inpaint", "covered", (detection, "CONVINCING", (1e3, 0)), "--aggressive"),
        ("dewatermark", "marked", (dewatermark, "CONFIDENT_LOG_ODDS", 1e3), "--eager"),  # its earlier name
    ],
)
def test_what_is_in_doubt(task, folder, doubting, flag, tmp_path, monkeypatch, capsys):
    """A damaged sample through a JPEG file, to a finder that is never convinced."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(*doubting)
    cv2.imwrite("in.jpg", cv2.imread(str(ROOT / "samples" / folder / "coffee.png")), [cv2.IMWRITE_JPEG_QUALITY, 85])
    damaged, clean = (read_image(path).pixels for path in (Path("in.jpg"), ROOT / "samples/clean/coffee.png"))

    assert app.run([task, "in.jpg", "left.jpg", "--device", "cpu"]) == 0
    assert Path("left.jpg").read_bytes() == Path("in.jpg").read_bytes()
    said = capsys.readouterr().err
    assert "left unchanged; --aggressive restores " in said and "; copied" in said

    assert app.run([task, "in.jpg", "restored.png", "--device", "cpu", flag]) == 0
    said = capsys.readouterr().err
    assert "left unchanged" not in said and " % of it restored" in said
    restored = read_image(Path("restored.png")).pixels
    assert psnr(restored, clean) > psnr(damaged, clean) + 2
