"""`restore benchmark`: each flag, the table, the JSON; and what it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from restore.cli.app import run
from restore.cli.benchmarking import BenchmarkFlags
from restore.images import read_image
from restore.inference import benchmark as measuring


@pytest.fixture
def benchmark(tiny, capsys):
    """The command, its JSON parsed; a tiny network unless told otherwise."""

    def call(*arguments: object, task: str = "denoise", expect: int = 0) -> dict:
        capsys.readouterr()
        flags = [*map(str, arguments), "-m", str(tiny(task)), "--device", "cpu", "--json"]
        assert run(["benchmark", task, *flags]) == expect
        out, err = capsys.readouterr()
        return json.loads(out) if not expect else {"error": err.strip()}

    return call


@pytest.fixture
def folder(photo, tmp_path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    cv2.imwrite(str(path / "a.png"), photo[:60, :80])
    cv2.imwrite(str(path / "b.jpg"), photo[:50, :40])
    return path


def test_json(benchmark):
    found = benchmark("--size", "120x90", "--repeat", 2)
    assert found["task"] == "denoise"
    assert found["model"] == "denoise.safetensors"
    assert (found["pictures"], found["unreadable"], found["repeat"]) == (1, 0, 2)
    assert found["megapixels"] == pytest.approx(0.0108)
    assert set(found["seconds"]) == set(found["share"]) == {"decode", "compute", "encode"}
    assert min(found["seconds"].values()) > 0
    assert sum(found["share"].values()) == pytest.approx(1, abs=0.01)
    speed = found["megapixels_per_second"]
    assert speed["compute"] > speed["all"] > 0
    assert speed["compute"] == pytest.approx(found["megapixels"] / found["seconds"]["compute"], rel=0.02)
    assert 100e6 < found["peak_memory"] < 50e9
    assert found["peak_device_memory"] is None
    assert found["torch"] == torch.__version__


@pytest.mark.parametrize("task", ["denoise", "inpaint", "colorize"])
def test_host(task, benchmark):
    """In milliseconds of processor time, with no network: far less than computing takes."""
    found = benchmark("--host", "--size", "512x512", "--repeat", 3, task=task)
    assert found["task"] == task
    assert 0 < found["ms_per_megapixel"] < 100
    assert found["decode_ms_per_megapixel"] > 0 < found["encode_ms_per_megapixel"]
    assert found["megapixels_per_second_at_16_cores"] > 10


def test_table(tiny, capsys):
    flags = ["--size", "64x64", "--repeat", "1", "--device", "cpu", "-m", str(tiny("denoise"))]
    assert run(["benchmark", *flags]) == 0  # denoise is the default
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("denoise (denoise.safetensors) on cpu, ")
    assert [line.split()[0] for line in lines] == ["denoise", "1", "decode", "compute", "encode", "speed", "memory"]


def test_folder(benchmark, folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = benchmark("--folder", folder, "--repeat", 1)
    assert (found["pictures"], found["unreadable"]) == (2, 1)
    assert found["megapixels"] == pytest.approx((60 * 80 + 50 * 40) / 1e6)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.jpg", "broken.png"]


def test_model_flags(benchmark, monkeypatch):
    """--precision, --tile and --compile reach the restorer; --repeat counts."""
    seen, passes = [], []
    from restore.inference import loading

    load, once = loading.load, measuring._pass

    def watched(*arguments, **options):
        seen.append(load(*arguments, **options))
        return seen[-1]

    def passing(*arguments):
        passes.append(1)
        return once(*arguments)

    monkeypatch.setattr(loading, "load", watched)
    monkeypatch.setattr(measuring, "_pass", passing)
    monkeypatch.setattr(torch, "compile", lambda network: network)
    found = benchmark("--size", "50x50", "--precision", "bf16", "-t", 48, "--compile", "--repeat", 3)
    assert (seen[0].dtype, seen[0].tile, seen[0]._engine.compile) == (torch.bfloat16, 48, True)
    assert (found["tile"], found["compiled"], found["repeat"]) == (48, True, 3)
    assert found["device"].endswith("bf16")
    assert len(passes) == 4  # and one that is not counted
    assert not benchmark("--size", "50x50", "--precision", "fp32", "--repeat", 1)["compiled"]
    assert len(passes) == 4 + 2


def test_task(benchmark):
    assert benchmark("--size", "40x40", "--repeat", 1, task="super-resolve")["task"] == "super-resolve"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--size", "100"], "write WIDTHxHEIGHT"),
        (["--size", "0x5"], "from 1 pixel"),
        (["--size", "99999x99999"], "to 500 megapixels"),
        (["--folder", "{empty}"], "no pictures here"),
        (["--folder", "{empty}/none"], "no such folder"),
        (["--device", "cuda:77"], "this machine has"),
    ],
)
def test_wrong_calls(flags, reason, benchmark, tmp_path, tiny, capsys):
    flags = [flag.replace("{empty}", str(tmp_path)) for flag in flags]
    assert run(["benchmark", "denoise", "-m", str(tiny("denoise")), *flags]) == 2
    assert reason in capsys.readouterr().err


def test_unknown_tasks_and_unreadable_folders(benchmark, folder, tmp_path, tiny, capsys):
    assert run(["benchmark", "denoize"]) == 2
    assert "did you mean 'denoise'" in capsys.readouterr().err
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:30])
    assert "no picture can be read" in benchmark("--folder", folder, expect=2)["error"]


def test_every_flag_is_documented(capsys):
    assert run(["benchmark", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(known.metadata["help"] in text for known in fields(BenchmarkFlags))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (700, 40), (300, 1100)])
def test_synthetic_size(width, height):
    """Of the size asked for, and the same every time."""
    data = measuring.synthetic(width, height)
    picture = read_image(data)
    assert picture.size == (width, height)
    assert np.array_equal(picture.pixels, read_image(measuring.synthetic(width, height)).pixels)


def test_synthetic_does_not_compress_better():
    assert len(measuring.synthetic(1024, 100)) > 1.8 * len(measuring.synthetic(512, 100))


def test_peak_memory_is_reset():
    """In a process of its own: in this one, freed memory may be kept for the next arrays."""
    script = """
import numpy as np, torch
from restore.inference.benchmark import peak_memory, reset_peak_memory
cpu = torch.device("cpu")
reset_peak_memory(cpu)
before = peak_memory()
ballast = np.ones(100_000_000, np.uint8)
assert peak_memory() > before + 90e6
del ballast
reset_peak_memory(cpu)
assert peak_memory() < before + 50e6
"""
    subprocess.run([sys.executable, "-c", script], check=True)
