"""Damage of old prints, and clean pictures that look damaged."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from restore.corruptions import print_damage
from restore.corruptions.look_alikes import KINDS, LookAlikes, LookAlikesParams
from restore.corruptions.print_damage import VISIBLE, PrintDamage, PrintDamageParams, Trace
from restore.pixels import to_float, white


@pytest.mark.parametrize("kind", print_damage.KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_damage_is_in_the_mask(kind, channels, dtype, photo):
    """Every damage leaves traces in most pictures, and faint edges outside of its mask."""
    image = (to_float(photo[:160, :200, :channels]) * white(np.dtype(dtype))).astype(dtype)
    operator, changed = PrintDamage(kind), []
    for seed in range(12):
        params = operator.sample(image.shape, np.random.default_rng(seed))
        damaged = operator.apply(image, params)
        assert damaged.image.dtype == image.dtype and damaged.image.shape == image.shape
        outside = np.abs(to_float(damaged.image) - to_float(image)).max(-1) * ~damaged.mask
        assert outside.max() <= VISIBLE + 1 / 255
        near = cv2.dilate(damaged.mask.astype(np.uint8), np.ones((17, 17)))
        assert (outside[near == 0] == 0).mean() > 0.995
        assert operator.target(image, params) is image
        changed.append(float((damaged.image != image).any(-1).mean()))
    assert 0 < np.median(changed) < 0.45
    assert max(changed) < 0.7


def test_scratches_are_thin_and_shine_through(photo):
    """A trace of half opacity moves the picture half of the way to its colour."""
    line = Trace(((10.0, 20.0), (90.0, 20.0)), 2.0, 0.5, (255, 255, 255))
    params = PrintDamageParams((line,), gaps=-1.0, grain=4.0, blur=0.0, seed=0)
    image = np.full((40, 100, 3), 100, np.uint8)
    damaged = PrintDamage("scratches").apply(image, params)
    assert damaged.mask[18:22, 20:80].any(0).all() and not damaged.mask[:16].any() and not damaged.mask[24:].any()
    assert abs(int(damaged.image.max()) - 178) <= 2


def test_gaps_break_a_scratch():
    line = Trace(((0.0, 20.0), (200.0, 20.0)), 2.0, 1.0, (0, 0, 0))
    image = np.full((40, 200, 3), 200, np.uint8)
    operator, params = PrintDamage("scratches"), PrintDamageParams((line,), -1.0, 4.0, 0.0, 1)
    whole, broken = (operator.apply(image, replace(params, gaps=gaps)).mask.any(0).mean() for gaps in (-1, 0.5))
    assert whole > 0.95
    assert 0.2 < broken < 0.8


def test_a_patch_shows_its_share_of_the_dust():
    """As many specks to the area as the picture has that the patch stands for."""
    shape, rng = (64, 64, 3), np.random.default_rng
    alone = [len(PrintDamage("dust").sample(shape, rng(seed)).traces) for seed in range(40)]
    part = [len(PrintDamage("dust", (640, 640)).sample(shape, rng(seed)).traces) for seed in range(40)]
    assert np.mean(part) < np.mean(alone) / 5


@pytest.mark.parametrize("kind", KINDS)
def test_look_alikes_hold_no_damage(kind, photo):
    image, operator = photo[:120, :160], LookAlikes()
    for seed in range(6):
        params = LookAlikesParams(kind, seed)
        made = operator.apply(image, params)
        assert not made.mask.any()
        assert made.image.shape == image.shape and made.image.dtype == image.dtype
        assert np.array_equal(made.image, operator.target(image, params))
        assert np.array_equal(made.image, image) == (kind == "photo")
    drawn = {operator.sample(image.shape, np.random.default_rng(seed)).kind for seed in range(200)}
    assert drawn == set(KINDS)
