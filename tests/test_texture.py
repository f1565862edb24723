"""Wide holes come back with the texture of what is around them, the same in tiles as in one piece."""

from __future__ import annotations

import numpy as np
import pytest

import restore as package
from restore.metrics import psnr
from restore.pixels import to_float, white
from restore.tasks.inpaint import texture
from restore.tasks.inpaint.texture import synthesize_texture


def gradient_energy(image: np.ndarray, mask: np.ndarray) -> float:
    gray = to_float(image).mean(-1)
    down, across = np.diff(gray, axis=0)[:, :-1], np.diff(gray, axis=1)[:-1]
    return float((down**2 + across**2)[mask[:-1, :-1]].sum())


@pytest.fixture(scope="module")
def inpainter():
    return package.load("inpaint", device="cpu", precision="fp32")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("gray", [False, True])
def test_wide_holes_have_texture(dtype, gray, inpainter, photo):
    """The fur of a cat, a hole of 64 pixels in it: before, 2 % of its gradient energy came back."""
    image = (photo[:240, 40:300] / 255 * white(dtype)).astype(dtype)
    if gray:
        image = np.repeat(image[..., 1:2], 3, axis=-1)
    mask = np.zeros(image.shape[:2], bool)
    mask[150:214, 60:124] = True
    damaged = image.copy()
    damaged[mask] = white(dtype)
    restored = inpainter(damaged, mask=mask)
    assert np.array_equal(restored[~mask], image[~mask])
    assert 0.5 < gradient_energy(restored, mask) / gradient_energy(image, mask) < 1.5
    assert not gray or (np.ptp(restored, axis=-1) == 0).all()
    tiled = package.load("inpaint", device="cpu", precision="fp32", tile=64)(damaged, mask=mask)
    assert np.abs(tiled.astype(int) - restored).max() <= white(dtype) / 255


def test_narrow_holes_keep_the_prediction(inpainter, photo, monkeypatch):
    mask = np.zeros(photo.shape[:2], bool)
    mask[100:138, 50:400] = True
    restored = inpainter(photo, mask=mask)
    monkeypatch.setattr("restore.tasks.inpaint.task.synthesize_texture", None)
    assert np.array_equal(inpainter(photo, mask=mask), restored)


def test_looking_for_holes_makes_no_texture(inpainter, photo, monkeypatch):
    mask = np.zeros(photo.shape[:2], bool)
    mask[100:180, 50:400] = True
    monkeypatch.setattr("restore.tasks.inpaint.task.synthesize_texture", None)
    assert np.array_equal(inpainter.find(photo, mask=mask).mask, mask)
    with pytest.raises(TypeError):
        inpainter(photo, mask=mask)


@pytest.mark.parametrize("most", [texture.MAX_PATCHES, 500])
@pytest.mark.parametrize("corner", [0, 40])
def test_a_pattern_is_continued(most, corner, monkeypatch):
    """Stripes of eight pixels go on through a hole of 60, also where the finest levels match nothing anew."""
    monkeypatch.setattr(texture, "MAX_PATCHES", most)
    columns = np.arange(200, dtype=np.float32)
    pattern = np.broadcast_to(0.5 + 0.4 * np.sin(columns * np.pi / 4)[:, None], (180, 200, 3)).astype(np.float32)
    hole = np.zeros(pattern.shape[:2], bool)
    hole[corner : corner + 60, corner : corner + 60] = True
    filled = np.where(hole[..., None], np.float32(0.5), pattern)
    result = synthesize_texture(filled, hole, hole)
    assert result is not None
    assert np.array_equal(result[~hole], pattern[~hole])
    assert psnr(result, pattern) > psnr(filled, pattern) + (10 if most > 500 else 3)


def test_nothing_is_taken_from_other_damage(photo):
    """A red stroke beside the hole is not copied into it."""
    filled = to_float(photo[:200, :200]).copy()
    hole, damaged = np.zeros((2, 200, 200), bool)
    hole[70:130, 70:130] = True
    damaged[40:50] = True
    filled[damaged] = (1, 0, 0)
    result = synthesize_texture(filled, hole, hole | damaged)
    assert result is not None
    assert (result[hole][:, 0] - result[hole][:, 1]).max() < 0.5
    assert synthesize_texture(filled, hole, np.ones_like(hole)) is None
