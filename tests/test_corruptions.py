"""Corruptions: their effect on pixels, and that randomness comes from the caller alone."""

from __future__ import annotations

from dataclasses import replace

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.augment import as_albumentations, augment, symmetries
from restore.corruptions.downsample import Downsample, DownsampleParams, resize_bicubic
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.errors import ImageError, UsageError
from restore.pixels import to_float, white

OPERATORS = [GaussianNoise((5, 50), clip=0.5, gray_equal=0.5), Downsample()]
operators = pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: type(o).__name__)


@operators
@given(
    seed=st.integers(0, 2**32), channels=st.sampled_from([1, 3]), dtype=st.sampled_from(["uint8", "uint16", "float32"])
)
@settings(max_examples=20, deadline=None)
def test_same_parameters_same_bytes(operator, seed, channels, dtype):
    """Equal parameters give equal bytes, the input stays as it was, and the global generator is not touched."""
    image = np.random.default_rng(seed).random((24, 30, channels)).astype(np.float32)
    image = image if dtype == "float32" else (image * white(dtype)).astype(dtype)
    before, state = image.copy(), np.random.get_state()[1].copy()
    params = operator.sample(image.shape, np.random.default_rng(seed))
    assert params == operator.sample(image.shape, np.random.default_rng(seed))
    first, second = operator.apply(image, params).image, operator.apply(image, params).image
    assert first.tobytes() == second.tobytes()
    assert np.array_equal(image, before)
    assert np.array_equal(state, np.random.get_state()[1])
    assert first.shape[-1] == channels
    clean = operator.target(image, params)
    assert clean.shape[0] % first.shape[0] == 0, "the clean target is a whole multiple of the corrupted picture"


@pytest.mark.parametrize("sigma", [15.0, 50.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_statistics(sigma, channels):
    """White Gaussian: mean 0, the standard deviation asked for, no correlation between neighbours or channels."""
    flat = np.full((400, 400, channels), 128, np.uint8)
    noisy = GaussianNoise().apply(flat, GaussianNoiseParams(sigma, seed=7, clip=False)).image
    noise = (noisy - to_float(flat)).astype(np.float64) * 255
    count = noise.size
    assert abs(noise.mean()) < 4 * sigma / count**0.5
    assert noise.std() == pytest.approx(sigma, rel=4 / (2 * count) ** 0.5)
    assert np.mean(noise**4) / noise.var() ** 2 == pytest.approx(3.0, abs=0.1)  # the kurtosis of a Gaussian
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01
    if channels == 3:
        assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_levels_are_uniform():
    rng = np.random.default_rng(0)
    levels = [GaussianNoise((0, 55)).sample((8, 8, 3), rng).sigma for _ in range(4000)]
    assert np.histogram(levels, bins=5, range=(0, 55))[0] == pytest.approx(800, abs=120)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_clipped_noise_has_the_dtype_of_the_image(dtype, photo):
    image = photo if dtype == "uint8" else (to_float(photo) * white(dtype)).astype(dtype)
    params = GaussianNoiseParams(50.0, seed=1, clip=True)
    clipped = GaussianNoise().apply(image, params).image
    assert clipped.dtype == image.dtype
    assert clipped.min() >= 0
    assert clipped.max() <= white(dtype)
    free = GaussianNoise().apply(image, replace(params, clip=False)).image
    assert free.dtype == np.float32
    assert free.min() < 0
    assert free.max() > 1
    assert (
        np.abs(to_float(clipped) - np.clip(free, 0, 1)).max() <= 0.5 / min(white(dtype), 255) + 1e-6
        or dtype == "float32"
    )


def test_equal_noise_for_gray_images_only(photo):
    gray = np.repeat(photo[..., 1:2], 3, axis=-1)
    params = GaussianNoiseParams(25.0, seed=3, clip=False, gray_equal=True)
    equal = GaussianNoise().apply(gray, params).image
    assert np.array_equal(equal[..., 0], equal[..., 2])
    assert not np.array_equal(
        *GaussianNoise().apply(gray, replace(params, gray_equal=False)).image.transpose(2, 0, 1)[:2]
    )
    coloured = GaussianNoise().apply(photo, params).image - to_float(photo)
    assert not np.allclose(coloured[..., 0], coloured[..., 1])


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_downsample(scale, dtype, photo):
    image = photo if dtype == "uint8" else (to_float(photo) * white(dtype)).astype(dtype)
    small = Downsample().apply(image, DownsampleParams(scale)).image
    assert small.dtype == image.dtype
    assert small.shape == (300 // scale, 451 // scale, 3)
    cut = Downsample().target(image, DownsampleParams(scale))
    assert cut.shape == (300 // scale * scale, 451 // scale * scale, 3)
    assert np.array_equal(cut, image[: cut.shape[0], : cut.shape[1]])
    # Bicubic with antialiasing keeps the mean of an area; skipping pixels would not.
    blocks = to_float(cut).reshape(small.shape[0], scale, small.shape[1], scale, 3).mean((1, 3))
    assert np.abs(to_float(small) - blocks).mean() < np.abs(to_float(cut[::scale, ::scale]) - blocks).mean() / 2


def test_bicubic_coefficient():
    """An impulse enlarged twice shows the kernel of Keys (1981) with a = -0.5 at quarter positions."""
    impulse = np.zeros((1, 9, 1), np.float32)
    impulse[0, 4] = 1.0
    row = resize_bicubic(impulse, (1, 18))[0, :, 0]

    def keys(x: float) -> float:
        x, a = abs(x), -0.5
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    assert row == pytest.approx([keys((i + 0.5) / 2 - 0.5 - 4) for i in range(18)], abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNoise((50, 10)),
        lambda: GaussianNoise((-1, 10)),
        lambda: GaussianNoise(clip=1.5),
        lambda: Downsample((1,)),
        lambda: Downsample(()),
    ],
)
def test_invalid_settings(make):
    with pytest.raises(UsageError):
        make()


def test_too_small_to_downsample():
    with pytest.raises(ImageError, match="1x1 is too small"):
        Downsample().apply(np.zeros((1, 1, 3), np.uint8), DownsampleParams(2))


@operators
def test_albumentations_adapter(operator, photo):
    """In a pipeline of albumentations the seed of the pipeline decides, and its other steps still work."""

    def run(seed: int) -> np.ndarray:
        return A.Compose([A.HorizontalFlip(p=1), as_albumentations(operator)], seed=seed)(image=photo)["image"]

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_all_eight_symmetries_appear(photo):
    patch = photo[:16, :16]
    seen = {augment(symmetries(), patch, np.random.default_rng(n)).tobytes() for n in range(100)}
    expected = {
        np.ascontiguousarray(np.rot90(side, turns)).tobytes() for side in (patch, patch[:, ::-1]) for turns in range(4)
    }
    assert seen == expected
