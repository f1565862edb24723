"""Resizing and JPEG compression after the damage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.shapes import WHITE, Rectangle
from restore.corruptions.gaussian_noise import GaussianNoise
from restore.corruptions.occlusion_bars import OcclusionBars, OcclusionBarsParams
from restore.corruptions.reencoded import INTERPOLATIONS, Reencoded, ReencodedParams
from restore.metrics import psnr
from restore.pixels import to_float, white


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    count=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16", "float16", "float32", "float64"]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_shapes(height, width, count, dtype, seed):
    """Sizes and dtypes agree, and floats stay within [0, 1]."""
    values = np.random.default_rng(seed).random((height, width, count))
    image = (values * white(np.dtype(dtype))).astype(dtype)
    operator = Reencoded(OcclusionBars(), share=1.0)
    params = operator.sample(image.shape, np.random.default_rng(seed))
    found, target = operator.apply(image, params), operator.target(image, params)
    assert params.size is not None or params.quality is not None
    assert found.image.shape == target.shape == (*(params.size or (height, width)), count)
    assert found.image.dtype == target.dtype == image.dtype
    assert found.mask.shape == target.shape[:2] and found.mask.dtype == bool
    for picture in (found.image, target):
        assert picture.min() >= 0 and picture.max() <= white(image.dtype)
    if params.size is not None:
        assert all(0.5 * old - 1 <= new <= old for old, new in zip(image.shape[:2], params.size, strict=True))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_reencoding_keeps_content_and_alignment(count, dtype, photo):
    """Without damage the result is close to its target: no shift, no swapped channels."""
    image = (to_float(photo[:256, :256, :count]) * white(dtype)).astype(dtype)
    operator, rng = Reencoded(GaussianNoise((0, 0), clip=1.0), share=1.0), np.random.default_rng(0)
    for _ in range(30):
        params = operator.sample(image.shape, rng)
        found, target = operator.apply(image, params).image, operator.target(image, params)
        assert psnr(to_float(found), to_float(target)) > 30
        if params.quality is not None:
            assert not np.array_equal(found, target)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_mask_is_resized_with_the_image(interpolation, photo):
    """Outside the mask of the smaller picture nearly nothing has changed; the mask has the area it should."""
    operator = Reencoded(OcclusionBars(("rectangles",)))
    box = Rectangle((100, 60, 180, 140), 0, WHITE)
    inner = OcclusionBarsParams(("rectangles",), (box,), False)
    params = ReencodedParams(inner, size=(187, 283), interpolation=interpolation)
    found, target = operator.apply(photo, params), operator.target(photo, params)
    assert found.mask.sum() == pytest.approx(80 * 80 * (187 / 300) * (283 / 451), rel=0.06)
    off = np.abs(to_float(found.image) - to_float(target)).max(-1)
    assert off[~found.mask].max() < 0.12
    assert off[found.mask].mean() > 0.2


def test_share():
    rng = np.random.default_rng(6)
    operator = Reencoded(OcclusionBars(), share=0.4)
    samples = [operator.sample((64, 64, 3), rng) for _ in range(2000)]
    changed = [sample for sample in samples if sample.size is not None or sample.quality is not None]
    assert len(changed) / 2000 == pytest.approx(0.4, abs=0.04)
    both = [sample for sample in changed if sample.size is not None and sample.quality is not None]
    assert len(both) / len(changed) == pytest.approx(1 / 3, abs=0.06)
    assert {sample.interpolation for sample in changed} == set(INTERPOLATIONS)
    assert {sample.subsampled for sample in changed} == {True, False}
    qualities = {sample.quality for sample in changed if sample.quality is not None}
    assert min(qualities) == 70 and max(qualities) == 95


def test_share_of_zero_is_the_inner_corruption(photo):
    operator = Reencoded(OcclusionBars(), share=0.0)
    params = operator.sample(photo.shape, np.random.default_rng(1))
    alone = OcclusionBars().apply(photo, params.inner)
    found = operator.apply(photo, params)
    assert np.array_equal(found.image, alone.image) and np.array_equal(found.mask, alone.mask)
    assert operator.target(photo, params) is photo


def test_chroma_subsampling_blurs_colour_only():
    """Red beside green of the same luma: 4:2:0 mixes them, 4:4:4 does not."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, ::2], image[:, 1::2] = (200, 0, 0), (0, 102, 0)
    operator = Reencoded(GaussianNoise((0, 0), clip=1.0))
    error = {}
    for subsampled in (True, False):
        params = replace(operator.sample(image.shape, np.random.default_rng(0)), size=None, quality=95)
        params = replace(params, subsampled=subsampled)
        error[subsampled] = np.abs(operator.apply(image, params).image.astype(int) - image).mean()
    assert error[True] > 4 * error[False]
