"""The floor under the shipped weights: on the samples always, on the standard sets where RESTORE_DATA names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import restore as package
from restore.corruptions.downsample import resize_bicubic
from restore.folders.masks import read_mask
from restore.images import Image, find_images, read_image
from restore.inference.restorer import Restorer
from restore.metrics import hue_hits, mask_iou, masked_psnr, psnr
from restore.pixels import luma, to_dtype, to_float
from restore.tasks import TASKS
from restore.tasks.base import load_task

SAMPLES = Path(__file__).parents[1] / "samples"
# A little under what the shipped files score, so that a change for the worse shows. dB.
SAMPLE_FLOORS = {"default": 32.0, "gaussian": 32.62, "enlarged": 34.78, "bicubic": 35.53}
# Of CBSD68 every fourth picture, which takes seconds; benchmarks/quality.py scores all.
BENCH_FLOORS = {
    ("denoise", "gaussian", "CBSD68"): {"sigma 15": 33.85, "sigma 25": 31.17, "sigma 50": 28.02},
    ("super-resolve", "bicubic", "Set5"): {"x2": 37.57, "x3": 33.86, "x4": 31.56},
    ("super-resolve", "bicubic", "Set14"): {"x2": 33.16, "x3": 29.91, "x4": 28.22},
    ("super-resolve", "default", "Set5"): {"x2": 37.0, "x3": 33.5, "x4": 31.2},
}
# Mean PSNR over the frozen sets of photographs as they come (dB), and over those that nothing happened to.
PHOTO_FLOORS = {"jpeg-noise": 31.1, "grain": 27.4, "camera": 27.4, "blocks": 30.2, "real": 37.95, "clean": 45.0}


# PSNR inside the mask over 16 damaged pictures each, drawn by other means than ours: blind, with the mask given (dB),
# and how well the mask was found (intersection over union). For either precision: on jpg the IoU of dewatermark is
# 0.327 in fp32 and 0.341 in bf16.
DAMAGED_FLOORS = {
    ("inpaint", "png"): {"blind": 24.9, "given": 25.5, "iou": 0.89},
    ("inpaint", "jpg"): {"blind": 19.6, "given": 22.3, "iou": 0.64},
    ("dewatermark", "png"): {"blind": 24.75, "given": 29.3, "iou": 0.38},
    ("dewatermark", "jpg"): {"blind": 23.4, "given": 27.3, "iou": 0.315},
}
REPAIRED = {"inpaint": 14.2, "dewatermark": 9.0}  # dB gained on the samples, where they are damaged
UNMARKED_FLOORS = {"inpaint": 0.98, "dewatermark": 0.98}  # share of clean pictures that come back as they are
COLOUR_FLOOR = 23.85  # PSNR of bench/color24, dB
HUE_FLOOR = 0.32  # mean share of its coloured pixels that have about their hue


def pixels(path: Path) -> np.ndarray:
    """(H,W,3) uint8; the standard sets hold a few gray pictures."""
    found = read_image(path).pixels
    return np.repeat(found, 3, axis=-1) if found.shape[-1] == 1 else found


def score(task: str, model: str, paths: Sequence[Path]) -> dict[str, float]:
    """Mean score of each case of `task` over the pictures in `paths`, with weights that are shipped."""
    built = load_task(task)
    loaded = package.load(task, model)
    scores = {}
    for number, case in enumerate(built.cases(TASKS[task].trial_options())):
        restorer = Restorer(case.pair.head, loaded.network, loaded.options, loaded.device, loaded.dtype)
        found = []
        for index, path in enumerate(paths):
            image = pixels(path)
            params = case.pair.corruption.sample(image.shape, np.random.default_rng((number, index)))
            restored = restorer(case.pair.corruption.apply(image, params).image)
            found.append(case.score(restored, case.pair.corruption.target(image, params)))
        scores[case.label] = float(np.mean(found))
    return scores


@pytest.mark.parametrize("model", ["default", "gaussian"])
def test_samples_come_back_clean(model):
    """Every sample: far better than the damaged file, and than OpenCV's way of doing it without learning."""
    import cv2

    denoise = package.load("denoise", model)
    found = []
    for path in find_images(SAMPLES / "noisy"):
        noisy, clean = pixels(path), pixels(SAMPLES / "clean" / path.name)
        found.append(psnr(denoise(noisy), clean))
        assert found[-1] > psnr(noisy, clean) + 8, path
        assert found[-1] > psnr(cv2.fastNlMeansDenoisingColored(noisy, None, 12, 12, 7, 21), clean) + 0.5, path
    assert len(found) == 4
    assert np.mean(found) > SAMPLE_FLOORS[model]


@pytest.mark.parametrize(("model", "floor"), [("default", "enlarged"), ("bicubic", "bicubic")])
def test_samples_come_back_large(model, floor):
    """Every sample: nearer to the original than bicubic enlargement."""
    enlarge = package.load("super-resolve", model, scale=2)
    found = []
    for path in find_images(SAMPLES / "small"):
        small, clean = pixels(path), pixels(SAMPLES / "clean" / path.name)
        clean = clean[: small.shape[0] * 2, : small.shape[1] * 2]
        found.append(psnr(enlarge(small), clean, luma=True, border=2))
        assert found[-1] > psnr(resize_bicubic(small, clean.shape[:2]), clean, luma=True, border=2) + 1, path
    assert len(found) == 4
    assert np.mean(found) > SAMPLE_FLOORS[floor]


@pytest.mark.parametrize(("task", "model", "dataset"), sorted(BENCH_FLOORS))
def test_standard_sets(task, model, dataset, bench, capsys):
    scores = score(task, model, find_images(bench / dataset)[:: 4 if dataset == "CBSD68" else 1])
    with capsys.disabled():
        shown = ", ".join(f"{label} {value:.2f} dB" for label, value in scores.items())
        print(f"\n{task}, {model}, on {dataset}: {shown}")
    for label, floor in BENCH_FLOORS[task, model, dataset].items():
        assert scores[label] >= floor, label


@pytest.mark.parametrize("kind", sorted(PHOTO_FLOORS))
def test_photographs_as_they_come(kind, bench):
    folder = bench / "real" if kind == "real" else bench / "damaged" / "denoise"
    denoise, found = package.load("denoise"), []
    for path in find_images(folder / ("noisy" if kind == "real" else kind)):
        clean = pixels(folder / "clean" / f"{path.stem}.png")
        found.append(min(psnr(denoise(pixels(path)), clean), 99.0))
    assert len(found) == (20 if kind == "real" else 15)
    assert np.mean(found) >= PHOTO_FLOORS[kind]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples_are_repaired(precision):
    """The covered and the marked samples, known to be so: far nearer to the originals where something lay over them.

    In either precision: `auto` takes the one that the processor is fast in.
    """
    for task, folder in (("inpaint", "covered"), ("dewatermark", "marked")):
        restorer, gains = package.load(task, device="cpu", precision=precision, aggressive=True), []
        for path in find_images(SAMPLES / folder):
            damaged, clean = pixels(path), pixels(SAMPLES / "clean" / path.name)
            lost = (damaged != clean).any(axis=-1)
            gains.append(masked_psnr(restorer(damaged), clean, lost) - masked_psnr(damaged, clean, lost))
        assert len(gains) == 4
        assert np.mean(gains) > REPAIRED[task], task


@pytest.mark.parametrize(
    ("task", "kind", "precision"),
    [*((task, kind, "fp32") for task, kind in sorted(DAMAGED_FLOORS)), *((task, "jpg", "bf16") for task in REPAIRED)],
)
def test_damaged_pictures(task, kind, precision, bench, capsys):
    """Found and told: what the frozen pairs score inside the mask; outside of what was found nothing changes."""
    restorer, folder = package.load(task, device="cpu", precision=precision), bench / "damaged" / task / kind
    found = []
    for path in find_images(folder / "corrupted"):
        image, clean = pixels(path), pixels(folder / "clean" / f"{path.stem}.png")
        lost = read_mask(folder / "mask" / f"{path.stem}.png")
        made = restorer.restore(Image(image))
        assert np.array_equal(made.image.pixels[~made.mask], image[~made.mask])
        given = restorer(image, mask=lost)
        assert np.array_equal(given[~lost], image[~lost])
        found.append(
            (masked_psnr(made.image.pixels, clean, lost), masked_psnr(given, clean, lost), mask_iou(made.mask, lost))
        )
    assert len(found) == 16
    scores = dict(zip(("blind", "given", "iou"), np.mean(found, axis=0), strict=True))
    with capsys.disabled():
        print(
            f"\n{task} on damaged {kind}, {precision}: "
            + ", ".join(f"{label} {value:.3f}" for label, value in scores.items())
        )
    for label, floor in DAMAGED_FLOORS[task, kind].items():
        assert scores[label] >= floor, label


@pytest.mark.parametrize("task", sorted(UNMARKED_FLOORS))
def test_clean_pictures_are_left_alone(task, bench):
    restorer = package.load(task)
    clean = [pixels(path) for path in find_images(bench / "CBSD68")]
    same = [np.array_equal(restorer(image), image) for image in clean]
    assert np.mean(same) >= UNMARKED_FLOORS[task]


def test_colours_are_plausible(bench, capsys):
    """Nearer to the original than gray is, luma untouched."""
    colorize = package.load("colorize")
    scores = []
    for path in find_images(bench / "color24"):
        clean = pixels(path)
        gray = to_dtype(luma(to_float(clean)), np.uint8)[..., None]
        coloured = colorize(gray)
        assert np.abs(luma(to_float(coloured)) * 255 - gray[..., 0]).max() <= 1
        scores.append((psnr(coloured, clean), psnr(np.repeat(gray, 3, axis=-1), clean), hue_hits(coloured, clean)))
    coloured, plain, hues = np.nanmean(scores, axis=0)
    with capsys.disabled():
        print(f"\ncolorize on color24: {coloured:.2f} dB, gray {plain:.2f} dB, hues {hues:.3f}")
    assert hues >= HUE_FLOOR
    assert coloured >= COLOUR_FLOOR


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_white_and_black_borders_stay(task, level):
    """Around a photograph, in every task: 255 stays 255, and 0 stays 0, up to a few pixels from the photograph."""
    inside = pixels(SAMPLES / "clean" / "chelsea.png")[:120, :160]
    bordered = np.pad(inside, ((50, 50), (40, 60), (0, 0)), constant_values=level)
    restored = package.load(task)(bordered[..., :1] if task == "colorize" else bordered)
    scale = restored.shape[0] // bordered.shape[0]
    border = np.pad(np.zeros((128, 168), bool), ((46, 46), (36, 56)), constant_values=True)
    assert (restored[border.repeat(scale, 0).repeat(scale, 1)] == level).all()


def test_a_clean_picture_comes_back_nearly_itself():
    clean = pixels(SAMPLES / "clean" / "coffee.png")
    assert psnr(package.load("denoise")(clean), clean) > 40.5


def test_the_floor_is_not_measured_on_training_pictures():
    """Benchmark pictures are named nowhere in the weights' provenance."""
    from restore import weights

    for path in weights.shipped():
        folders = weights.read_header(path).provenance["folders"]
        assert "bench" not in folders
    assert os.environ.get("RESTORE_DATA", "") == "" or (Path(os.environ["RESTORE_DATA"]) / "bench").is_dir()
