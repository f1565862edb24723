"""What every task promises, for any weights: all of TASKS goes through each test."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import restore as package
from restore.errors import UsageError
from restore.images import read_image
from restore.inference.restorer import Restorer
from restore.pixels import white
from restore.tasks import TASKS

tasks = pytest.mark.parametrize("task", sorted(TASKS))
DTYPES = ("uint8", "uint16", "float32")


def picture(photo: np.ndarray, height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    """A part of a photograph, repeated where it is too small, in any form that restorers take."""
    repeats = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    part = np.tile(photo, repeats)[:height, :width].astype(np.float32) / 255
    planes = {1: part[..., 1:2], 2: part[..., :2], 3: part, 4: np.concatenate([part, part[..., :1]], -1)}[channels]
    scale = white(dtype)
    return planes.astype(dtype) if scale == 1 else np.rint(planes * scale).astype(dtype)


def load(tiny, task: str, **options) -> Restorer:
    # A task that leaves most pictures alone is made to take them all.
    force = {"force": True} if "force" in {known.name for known in fields(TASKS[task].options)} else {}
    return package.load(task, str(tiny(task)), device="cpu", **{"precision": "fp32", **force, **options})


def told(task: str, restorer: Restorer):
    """The restorer; one that looks for the damage is told that it is where `cross` says."""
    if not TASKS[task].masks:
        return restorer

    def restore(image, **options):
        mask = cross(image.shape[0], image.shape[1])
        return restorer(image, mask=mask if mask.any() else None, **options)

    return restore


def cross(height: int, width: int) -> np.ndarray:
    """A mask that looks the same from all sides of a square picture; small pictures have none."""
    row, column = (np.abs(np.arange(side) - (side - 1) / 2) < side / 8 for side in (height, width))
    return row[:, None] ^ column if min(height, width) > 8 else np.zeros((height, width), bool)


@tasks
@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        ((1, 1), "uint8"),
        ((1, 1), "float32"),
        ((1, 50), "uint16"),
        ((7, 3), "float32"),
        ((64, 64), "uint8"),
        ((67, 83), "uint16"),
    ],
)
def test_any_size_dtype_and_channels(task, dtype, size, tiny, photo):
    restorer = load(tiny, task)
    scale = restorer.head.scale
    for channels in (1, 2, 3, 4):
        image = picture(photo, *size, channels, dtype)
        before = image.copy()
        restored = restorer(image)
        assert restored.dtype == image.dtype
        expected = channels + 2 if restorer.head.colours and channels < 3 else channels
        assert restored.shape == (size[0] * scale, size[1] * scale, expected)
        assert np.array_equal(image, before), "the input was changed"
        if channels in (2, 4) and scale == 1:
            assert np.array_equal(restored[..., -1], image[..., -1]), "alpha was changed"
    flat = picture(photo, *size, 1, dtype)[..., 0]
    assert np.array_equal(restorer(flat), restorer(flat[..., None]).reshape(restorer(flat).shape))


@tasks
def test_long_and_thin(task, tiny, photo):
    restorer = load(tiny, task)
    assert restorer(picture(photo, 1, 5000, 3, "uint8")).shape == (restorer.head.scale, 5000 * restorer.head.scale, 3)
    thin = restorer(picture(photo, 5000, 1, 1, "uint8"))
    assert thin.shape == (5000 * restorer.head.scale, restorer.head.scale, 3 if restorer.head.colours else 1)


@tasks
def test_same_input_same_bytes(task, tiny, photo):
    image = picture(photo, 90, 70, 3, "uint8")
    assert np.array_equal(load(tiny, task)(image), load(tiny, task)(image))


@tasks
@pytest.mark.parametrize("dtype", DTYPES)
def test_strength(task, dtype, tiny, photo):
    """0 is the input (enlarged without a network where the task enlarges), 1 all of the effect, 0.5 between."""
    image = picture(photo, 40, 50, 4, dtype)
    none, half, full = (told(task, load(tiny, task, strength=s))(image) for s in (0.0, 0.5, 1.0))
    if none.shape == image.shape:
        assert np.array_equal(none, image)
    assert not np.array_equal(none, full)
    middle = (none.astype(np.float64) + full) / 2
    inside = (full > 0) & (full < white(dtype))  # elsewhere the full effect was clipped
    assert np.abs(half - middle)[inside].max() <= (1e-4 if dtype == "float32" else 1.0)


@tasks
def test_gray_in_gray_out(task, tiny, photo):
    """A gray picture in colour form comes out gray, and as the same picture in gray form does."""
    restorer = load(tiny, task)
    if restorer.head.colours:
        return
    for dtype in DTYPES:
        gray = picture(photo, 60, 45, 1, dtype)
        colour = restorer(np.repeat(gray, 3, axis=-1))
        assert np.array_equal(colour[..., 0], colour[..., 1])
        assert np.array_equal(colour[..., 0], colour[..., 2])
        assert np.array_equal(colour[..., :1], restorer(gray))


@tasks
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 160), width=st.integers(1, 160), tile=st.integers(20, 90), tta=st.booleans())
def test_tiles_make_the_same_picture(task, tiny, photo, height, width, tile, tta):
    """With what the network looks at as overlap, tiles are exact for any weights: at most rounding apart."""
    image = picture(photo, height, width, 3, "uint16")
    whole = told(task, load(tiny, task, tile=4096, tta=tta))(image).astype(np.int64)
    tiled = told(task, load(tiny, task, tile=tile, tta=tta))(image).astype(np.int64)
    assert np.abs(whole - tiled).max() <= 2  # of 65535


@tasks
def test_tile_overlap_matters(task, tiny, photo):
    """Without overlap the seams show: what the test above measures is there to be measured."""
    if not load(tiny, task).head.runs_network:
        return
    image = picture(photo, 128, 128, 3, "uint16")
    whole = told(task, load(tiny, task, tile=4096))(image).astype(np.int64)
    assert np.abs(whole - told(task, load(tiny, task, tile=32, overlap=0))(image)).max() > 100


@tasks
def test_tta_averages_the_symmetries(task, tiny, photo):
    """Averaged over the symmetries, the result turns (or is mirrored) as the picture is; without, it is not."""
    image = picture(photo, 64, 64, 3, "float32")
    turn = np.fliplr if load(tiny, task).head.upright else np.rot90
    turned = np.ascontiguousarray(turn(image))
    if task == "inpaint":  # Telea's method, from which the network starts, fills from one side first
        return
    plain, averaged = told(task, load(tiny, task)), told(task, load(tiny, task, tta=True))
    assert np.abs(turn(averaged(image)) - averaged(turned)).max() < (1e-3 if task == "colorize" else 1e-5)
    if task != "colorize":  # which averages over the mirror image by itself
        assert np.abs(turn(plain(image)) - plain(turned)).max() > 1e-3
    if task in ("denoise", "dewatermark"):  # the latter averages what it restores over four of the symmetries
        apart = np.abs(np.flipud(plain(image)) - plain(np.ascontiguousarray(np.flipud(image)))).max()
        assert (apart < 1e-5) == (task == "dewatermark")


@pytest.mark.parametrize(("name", "kind"), [("inpaint", "covered"), ("dewatermark", "marked")])
def test_tta_finds_the_same(name, kind):
    """Damage is looked for in one view: in the mean of several, thresholds would mean another thing."""
    image = read_image(ROOT / "samples" / kind / "coffee.png").pixels
    plain, averaged = (package.load(name, device="cpu", tta=tta).find(image)[0] for tta in (False, True))
    assert plain.any()
    assert np.array_equal(plain, averaged)


@tasks
def test_half_precision_is_close_and_overflow_is_computed_again(task, tiny, photo, monkeypatch):
    image = picture(photo, 64, 64, 3, "uint8")
    exact = told(task, load(tiny, task))(image)
    half = load(tiny, task, precision="bf16")
    restore_half = told(task, half)
    assert np.abs(restore_half(image).astype(int) - exact).max() <= 6
    run, dtypes = half.head.run, []

    def overflowing(network, planes, stage):
        dtype = next(network.parameters()).dtype
        dtypes.append(dtype)
        output = run(network, planes, stage)
        return output * torch.inf if dtype == torch.bfloat16 else output

    monkeypatch.setattr(half.head, "run", overflowing)
    assert np.array_equal(restore_half(image), exact)
    first = dtypes.index(torch.float32)
    assert first > 0, "half precision comes first"
    assert set(dtypes[:first]) == {torch.bfloat16}
    assert dtypes.count(torch.bfloat16) == dtypes.count(torch.float32)


@tasks
def test_out_of_memory_shrinks_the_tiles(task, tiny, photo, monkeypatch, caplog):
    image = picture(photo, 200, 200, 3, "uint8")
    restorer = load(tiny, task)
    if not restorer.head.runs_network:
        return
    restore = told(task, restorer)
    expected, run = restore(image), restorer.head.run

    def small_memory(network, planes, stage):
        if planes.shape[-1] > 180:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(network, planes, stage)

    monkeypatch.setattr(restorer.head, "run", small_memory)
    assert np.abs(restore(image).astype(int) - expected).max() <= 1
    assert "tiles of 100 pixels" in caplog.text


@tasks
@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((4,), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
    ],
)
def test_what_is_no_image_is_refused(task, image, reason, tiny):
    with pytest.raises(UsageError, match=reason):
        load(tiny, task)(image)


@tasks
@pytest.mark.parametrize(
    "options",
    [{"strength": 2.1}, {"tile": -1}, {"precision": "int8"}, {"device": "tpu"}, {"device": "cuda:99"}, {"nonsense": 1}],
)
def test_options_that_do_not_fit_are_refused(task, options, tiny):
    with pytest.raises(UsageError):
        package.load(task, str(tiny(task)), **options)


def test_unknown_names_are_answered_with_the_known_ones(tiny):
    with pytest.raises(UsageError, match=r"did you mean 'denoise'.*super-resolve"):
        package.load("denoize")
    with pytest.raises(UsageError, match="unknown model of denoise 'huge'"):
        package.load("denoise", "huge")
    with pytest.raises(UsageError, match="weights for super-resolve, not for denoise"):
        package.load("denoise", str(tiny("super-resolve")))


def test_a_scale_the_weights_do_not_have(tiny, tmp_path: Path):
    with pytest.raises(UsageError, match="scale must be one of 2, 3, 4"):
        package.load("super-resolve", str(tiny("super-resolve")), scale=5)


@tasks
def test_unclipped_floats_are_taken_as_they_are(task, tiny, photo):
    """Values outside [0, 1] reach the network: a brighter highlight gives another result."""
    image = picture(photo, 32, 32, 3, "float32")
    bright = image.copy()
    bright[10:20, 10:20] = 1.5
    restore = told(task, load(tiny, task))
    assert not np.array_equal(restore(bright, clip=False), restore(np.clip(bright, 0, 1), clip=False))
    assert restore(bright).max() <= 1
