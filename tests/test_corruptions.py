"""Corruptions: their effect on pixels, and that randomness comes from the caller alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.augment import as_albumentations, augment, symmetries
from restore.corruptions.camera_noise import CameraNoise, CameraNoiseParams
from restore.corruptions.degradation import Choice, Degradation, Part
from restore.corruptions.demosaicing import DEMOSAICINGS, demosaic, mosaic
from restore.corruptions.downsample import Downsample, DownsampleParams, resize_bicubic
from restore.corruptions.drawing.text import draw_text
from restore.corruptions.film_grain import FilmGrain, FilmGrainParams
from restore.corruptions.gaussian_noise import GaussianNoise, GaussianNoiseParams
from restore.corruptions.grayscale import Grayscale
from restore.corruptions.jpeg_compression import JpegCompression, JpegCompressionParams, JpegSave
from restore.corruptions.look_alikes import LookAlikes
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.corruptions.print_damage import PrintDamage, aged_print
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.resampled import Resampled, ResampledParams
from restore.corruptions.signal_noise import PoissonNoise, PoissonNoiseParams, SpeckleNoise, SpeckleNoiseParams
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.errors import ImageError, UsageError
from restore.metrics import psnr
from restore.pixels import to_float, white

OPERATORS = [
    GaussianNoise((5, 50), clip=0.5, gray_equal=0.5),
    Downsample(),
    Downsample(bicubic=0.3),
    CameraNoise(),
    FilmGrain(coloured=0.5),
    JpegCompression(quality=(15, 80)),
    PoissonNoise(),
    SpeckleNoise(),
    Resampled(FilmGrain()),
    Choice((Part(CameraNoise(), 1), Part(JpegCompression((15, 80)), 1))),
    Degradation(
        (Part(FilmGrain(), 0.9), Part(PoissonNoise(), 0.9)), twice=0.5, last=Part(JpegCompression((15, 80)), 1)
    ),
    OcclusionBars(),
    OcclusionBars(short_side=(200, 900)),
    WatermarkOverlay(),
    Reencoded(WatermarkOverlay(), share=1.0),
    Grayscale((10, 10)),
    aged_print(),
    LookAlikes(),
]
operators = pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: type(o).__name__)


@operators
@given(
    seed=st.integers(0, 2**32), channels=st.sampled_from([1, 3]), dtype=st.sampled_from(["uint8", "uint16", "float32"])
)
@settings(max_examples=20, deadline=None)
def test_same_parameters_same_bytes(operator, seed, channels, dtype):
    """Equal parameters give equal bytes, also through pickle; input and global generator are not touched."""
    channels = 3 if isinstance(operator, LookAlikes) else channels
    image = np.random.default_rng(seed).random((24, 30, channels)).astype(np.float32)
    image = image if dtype == "float32" else (image * white(dtype)).astype(dtype)
    before, state = image.copy(), np.random.get_state()[1].copy()
    params = operator.sample(image.shape, np.random.default_rng(seed))
    assert params == operator.sample(image.shape, np.random.default_rng(seed))
    first = operator.apply(image, params)
    sent, again = pickle.loads(pickle.dumps((operator, params)))
    second = sent.apply(image, again)
    for one, other in zip(vars(first).values(), vars(second).values(), strict=True):
        assert (one is other is None) or one.tobytes() == other.tobytes()
    assert np.array_equal(image, before)
    assert np.array_equal(state, np.random.get_state()[1])
    assert first.image.dtype == (image.dtype if getattr(params, "clip", True) else np.float32)
    assert first.image.shape[-1] == (1 if isinstance(operator, Grayscale) else channels)
    clean = operator.target(image, params)
    assert clean.dtype == image.dtype
    assert clean.shape[0] % first.image.shape[0] == 0, "the clean target is a whole multiple of the corrupted picture"
    for plane in (first.mask, first.opacity):
        assert plane is None or plane.shape == first.image.shape[:2]


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
        lambda: Downsample(bicubic=2),
        lambda: CameraNoise(shot=(0.1, 0.01)),
        lambda: FilmGrain(strength=(0, 5)),
        lambda: FilmGrain(blur=(2, 1)),
        lambda: FilmGrain(coloured=-1),
        lambda: Grayscale(hints=(-5, 10)),
        lambda: Grayscale(hints=(9, 1)),
        lambda: JpegCompression(quality=(0, 50)),
        lambda: JpegCompression(twice=1.5),
        lambda: PoissonNoise((0, 10)),
        lambda: SpeckleNoise((0.5, 0.1)),
        lambda: Choice(()),
        lambda: Choice((Part(FilmGrain(), -1), Part(FilmGrain(), 2))),
        lambda: Degradation((Part(FilmGrain(), 2.0),)),
        lambda: OcclusionBars(()),
        lambda: OcclusionBars(("bars", "dots")),
        lambda: OcclusionBars(bars="thick"),
        lambda: OcclusionBars(short_side=(300, 200)),
        lambda: OcclusionBars(short_side=(0, 200)),
        lambda: Reencoded(OcclusionBars(), share=1.5),
        lambda: Reencoded(OcclusionBars(), scale=(0.0, 1.0)),
        lambda: Reencoded(OcclusionBars(), scale=(0.5, 1.5)),
        lambda: WatermarkOverlay((0.8, 0.2)),
        lambda: WatermarkOverlay((0.01, 0.2)),
        lambda: WatermarkOverlay((0.2, 1.1)),
        lambda: WatermarkOverlay(unmarked=-0.1),
        lambda: WatermarkOverlay(short_side=(0, 10)),
        lambda: WatermarkOverlay(short_side=(20, 10)),
        lambda: PrintDamage("dust", (20, 10)),
        lambda: PrintDamage("dusts"),
        lambda: draw_text("a", "Comic Sans", 10),
        lambda: draw_text("a", "sans", 0),
    ],
)
def test_invalid_settings(make):
    with pytest.raises(UsageError):
        make()


def test_too_small_to_downsample():
    with pytest.raises(ImageError, match="1x1 is too small"):
        Downsample().apply(np.zeros((1, 1, 3), np.uint8), DownsampleParams(2))
    with pytest.raises(ImageError, match="1x1 is too small"):
        Downsample().apply(np.zeros((1, 1, 3), np.uint8), DownsampleParams(2, kernel="area"))


CAMERA = CameraNoiseParams(
    gains=(2.0, 1.6),
    mixing=(0.7, 0.2, 0.1, 0.15, 0.7, 0.15, 0.05, 0.25, 0.7),
    tone=0.6,
    shot=1e-9,
    read=1e-6,
    red=(0, 1),
    demosaicing="gradient-corrected",
    smoothing=0.0,
    sharpening=0.0,
    seed=1,
)


@pytest.mark.parametrize("red", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("method", DEMOSAICINGS)
def test_demosaicing(method, red, photo):
    """Even colours come back exactly from any pattern, photographs nearly, and no colour in the place of another."""
    even = np.broadcast_to(np.array([0.2, 0.5, 0.8], np.float32), (17, 12, 3))
    assert demosaic(mosaic(even, red), red, method) == pytest.approx(even, abs=1e-6)
    soft = cv2.GaussianBlur(photo, (0, 0), 1.5)
    clean = to_float(soft)
    assert psnr(demosaic(mosaic(clean, red), red, method), soft) > 38


def test_a_camera_without_noise_gives_the_picture(photo):
    """Back to the sensor and developed again, whatever the white balance, colours and tone curve."""
    soft = cv2.GaussianBlur(photo, (0, 0), 1.5)
    assert psnr(CameraNoise().apply(soft, CAMERA).image, soft) > 40


def test_camera_noise_is_of_its_kind(photo):
    """It is as strong as told, neighbours are related, and the camera's smoothing takes colour off."""
    flat = np.full((200, 200, 3), 120, np.uint8)
    noisy = replace(CAMERA, shot=3e-3, read=1e-3)

    def noise(level: int, params: CameraNoiseParams) -> np.ndarray:
        made = CameraNoise().apply(np.full_like(flat, level), params).image.astype(float)
        return made - made.mean((0, 1))

    assert noise(120, replace(noisy, shot=6e-3)).std() > 1.2 * noise(120, noisy).std()
    assert not np.array_equal(noise(120, noisy), noise(120, replace(noisy, seed=2)))
    grain = noise(120, noisy)[..., 0]
    assert np.corrcoef(grain[:, 1:].ravel(), grain[:, :-1].ravel())[0, 1] > 0.2  # the demosaicing's
    colour = noise(120, noisy)[..., 0] - noise(120, noisy)[..., 1]
    smooth = noise(120, replace(noisy, smoothing=2.0))
    assert (smooth[..., 0] - smooth[..., 1]).std() < 0.5 * colour.std()
    # What the camera sharpens on purpose is in the target too.
    sharp = replace(CAMERA, sharpening=1.0)
    assert psnr(CameraNoise().target(photo, sharp), photo) < 40
    soft = cv2.GaussianBlur(photo, (0, 0), 1.5)
    assert psnr(CameraNoise().apply(soft, sharp).image, CameraNoise().target(soft, sharp)) > 36


@pytest.mark.parametrize("blur", [0.0, 0.8, 1.5])
def test_film_grain(blur):
    """As strong as asked for at middle gray whatever the blur, gone in black if it fades, gray unless coloured."""
    params = FilmGrainParams(12.0, blur, colour=0.0, channels=(1.0, 1.0, 1.0), fade=1.0, seed=3)
    middle = FilmGrain().apply(np.full((300, 300, 3), 0.5, np.float32), params).image
    assert 255 * middle[..., 0].std() == pytest.approx(12.0, rel=0.05)
    assert np.array_equal(middle[..., 0], middle[..., 2])
    beside = np.corrcoef(middle[:, 1:, 0].ravel(), middle[:, :-1, 0].ravel())[0, 1]
    assert abs(beside) < 0.02 if not blur else beside > 0.5
    assert FilmGrain().apply(np.zeros((50, 50, 3), np.uint8), params).image.max() == 0
    coloured = FilmGrain().apply(np.full((300, 300, 3), 0.5, np.float32), replace(params, colour=1.0)).image
    assert abs(np.corrcoef(coloured[..., 0].ravel(), coloured[..., 1].ravel())[0, 1]) < 0.05


def test_jpeg_compression(photo):
    """Lower quality is further off, the grid of blocks moves with the shift, and two saves are worse than one."""

    def saved(*saves: JpegSave) -> np.ndarray:
        return JpegCompression().apply(photo, JpegCompressionParams(saves)).image

    def edges(image: np.ndarray) -> int:
        """The column of eight at which blocks begin, by how much neighbours differ."""
        steps = np.abs(np.diff(image.astype(float).mean(-1), axis=1)).mean(0)
        return int(np.argmax([steps[start::8].mean() for start in range(8)])) + 1

    low, high = saved(JpegSave(15, True, (0, 0))), saved(JpegSave(90, True, (0, 0)))
    assert psnr(low, photo) < psnr(high, photo) - 5
    assert edges(low) % 8 == 0
    assert edges(saved(JpegSave(15, False, (2, 3)))) == 5
    twice = saved(JpegSave(30, True, (0, 0)), JpegSave(30, True, (3, 5)))
    assert psnr(twice, photo) < psnr(saved(JpegSave(30, True, (3, 5))), photo)


def test_noise_that_grows_with_the_signal():
    for operator, params, power in (
        (PoissonNoise(), PoissonNoiseParams(200.0, 1), 0.5),
        (SpeckleNoise(), SpeckleNoiseParams(0.1, False, 1), 1.0),
    ):
        dark, bright = (
            operator.apply(np.full((200, 200, 3), level, np.float32), params).image.std() for level in (0.1, 0.4)
        )
        assert bright / dark == pytest.approx(4**power, rel=0.05)


@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_resampled_noise_keeps_the_picture(factor, photo):
    """Noise made smaller gets weaker, made larger softer; a damage that changes nothing leaves every pixel."""
    size = round(300 / factor), round(451 / factor)
    none = ResampledParams(GaussianNoiseParams(0.0, 1, True), size, "area" if factor < 1 else "cubic")
    assert psnr(Resampled(GaussianNoise()).apply(photo, none).image, photo) > 50
    flat = np.full_like(photo, 128)
    grain = to_float(
        Resampled(GaussianNoise()).apply(flat, replace(none, inner=replace(none.inner, sigma=20.0))).image
    ) - to_float(flat)
    beside = np.corrcoef(grain[:, 1:, 0].ravel(), grain[:, :-1, 0].ravel())[0, 1]
    if factor < 1:
        assert 255 * grain.std() == pytest.approx(10.0, rel=0.15)
    else:
        assert beside > 0.3


def test_choice_and_degradation_draw_as_told():
    parts = (Part(FilmGrain(), 3), Part(PoissonNoise(), 1))
    rng = np.random.default_rng(0)
    numbers = [Choice(parts).sample((8, 8, 3), rng).number for _ in range(2000)]
    assert np.mean(numbers) == pytest.approx(0.25, abs=0.04)
    degradation = Degradation((Part(FilmGrain(), 1), Part(PoissonNoise(), 0.5)), 0.5, Part(JpegCompression(), 1))
    drawn = [[step.number for step in degradation.sample((8, 8, 3), rng).steps] for _ in range(400)]
    assert all(numbers[-1] == 2 and 2 not in numbers[:-1] for numbers in drawn)
    assert {numbers[0] for numbers in drawn} == {0, 1}, "any order"
    assert np.mean([numbers.count(0) for numbers in drawn]) == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["area", "bilinear", "bicubic", "lanczos"])
def test_every_way_of_shrinking_stays_in_place(scale, kernel, photo):
    """No way of shrinking moves the picture, and Pillow's bicubic is ours."""
    small = Downsample().apply(to_float(photo), DownsampleParams(scale, 1e-3, kernel)).image
    expected = Downsample().apply(to_float(photo), DownsampleParams(scale)).image
    inner = slice(4, -4), slice(4, -4)
    assert psnr(small[inner], expected[inner]) > (55 if kernel == "bicubic" else 32)
    moved = np.roll(expected, 1, axis=1)[inner]
    assert psnr(small[inner], moved) < psnr(small[inner], expected[inner]) - 3


@operators
def test_albumentations_adapter(operator, photo):
    """In a pipeline of albumentations the seed of the pipeline decides, and its other steps still work."""

    def run(seed: int) -> np.ndarray:
        return A.Compose([A.HorizontalFlip(p=1), as_albumentations(operator)], seed=seed)(image=photo)["image"]

    assert np.array_equal(run(1), run(1))
    if not isinstance(operator, Grayscale):  # whose dots of colour are no part of the picture
        assert any(not np.array_equal(run(1), run(seed)) for seed in (2, 3, 4))


def test_all_eight_symmetries_appear(photo):
    patch = photo[:16, :16]
    seen = {augment(symmetries(), patch, np.random.default_rng(n)).tobytes() for n in range(100)}
    expected = {
        np.ascontiguousarray(np.rot90(side, turns)).tobytes() for side in (patch, patch[:, ::-1]) for turns in range(4)
    }
    assert seen == expected
