"""What codes are good for: search, duplicates, anomalies, few labels, pictures from codes."""

from __future__ import annotations

import csv
import re
import shutil

import numpy as np
import pytest
from latent_tools import small_digits, trained, write_digits
from sklearn.metrics import roc_auc_score

from restore.cli.app import run
from restore.errors import UsageError
from restore.images import read_image
from restore.latent.anomalies import scores
from restore.latent.generating import sample, walk
from restore.latent.neighbours import duplicates, expanded, fit_hash, hamming, nearest
from restore.latent.probing import probe


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 150)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    trained(small_digits(1200), path, 500, code=12, widths=(48,))
    return path


@pytest.fixture(scope="module")
def latent(weights_file):
    from restore.latent.model import load_latent

    return load_latent(weights_file, "cpu")


def precision(numbers):
    labels = np.array(small_digits().labels)
    return float((labels[:1200][numbers] == labels[1200:, None]).mean())


def test_search_finds_pictures_of_the_same_class(latent):
    """By numbers, and nearly as well by bits, which are packed."""
    pixels = small_digits().pixels
    gallery, queries = latent.encode(pixels[:1200]), latent.encode(pixels[1200:])
    numbers, distances = nearest(gallery, queries, 5)
    assert precision(numbers) > 0.88
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_allclose(distances[0, 0], np.linalg.norm(gallery - queries[0], axis=1).min(), rtol=1e-3)
    to_bits = fit_hash(gallery, 64)
    around, asked = (expanded(gallery, codes, 3) for codes in (gallery, queries))
    np.testing.assert_allclose(around[7], gallery[nearest(gallery, gallery[7:8], 3)[0][0]].mean(0), rtol=1e-5)
    assert precision(nearest(around, asked, 5)[0]) > precision(numbers) + 0.003
    packed = to_bits(gallery)
    assert packed.shape == (1200, 8) and packed.dtype == np.uint8
    found, differing = hamming(packed, to_bits(queries), 5)
    assert precision(found) > 0.8
    direct = (np.unpackbits(packed, axis=1) != np.unpackbits(to_bits(queries[:1]), axis=1)).sum(1)
    np.testing.assert_array_equal(found[0], np.argsort(direct, kind="stable")[:5])  # of equal ones the first
    np.testing.assert_array_equal(differing[0], direct[found[0]])


def test_many_pictures_are_searched_by_usearch(monkeypatch):
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    gallery, queries = (rng.standard_normal((count, 8)).astype(np.float32) for count in (500, 20))
    exact = nearest(gallery, queries, 5)
    monkeypatch.setattr("restore.latent.neighbours.LARGE", 499)
    numbers, distances = nearest(gallery, queries, 5)
    assert (numbers == exact[0]).mean() > 0.95
    np.testing.assert_allclose(distances[:, 0], exact[1][:, 0], rtol=0.02)
    assert nearest(gallery, queries[:1], 5)[0].shape == (1, 5)


def test_search_in_a_folder_or_its_index(weights_file, files, tmp_path, capsys):
    query = sorted(files.rglob("*.png"))[30]
    common = ["-m", str(weights_file), "--device", "cpu"]
    assert run(["latent", "search", str(query), str(files), *common, "-k", "3", "-o", str(tmp_path / "s.png")]) == 0
    direct = capsys.readouterr().out.splitlines()
    assert len(direct) == 3 and direct[0].endswith(str(query))
    assert read_image(tmp_path / "s.png").pixels.shape == (60, 240, 1)
    index = tmp_path / "index.npz"
    assert run(["latent", "index", str(files), *common, "-o", str(index)]) == 0
    assert run(["latent", "search", str(query), str(index), *common, "-k", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == direct
    assert run(["latent", "search", str(query), str(index), *common, "-k", "3", "--binary", "64"]) == 0
    assert capsys.readouterr().out.startswith("0\t")
    assert run(["latent", "search", str(query), str(index), *common, "-k", "3", "--expand", "3"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert float(first.split("\t")[0]) < 1e-4 and first.endswith(str(query))  # the picture itself, at no distance
    assert others != direct[1:]


def test_an_index_is_of_its_weights_and_whole(weights_file, files, tmp_path, capsys):
    """An index of other weights finds anything; half a file, an array, and rubbish inside are told."""
    query, index = sorted(files.rglob("*.png"))[30], tmp_path / "i.npz"
    assert run(["latent", "index", str(files), "-m", str(weights_file), "--device", "cpu", "-o", str(index)]) == 0
    other = tmp_path / "other.safetensors"
    trained(small_digits(100), other, 5, code=12, widths=(48,))
    data = index.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "flip.npz").write_bytes(data[:300] + bytes([data[300] ^ 255]) + data[301:])
    entry = data.find(b"PK\x01\x02")
    for name, place in (("version", entry + 6), ("locked", entry + 8)):
        (tmp_path / f"{name}.npz").write_bytes(data[:place] + bytes([data[place] ^ 65]) + data[place + 1 :])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    told = {index: (other, "was made with other weights, small")}
    damaged = ("cut", "flip", "version", "locked", "array")
    told |= {tmp_path / f"{name}.npz": (weights_file, "not a readable index") for name in damaged}
    for path, (weights, said) in told.items():
        capsys.readouterr()
        assert run(["latent", "search", str(query), str(path), "-m", str(weights), "--device", "cpu"]) != 0
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_duplicates(weights_file, files, tmp_path, capsys):
    """A copy by another name, in another folder, and nothing else."""
    shutil.copytree(files, tmp_path / "all")
    first = sorted(files.rglob("*.png"))[10]
    shutil.copy(first, tmp_path / "all" / "copy.png")
    assert run(["latent", "duplicates", str(tmp_path / "all"), "-m", str(weights_file), "--device", "cpu"]) == 0
    groups = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(groups) == 1
    assert {name.rsplit("/", 1)[1] for name in groups[0]} == {first.name, "copy.png"}
    codes = np.array([[0.0, 0], [0.05, 0], [0.1, 0], [1, 0], [2, 0], [3, 0], [4, 0]])
    assert duplicates(codes, 0.2) == [[0, 1, 2]]  # a chain is one group
    assert duplicates(codes, 0.0) == []


def test_anomalies(tmp_path, files, capsys):
    """An autoencoder of zeros finds every other digit odder."""
    pictures = small_digits()
    zeros = np.flatnonzero(np.array(pictures.labels) == "0")
    path = tmp_path / "zero.safetensors"
    latent = trained(pictures.subset(zeros), path, 300, code=8)
    odd = np.array([label != "0" for label in pictures.labels])
    values, _ = scores(latent, pictures.pixels)
    area = roc_auc_score(odd, values)
    assert area > 0.97
    outputs = ["-o", str(tmp_path / "odd.html"), "--csv", str(tmp_path / "odd.csv")]
    words = [
        "latent",
        "anomalies",
        str(files),
        "-m",
        str(path),
        *outputs,
        "--odd",
        "1,2,3,4,5,6,7,8,9",
        "--device",
        "cpu",
    ]
    assert run(words) == 0
    assert float(re.search(r"ROC AUC ([\d.]+)", capsys.readouterr().out)[1]) > 0.97
    rows = list(csv.DictReader((tmp_path / "odd.csv").open()))
    assert len(rows) == 150
    found = [float(row["score"]) for row in rows]
    assert found == sorted(found, reverse=True)
    assert rows[0]["file"] in (tmp_path / "odd.html").read_text()


def test_a_probe_of_pretraining(latent):
    """With a few labels a pretrained code is worth more than that of random weights."""
    pictures = small_digits()
    learn, test = pictures.subset(range(1200)), pictures.subset(range(1200, 1797))
    found = [probe(latent, learn, test, 5, seed) for seed in range(2)]
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert mean["pretrained, linear"] > mean["random weights, linear"] + 0.03
    assert all(0.3 < value < 1 for value in mean.values())
    assert probe(latent, learn, test, 5, 1) == found[1]


def test_walks():
    first, last = np.array([3.0, 0, 0]), np.array([0, 3.0, 0])
    line, arc = walk(first, last, 5, "linear"), walk(first, last, 5, "spherical")
    for path in (line, arc):
        np.testing.assert_allclose(path[[0, -1]], [first, last], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 3)
    np.testing.assert_allclose(line[2], [1.5, 1.5, 0])
    np.testing.assert_allclose(walk(first, first, 3, "spherical"), [first] * 3)


def test_views_of_codes(weights_file, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["-m", str(weights_file), "--device", "cpu"]
    ends = [str(path) for path in sorted(files.rglob("*.png"))[:2]]
    assert run(["latent", "walk", *ends, *common, "--steps", "4"]) == 0
    assert read_image(tmp_path / "walk.png").pixels.shape == (120, 6 * 60, 1)
    assert run(["latent", "features", str(files), *common, "-n", "9"]) == 0
    assert read_image(tmp_path / "features.png").pixels.shape == (180, 180, 1)
    assert read_image(tmp_path / "features.units.png").pixels.shape == (180, 180, 1)
    assert run(["latent", "features", str(files), *common, "-n", "9", "-o", "f.html"]) == 0


def test_samples_are_like_the_pictures(tmp_path, latent):
    """Nearer to real digits than the mean digit's blur is far from them; the seed decides."""
    pictures = small_digits()
    made = trained(pictures, tmp_path / "v.safetensors", 600, kind="variational", code=4, loss="bce")
    drawn = sample(made, 32, 0)
    assert drawn.shape == (32, 8, 8, 1)
    assert np.array_equal(drawn, sample(made, 32, 0)) and not np.array_equal(drawn, sample(made, 32, 1))
    flat = pictures.pixels.reshape(len(pictures), -1) / 255.0
    _, apart = nearest(flat, drawn.reshape(32, -1) / 255.0, 1)
    noise = np.random.default_rng(0).permuted(flat, axis=0)[:32]  # each pixel as it is distributed
    assert apart.mean() < 0.7 * nearest(flat, noise, 1)[1].mean()
    with pytest.raises(UsageError, match="cannot be drawn"):
        sample(latent, 4, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "nowhere.png", "FILES"], "nowhere.png: no such file or folder"),
        (["search", "FILES", "FILES"], "is a folder; name one picture"),
        (["search", "QUERY", "FILES", "--binary", "7"], "bits come in eights"),
        (["search", "QUERY", "BAD"], "not a readable index"),
        (["anomalies", "FILES", "--odd", "x"], "--odd x: no such subfolder"),
        (["anomalies", "FILES", "--odd", "0,1,2,3,4,5,6,7,8,9"], "one at least has to be usual"),
        (["probe", "FILES", "--labels", "100"], "a probe needs at least two subfolders"),
        (["probe", "FILES", "--test", "QUERY"], "have to be in subfolders as those of"),
        (["sample"], "cannot be drawn"),
    ],
)
def test_bad_input_is_one_line(words, said, weights_file, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"no index")
    places = {"FILES": files, "BAD": tmp_path / "bad.npz", "QUERY": sorted(files.rglob("*.png"))[0]}
    command = ["latent", *(str(places.get(word, word)) for word in words), "-m", str(weights_file), "--device", "cpu"]
    assert run(command) != 0
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]
