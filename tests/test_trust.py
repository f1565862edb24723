"""What hostile or careless input must not do: delete, overwrite, hang, fill memory, or end a run without a word."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restore import weights
from restore.cli.app import run as run_cli
from restore.devices import _container_limit
from restore.errors import ImageError, TrainingError, WeightsError
from restore.folders.compute_queue import PerPicture
from restore.folders.pipeline import FilePipeline, WriteOptions
from restore.folders.plan import Job
from restore.images import Image, image_size, write_image
from restore.inference.restored import Restored
from restore.training import checkpoint
from restore.utils.atomic_write import write_atomic

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(Image(NOISE), tmp_path / "in" / name)
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- nothing of others is deleted or written over --------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["holiday.jpg", "step-00000001/holiday.jpg", "tensorboard/holiday.jpg"])
def test_training_leaves_a_folder_that_is_not_its_own(inside, folder, tmp_path, capsys):
    photograph = tmp_path / "mine.checkpoint" / inside
    photograph.parent.mkdir(parents=True)
    photograph.write_bytes(b"irreplaceable")
    code = run_cli(["train", "denoise", str(folder), "-o", str(tmp_path / "mine.safetensors"), "--overwrite"])
    assert code == 2 and "no part of a checkpoint" in capsys.readouterr().err
    assert photograph.read_bytes() == b"irreplaceable"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "denoise", "IN", "-o", "IN/b.png", "--overwrite"],
        ["evaluate", "denoise", "IN", "--report", "IN/b.png", "--overwrite"],
        ["evaluate", "denoise", "IN", "--csv", "IN/b.png", "--overwrite"],
    ],
)
def test_results_never_replace_a_picture_of_the_input(arguments, folder, capsys):
    before = contents(folder)
    assert run_cli([text.replace("IN", str(folder)) for text in arguments]) == 2
    said = capsys.readouterr().err
    assert ("end it in" in said or "weights files end in" in said) and contents(folder) == before


def test_an_output_that_became_the_input_is_not_written(folder, tmp_path):
    """The output folder is swapped for a link to the input while the run is on its way."""
    (tmp_path / "out").symlink_to(folder)
    before = contents(folder)
    job = Job(folder / "a.png", tmp_path / "out" / "a.png")
    with FilePipeline(PerPicture(lambda image, mask: Restored(image)), WriteOptions(overwrite=True)) as pipeline:
        (outcome,) = pipeline.run([job])
    assert "nothing is written over an input" in outcome.error
    assert contents(folder) == before


def test_a_folder_that_is_swapped_while_a_file_is_written(tmp_path, monkeypatch):
    """The rename happens in the folder that was opened, not in what its name leads to by then."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(name.encode())

    def swap(_):
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").symlink_to(tmp_path / "in")

    monkeypatch.setattr(os, "fsync", swap)
    write_atomic(b"restored", tmp_path / "out" / "a.png", overwrite=True)
    assert contents(tmp_path / "in") == {"a.png": b"in"} and contents(tmp_path / "moved") == {"a.png": b"restored"}


def test_an_error_names_the_file_and_not_its_temporary(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(b"data", tmp_path / "none" / "a.png", overwrite=True)
    assert caught.value.filename == str(tmp_path / "none" / "a.png")


# --- weights and checkpoints -----------------------------------------------------------------------------------------


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """`source` with some settings of its config replaced."""
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
    metadata["config"] = json.dumps({**json.loads(metadata["config"]), **changes})
    save_file(load_file(source), target, metadata)
    return target


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": [200_000, 200_000]},
        {"blocks": [1] * 100_000, "widths": [1] * 100_000},
        {"widths": [60_000, 60_000]},
        {"scales": list(range(1, 1_000_000))},
        {"scales": [1, 60_000]},
        {"fold": 1 << 62},
        {"fold": 2.5},
        {"fold": -1},
        {"widths": "wide"},
        {"widths": [[8], [12]]},
        {"blocks": None},
        {"fold": float("nan")},
    ],
)
def test_a_header_that_claims_too_much_is_refused_at_once(changes, tiny, tmp_path):
    path = rewritten(tiny("denoise"), tmp_path / "odd.safetensors", **changes)
    start = time.process_time()
    with pytest.raises(WeightsError) as caught:
        weights.load(path, "denoise")
    assert time.process_time() - start < 2
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, "1", '{"a": NaN}', '{"a": 1e999, "b": "x"}'])
@pytest.mark.parametrize("field", ["config", "scores", "provenance"])
def test_a_header_of_odd_json(field, text, tiny, tmp_path):
    with safe_open(tiny("denoise"), framework="pt") as file:
        metadata = {**file.metadata(), field: text}
    path = tmp_path / "odd.safetensors"
    save_file(load_file(tiny("denoise")), path, metadata)
    if (field, text[:4]) == ("provenance", '{"a"') and "NaN" not in text:
        assert weights.load(path, "denoise")  # anything may stand there
        return
    with pytest.raises(WeightsError):
        weights.load(path, "denoise")


def test_escape_codes_of_a_header_do_not_reach_the_terminal(tiny, tmp_path, capsys):
    with safe_open(tiny("denoise"), framework="pt") as file:
        metadata = {**file.metadata(), "task": "\x1b]0;owned\x07", "variant": "\x1b[2J"}
    path = tmp_path / "odd.safetensors"
    save_file(load_file(tiny("denoise")), path, metadata)
    run_cli(["models", "-m", str(path)])
    assert run_cli(["denoise", "a.png", "-m", str(path)]) == 2
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "owned" in shown.out


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"settings": []}', "[" * 100_000])
def test_a_damaged_state_is_one_line(text, folder, tmp_path, capsys):
    checkpoint.save(tmp_path / "mine.checkpoint", 1, checkpoint.Checkpoint({}, {"settings": {}}))
    (tmp_path / "mine.checkpoint" / "step-00000001" / "state.json").write_text(text)
    code = run_cli(["train", "denoise", str(folder), "-o", str(tmp_path / "mine.safetensors"), "--resume"])
    shown = capsys.readouterr().err
    assert code == 1 and "damaged checkpoint" in shown and len(shown.splitlines()) == 1


def test_a_checkpoint_with_a_file_missing(tmp_path, tiny):
    saved = checkpoint.Checkpoint({"model": load_file(tiny("denoise"))}, {"settings": {}})
    checkpoint.save(tmp_path, 1, saved)
    assert checkpoint.load(tmp_path).state == {"settings": {}}
    next((tmp_path / "step-00000001").glob("model-*")).unlink()
    with pytest.raises(TrainingError, match=r"model-000.safetensors is missing"):
        checkpoint.load(tmp_path)


def test_a_header_that_claims_a_hundred_thousand_pixels_a_side_has_no_size(folder):
    """Training would choose nearly all of its patches from it."""
    data = bytearray((folder / "a.png").read_bytes()[:74])
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    (folder / "c.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"c.png: "):
        image_size(folder / "c.png")
    assert image_size(folder / "a.png") == (40, 50)


# --- the machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1000"}, 1000),
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": "700", "a/b/memory.max": "900"}, 700),
        ("0::/not/here\n", {"memory.max": "800"}, 800),
        ("5:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "600"}, 600),
        ("5:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "500"}, 500),
        ("0::/\n", {"memory.max": "max"}, None),
        ("", {}, None),
    ],
)
def test_limits_of_control_groups(own, files, limit, tmp_path):
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert _container_limit(tmp_path / "own", tmp_path / "mounted") == limit


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m restore {line}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=cwd, timeout=120)


def test_a_run_goes_on_with_stderr_closed(folder, tiny, tmp_path):
    done = shell(f"denoise in out -m {tiny('denoise')} --device cpu 2>&-", tmp_path)
    assert done.returncode == 0 and sorted(os.listdir(tmp_path / "out")) == ["a.png", "b.png"]


def test_a_closed_stdin_is_told(tiny, tmp_path):
    done = shell(f"denoise - - -m {tiny('denoise')} --device cpu <&-", tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("is closed; open it, or give a file")


def test_a_closed_stdout_is_told(folder, tiny, tmp_path):
    done = shell(f"denoise - - -m {tiny('denoise')} --device cpu < in/a.png >&-", tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("is closed; open it, or give a file")


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_too_little_address_space_for_torch_is_one_line(folder, tmp_path):
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v 1000000; {sys.executable} -m restore denoise in out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "free some memory" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("stream", "flags", "code"), [("stderr", [], 0), ("stdout", ["--json"], 1)])
def test_a_run_goes_on_where_the_disk_of_its_messages_is_full(
    stream, flags, code, folder, denoise, tmp_path, capsys, monkeypatch
):
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it fails as well
        monkeypatch.setattr(sys, stream, full)
        denoise(folder, tmp_path / "out", *flags, code=code)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "b.png"]
    if code:
        assert "JSON is incomplete" in capsys.readouterr().err


def test_a_working_folder_that_is_gone(tmp_path):
    done = subprocess.run(
        ["sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m restore denoise a.png"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stderr) == (
        2,
        "restore: the folder this was started in is gone; change to one that exists\n",
    )


# --- what is left out is told ----------------------------------------------------------------------------------------


def test_other_files_and_what_is_not_kept_are_told(folder, denoise, tmp_path, capsys):
    for name in ("c.gif", "d.GIF", "e.txt"):
        (folder / name).write_bytes(b"GIF89a")
    PIL.Image.fromarray(NOISE).convert("CMYK").save(folder / "f.jpg")
    denoise(folder, tmp_path / "out")
    shown = capsys.readouterr().err
    assert "not taken: 2 pictures of formats that are not read (2 .gif)" in shown
    assert "left out 1 files that are no pictures by their suffix (1 .txt)" in shown
    assert "f.jpg: its CMYK colours are written as RGB" in shown
