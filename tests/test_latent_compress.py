"""A folder in one small file and back; and pictures of one folder by a decoder for another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_tools import small_digits

from restore.cli.app import run
from restore.errors import RestoreError
from restore.images import Image, read_image, write_image
from restore.latent.codec import BOUND, STRIDE, TRADES
from restore.latent.compression import PREFIX, Coder, from_bytes, load_codec, names_of, to_bytes
from restore.latent.data import to_planes
from restore.metrics import psnr

pytest.importorskip("constriction")
SMALL = ["--channels", "16", "--code", "24", "--patch", "64", "--batch-size", "4", "--lr", "0.004", "-q"]


def train(folder, output, steps):
    words = ["latent", "train-codec", str(folder), "-o", str(output), "--steps", str(steps), *SMALL]
    assert run([*words, "--device", "cpu", "--precision", "fp32"]) == 0
    return output


@pytest.fixture(scope="module")
def codec(tmp_path_factory, clean_folder):
    return train(clean_folder, tmp_path_factory.mktemp("codec") / "c.safetensors", 80)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photo):
    """In colours, gray, of odd sides, and one smaller than a place of the code, in two folders."""
    folder = tmp_path_factory.mktemp("pictures") / "in"
    (folder / "sub").mkdir(parents=True)
    parts = {
        "a.png": photo[:97, :130],
        "sub/b.jpg": photo[50:150, :64],
        "g.png": photo[:40, :50, :1],
        "s.png": photo[:3, :5],
    }
    for name, pixels in parts.items():
        write_image(Image(np.ascontiguousarray(pixels)), folder / name)
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory, codec, pictures):
    path = tmp_path_factory.mktemp("packed") / "p.pictures"
    assert run(["latent", "compress", str(pictures), "-o", str(path), "-m", str(codec), "--device", "cpu"]) == 0
    return path


def test_there_and_back(packed, pictures, codec, tmp_path):
    """Every picture by its name, as large and as gray as it was; and the same pixels in another process."""
    out, again = tmp_path / "out", tmp_path / "again"
    assert run(["latent", "decompress", str(packed), "-o", str(out), "-m", str(codec), "--device", "cpu"]) == 0
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert found == ["a.png", "g.png", "s.png", "sub/b.png"]
    for name in found:
        theirs = read_image(pictures / name.replace("b.png", "b.jpg")).pixels
        ours = read_image(out / name).pixels
        assert ours.shape == theirs.shape and psnr(ours, theirs) > 11
    command = ["latent", "decompress", packed, "-o", again, "-m", codec, "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "restore", *map(str, command)], check=True)
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in found)


def test_bytes_are_what_the_prior_says_and_levels_trade(codec, photo):
    """The range coder needs what the loss counts; a higher level needs more, and is no worse."""
    network, _ = load_codec(codec, "cpu")
    pixels = np.ascontiguousarray(photo[:256, :256])
    sizes, scores = [], []
    for level in range(len(TRADES)):
        coder = Coder(network, level)
        one = coder.pack("a", pixels)
        with torch.no_grad():
            which = torch.tensor([level])
            code = network.encode(to_planes(pixels[None]), which).round()
            said = float(network.bits(code, which)) / 8
        assert code.shape[-2:] == (256 // STRIDE, 256 // STRIDE) and code.abs().max() < BOUND
        assert abs(len(one.data) - said) < 0.01 * said + 16
        assert coder.pack("a", pixels).data == one.data
        sizes.append(len(one.data))
        scores.append(psnr(coder.unpack(one), pixels))
    assert sizes == sorted(sizes) and sizes[-1] > 1.5 * sizes[0] and scores[-1] > scores[0]
    tables = network.tables(0)
    assert tables.dtype == np.int64 and (tables >= 1).all() and np.array_equal(tables, load_codec(codec)[0].tables(0))


def test_training_goes_by_the_seed_alone(clean_folder, tmp_path):
    files = [train(clean_folder, tmp_path / f"{name}.safetensors", 3) for name in "ab"]
    first, second = (load_codec(file, "cpu")[0] for file in files)
    assert first.digest(0) == second.digest(0)


def test_no_two_pictures_get_one_name():
    files = [Path(name) for name in ("a/x.jpg", "a/x.png", "a/x.jpg.webp", "a/y.jpg", "a/b/x.png")]
    assert list(names_of(files, Path("a")).values()) == ["x.jpg", "x.png", "x.jpg.webp", "y", "b/x"]


def test_beside_jpeg_and_webp(pictures, codec, tmp_path, capsys):
    """They may have a little more bytes than we have, never fewer, unless their best has."""
    words = ["latent", "compress", str(pictures), "-o", str(tmp_path / "p"), "-m", str(codec), "--compare", "-l", "5"]
    assert run([*words, "--device", "cpu"]) == 0
    ours, jpeg, webp = (
        re.findall(r"(\d+) bytes, .* PSNR ([\d.]+) dB", line)[0] for line in capsys.readouterr().out.splitlines()[-3:]
    )
    assert int(ours[0]) == (tmp_path / "p").stat().st_size <= min(int(jpeg[0]), int(webp[0]))
    assert float(jpeg[1]) > 15


def test_what_cannot_be_read_is_left_out_and_said(pictures, codec, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes((pictures / "a.png").read_bytes())
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    assert run(["latent", "compress", str(tmp_path / "in"), "-m", str(codec), "--device", "cpu"]) == 1
    assert "bad.png" in capsys.readouterr().err.splitlines()[-1]
    assert [one.name for one in from_bytes((tmp_path / "in.pictures").read_bytes(), "")[0]] == ["good"]


def test_damage_is_told(packed, codec, clean_folder, tmp_path, capsys, monkeypatch):
    """One line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    data = packed.read_bytes()
    pictures, level, digest = from_bytes(data, "")
    outside = to_bytes([type(pictures[0])("../x", 8, 8, 3, b"")], level, digest)
    damaged = {
        "cut": (data[:-5], "damaged or incomplete"),
        "other": (b"PK" + data, "not a file of `restore latent compress`"),
        "flip": (data[:200] + bytes([data[200] ^ 1]) + data[201:], "damaged or incomplete"),
        "outside": (outside, "leads out of the folder"),
        "weights": (to_bytes(pictures, level, "0" * 16), "was made with other weights"),
        "level": (to_bytes(pictures, 9, digest), "--level must be from 1 to 5"),
    }
    for name, (content, said) in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert run(["latent", "decompress", name, "-o", "out", "-m", str(codec), "--device", "cpu"]) != 0
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(damaged)
    header = json.dumps({"codec": digest, "level": 0, "pictures": [["a", 1 << 20, 1 << 20, 3, 0]]}).encode()
    header = zlib.compress(header)
    body = len(header).to_bytes(4, "little") + header
    with pytest.raises(RestoreError, match="no picture is of that size"):
        from_bytes(PREFIX.pack(b"RLC1", zlib.crc32(body), len(header)) + header, "bomb")
    assert run(["latent", "compress", str(clean_folder), "-m", "none.safetensors"]) == 2
    assert "train-codec" in capsys.readouterr().err


def test_a_four_becomes_a_nine(tmp_path, capsys):
    """Decoded for B, pictures of A look like those of B: nearest to them in pixels, where before they were not."""
    digits = small_digits()
    labels, flat = np.array(digits.labels), digits.pixels.reshape(len(digits), -1).astype(float)
    for name in ("4", "9"):
        (tmp_path / name).mkdir()
        for number in np.flatnonzero(labels == name):
            write_image(Image(digits.pixels[number]), tmp_path / name / f"{number}.png")
    words = ["latent", "swap", str(tmp_path / "4"), str(tmp_path / "9"), "-m", str(tmp_path / "s.safetensors")]
    words += ["-o", str(tmp_path / "s.png"), "--device", "cpu"]
    more = ["--net", "dense", "--size", "8", "--code", "8", "--steps", "300", "--lr", "0.003", "--amount", "0.05"]
    assert run([*words, *more, "--pictures", str(tmp_path / "out")]) == 0
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made] == sorted(path.name for path in (tmp_path / "4").iterdir())
    swapped = np.stack([read_image(path).pixels for path in made]).reshape(len(made), -1).astype(float)
    known = np.isin(labels, ("4", "9"))
    nearest = np.square(swapped[:, None] - flat[known][None]).sum(2).argmin(1)
    assert (labels[known][nearest] == "9").mean() > 0.9
    capsys.readouterr()
    assert run([*words[:-2], "-o", str(tmp_path / "t.html"), "--device", "cpu"]) == 0  # with the weights that are there
    assert "--overwrite trains anew" in capsys.readouterr().err
    written = sorted(tmp_path.rglob("*"))
    for name, outputs in (("s.png", ["-o", "s.png"]), (str(made[0]), ["-o", "n.png", "--pictures", "out"])):
        places = [word if word.startswith("-") else str(tmp_path / word) for word in outputs]
        assert run([*words[:-6], "-m", str(tmp_path / "new.safetensors"), *places, "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert f"{name} exists" in said and "training" not in said  # refused before any work
    assert sorted(tmp_path.rglob("*")) == written
