"""`restore evaluate` and `restore compare`, from the library up to the browser."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data

from restore import weights
from restore.cli.app import run
from restore.corruptions.base import Corrupted
from restore.errors import UsageError
from restore.evaluation import baselines
from restore.evaluation.evaluate import contenders, evaluate
from restore.evaluation.protocols import measure
from restore.evaluation.results import Results, lines, table, to_csv, to_json
from restore.evaluation.trials import Contender, Entry, Trial, find_entries, trials
from restore.images import Image, read_image, write_image
from restore.metrics import psnr
from restore.models import build
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.pixels import to_dtype, to_float
from restore.tasks import TASKS
from restore.tasks.base import Case, Head, Variant

PICTURES = {
    "astronaut": (skimage.data.astronaut, (100, 190)),
    "cat": (skimage.data.chelsea, (90, 150)),
    "sub/coffee": (skimage.data.coffee, (120, 200)),
}


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small photographs, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("data") / "clean"
    for number, (name, (load, (top, left))) in enumerate(PICTURES.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(np.ascontiguousarray(load()[top : top + 72, left : left + 60 + 12 * number])), path)
    return folder


def tiny_weights(path: Path, task: str, scales: tuple[int, ...]) -> Path:
    """A network that is small and knows nothing."""
    config = ConvAutoencoderConfig(widths=(4, 4), blocks=(1, 1), fold=1, scales=scales)
    network = build("conv-autoencoder", config)
    header = weights.Header(task=task, arch="conv-autoencoder", config=weights.config_values(config))
    weights.save(path, header, network.state_dict())
    return path


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", "denoise", (1,))


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny-sr.safetensors", "super-resolve", (2, 4))


def evaluated(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    """What `restore evaluate ... --json` prints, in this process."""
    assert run(["evaluate", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def denoise_results(folder: Path, names: list[str] | None = None, seed: int = 0) -> Results:
    """The baselines on the pictures of a folder, through the library alone."""
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].damage(sigma=(25.0, 25.0))
    methods = contenders([], [baseline.contender() for baseline in baselines.choose("denoise", names)[0]])
    results = Results("denoise", seed, "restore evaluate denoise clean", methods)
    for scored in evaluate(find_entries(folder), task, damage, methods, seed):
        results.add(scored)
    return results


# The command, as people type it


def test_command_scores_model_and_baselines_on_a_bad_folder_too(
    clean_folder: Path, denoiser: Path, tmp_path: Path
) -> None:
    """Table, CSV and report at once; a damaged picture is listed with its reason and the exit code is 1."""
    folder = tmp_path / "photos"
    shutil.copytree(clean_folder, folder)
    (folder / "broken.png").write_bytes((folder / "cat.png").read_bytes()[:500])
    words = ["evaluate", "denoise", folder, "-m", denoiser, "--baselines", "wavelets,nl-means", "--sigma", "25"]
    words += [
        "--csv",
        tmp_path / "out.csv",
        "--report",
        tmp_path / "out.html",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "restore", *map(str, words)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 1
    assert re.search(r"failed: broken\.png: .*\n", done.stderr)
    assert "Traceback" not in done.stderr
    for word in ("corrupted", "wavelets", "nl-means", "tiny", "PSNR", "SSIM", "CIEDE2000", "s/MP"):
        assert word in done.stdout
    assert "on RGB" in done.stdout
    assert "rounded to 8 bits; no border cut; corrupted pictures unclipped float" in done.stdout

    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4
    assert {row["picture"] for row in rows} == {"astronaut.png", "cat.png", "sub/coffee.png"}
    assert {row["case"] for row in rows} == {"sigma 25"}
    assert all("unclipped" in row["protocol"] and json.loads(row["params"])["sigma"] == 25 for row in rows)
    noisy = [float(row["psnr"]) for row in rows if row["method"] == "corrupted"]
    # 20.17 dB is 10 log10(255^2 / 25^2); rounding into 0 to 255 takes a little of the noise away.
    assert all(20.1 < value < 21.5 for value in noisy)

    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    check_page(page, sliders=3)
    assert "restore evaluate denoise photos" in page
    assert "broken.png" in page
    assert str(tmp_path) not in page
    assert "sub/coffee.png" in page


def test_json_holds_everything(
    clean_folder: Path, denoiser: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = shutil.copy(denoiser, tmp_path / "other.safetensors")
    (tmp_path / "twice").mkdir()
    again = shutil.copy(denoiser, tmp_path / "twice" / "tiny.safetensors")
    found = evaluated(
        capsys, "denoise", clean_folder, "-m", denoiser, "-m", other, "-m", again, "--no-baselines", "--limit", 2
    )
    assert [method["name"] for method in found["methods"]] == ["corrupted", "tiny", "other", "tiny (2)"]
    assert [line["case"] for line in found["summary"][::4]] == ["sigma 15", "sigma 25", "sigma 50"]
    assert {row["picture"] for row in found["pictures"]} == {"astronaut.png", "cat.png"}
    assert all(row["params"]["sigma"] in (15, 25, 50) for row in found["pictures"])
    first = [row for row in found["pictures"] if row["case"] == "sigma 15" and row["method"] == "tiny"]
    mean = next(line for line in found["summary"] if line["case"] == "sigma 15" and line["method"] == "tiny")
    assert mean["psnr"] == pytest.approx(np.mean([row["psnr"] for row in first]), abs=1e-5)
    by_method = {line["method"]: line["psnr"] for line in found["summary"] if line["case"] == "sigma 25"}
    assert by_method["tiny"] == by_method["other"] == by_method["tiny (2)"]
    assert "--limit 2" in found["command"]
    assert str(clean_folder.parent) not in found["command"]


def test_super_resolution_is_scored_on_luma_with_cut_borders(
    clean_folder: Path, enlarger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, "super-resolve", clean_folder, "-m", enlarger, "--scales", "2,4", "--limit", 1)
    assert [method["name"] for method in found["methods"]] == ["bicubic", "lanczos", "tiny-sr"]
    assert "BT.601 luma" in found["protocol"]["x4"]
    assert "4 border pixels cut" in found["protocol"]["x4"]
    clean = read_image(clean_folder / "astronaut.png").pixels
    from restore.corruptions.downsample import resize_bicubic

    small = resize_bicubic(clean, (36, 30))
    expected = psnr(resize_bicubic(small, (72, 60)), clean, luma=True, border=2)
    assert found["summary"][0]["psnr"] == pytest.approx(expected, abs=1e-5)


def test_seed_tile_and_symmetries_take_effect(
    clean_folder: Path, denoiser: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("denoise", clean_folder / "cat.png", "-m", denoiser, "--no-baselines", "--sigma", 30, "--device", "cpu")

    def scores(*words: object) -> tuple[float, float]:
        first, second = evaluated(capsys, *base, "--precision", "fp32", *words)["summary"]
        return first["psnr"], second["psnr"]

    plain = scores()
    assert scores() == plain
    assert scores("--seed", 1)[0] != plain[0]
    assert scores("-x")[0] == plain[0]
    assert scores("-x")[1] != plain[1]
    assert scores("--tile", 32)[1] == pytest.approx(plain[1], abs=0.01)
    assert evaluated(capsys, *base, "--precision", "bf16")["summary"][1]["psnr"] != plain[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["denoise", "nowhere"], "nowhere: no such file or folder"),
        (["denoise", "empty"], "empty: no pictures"),
        (["denoise", "clean", "--baselines", "wavelet"], "did you mean 'wavelets'"),
        (["denoise", "clean", "--baselines", "wavelets", "--no-baselines"], "contradict"),
        (["denoise", "clean", "-m", "nowhere.safetensors"], "no such weights file"),
        (["denoise", "clean", "-m", "SR"], "weights for super-resolve, not for denoise"),
        (["super-resolve", "clean", "-m", "SR"], "enlarge by 2,4, not by 3; choose --scales 2,4"),
        (["denoise", "clean", "--masks", "clean"], "needs --corrupted"),
        (["denoise", "clean", "--corrupted", "nowhere"], "nowhere: no such folder"),
        (["denoise", "clean", "--corrupted", "clean", "--sigma", "5"], "--sigma describes damage made here"),
        (["denoise", "clean", "--csv", "there.csv"], "there.csv exists; --overwrite"),
        (["denoise", "clean", "--csv", "a", "--report", "a"], "name the same file"),
        (["denoise", "clean", "--device", "toaster"], "unknown device"),
        (["colourise", "clean"], "No such command"),
    ],
)
def test_wrong_calls_are_one_line_and_code_2(
    words: list[str],
    said: str,
    clean_folder: Path,
    denoiser: Path,
    enlarger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "clean").symlink_to(clean_folder)
    words = [str(enlarger) if word == "SR" else word for word in words]
    if "-m" not in words:
        words += ["-m", str(denoiser)]
    assert run(["evaluate", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_an_option_that_changes_nothing_says_so(
    clean_folder: Path, denoiser: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "denoise", str(clean_folder), "-m", str(denoiser), "--no-baselines", "--limit", "1", "-q"]
    assert run([*words, "--sigma", "10,20"]) == 0
    plain = capsys.readouterr()
    assert plain.err == ""  # -q: neither the device nor a bar
    assert "sigma 15" in plain.out
    assert run([*words, "--sigma", "0,60"]) == 0
    assert (
        "--sigma changes nothing here: denoise is measured at sigma 15, sigma 25, sigma 50" in capsys.readouterr().err
    )
    assert run([*words, "--sigma", "50", "--clipped"]) == 0
    out = capsys.readouterr().out
    assert "sigma 50 clipped" in out
    assert "clipped and rounded to uint8" in out


def test_overwrite_replaces(clean_folder: Path, denoiser: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    words = ["evaluate", "denoise", clean_folder / "cat.png", "-m", denoiser, "--no-baselines", "-q", "--sigma", 10]
    assert run([*map(str, words), "--csv", str(path), "--overwrite"]) == 0
    assert path.read_text(encoding="utf-8").startswith("picture,case,method,psnr")
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


# Pairs


def test_pairs_belong_together_by_path_and_stem(
    clean_folder: Path, denoiser: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other suffixes, other order, files too many and too few: only names count."""
    given, masks = tmp_path / "given", tmp_path / "masks"
    values = {"astronaut": 10, "sub/coffee": 40}
    for name, difference in values.items():
        pixels = read_image(clean_folder / f"{name}.png").pixels
        damaged = np.where(pixels > 127, pixels - difference, pixels + difference)
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[:20] = 255
        damaged = np.where(mask[..., None] > 127, damaged, pixels).astype(np.uint8)
        for folder, content in ((given, damaged), (masks, mask[..., None])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_image(Image(np.ascontiguousarray(content)), folder / f"{name}.tif")
    write_image(Image(np.zeros((5, 5, 3), np.uint8)), given / "aaa-of-no-one.png")
    found = evaluated(
        capsys,
        *("denoise", clean_folder, "--corrupted", given, "--masks", masks, "-m", denoiser, "--no-baselines"),
        code=1,
    )
    assert found["failed"] == [{"picture": "cat.png", "reason": "cat.png: no picture of this name in given"}]
    assert "as in their files" in found["protocol"]["pairs"]
    rows = {row["picture"]: row for row in found["pictures"] if row["method"] == "corrupted"}
    for name, difference in values.items():
        expected = 10 * math.log10(255**2 / difference**2)
        assert rows[f"{name}.png"]["psnr_inside"] == pytest.approx(expected, abs=1e-4)
        assert rows[f"{name}.png"]["changed_outside"] == 0
        assert rows[f"{name}.png"]["params"] is None
    outside = [row["changed_outside"] for row in found["pictures"] if row["method"] == "tiny"]
    assert min(outside) > 50  # these weights change what they see


def test_pairs_that_are_not_clear_or_do_not_fit(clean_folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    picture = read_image(clean_folder / "cat.png")
    for name in ("astronaut.png", "cat.jpg", "cat.webp"):
        write_image(picture, given / name)
    entries = {entry.name: entry for entry in find_entries(clean_folder, given)}
    assert entries["astronaut.png"].corrupted == given / "astronaut.png"
    assert "not clear whether cat.jpg, cat.webp" in str(entries["cat.png"].problem)
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].trial_options()
    (scored,) = evaluate([entries["astronaut.png"]], task, damage, contenders([], []))
    assert scored.rows == []
    assert scored.error == "astronaut.png: 72x72 does not belong to a clean picture of 60x72 (enlarged by 1)"


def test_a_stem_that_two_clean_pictures_share_is_settled_by_the_suffix(clean_folder: Path, tmp_path: Path) -> None:
    clean, given = tmp_path / "clean", tmp_path / "given"
    for folder in (clean, given):
        folder.mkdir()
        write_image(read_image(clean_folder / "cat.png"), folder / "cat.png")
    write_image(read_image(clean_folder / "cat.png"), clean / "cat.jpg")
    other, same = find_entries(clean, given)
    assert (same.name, same.corrupted, same.problem) == ("cat.png", given / "cat.png", None)
    assert "not clear" in str(other.problem)


def test_pairs_of_super_resolution_find_their_scale(clean_folder: Path, tmp_path: Path) -> None:
    from restore.corruptions.downsample import resize_bicubic

    task, spec = TASKS["super-resolve"].load(), TASKS["super-resolve"]
    clean = read_image(clean_folder / "cat.png")
    write_image(clean.with_array(clean.pixels[:71, :71]), tmp_path / "clean.png")
    for scale in (2, 3):
        size = 71 // scale
        write_image(Image(resize_bicubic(clean.pixels, (size, size))), tmp_path / f"x{scale}.png")
        entry = Entry("clean.png", tmp_path / "clean.png", tmp_path / f"x{scale}.png")
        (trial,) = trials(entry, task, spec.trial_options(), 0)
        assert trial.case.label == f"pairs x{scale}"
        assert trial.clean.shape == (size * scale, size * scale, 3)


# The library


def test_damage_depends_on_pixels_and_seed_alone(clean_folder: Path, tmp_path: Path) -> None:
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].trial_options()
    copy = shutil.copy(clean_folder / "cat.png", tmp_path / "zzz.png")

    def noise(path: Path, seed: int) -> list[np.ndarray]:
        return [t.damage.image - to_float(t.clean) for t in trials(Entry("x", path), task, damage, seed)]

    first = noise(clean_folder / "cat.png", 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, noise(Path(copy), 0), strict=True))
    assert not np.array_equal(first[0], noise(clean_folder / "cat.png", 1)[0])
    assert [round(float(sample.std()) * 255) for sample in first] == [15, 25, 50]


def test_baselines_of_denoising_take_noise_away(clean_folder: Path) -> None:
    results = denoise_results(clean_folder, ["nl-means", "wavelets", "total-variation"])
    means = {line.method: line.scores for line in lines(results)}
    for name in ("nl-means", "wavelets", "total-variation"):
        assert means[name]["psnr"] > means["corrupted"]["psnr"] + 4
        assert means[name]["ssim"] > means["corrupted"]["ssim"]
        assert means[name]["ciede2000"] < means["corrupted"]["ciede2000"]


@pytest.mark.parametrize("baseline", baselines.BASELINES["denoise"], ids=lambda baseline: baseline.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_baseline_takes_gray_and_colour(baseline: baselines.Baseline, channels: int, clean_folder: Path) -> None:
    if not baseline.there:
        pytest.skip(f"{baseline.package} is not installed")
    image = read_image(clean_folder / "astronaut.png").pixels[:36, :36, :channels]
    case = TASKS["denoise"].load().cases(TASKS["denoise"].damage(sigma=(25.0, 25.0)))[0]
    params = case.variant.corruption.sample(image.shape, np.random.default_rng(0))
    trial = Trial(case, image, case.variant.corruption.apply(image, params), params, TASKS["denoise"].options())
    restored = baseline.run(trial)
    assert restored.shape == image.shape
    assert psnr(to_dtype(to_float(restored), np.uint8), image) > psnr(trial.damage.image, image) + 2
    silent = replace(params, sigma=0.0)  # nothing to do: nothing done
    still = replace(trial, damage=case.variant.corruption.apply(image, silent), params=silent)
    assert psnr(baseline.contender().restore(still), image) > 30
    unknown = replace(trial, params=None)  # from files: the level has to be estimated
    assert baselines.noise_level(unknown) == pytest.approx(25, rel=0.25)


def test_a_baseline_that_is_not_installed_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", {}.get)
    chosen, missing = baselines.choose("denoise")
    assert "cbm3d" not in [baseline.name for baseline in chosen]
    assert len(chosen) == 3
    assert len(missing) == 1
    assert "pip install bm3d" in missing[0]
    with pytest.raises(UsageError, match="pip install bm3d"):
        baselines.choose("denoise", ["cbm3d"])


def test_a_picture_that_one_method_fails_on_counts_for_none(clean_folder: Path) -> None:
    def fragile(trial: Trial) -> np.ndarray:
        if trial.clean.shape[1] == 72:
            raise ValueError("no\nthanks")
        return trial.damage.image

    baseline = baselines.Baseline("fragile", "fails on one", fragile)
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].trial_options()
    methods = contenders([], [baseline.contender()])
    scored = {one.name: one for one in evaluate(find_entries(clean_folder), task, damage, methods)}
    assert scored["cat.png"].error == "cat.png: fragile: no thanks"
    assert scored["cat.png"].rows == []
    assert len(scored["astronaut.png"].rows) == 6


def test_pictures_stream_by(clean_folder: Path) -> None:
    """Nothing is read before it is asked for, and what is kept of a picture is numbers."""
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].trial_options()
    read: list[str] = []

    def entries() -> Any:
        for entry in find_entries(clean_folder):
            read.append(entry.name)
            yield entry

    stream = evaluate(entries(), task, damage, contenders([], []))
    first = next(stream)
    assert read == ["astronaut.png"]
    for row in first.rows:
        for value in (*vars(row).values(), *row.scores.values(), *vars(row.params).values()):
            assert not isinstance(value, np.ndarray)


@dataclass(frozen=True)
class Stamp:
    """A toy damage with everything a damage can carry: a gray mark in the upper half, half of it opaque."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        return None

    def apply(self, image: np.ndarray, params: None) -> Corrupted:
        opacity = np.zeros(image.shape[:2], np.float32)
        opacity[: len(image) // 2] = 0.5
        marked = to_float(image) * (1 - opacity[..., None]) + 0.5 * opacity[..., None]
        return Corrupted(to_dtype(marked, image.dtype), mask=opacity > 0, opacity=opacity)

    def target(self, image: np.ndarray, params: None) -> np.ndarray:
        return image


class StampHead(Head):
    colours = True

    def analyse(self, image: np.ndarray, options: Any) -> Any:
        mask = np.zeros(image.shape[:2], bool)
        mask[: len(image) // 4] = True
        return SimpleNamespace(mask=mask)


def test_measures_follow_what_the_damage_carries(clean_folder: Path) -> None:
    clean = read_image(clean_folder / "cat.png").pixels
    stamp = Stamp()
    case = Case("stamped", Variant(stamp, StampHead()), psnr)
    trial = Trial(case, clean, stamp.apply(clean, None), None, TASKS["denoise"].options())

    def perfect(given: Trial) -> np.ndarray:
        return clean

    def shy(given: Trial) -> np.ndarray:  # mends, and darkens one pixel that was whole
        restored = clean.copy()
        restored[-1, -1] = 0
        return restored

    scores = measure(trial, Contender("perfect", "model", "", perfect), clean)
    assert scores["psnr"] == scores["psnr_inside"] == scores["harm"] == scores["gain_under_mark"] == math.inf
    assert scores["changed_outside"] == 0
    assert scores["mask_iou"] == pytest.approx(0.5)
    assert scores["ab_correlation"] == pytest.approx(1)
    assert scores["colorfulness"] > 5
    scores = measure(trial, Contender("shy", "model", "", shy), shy(trial))
    assert scores["changed_outside"] == pytest.approx(100 / (36 * 72))
    assert scores["psnr_inside"] == math.inf
    assert 30 < scores["harm"] < math.inf
    scores = measure(trial, Contender("none", "input", "", shy), trial.damage.image)
    assert scores["gain_under_mark"] == 0
    assert math.isnan(scores["harm"])
    assert math.isnan(scores["mask_iou"])
    # and a plain damage has none of these
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].trial_options()
    plain = next(iter(trials(Entry("x", clean_folder / "cat.png"), task, damage, 0)))
    assert set(measure(plain, Contender("x", "input", "", perfect), clean)) == {"psnr", "ssim", "ciede2000"}


def test_numbers_that_json_has_no_words_for(clean_folder: Path) -> None:
    """A perfect picture has infinite PSNR; pictures below the window of SSIM have none."""
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].damage(sigma=(0.0, 0.0))
    methods = contenders([], [])
    results = Results("denoise", 0, "", methods)
    for scored in evaluate(find_entries(clean_folder, limit=1), task, damage, methods):
        results.add(scored)
    results.rows[0].scores["ssim"] = math.nan
    assert json.loads(to_json(results))["summary"][0]["psnr"] is None
    assert ",inf,nan," in to_csv(results)
    assert re.search(r"corrupted +inf +- ", table(results))


@pytest.mark.skipif("RESTORE_DATA" not in os.environ, reason="RESTORE_DATA does not say where the test sets are")
@pytest.mark.parametrize(("name", "published"), [("Set5", {2: 33.66, 4: 28.42}), ("Set14", {2: 30.24, 4: 26.00})])
def test_bicubic_is_as_published(name: str, published: dict[int, float]) -> None:
    """Within 0.1 dB (+0.02 on Set5, +0.09 on Set14): MATLAB resizes luma in double precision, without rounding."""
    task = TASKS["super-resolve"].load()
    found: dict[int, list[float]] = {scale: [] for scale in published}
    for entry in find_entries(Path(os.environ["RESTORE_DATA"]) / "bench" / name):
        for trial in trials(entry, task, TASKS["super-resolve"].damage(scales=tuple(published)), 0):
            enlarged = baselines.BASELINES["super-resolve"][0].run(trial)
            found[trial.head.scale].append(trial.case.score(enlarged, trial.clean))
    for scale, expected in published.items():
        assert np.mean(found[scale]) == pytest.approx(expected, abs=0.1)


# Pages


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.links.append(value or "")
            if name == "class":
                self.classes += (value or "").split()
        if tag not in ("meta", "link", "img", "input", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str, sliders: int) -> Page:
    """The page is well formed, holds what it should, and asks nothing of the network."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.classes.count("slider") == sliders
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|//cdn", text)
    for data in re.findall(r"data:image/png;base64,([^\"]+)", text):
        assert read_image(base64.b64decode(data)).pixels.dtype == np.uint8
    return page


@pytest.fixture(scope="module")
def report_page(clean_folder: Path) -> str:
    from restore.evaluation.report import report

    results = denoise_results(clean_folder, ["wavelets"])
    methods = [*results.methods, Contender("<b>mine</b>", "model", "a & b", results.methods[-1].restore)]
    task, damage = TASKS["denoise"].load(), TASKS["denoise"].damage(sigma=(25.0, 25.0))
    results = Results("denoise", 0, "restore evaluate denoise clean --sigma '<25>'", methods)
    for scored in evaluate(find_entries(clean_folder), task, damage, methods):
        results.add(scored)
    return report(results, find_entries(clean_folder), task, damage)


def test_report_holds_table_scatter_and_pictures(report_page: str) -> None:
    page = check_page(report_page, sliders=3)
    assert page.tags.count("svg") == 1
    assert page.tags.count("circle") == 3
    assert page.tags.count("img") == 9
    assert page.tags.count("tr") == 4
    assert "&lt;b&gt;mine&lt;/b&gt;" in report_page
    assert "--sigma &#x27;&lt;25&gt;&#x27;" in report_page
    for word in ("best: ", "median: ", "worst: ", "unclipped float", "Means of per-picture values over 3 pictures"):
        assert word in report_page


def test_report_ranks_pictures_and_shows_what_was_scored(report_page: str, clean_folder: Path) -> None:
    """Best, median, worst fall in PSNR, and the crops are the very pixels that the scores are about."""
    shown = re.findall(r"<h4>(\w+): (\S+) <span class=note>\(PSNR ([\d.]+)", report_page)
    assert [title for title, _, _ in shown] == ["best", "median", "worst"]
    values = [float(value) for _, _, value in shown]
    assert values == sorted(values, reverse=True)
    images = [read_image(base64.b64decode(d)).pixels for d in re.findall(r"base64,([^\"]+)", report_page)]
    for number, (_, name, value) in enumerate(shown):
        _, restored, clean = images[3 * number : 3 * number + 3]
        assert np.array_equal(clean, read_image(clean_folder / name).pixels)  # smaller than a crop: whole
        assert psnr(restored, clean) == pytest.approx(float(value), abs=0.006)


def test_crop_is_taken_where_the_error_is() -> None:
    from restore.evaluation.report import _worst_window

    error = np.zeros((400, 500))
    error[300:310, 400:420] = 1
    top, left = _worst_window(error, 100)
    assert top <= 300 <= 310 <= top + 100
    assert left <= 400 <= 420 <= left + 100
    assert _worst_window(error[:50, :60], 100) == (0, 0)


Browser = Callable[[str], tuple[str, list[str]]]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Opens a page in Chromium: the document after its script has run, and what the console said."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")

    def look(text: str) -> tuple[str, list[str]]:
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND"]
        done = subprocess.run(
            [chromium, *flags, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return look


def test_report_opens_in_a_browser_without_errors(report_page: str, browser: Browser) -> None:
    document, console = browser(report_page)
    assert console == []
    assert 'data-ready="yes"' in document
    assert re.findall(r"--cut: (\d+)%;\"", document) == ["50", "50", "50"]


def test_sliders_slide(report_page: str, browser: Browser) -> None:
    """Moving one handle uncovers that picture, and leaves the others."""
    script = "const h = document.querySelector('.slider input'); h.value = 20; h.dispatchEvent(new Event('input'));"
    document, console = browser(report_page.replace("</body>", f"<script>{script}</script></body>"))
    assert console == []
    assert re.findall(r"--cut: (\d+)%;\"", document) == ["20", "50", "50"]


def test_the_browser_test_sees_errors(report_page: str, browser: Browser) -> None:
    """A script that fails, and a picture from elsewhere, both show: silence above means something."""
    document, console = browser(report_page.replace("const move", "nonsense(); const move"))
    assert any("nonsense is not defined" in line for line in console)
    assert "data-ready" not in document
    _, console = browser(report_page.replace("<h1>", '<img src="https://example.org/a.png"><h1>'))
    assert any("Content Security Policy" in line for line in console)


# Compare


def test_compare_side_by_side(clean_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = clean_folder / "cat.png", tmp_path / "after.png"
    pixels = read_image(first).pixels
    write_image(Image(255 - pixels), second)
    assert run(["compare", str(first), str(second)]) == 0
    both = read_image(tmp_path / "after.compared.png").pixels
    width = pixels.shape[1]
    assert np.array_equal(both[:, :width], pixels)
    assert np.array_equal(both[:, -width:], 255 - pixels)
    assert (both[:, width:-width] == 255).all()
    assert run(["compare", str(first), str(second)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(["compare", str(first), str(second), "--overwrite"]) == 0


def test_compare_with_a_slider_enlarges_the_smaller(clean_folder: Path, tmp_path: Path) -> None:
    from restore.corruptions.downsample import resize_bicubic

    pixels = read_image(clean_folder / "cat.png").pixels
    small = resize_bicubic(pixels, (36, 36))
    write_image(Image(small), tmp_path / "small.png")
    page_file = tmp_path / "new" / "page.html"
    assert run(["compare", str(tmp_path / "small.png"), str(clean_folder / "cat.png"), "-o", str(page_file)]) == 0
    text = page_file.read_text(encoding="utf-8")
    check_page(text, sliders=1)
    before, after = (read_image(base64.b64decode(d)).pixels for d in re.findall(r"base64,([^\"]+)", text))
    assert np.array_equal(before, resize_bicubic(small, (72, 72)))
    assert np.array_equal(after, pixels)
    assert str(tmp_path) not in text


def test_compare_takes_gray_deep_and_transparent(tmp_path: Path) -> None:
    gray = np.full((6, 4, 1), 65535, np.uint16)
    write_image(Image(gray), tmp_path / "gray.png")
    clear = Image(np.zeros((6, 4, 3), np.uint8), alpha=np.zeros((6, 4), np.uint8))
    write_image(clear, tmp_path / "clear.png")
    assert run(["compare", str(tmp_path / "gray.png"), str(tmp_path / "clear.png"), "-o", str(tmp_path / "o.png")]) == 0
    both = read_image(tmp_path / "o.png").pixels
    assert both.shape == (6, 16, 3)
    assert (both == 255).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cat.png", "nowhere.png"], "nowhere.png"),
        (["cat.png", "astronaut.png"], "one must be a multiple of the other"),
        (["cat.png", "cat.png", "-o", "out.txt"], "end it in .html"),
        (["cat.png", "cat.png", "-o", "cat.png", "--overwrite"], "is an input"),
    ],
)
def test_compare_refuses_in_one_line(
    words: list[str],
    said: str,
    clean_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("cat.png", "astronaut.png"):
        shutil.copy(clean_folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "cat.png").read_bytes()
    assert run(["compare", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert (tmp_path / "cat.png").read_bytes() == before


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from restore.cli.app import run; run(['evaluate', 'denoise', '--help']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "--corrupted" in done.stdout
    assert "--sigma" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    assert not [name for name in ("torch", "cv2", "albumentations", "skimage") if f"'{name}'" in loaded]
