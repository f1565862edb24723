"""Estimation of opacity and colour of a mark from its border."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

import restore as package
from restore.corruptions.drawing.text import draw_text
from restore.metrics import masked_psnr
from restore.pixels import to_dtype, to_float
from restore.tasks.dewatermark import alpha as blend_module
from restore.tasks.dewatermark.alpha import Blend, estimate_alpha, estimate_parts


def marked(photo: np.ndarray, opacity: float, colour: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A photograph with a large word blended over it, in its own dtype, and the mask of the word."""
    word = draw_text("Proof", "sans", photo.shape[0] // 4, 700)[:, : photo.shape[1]]
    coverage = np.zeros(photo.shape[:2], np.float32)
    top = (photo.shape[0] - word.shape[0]) // 2
    coverage[top : top + word.shape[0], : word.shape[1]] = word / 255
    alpha = (coverage * opacity)[..., None]
    return to_dtype(to_float(photo) * (1 - alpha) + np.array(colour) * alpha, photo.dtype), coverage > 0


@settings(max_examples=25, deadline=None)
@given(
    opacity=st.floats(0.25, 0.75),
    colour=st.sampled_from([(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.8, 0.1, 0.2), (0.5, 0.5, 0.5)]),
    name=st.sampled_from(["astronaut", "coffee", "chelsea"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_opacity_and_colour_are_estimated(opacity, colour, name, dtype):
    image, mask = marked(to_dtype(to_float(getattr(skimage.data, name)()), dtype), opacity, colour)
    found = estimate_alpha(image, mask)
    assert found is not None
    assert found.opacity == pytest.approx(opacity, abs=0.12)
    assert np.allclose(found.colour, colour, atol=0.15)


def test_bands_give_the_same_estimate(monkeypatch):
    image, mask = marked(skimage.data.astronaut(), 0.4, (1.0, 1.0, 1.0))
    whole = estimate_alpha(image, mask)
    monkeypatch.setattr(blend_module, "BAND_PIXELS", 40 * image.shape[1])
    parts = estimate_alpha(image, mask)
    assert parts is not None
    assert whole is not None
    assert parts.opacity == pytest.approx(whole.opacity, abs=1e-6)
    assert np.allclose(parts.colour, whole.colour, atol=1e-6)


def logo(photo: np.ndarray, opacity: float, disc: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A white word with a coloured disc above it over a photograph, and the masks of both."""
    image, mask = marked(photo, opacity, (1.0, 1.0, 1.0))
    coverage = cv2.circle(np.zeros(mask.shape, np.uint8), (150, 80), 40, 255, -1, cv2.LINE_AA) / np.float32(255)
    alpha = (coverage * opacity)[..., None]
    return to_dtype(to_float(image) * (1 - alpha) + np.array(disc) / 255 * alpha, np.uint8), mask, coverage > 0


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
@pytest.mark.parametrize("disc", [(220, 30, 40), (30, 90, 220), (250, 180, 20)])
def test_parts_of_another_colour_have_their_own_blend(name, disc):
    image, word, circle = logo(getattr(skimage.data, name)(), 0.5, disc)
    most = Blend(0.5, (1.0, 1.0, 1.0))
    labels, blends = estimate_parts(image, word | circle, most)
    assert np.array_equal(labels, circle) and len(blends) == 1
    assert np.allclose(blends[0].colour, np.array(disc) / 255, atol=0.15)
    labels, blends = estimate_parts(image, word, most)
    assert not labels.any() and not blends


def test_a_logo_of_two_colours_is_removed():
    clean = skimage.data.astronaut()
    image, word, circle = logo(clean, 0.5, (30, 90, 220))
    restored = package.load("dewatermark", device="cpu", precision="fp32")(image, mask=word | circle)
    for part in (word, circle):
        assert masked_psnr(restored, clean, part) > masked_psnr(image, clean, part) + 6


def test_invert():
    clean = to_float(skimage.data.astronaut())
    overlay = Blend(0.6, (0.9, 0.2, 0.4))
    image = clean * np.float32(0.4) + np.array(overlay.colour, np.float32) * np.float32(0.6)
    assert np.abs(overlay.invert(image) - clean).max() < 1e-5


def test_no_estimate_without_information():
    """An empty mask, a full mask, and uncorrelated noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    assert estimate_alpha(image, mask) is None
    assert estimate_alpha(image, ~mask) is None
    mask[20:40, 20:40] = True
    assert estimate_alpha(image, mask) is None
