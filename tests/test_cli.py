"""The command line: help, wrong calls, and that every flag of a task, of `corrupt` and of `train` does what it says."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from restore import weights
from restore.cli.app import run
from restore.cli.corrupting import SaveMaskFlags, SeedFlags
from restore.cli.files import FileFlags
from restore.cli.restoring import DeviceFlags, MaskFlags
from restore.cli.training import NetworkFlags
from restore.corruptions.downsample import resize_bicubic
from restore.metrics import psnr
from restore.tasks import TASKS
from restore.tasks.base import load_task
from restore.training.settings import Settings

tasks = pytest.mark.parametrize("task", sorted(TASKS))


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo[:96, :120, ::-1])
    return path


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def call(*arguments: object, expect: int = 0) -> None:
    assert run([str(argument) for argument in arguments]) == expect


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line with which the command line refuses."""
    capsys.readouterr()
    call(*arguments, expect=code)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("restore: ")
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def test_help_names_every_command(restore):
    text = restore("--help").stdout
    assert all(name in text for name in (*TASKS, "train", "corrupt", "models"))
    for name, spec in TASKS.items():
        assert spec.help in " ".join(restore(name, "--help").stdout.split())


def test_every_flag_is_documented(capsys):
    """Each flag stands in the help of its command, with a sentence."""
    for name, spec in TASKS.items():
        for arguments, kinds in (
            ([name], (FileFlags, DeviceFlags, spec.weights, spec.options, *([MaskFlags] if spec.masks else []))),
            (["train", name], (Settings, NetworkFlags, spec.training_options)),
            (["corrupt", name], (FileFlags, SeedFlags, spec.damage, *([SaveMaskFlags] if spec.masks else []))),
        ):
            call(*arguments, "--help")
            text = " ".join(capsys.readouterr().out.split())
            for known in (known for kind in kinds for known in fields(kind)):
                assert known.metadata["help"].endswith((".", "]"))
                assert known.metadata["help"] in text, f"{arguments}: {known.name}"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["denoize", "a.png"], "No such command 'denoize'. Did you mean 'denoise'?"),
        (["train", "denoize", "a"], "No such command 'denoize'. Did you mean 'denoise'?"),
        (["denoise", "nowhere.png"], "nowhere.png"),
        (["denoise"], "INPUT"),
        (["denoise", "{picture}", "--strength", "3"], "--strength"),
        (["inpaint", "{picture}", "--strength", "1.5"], "less than or equal to 1"),
        (["run", "denoise+inpaint", "{picture}", "--inpaint-strength", "1.5"], "less than or equal to 1"),
        (["denoise", "{picture}", "b.gif"], "b.gif: '.gif' is no format that can be written; use one of .png"),
        (["compare", "{picture}", "nowhere.png"], "nowhere.png: no such file or folder"),
        (["denoise", "{picture}", "--nonsense"], "--nonsense"),
        (["denoise", "{picture}", "--device", "cuda:77"], "this machine has"),
        (["denoise", "{picture}", "--device", "toaster"], "unknown device 'toaster'"),
        (["denoise", "{picture}", "--precision", "fp8"], "unknown precision 'fp8'"),
        (["denoise", "{picture}", "-m", "huge"], "unknown model of denoise 'huge'"),
        (["denoise", "{picture}", "-m", "{picture}"], "not a readable safetensors file"),
        (["denoise", "{picture}", "-m", "{super-resolve}"], "weights for super-resolve, not for denoise"),
        (["super-resolve", "{picture}", "-s", "7"], "scale must be one of 2, 3, 4"),
        (["corrupt", "denoise", "{picture}", "out.png", "--sigma", "loud"], "'loud' is not a list of numbers"),
        (["corrupt", "denoise", "{picture}", "out.png", "--sigma", "50,10"], "sigma must be a range"),
        (["corrupt", "super-resolve", "{picture}", "out.png", "--scales", "1"], "at least 2"),
        (["train", "denoise", "nowhere"], "nowhere: no such file or folder"),
        (["train", "denoise", "{picture}", "--steps", "5", "--minutes", "1"], "two ways to say one thing"),
        (["train", "denoise", "{picture}", "--net", "depth=3"], "unknown setting of conv-autoencoder 'depth'"),
        (["train", "denoise", "{picture}", "--net", "widths"], "write NAME=VALUE"),
        (["train", "denoise", "{picture}", "--arch", "nafnett"], "did you mean 'nafnet'"),
        (["train", "inpaint", "{picture}", "--arch", "nafnet"], "cannot take the place of hole-autoencoder"),
        (["train", "denoise", "{picture}", "--net", "widths=many"], "'many' does not fit"),
        (["models", "-m", "nowhere.safetensors"], "nowhere.safetensors: no such weights file; check the path"),
        (["denoise", "*.tof", "-o", "out"], "*.tof: no files match this pattern; check the path"),
    ],
)
def test_wrong_calls_get_one_line(arguments, reason, picture, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"{picture}": picture, "{super-resolve}": tiny("super-resolve")}
    assert reason in refused(capsys, *(names.get(argument, argument) for argument in arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]


def test_a_file_by_an_odd_name_is_told_by_its_content(picture, capsys):
    gif = picture.with_suffix(".gif")
    gif.write_bytes(b"GIF89a" + bytes(40))
    assert "is a GIF file, of one picture or an animation, which is not supported" in refused(capsys, "denoise", gif)
    gif.write_bytes(picture.read_bytes())
    assert "give --ext or an OUTPUT" in refused(capsys, "denoise", gif)


@tasks
def test_model_flags(task, picture, tiny, tmp_path, photo):
    """-m, --tile, --tile-overlap, --strength, --tta and --precision each change what they are for."""
    head = load_task(task).head(TASKS[task].options())
    if head.colours:  # and leaves what has colours alone
        cv2.imwrite(str(picture), photo[:96, :120, 1])

    def restored(*flags: object) -> np.ndarray:
        output = tmp_path / "out" / "photo.png"
        call(task, picture, "-o", output, "-m", tiny(task), "--device", "cpu", "-q", "--overwrite", *flags)
        return read(output)

    plain = restored("--precision", "fp32")
    assert np.array_equal(plain, restored("--precision", "fp32")), "the same call gives the same picture"
    assert np.abs(plain.astype(int) - restored("--precision", "fp32", "-t", 40)).max() <= 1
    seams = restored("--precision", "fp32", "--tile", 32, "--tile-overlap", 0)
    assert np.array_equal(plain, seams) != head.runs_network
    if task != "colorize":  # which averages over the mirror image by itself
        assert not np.array_equal(plain, restored("--precision", "fp32", "-x"))
    assert not np.array_equal(plain, restored("--precision", "bf16"))
    untouched = restored("--strength", 0)
    if untouched.shape == read(picture).shape:
        assert np.array_equal(untouched, read(picture))
    assert not np.array_equal(plain, untouched)


def test_two_paths_of_a_shells_glob_are_no_overwriting(picture, tiny, capsys, photo):
    """`restore denoise *.png --overwrite` with two matches: the second is an original, not an output."""
    other = picture.with_name("second.png")
    cv2.imwrite(str(other), photo[:20, :20])
    before = other.read_bytes()
    assert "name it with -o" in refused(capsys, "denoise", picture, other, "--overwrite", "-m", tiny("denoise"))
    assert other.read_bytes() == before
    twice = refused(capsys, "denoise", picture, picture, "--overwrite", "-m", tiny("denoise"))
    assert "inputs are never written over" in twice and "name it with -o" not in twice
    call("denoise", picture, "-o", other, "--overwrite", "-m", tiny("denoise"), "-q")
    assert read(other).shape == (96, 120, 3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scale(scale, picture, tiny, tmp_path):
    call("super-resolve", picture, "-m", tiny("super-resolve"), "-s", scale, "-q")
    assert read(tmp_path / f"photo.x{scale}.png").shape == (96 * scale, 120 * scale, 3)


def test_device_is_said_in_one_line(picture, tiny, capsys):
    call("denoise", picture, "-m", tiny("denoise"), "--device", "cpu", "--precision", "fp32")
    assert re.search(r"^denoise on cpu, \d+ threads?, fp32$", capsys.readouterr().err, re.MULTILINE)


def test_corrupt(picture, tmp_path, photo, capsys):
    """Noise of the level asked for; the seed decides; a picture alone gets what it gets in a folder."""
    clean = read(picture)

    def noisy(output: str, *flags: object) -> np.ndarray:
        call("corrupt", "denoise", picture, tmp_path / output, "-q", *flags)
        return read(tmp_path / output)

    first = noisy("a.png", "--sigma", 25)
    assert psnr(first, clean) == pytest.approx(20 * np.log10(255 / 25), abs=0.6)
    assert np.array_equal(first, noisy("b.png", "--sigma", "25,25"))
    assert not np.array_equal(first, noisy("c.png", "--sigma", 25, "--seed", 1))
    assert psnr(noisy("d.png", "--sigma", 5), clean) > 30
    folder = tmp_path / "folder"
    folder.mkdir()
    cv2.imwrite(str(folder / "another.png"), photo[:50, :50])
    (folder / "name.png").write_bytes(picture.read_bytes())
    call("corrupt", "denoise", folder, tmp_path / "noisy", "-q", "--sigma", 25)
    assert np.array_equal(read(tmp_path / "noisy" / "name.png"), first)
    call("corrupt", "super-resolve", picture, tmp_path / "small.png", "-q", "--scales", 3)
    assert np.array_equal(read(tmp_path / "small.png"), resize_bicubic(clean, (32, 40)))
    call("corrupt", "inpaint", picture, tmp_path / "barred.png")
    assert " % of it corrupted\n" in capsys.readouterr().err


def test_train_flags(photo, tmp_path, capsys, monkeypatch):
    """What the flags ask for is in the header of the file, and in what is said."""
    folder, out = tmp_path / "in", tmp_path / "out.safetensors"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), photo[: 100 + number, ::-1])
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    base = [
        "train",
        "super-resolve",
        folder,
        "-o",
        out,
        "--net",
        "widths=8",
        "--net",
        "blocks=1",
        "--device",
        "cpu",
        "-j",
        0,
    ]
    short = [*base, "--steps", 3, "--batch-size", 2, "--patch", 16, "--precision", "fp32"]
    call(*short, "--val", folder, "--scales", "2,4", "--lr", 1e-4, "--seed", 3, "--compile", "--cache", 0)
    said = capsys.readouterr().err
    assert "choosing by 4" in said
    assert "decoded as needed" in said
    assert compiled
    header = weights.read_header(out)
    assert header.config["scales"] == [2, 4]
    assert header.config["widths"] == [8]
    assert set(header.scores) == {"x2 photo", "x4 photo", "x2 bicubic", "x4 bicubic"}
    made = header.provenance
    assert (made["steps"], made["batch_size"], made["patch"], made["lr"], made["seed"], made["precision"]) == (
        3, 2, 16, 1e-4, 3, "fp32",
    )  # fmt: skip
    assert "exists" in refused(capsys, *short)
    call(*short, "--overwrite", "--variant", "tiny", "--data-terms", "CC0", "--init", out, "--quiet", "--scales", "2,4")
    assert capsys.readouterr().err == ""
    header = weights.read_header(out)
    assert (header.variant, header.data_terms, header.provenance["init"]) == ("tiny", "CC0", "out.safetensors")


def test_models(tiny, capsys):
    call("models", "-m", tiny("denoise"), "-m", tiny("super-resolve"))
    text = capsys.readouterr().out
    assert "denoise" in text
    assert "super-resolve" in text
    call("models", "-m", tiny("denoise"), "--json")
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["task"] == "denoise"
    assert listed[0]["config"]["widths"] == [8, 12]
    call("models", "--json")
    assert {entry["task"] for entry in json.loads(capsys.readouterr().out)} >= set(TASKS)
