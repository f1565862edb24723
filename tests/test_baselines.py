"""What stands beside the models: each baseline on real pictures, through its own library."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_tools import denoise_results

from restore.corruptions.base import Corrupted
from restore.corruptions.grayscale import Dot, GrayscaleParams
from restore.errors import RestoreError, UsageError
from restore.evaluation import baselines
from restore.evaluation.results import lines
from restore.evaluation.trials import MIN_OPACITY, Trial, find_entries, trials
from restore.images import read_image
from restore.metrics import masked_psnr, psnr
from restore.pixels import luma, to_dtype, to_float
from restore.tasks import TASKS
from restore.tasks.base import load_task

TELEA_INSIDE = 27.89  # dB


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
    if not baseline.available:
        pytest.skip(f"{baseline.package} is not installed")
    image = read_image(clean_folder / "astronaut.png").pixels[:36, :36, :channels]
    case = load_task("denoise").cases(TASKS["denoise"].damage(sigma=(25.0, 25.0)))[0]
    params = case.pair.corruption.sample(image.shape, np.random.default_rng(0))
    trial = Trial(case, image, case.pair.corruption.apply(image, params), params)
    restored = baseline.run(trial)
    assert restored.shape == image.shape
    assert psnr(to_dtype(to_float(restored), np.uint8), image) > psnr(trial.damage.image, image) + 2
    silent = replace(params, sigma=0.0)  # nothing to do: nothing done
    still = replace(trial, damage=case.pair.corruption.apply(image, silent), params=silent)
    assert psnr(baseline.method().restore(still).pixels, image) > 30
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


@pytest.mark.skipif("RESTORE_DATA" not in os.environ, reason="RESTORE_DATA does not say where the test sets are")
@pytest.mark.parametrize(("name", "published"), [("Set5", {2: 33.66, 4: 28.42}), ("Set14", {2: 30.24, 4: 26.00})])
def test_bicubic_matches_published_values(name: str, published: dict[int, float]) -> None:
    """Within 0.1 dB (+0.02 on Set5, +0.09 on Set14): MATLAB resizes luma in double precision, without rounding."""
    task = load_task("super-resolve")
    found: dict[int, list[float]] = {scale: [] for scale in published}
    for entry in find_entries(Path(os.environ["RESTORE_DATA"]) / "bench" / name):
        for trial in trials(entry, task, TASKS["super-resolve"].damage(scales=tuple(published)), 0):
            enlarged = baselines.BASELINES["super-resolve"][0].run(trial)
            found[trial.head.scale].append(trial.case.value(enlarged, trial.clean, trial.damage))
    for scale, expected in published.items():
        assert np.mean(found[scale]) == pytest.approx(expected, abs=0.1)


def photo(clean_folder: Path, name: str = "sub/coffee") -> np.ndarray:
    return read_image(clean_folder / f"{name}.png").pixels


def bar_trial(task: str, clean: np.ndarray, dtype: type = np.uint8) -> Trial:
    """A picture with a thin bar over it, solid to inpaint, faint to dewatermark."""
    mask = np.zeros(clean.shape[:2], bool)
    mask[20:26, 5:-5] = True
    opacity = None if task == "inpaint" else np.where(mask, 0.5, MIN_OPACITY / 2).astype(np.float32)
    image = np.where(mask[..., None], 250, clean).astype(np.uint8)
    case = load_task(task).cases(TASKS[task].trial_options())[0]
    damage = Corrupted(to_dtype(to_float(image), dtype), mask if opacity is None else mask | True, opacity)
    return Trial(case, to_dtype(to_float(clean), dtype), damage, None)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("task", "name"),
    [(task, baseline.name) for task in ("inpaint", "dewatermark") for baseline in baselines.BASELINES[task]],
)
def test_only_holes_are_filled(task: str, name: str, dtype: type, channels: int, clean_folder: Path) -> None:
    """Every bit outside the true mask, which is where an opacity shows; inside, far better than nothing."""
    trial = bar_trial(task, photo(clean_folder)[..., :channels], dtype)
    (baseline,) = baselines.choose(task, [name])[0]
    restored = baseline.method().restore(trial).pixels
    assert (restored.dtype, restored.shape) == (trial.damage.image.dtype, trial.damage.image.shape)
    inside = np.asarray(trial.visible_damage)
    assert inside.mean() < 0.1
    assert np.array_equal(restored[~inside], trial.damage.image[~inside])
    assert masked_psnr(restored, trial.clean, inside) > masked_psnr(trial.damage.image, trial.clean, inside) + 6
    whole = replace(trial, damage=Corrupted(trial.clean, mask=np.zeros_like(inside)))
    assert np.array_equal(baseline.method().restore(whole).pixels, trial.clean)


def test_methods_are_left_out_without_masks(clean_folder: Path) -> None:
    chosen, missing = baselines.choose("inpaint", masks=False)
    assert chosen == []
    assert len(missing) == 3
    assert all("--masks" in line for line in missing)
    with pytest.raises(UsageError, match="give --masks"):
        baselines.choose("inpaint", ["telea"], masks=False)
    trial = bar_trial("inpaint", photo(clean_folder))
    with pytest.raises(RestoreError, match="telea: needs a mask"):
        baselines.TELEA.method().restore(replace(trial, damage=Corrupted(trial.clean)))


def gray_trial(clean: np.ndarray) -> Trial:
    case = load_task("colorize").cases(TASKS["colorize"].trial_options())[0]
    damage = case.pair.corruption.apply(clean, GrayscaleParams())
    return Trial(case, clean, damage, None)


def test_colours_by_table_keep_the_luma(clean_folder: Path) -> None:
    gray, table, _ = (baseline.method() for baseline in baselines.choose("colorize")[0])
    assert gray.kind == "input"
    trial = gray_trial(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=-1))
    assert np.array_equal(gray.restore(trial).pixels, trial.damage.image)
    restored = table.restore(trial).pixels
    assert np.abs(luma(restored) - trial.damage.image[..., 0]).max() < 1
    assert np.ptp(restored.astype(int), axis=-1).mean() > 10
    deep = replace(trial, damage=Corrupted(to_dtype(to_float(trial.damage.image), np.uint16)))
    finer = table.restore(deep).pixels
    assert finer.dtype == np.uint16
    assert np.abs(to_float(finer) - to_float(restored)).max() < 0.6 / 255


def test_table_is_better_than_gray_on_photographs(bench: Path) -> None:
    """On validation pictures; on others it is about as far, so that no more is asked of it."""
    gains = []
    for entry in find_entries(bench.parent / "val" / "bsds", limit=6):
        trial = gray_trial(read_image(entry.clean).pixels)
        gray, table = (baseline.run(trial) for baseline in baselines.BASELINES["colorize"][:2])
        gains.append(psnr(table, trial.clean) - psnr(gray.repeat(3, axis=-1), trial.clean))
    assert np.mean(gains) > 0.5


def test_frozen_pairs_are_unchanged(bench: Path) -> None:
    """Telea inside the true mask, of the first pictures: the floors of inpaint are measured from here."""
    task, folder = load_task("inpaint"), bench / "damaged" / "inpaint" / "png"
    found = []
    for entry in find_entries(folder / "clean", folder / "corrupted", folder / "mask", limit=4):
        blind, given = trials(entry, task, TASKS["inpaint"].trial_options(), 0)
        assert (blind.given_mask, given.given_mask is given.damage.mask) == (None, True)
        found.append(blind.case.value(baselines.TELEA.run(blind), blind.clean, blind.damage))
    assert np.mean(found) == pytest.approx(TELEA_INSIDE, abs=0.05)


def test_levin_spreads_hints_to_edges() -> None:
    """Two flat halves with a dot each get the colours of their dots, whole; without dots the picture stays gray."""
    clean = np.zeros((40, 60, 3), np.uint8)
    clean[:, :30], clean[:, 30:] = (90, 60, 40), (150, 180, 220)
    case = load_task("colorize").cases(TASKS["colorize"].trial_options())[1]
    params = GrayscaleParams((Dot(0.3, 0.2, 0.1), Dot(0.7, 0.8, 0.1)))
    operator = case.pair.corruption
    levin = baselines.BASELINES["colorize"][2].method()
    trial = Trial(case, clean, operator.apply(clean, params), params)
    restored = levin.restore(trial).pixels
    assert np.abs(restored.astype(int) - clean).max() <= 3
    assert np.abs(luma(restored) - trial.damage.image[..., 0]).max() <= 1
    gray = replace(trial, damage=replace(trial.damage, hints=None))
    assert np.array_equal(levin.restore(gray).pixels, np.repeat(trial.damage.image, 3, -1))
