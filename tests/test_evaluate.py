"""`restore evaluate` and `restore compare`, from the library up to the browser."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT
from evaluation_tools import check_page, evaluated, tiny_weights

from restore.cli.app import run
from restore.evaluation import baselines
from restore.evaluation.evaluate import all_methods, evaluate
from restore.evaluation.results import Results, mean, table, to_csv, to_json
from restore.evaluation.trials import Entry, Trial, find_entries, trials
from restore.images import Image, find_images, read_image, write_image
from restore.metrics import masked_psnr, psnr
from restore.pixels import to_float
from restore.tasks import TASKS
from restore.tasks.base import load_task


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny-sr.safetensors", "super-resolve", (2, 4))


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
        (["denoise", "clean", "--csv", "there.csv"], "there.csv exists; use --overwrite"),
        (["denoise", "clean", "--report", "r.txt"], "r.txt: end it in .html or .htm"),
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
    missing = "has no corrupted picture: none is called 'cat' in given; put it there"
    assert found["failed"] == [{"picture": "cat.png", "reason": f"cat.png: {missing}"}]
    assert "as in their files" in found["protocol"]["pairs"]
    rows = {row["picture"]: row for row in found["pictures"] if row["method"] == "corrupted"}
    for name, difference in values.items():
        expected = 10 * math.log10(255**2 / difference**2)
        assert rows[f"{name}.png"]["psnr_inside"] == pytest.approx(expected, abs=1e-4)
        assert rows[f"{name}.png"]["changed_outside"] == 0
        assert rows[f"{name}.png"]["params"] is None
    outside = [row["changed_outside"] for row in found["pictures"] if row["method"] == "tiny"]
    assert min(outside) > 50  # these weights change what they see


@pytest.fixture(scope="module")
def barred(clean_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`corrupted` with a black bar over each picture, as JPEG; `mask` where that is, as PNG."""
    folder = tmp_path_factory.mktemp("barred")
    for path in find_images(clean_folder):
        name = path.relative_to(clean_folder)
        image = read_image(path)
        pixels, mask = image.pixels.copy(), np.zeros((*image.pixels.shape[:2], 1), np.uint8)
        pixels[30:38], mask[30:38] = 0, 255
        for place, content in (
            (folder / "corrupted" / name.with_suffix(".jpg"), pixels),
            (folder / "mask" / name, mask),
        ):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_image(Image(content), place)
    return folder


def test_pairs_with_masks_are_scored_blind_and_told(
    clean_folder: Path, barred: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every picture in each case, whatever the suffixes; inside the mask, which only one of them gives to the model."""
    words = ("inpaint", clean_folder, "--corrupted", barred / "corrupted", "-m", tiny("inpaint"), "--device", "cpu")
    found = evaluated(capsys, *words, "--masks", barred / "mask", "--report", tmp_path / "page.html")
    assert found["failed"] == []
    names = ["corrupted", "telea", "navier-stokes", "biharmonic", "inpaint"]
    lines = {(line["case"], line["method"]): line for line in found["summary"]}
    assert list(lines) == [(case, name) for case in ("pairs", "pairs, mask given") for name in names]
    assert all(line["pictures"] == 3 for line in lines.values())
    mask = read_image(barred / "mask" / "cat.png").pixels[..., 0] > 127
    damaged, clean = (read_image(path).pixels for path in (barred / "corrupted/cat.jpg", clean_folder / "cat.png"))
    expected = masked_psnr(damaged, clean, mask)
    rows = [row for row in found["pictures"] if row["picture"] == "cat.png" and row["method"] == "corrupted"]
    assert [row["psnr_inside"] for row in rows] == [pytest.approx(expected, abs=1e-5)] * 2
    assert lines["pairs", "telea"]["psnr_inside"] > lines["pairs", "corrupted"]["psnr_inside"] + 8
    blind, given = lines["pairs", "inpaint"], lines["pairs, mask given", "inpaint"]
    assert 0 <= blind["mask_iou"] <= 1
    assert "mask_iou" not in given
    assert given["changed_outside"] == 0
    assert "ranked by PSNR inside the mask" in found["protocol"]["pairs"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    check_page(page, sliders=6)
    assert re.search(r"best: \S+ <span class=note>\(inside [\d.]+, PSNR", page)
    assert "PSNR inside the mask in dB" in page


def test_pairs_without_masks_are_scored_blind_alone(
    clean_folder: Path, barred: Path, tiny: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("inpaint", clean_folder, "--corrupted", barred / "corrupted", "-m", tiny("inpaint"), "--device", "cpu")
    found = evaluated(capsys, *words)
    assert {line["case"] for line in found["summary"]} == {"pairs"}
    assert [line["method"] for line in found["summary"]] == ["corrupted", "inpaint"]
    assert "telea left out: it needs masks of the damage (--masks)" in found["notes"]
    assert "psnr_inside" not in found["summary"][0]


def test_options_of_restoring_are_measured(
    clean_folder: Path, barred: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--aggressive on a faint mark, which is in doubt by itself; --grow where the mask is told; --saturation."""
    clean, marked = (cv2.imread(str(ROOT / "samples" / kind / "rocket.png")) for kind in ("clean", "marked"))
    cv2.imwrite(str(tmp_path / "rocket.png"), cv2.addWeighted(clean, 0.6, marked, 0.4, 0))
    original = ROOT / "samples" / "clean" / "rocket.png"
    words = ("dewatermark", original, "--corrupted", tmp_path, "--no-baselines")
    gains = []
    for more in ((), ("--aggressive",)):
        found = evaluated(capsys, *words, *more, "--device", "cpu")
        marked, ours = (line["psnr"] for line in found["summary"])
        gains.append(ours - marked)
        assert found["command"].endswith(" --aggressive") == (more != ())
        assert found["methods"][-1]["about"].endswith(", aggressive") == (more != ())
    assert gains[0] == 0
    assert gains[1] > 1

    pairs = ("inpaint", clean_folder, "--corrupted", barred / "corrupted", "--masks", barred / "mask")
    words = (*pairs, "-m", tiny("inpaint"), "--no-baselines", "--device", "cpu")
    plain, dilate = (evaluated(capsys, *words, "--grow", by)["summary"][-1]["changed_outside"] for by in (0, 2))
    assert plain == 0 < dilate

    words = ("colorize", clean_folder, "--baselines", "gray", "--saturation", 0, "--device", "cpu")
    summary = evaluated(capsys, *words)["summary"]
    assert [line["case"] for line in summary] == ["gray", "gray", "10 hints", "10 hints"]
    for line in summary:  # ours is asked for no colours
        assert line["colorfulness"] == line["hue_hits"] == line["chroma_share"] == 0
    words = ("colorize", clean_folder, "--hints", 3, "-m", tiny("colorize"), "--no-baselines", "--device", "cpu")
    assert [line["case"] for line in evaluated(capsys, *words)["summary"]][-1] == "3 hints"


def test_pairs_that_are_not_clear_or_do_not_fit(clean_folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    picture = read_image(clean_folder / "cat.png")
    for name in ("astronaut.png", "cat.jpg", "cat.webp"):
        write_image(picture, given / name)
    entries = {entry.name: entry for entry in find_entries(clean_folder, given)}
    assert entries["astronaut.png"].corrupted == given / "astronaut.png"
    assert "cat.jpg and cat.webp in given may both be its corrupted picture" in str(entries["cat.png"].problem)
    task, damage = load_task("denoise"), TASKS["denoise"].trial_options()
    (scored,) = evaluate([entries["astronaut.png"]], task, damage, all_methods([], []))
    assert scored.rows == []
    assert scored.error == "astronaut.png: 72x72 does not match the clean picture of 60x72 (enlarged by 1)"


def test_a_stem_that_two_clean_pictures_share_is_settled_by_the_suffix(clean_folder: Path, tmp_path: Path) -> None:
    clean, given = tmp_path / "clean", tmp_path / "given"
    for folder in (clean, given):
        folder.mkdir()
        write_image(read_image(clean_folder / "cat.png"), folder / "cat.png")
    write_image(read_image(clean_folder / "cat.png"), clean / "cat.jpg")
    other, same = find_entries(clean, given)
    assert (same.name, same.corrupted, same.problem) == ("cat.png", given / "cat.png", None)
    assert "call its corrupted picture 'cat.jpg.png'" in str(other.problem)


def test_pairs_of_super_resolution_find_their_scale(clean_folder: Path, tmp_path: Path) -> None:
    from restore.corruptions.downsample import resize_bicubic

    task, spec = load_task("super-resolve"), TASKS["super-resolve"]
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
    task, damage = load_task("denoise"), TASKS["denoise"].trial_options()
    copy = shutil.copy(clean_folder / "cat.png", tmp_path / "zzz.png")

    def noise(path: Path, seed: int) -> list[np.ndarray]:
        return [t.damage.image - to_float(t.clean) for t in trials(Entry("x", path), task, damage, seed)]

    first = noise(clean_folder / "cat.png", 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, noise(Path(copy), 0), strict=True))
    assert not np.array_equal(first[0], noise(clean_folder / "cat.png", 1)[0])
    assert [round(float(sample.std()) * 255) for sample in first] == [15, 25, 50]


def test_a_picture_that_one_method_fails_on_counts_for_none(clean_folder: Path) -> None:
    def fragile(trial: Trial) -> np.ndarray:
        if trial.clean.shape[1] == 72:
            raise ValueError("no\nthanks")
        return trial.damage.image

    baseline = baselines.Baseline("fragile", "fails on one", fragile)
    task, damage = load_task("denoise"), TASKS["denoise"].trial_options()
    methods = all_methods([], [baseline.method()])
    scored = {one.name: one for one in evaluate(find_entries(clean_folder), task, damage, methods)}
    assert scored["cat.png"].error == "cat.png: fragile: no thanks"
    assert scored["cat.png"].rows == []
    assert len(scored["astronaut.png"].rows) == 6


def test_pictures_stream_by(clean_folder: Path) -> None:
    """Nothing is read before it is asked for, and what is kept of a picture is numbers."""
    task, damage = load_task("denoise"), TASKS["denoise"].trial_options()
    read: list[str] = []

    def entries() -> Any:
        for entry in find_entries(clean_folder):
            read.append(entry.name)
            yield entry

    stream = evaluate(entries(), task, damage, all_methods([], []))
    first = next(stream)
    assert read == ["astronaut.png"]
    for row in first.rows:
        for value in (*vars(row).values(), *row.scores.values(), *vars(row.params).values()):
            assert not isinstance(value, np.ndarray)


def test_numbers_that_json_has_no_words_for(clean_folder: Path) -> None:
    """An exact picture has infinite PSNR, 100 dB in a mean; pictures below the window of SSIM have none of it."""
    task, damage = load_task("denoise"), TASKS["denoise"].damage(sigma=(0.0, 0.0))
    methods = all_methods([], [])
    results = Results("denoise", 0, "", methods)
    for scored in evaluate(find_entries(clean_folder, limit=1), task, damage, methods):
        results.add(scored)
    results.rows[0].scores["ssim"] = math.nan
    summary, *_ = json.loads(to_json(results))["summary"]
    assert (summary["psnr"], summary["ssim"]) == (100.0, None)
    assert "in a mean it counts as 100 dB" in table(results)
    assert mean([math.inf, 30.0, math.nan]) == 65.0
    assert ",inf,nan," in to_csv(results)
    assert re.search(r"corrupted +100.00 +- ", table(results))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from restore.cli.app import run; run(['evaluate', 'denoise', '--help']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "--corrupted" in done.stdout
    assert "--sigma" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    assert not [name for name in ("torch", "cv2", "albumentations", "skimage") if f"'{name}'" in loaded]
