"""denoise: what it is trained on, what it is told, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import restore as package
from restore import weights
from restore.cli.app import run
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.errors import UsageError
from restore.images import Image
from restore.models import build
from restore.pixels import to_float
from restore.tasks import TASKS
from restore.tasks.base import load_task
from restore.tasks.denoise import DRIFT, DenoiseHead, level_planes, photographs

TASK = load_task("denoise")


@pytest.fixture(scope="module")
def listens(tmp_path_factory) -> Path:
    """Weights that do nothing but darken: by a hundredth where no level is told, else by the level."""
    path = tmp_path_factory.mktemp("weights") / "listens.safetensors"
    config = replace(TASK.config, widths=(16,), blocks=(1,), fold=1)
    network = build(TASK.arch, config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.stem.bias[0] = 0.005  # doubled by the skip around the U
        network.stem.weight[0, 3, 1, 1] = -0.005
        network.stem.weight[0, 4, 1, 1] = 0.5 * 50 / 255
        network.heads["1"].weight[:, 0, 1, 1] = -1.0
    weights.save(path, weights.Header("denoise", TASK.arch, weights.config_values(config)), network.state_dict())
    return path


@pytest.fixture(scope="module")
def blind(tmp_path_factory) -> Path:
    """Weights of the kind that takes RGB alone."""
    path = tmp_path_factory.mktemp("weights") / "blind.safetensors"
    config = replace(TASK.config, in_channels=3, widths=(8,), blocks=(1,))
    values = weights.config_values(config)
    weights.save(path, weights.Header("denoise", TASK.arch, values), build(TASK.arch, config).state_dict())
    return path


def load(path: Path, **options):
    return package.load("denoise", str(path), device="cpu", precision="fp32", **options)


def darker(restored: np.ndarray, image: np.ndarray) -> float:
    return 255 * float((to_float(image) - to_float(restored)).mean())


def test_photographs_hold_a_fair_share_of_every_kind(photo):
    """White noise a good third and unclipped too, some clean pictures, and all that leaves no value outside [0, 1]."""
    white = GaussianNoise((0.0, 55.0), clip=0.25)
    mixture, rng, patch = photographs(white), np.random.default_rng(0), photo[:64, :64]
    drawn = [mixture.sample(patch.shape, rng) for _ in range(600)]
    assert np.mean([params.number == 0 for params in drawn]) == pytest.approx(0.34, abs=0.06)
    made = [mixture.apply(patch, params).image for params in drawn]
    assert 0.02 < np.mean([np.array_equal(image, patch) for image in made]) < 0.15
    for image in made:
        assert image.shape == patch.shape
        assert np.isfinite(image).all()
    unclipped = [image for image in made if image.dtype == np.float32]
    assert all(params.number == 0 for params, image in zip(drawn, made, strict=True) if image.dtype == np.float32)
    assert len(unclipped) == pytest.approx(600 * 0.34 * 0.75, rel=0.25)


def test_not_told_is_not_told_zero():
    assert level_planes(None).flatten().tolist() == [0.0, 0.0]
    assert level_planes(0.0).flatten().tolist() == [1.0, 0.0]
    assert level_planes(25.0).flatten().tolist() == [1.0, 0.5]


def test_sigma_reaches_the_network(listens, photo):
    image = np.full((40, 50, 3), 200, np.uint8)
    image[::2] = 180
    assert darker(load(listens)(image), image) == pytest.approx(2.55, abs=0.5)
    assert darker(load(listens, sigma=20.0)(image), image) == pytest.approx(20, abs=0.6)
    assert darker(load(listens, sigma=0.0)(image), image) == pytest.approx(0, abs=0.1)
    for sigma in (-1.0, 256.0):
        with pytest.raises(UsageError, match="sigma goes from 0 to 255"):
            load(listens, sigma=sigma)


def test_strength_beyond_one_raises_the_level(listens):
    """Twice the level that was told, or twice what the network takes off by itself; below 1 the result is blended."""
    image = np.full((40, 50, 3), 200, np.uint8)
    image[::2] = 180
    assert darker(load(listens, sigma=20.0, strength=2.0)(image), image) == pytest.approx(40, abs=0.6)
    assert darker(load(listens, strength=2.0)(image), image) == pytest.approx(5.1, abs=0.6)
    assert darker(load(listens, sigma=20.0, strength=0.5)(image), image) == pytest.approx(10, abs=0.6)
    assert np.array_equal(load(listens, sigma=20.0, strength=0.0)(image), image)
    with pytest.raises(UsageError, match="strength goes from 0 to 2"):
        load(listens, strength=2.5)


def test_weights_without_a_level_serve_as_before(blind, photo):
    """They see the picture alone; told a level, they are refused rather than ignoring it."""
    assert load(blind)(photo[:40, :40]).shape == (40, 40, 3)
    for options in ({"sigma": 10.0}, {"strength": 1.5}):
        with pytest.raises(UsageError, match="cannot be told a noise level"):
            load(blind, **options)


def test_other_tasks_keep_their_strength(tiny):
    with pytest.raises(UsageError, match="strength goes from 0 to 1"):
        package.load("inpaint", str(tiny("inpaint")), device="cpu", strength=1.5)


def test_it_says_what_it_took_off(listens, capsys, tmp_path):
    """In words, as a number, and in --json."""
    image = np.full((40, 50, 3), 200, np.uint8)
    image[::2] = 180
    loud = load(listens, sigma=20.0).restore(Image(image))
    assert loud.change == pytest.approx(20, abs=0.6)
    assert loud.note == "noise about 20 of 255 removed"
    quiet = load(listens, sigma=0.4).restore(Image(image))
    assert quiet.change < 1
    assert quiet.note.startswith("hardly any noise found: 0.")
    assert quiet.note.endswith("levels changed")
    cv2.imwrite(str(tmp_path / "a.png"), image)
    command = ["denoise", tmp_path / "a.png", tmp_path / "b.png", "-m", listens, "--device", "cpu"]
    assert run([str(word) for word in (*command, "--sigma", 20, "--precision", "fp32")]) == 0
    assert "a.png: noise about 20 of 255 removed" in capsys.readouterr().err
    command[2] = tmp_path / "c.png"
    assert run([str(word) for word in (*command, "--sigma", 20, "--json")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["change"] == pytest.approx(20, abs=0.6)
    assert record["note"] == "noise about 20 of 255 removed"


def test_flat_areas_keep_drifts_out_but_not_blocks():
    """The white of a scan stays white; the even blocks of a JPEG sky are joined."""
    planes = torch.full((1, 3, 32, 32), 0.8)
    for change, stays in ((0.5 * DRIFT, True), (2 * DRIFT, False)):
        restored = DenoiseHead().postprocess(planes + change, planes, None)
        assert torch.equal(restored, planes) == stays


@pytest.mark.parametrize("noise", ["white", "camera", "grain", "jpeg", "photo"])
def test_corrupt_makes_every_kind(noise, photo, tmp_path):
    source = tmp_path / "photo.png"
    cv2.imwrite(str(source), photo[:120, :160])
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        out = tmp_path / f"{name}.png"
        assert run(["corrupt", "denoise", str(source), str(out), "--noise", noise, "--seed", str(seed), "-q"]) == 0
        made.append(cv2.imread(str(out)))
    assert np.array_equal(made[0], made[1])
    assert any(not np.array_equal(made[0], other) for other in made[2:])
    assert any(not np.array_equal(photo[:120, :160], image) for image in made)


def test_cases_follow_the_kind_of_noise():
    spec = TASKS["denoise"]
    labels = [case.label for case in TASK.cases(spec.training_options())]
    assert labels == ["sigma 15", "sigma 25", "sigma 50", "camera", "grain", "jpeg-noise", "blocks"]
    assert [case.label for case in TASK.cases(spec.trial_options())] == ["sigma 15", "sigma 25", "sigma 50"]
    assert [case.label for case in TASK.cases(replace(spec.trial_options(), noise="grain"))] == ["grain"]


def test_prepared_patches_are_gray_or_vivid_as_often_as_told(photo):
    patch, rng = photo[:32, :32], np.random.default_rng(0)
    damage = replace(TASKS["denoise"].training_options(), gray=0.2, vivid=0.3)
    made = [TASK.prepare(patch, damage, rng) for _ in range(300)]
    gray = np.mean([np.array_equal(image[..., 0], image[..., 2]) for image in made])
    same = np.mean([np.array_equal(image, patch) for image in made])
    assert gray == pytest.approx(0.2, abs=0.07)
    assert same == pytest.approx(0.5 + 0.3 / 2 / 6, abs=0.08)  # one in six exchanges changes nothing
    assert all(image.dtype == np.uint8 and image.shape == patch.shape for image in made)


def test_gaussian_noise_stays_what_papers_score():
    """The cases that papers report are drawn as ever: the level asked for, not clipped."""
    case = TASK.cases(TASKS["denoise"].trial_options())[0]
    params = case.pair.corruption.sample((8, 8, 3), np.random.default_rng(0))
    assert isinstance(params, GaussianNoiseParams)
    assert (params.sigma, params.clip) == (15.0, False)
