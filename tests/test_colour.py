"""CIELAB, luma and the gamut: against others' formulas, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.colour import from_lab, in_gamut, luma_of, to_lab, with_luma
from restore.pixels import luma, to_dtype, to_float


def test_lab_is_that_of_others(photo):
    ours, theirs = to_lab(to_float(photo)), skimage.color.rgb2lab(photo)
    assert np.abs(ours - theirs).max() < 0.02
    assert np.abs(from_lab(ours) - to_float(photo)).max() < 1e-4
    grays = np.linspace(0, 1, 256, dtype=np.float32)
    lab = to_lab(np.repeat(grays[:, None, None], 3, -1))[:, 0]
    assert np.abs(lab[:, 1:]).max() < 1e-3, "grays have no colour"
    assert lab[[0, -1], 0] == pytest.approx([0, 100], abs=1e-4)


def test_luma_of_gray_is_exact(photo):
    gray = np.repeat(to_float(to_dtype(luma(to_float(photo)), np.uint8))[..., None], 3, -1)
    assert np.array_equal(luma_of(gray), gray[..., 0])
    assert np.abs(luma_of(to_float(photo)) - luma(to_float(photo))).max() < 1e-6


def test_luma_and_ab_give_a_colour_back():
    colours = np.random.default_rng(0).random((100, 100, 3), dtype=np.float32)
    back = with_luma(luma_of(colours), to_lab(colours)[..., 1:])
    assert np.abs(back - colours).max() < 1 / 128


@settings(max_examples=50, deadline=None)
@given(
    value=st.floats(-0.5, 1.5, width=32),
    red=st.floats(-2, 2, width=32),
    blue=st.floats(-2, 2, width=32),
)
def test_gamut_keeps_luma(value, red, blue):
    grays = np.full((1, 1), value, np.float32)
    rgb = in_gamut(grays, np.float32([[[red, blue]]]))
    assert luma_of(rgb)[0, 0] == pytest.approx(value, abs=1e-6)
    if 0 <= value <= 1:
        assert rgb.min() > -1e-6
        assert rgb.max() < 1 + 1e-6
        assert not 0.01 < value < 0.99 or max(abs(red), abs(blue)) < 0.01 or np.ptp(rgb) > 0.005
    else:
        assert np.array_equal(rgb, np.full((1, 1, 3), value, np.float32))
