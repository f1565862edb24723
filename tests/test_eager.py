"""--eager: what may be damage, or part of the picture, is left alone and told of, and restored when asked."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from conftest import ROOT

from restore.cli import app
from restore.images import read_image
from restore.metrics import psnr
from restore.tasks import dewatermark, inpaint


@pytest.mark.parametrize(
    ("task", "folder", "doubting"),
    [
        ("inpaint", "covered", (inpaint, "CONVINCING")),
        ("dewatermark", "marked", (dewatermark, "BELIEVED")),
    ],
)
def test_what_is_in_doubt(task, folder, doubting, tmp_path, monkeypatch, capsys):
    """A damaged sample through a JPEG file, to a finder that is never convinced."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(*doubting, 1e3)
    cv2.imwrite("in.jpg", cv2.imread(str(ROOT / "samples" / folder / "coffee.png")), [cv2.IMWRITE_JPEG_QUALITY, 85])
    damaged, clean = (read_image(path).pixels for path in (Path("in.jpg"), ROOT / "samples/clean/coffee.png"))

    assert app.run([task, "in.jpg", "left.jpg", "--device", "cpu"]) == 0
    assert Path("left.jpg").read_bytes() == Path("in.jpg").read_bytes()
    assert "left alone (--eager takes it off), copied" in capsys.readouterr().err

    assert app.run([task, "in.jpg", "restored.png", "--device", "cpu", "--eager"]) == 0
    assert "left alone" not in capsys.readouterr().err
    restored = read_image(Path("restored.png")).pixels
    assert psnr(restored, clean) > psnr(damaged, clean) + 2
