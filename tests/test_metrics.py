"""Scores: held to scikit-image's where it has them, to published pairs and definitions elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from restore.errors import UsageError
from restore.metrics import chroma_share, ciede2000, colorfulness, hue_hits, mask_iou, masked_psnr, psnr, ssim


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[60:150, 160:280])


@pytest.fixture(scope="module")
def noisy(clean: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def test_psnr_is_scikit_images(clean: np.ndarray, noisy: np.ndarray) -> None:
    assert psnr(noisy, clean) == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-9)
    cut = peak_signal_noise_ratio(clean[4:-4, 4:-4], noisy[4:-4, 4:-4], data_range=255)
    assert psnr(noisy, clean, border=4) == pytest.approx(cut, abs=1e-9)


def test_luma_psnr_is_that_of_scikit_images_ycbcr(clean: np.ndarray, noisy: np.ndarray) -> None:
    first, second = rgb2ycbcr(clean)[2:-2, 2:-2, 0], rgb2ycbcr(noisy)[2:-2, 2:-2, 0]
    expected = 10 * math.log10(255**2 / mean_squared_error(first, second))
    # scikit-image's matrix has three decimals, BT.601's luma is exact here.
    assert psnr(noisy, clean, luma=True, border=2) == pytest.approx(expected, abs=2e-3)


def test_ssim_is_scikit_images(clean: np.ndarray, noisy: np.ndarray) -> None:
    how = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(clean, noisy, channel_axis=-1, **how)
    assert ssim(noisy, clean) == pytest.approx(expected, abs=1e-9)
    luma = structural_similarity(rgb2ycbcr(clean)[3:-3, 3:-3, 0], rgb2ycbcr(noisy)[3:-3, 3:-3, 0], **how)
    assert ssim(noisy, clean, luma=True, border=3) == pytest.approx(luma, abs=1e-4)


def test_ssim_uses_a_window_of_11_with_sigma_1_5(clean: np.ndarray, noisy: np.ndarray) -> None:
    """The formula of Wang et al. 2004, written out: the window is 11 wide, and only whole windows count."""
    from scipy.ndimage import convolve1d

    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for x, y in zip(np.moveaxis(noisy.astype(float), -1, 0), np.moveaxis(clean.astype(float), -1, 0), strict=True):

        def blur(plane: np.ndarray) -> np.ndarray:
            return convolve1d(convolve1d(plane, weights, axis=0), weights, axis=1)[5:-5, 5:-5]

        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        values.append((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    assert ssim(noisy, clean) == pytest.approx(np.mean(values), abs=1e-6)


def test_scores_are_of_eight_bit_pictures(clean: np.ndarray) -> None:
    """Floats are clipped and rounded first, as a file would hold them."""
    soft = clean / np.float32(255) + np.float32(0.4 / 255)
    assert psnr(soft, clean) == math.inf
    beyond = np.where(clean == 255, np.float32(1.7), clean / np.float32(255))
    assert psnr(beyond, clean) == math.inf
    deep = clean.astype(np.uint16) * 257
    assert psnr(deep, clean) == math.inf
    assert ssim(deep, clean) == pytest.approx(1)


def test_equal_pictures(clean: np.ndarray) -> None:
    assert psnr(clean, clean) == math.inf
    assert ssim(clean, clean) == pytest.approx(1)
    assert ciede2000(clean, clean) == 0


def test_masked_psnr_sees_the_mask_only(clean: np.ndarray, noisy: np.ndarray) -> None:
    mask = np.zeros(clean.shape[:2], bool)
    mask[10:40, 20:60] = True
    inside = peak_signal_noise_ratio(clean[10:40, 20:60], noisy[10:40, 20:60], data_range=255)
    assert masked_psnr(noisy, clean, mask) == pytest.approx(inside, abs=1e-9)
    assert math.isnan(masked_psnr(noisy, clean, np.zeros_like(mask)))
    with pytest.raises(UsageError):
        masked_psnr(noisy, clean, mask[1:])


def test_ciede2000_of_published_pairs() -> None:
    """Rows of table 1 in Sharma et al. 2005, through the function we build on; ours adds sRGB to Lab and the mean."""
    from skimage.color import deltaE_ciede2000

    for first, second, expected in [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ]:
        assert deltaE_ciede2000(first, second) == pytest.approx(expected, abs=1e-4)
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert ciede2000(black, white) == pytest.approx(100, abs=0.1)


def test_colorfulness() -> None:
    gray = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=-1)
    assert colorfulness(gray) == pytest.approx(0, abs=1e-4)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255  # rg = 255, yb = 127.5, no spread: 0.3 * hypot(255, 127.5)
    assert colorfulness(red) == pytest.approx(0.3 * math.hypot(255, 127.5), abs=1e-3)


def test_mask_iou() -> None:
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(first, second) == 1
    first[:2], second[1:3] = True, True
    assert mask_iou(first, second) == pytest.approx(1 / 3)
    with pytest.raises(UsageError):
        mask_iou(first, second[1:])


def test_what_cannot_be_compared_is_refused(clean: np.ndarray) -> None:
    with pytest.raises(UsageError, match="cannot be compared"):
        psnr(clean, clean[1:])
    with pytest.raises(UsageError, match="nothing left"):
        psnr(clean[:8, :8], clean[:8, :8], border=4)
    assert math.isnan(ssim(clean[:10], clean[:10]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]))
def test_psnr_is_symmetric_and_ignores_flips(seed: int, height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 256, (height, width, channels), np.uint8) for _ in range(2))
    assert psnr(first, second) == psnr(second, first)
    assert psnr(first[::-1], second[::-1]) == pytest.approx(psnr(first, second))


def test_hue_and_chroma() -> None:
    """Coloured pixels count, and only those; gray, pale and wrong hues are no hits."""
    from skimage.color import lab2rgb

    def lab(chroma: float, hue: float) -> np.ndarray:
        angle = math.radians(hue)
        return lab2rgb(np.full((4, 4, 3), [60, chroma * math.cos(angle), chroma * math.sin(angle)])).astype(np.float32)

    clean = np.concatenate([lab(30, 80), lab(12, 200)], axis=1)  # the right half does not count
    for left, hits in ((lab(20, 105), 1), (lab(20, 115), 0), (lab(8, 80), 0), (lab(30, 260), 0)):
        assert hue_hits(np.concatenate([left, lab(30, 20)], axis=1), clean) == hits
    mixed = np.concatenate([lab(20, 80)[:2], lab(0, 0)[:2]])
    assert hue_hits(np.concatenate([mixed, lab(0, 0)], axis=1), clean) == 0.5
    assert math.isnan(hue_hits(clean, lab(10, 0).repeat(2, 1)))
    assert chroma_share(lab(15, 300), lab(30, 80)) == pytest.approx(0.5, abs=0.02)
    assert math.isnan(chroma_share(clean, lab(1, 0).repeat(2, 1)))
