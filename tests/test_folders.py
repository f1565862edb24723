"""The command line on folders: nothing lost, nothing half written, the truth in the exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from folder_tools import files_in, many, pixels

from restore.cli import app
from restore.images import Image, read_image, write_image
from restore.utils.atomic_write import TEMPORARY_SUFFIX

GOOD = ("a.png", "b.jpg", "sub/deeper/ü 中.png", "sub/-r.png", "new\nline.png", "sub/c d.webp")
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x02\0\0\0\x06\0\0\0\x1a\0\0\0\0hello\0"  # ImageDescription


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """A tree of good pictures, two broken ones and what is none."""
    top = tmp_path_factory.mktemp("album")
    for seed, name in enumerate(GOOD):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(pixels(seed), exif=EXIF), top / name)
    (top / "broken.png").write_bytes((top / "a.png").read_bytes()[:-30])
    (top / "sub/empty.jpg").touch()
    (top / "notes.txt").write_text("no picture")
    (top / ".hidden.png").write_bytes((top / "a.png").read_bytes())
    return top


@pytest.fixture
def here(tmp_path, monkeypatch, album) -> Iterator[Path]:
    """A folder with the album as `in`, whose files must be the same at the end."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(album, "in")
    yield tmp_path
    assert files_in(album).items() <= files_in("in").items()
    assert not [name for name in files_in(".") if name.endswith(TEMPORARY_SUFFIX)]


def test_a_tree_of_good_and_broken_files(here, denoise, capsys):
    denoise("in", "-r", "--json", "-j", 3, code=1)
    out, err = capsys.readouterr()
    told = {line["input"]: line for line in map(json.loads, out.splitlines())}
    assert set(told) == {f"in/{name}" for name in (*GOOD, "broken.png", "sub/empty.jpg")}
    assert told["in/sub/-r.png"]["output"] == "in.denoised/sub/-r.png"
    assert told["in/sub/-r.png"]["size"] == [56, 40]
    assert told["in/sub/-r.png"]["seconds"] > 0
    assert told["in/sub/-r.png"]["error"] is None
    assert told["in/broken.png"]["output"] is None
    assert "damaged" in told["in/broken.png"]["error"]
    assert [line for line in err.splitlines() if "in/broken.png" in line] == [
        "failed: in/broken.png: " + told["in/broken.png"]["error"]
    ]
    first = files_in("in.denoised")
    assert set(first) == set(GOOD)
    assert read_image(Path("in.denoised/a.png")).pixels.shape == (40, 56, 3)

    denoise("in", "-r", code=2)  # outputs exist
    assert "--skip-existing" in capsys.readouterr().err
    os.unlink("in.denoised/a.png")
    denoise("in", "-r", "-k", "--json", code=1)
    statuses = {line["input"]: line["status"] for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert statuses.pop("in/a.png") == "restored"
    assert {statuses.pop("in/broken.png"), statuses.pop("in/sub/empty.jpg")} == {"failed"}
    assert set(statuses.values()) == {"skipped"}
    assert files_in("in.denoised") == first
    Path("in.denoised/a.png").write_bytes(b"other")
    denoise("in", "-r", "--overwrite", "-j", 1, code=1)
    assert "6 restored, 0 skipped, 2 failed in " in capsys.readouterr().err
    assert files_in("in.denoised") == first  # and -j changes nothing


def test_flags_of_names_and_formats(here, denoise, capsys):
    denoise("in", "--ext", "jpg", "--quality", 30, "-o", "low", "-q", code=1)
    denoise("in", "--ext", ".JPG", "--quality", 95, "-o", "high/deep", "-q", code=1)
    err = capsys.readouterr().err
    assert err.splitlines() == [err.splitlines()[0]] * 2  # one line for each run's broken picture
    assert set(files_in("low")) == {"a.jpg", "b.jpg", "new\nline.jpg"}  # not what is below
    assert Path("low/a.jpg").stat().st_size < Path("high/deep/a.jpg").stat().st_size / 2
    denoise("-i", "in/a.png", "-i", "in/b.jpg", "-o", "both", "--strip-metadata")
    denoise("in/a.png", "kept.png")
    assert read_image(Path("kept.png")).exif
    assert read_image(Path("both/a.png")).exif is None
    assert np.array_equal(read_image(Path("both/a.png")).pixels, read_image(Path("kept.png")).pixels)
    denoise("in/a.png", "--suffix", "clean")
    denoise("in/*.jpg", "--ext", "png")
    assert {"a.clean.png", "b.denoised.png"} <= set(os.listdir("in"))
    denoise("in/sub/c d.webp", "-i", "in/a.png", "-o", "two")
    assert set(files_in("two")) == {"c d.webp", "a.png"}
    denoise("-i", "in/a.png", "-i", "in/sub/c d.webp", "-o", "order", "-j", 5)
    assert files_in("order") == files_in("two")  # neither order nor -j changes a byte
    os.chdir("in/sub")
    assert app.run(["denoise", "-r.png"]) == 2
    assert capsys.readouterr().err.endswith("(the file of that name is ./-r.png)\n")
    denoise("--", "-r.png", "../../dash.png")
    os.chdir("../..")
    assert Path("dash.png").exists()


def test_what_is_wrong_with_a_call_is_said_without_torch(here, capsys):
    """In processes of their own, as nothing else shows what was imported."""
    program = (
        "import sys; from restore.cli import app; code = app.run(sys.argv[1:]); "
        "assert not {'torch', 'albumentations'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, "denoise", "none.png"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "restore: none.png: no such file or folder; check the path\n")
    for wrong, says in {
        ("in", "-o", "in"): "same folder",
        ("in", "-"): "stands for one picture",
        ("in", "--ext", "gif"): "not a format",
        ("in", "--ext", "heic"): "not a format",
        ("in", "--ext", "png", "--quality", "5"): "has no effect",
        ("in", "--suffix", "a/b"): "without slashes",
        ("in", "-k", "--overwrite"): "contradict",
        ("in", "--watch", "--fail-fast"): "contradict",
        ("in/a.png", "--watch"): "--watch needs folders",
        ("in/a.png", "-", "--json"): "--json and the picture both go to stdout",
        ("in/a.png", "in/b.jpg", "in/c"): "several inputs need -o",
        ("in", "--device", "cpu,"): "without empty entries",
        (): "INPUT is missing",
    }.items():
        assert app.run(["denoise", *wrong]) == 2, wrong
        assert says in capsys.readouterr().err, wrong


def test_a_terminal_gets_progress_and_no_picture(here, denoise, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    denoise("in", "out", code=1)
    err = capsys.readouterr().err
    assert "/4 pictures" in err
    assert "megapixels/s" in err
    assert "to go" in err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    denoise("in", "out2", code=1)
    assert "pictures |" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    denoise("in/a.png", "-", code=2)
    assert "stdout is a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    denoise("-", "b.png", code=2)
    assert "stdin is a terminal" in capsys.readouterr().err


def test_fail_fast(here, denoise, capsys):
    many(count=20)
    Path("many/05.png").write_bytes(b"broken")
    denoise("many", "out", "--fail-fast", "--json", code=1)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["input"] for line in told if line["error"]] == ["many/05.png"]
    assert {os.path.basename(line["output"]) for line in told if line["output"]} == set(files_in("out"))
    assert len(told) < 16


def test_a_folder_that_cannot_be_listed_is_a_failure(here, denoise, capsys, monkeypatch):
    scan = os.scandir

    def scandir(path="."):
        if os.path.basename(path) == "deeper":  # root may list anything, so rights would show nothing
            raise PermissionError(13, "Permission denied")
        return scan(path)

    shutil.copytree("in/sub", "tree")
    os.unlink("tree/empty.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        denoise("tree", "out", "-r", code=1)
    err = capsys.readouterr().err
    assert "2 restored, 0 skipped, 1 failed" in err
    assert "failed: tree/deeper: skipped: permission denied" in err


def test_disks_that_take_nothing(here, denoise, capsys):
    many(count=8)
    for folder, options in (("full", "size=400k"), ("shut", "size=1m")):
        Path(folder).mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro", "shut"], check=True)
        for folder, says in (("full", "disk is full"), ("shut", "")):
            denoise("many", folder, code=1)
            err = capsys.readouterr().err
            failed = [line for line in err.splitlines() if line.startswith("failed: many/")]
            assert len(failed) + len(files_in(folder)) == 8
            assert all(says in line for line in failed)
        assert "permission" in err or "read-only" in err
        assert all(read_image(Path("full", name)) for name in files_in("full"))
        assert len(files_in("full")) in (1, 2)
    finally:
        subprocess.run(["umount", "full", "shut"], check=True)


def test_a_closed_pipe_ends_quietly(here, denoise, capfd, monkeypatch):
    for arguments in (("in/a.png", "-", "-q"), ("in", "out", "-r", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            denoise(*arguments, code=1)
        assert capfd.readouterr().err == ""
