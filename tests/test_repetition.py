"""Repeated marks: copies are completed and cleaned by each other where the image agrees; nothing else is changed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.text import draw_text
from restore.images import read_image
from restore.pixels import to_dtype, to_float
from restore.tasks.dewatermark.alpha import Blend
from restore.tasks.dewatermark.repetition import find_shifts, is_lattice, reconcile_copies
from restore.tasks.mask_detection import LEVELS

CPU = torch.device("cpu")
WHITE = Blend(0.5, (1.0, 1.0, 1.0))
WORD = draw_text("proof", "sans", 22) > 127


def tiled(height: int, width: int, down: tuple[int, int], across: tuple[int, int], word: np.ndarray = WORD):
    """A word at `down` * n + `across` * m, cut by the border of (height,width): bool."""
    canvas = np.zeros((height + 2 * word.shape[0], width + 2 * word.shape[1]), bool)
    for n in range(-20, 20):
        for m in range(-20, 20):
            top = down[0] * n + across[0] * m + word.shape[0]
            left = down[1] * n + across[1] * m + word.shape[1]
            if 0 <= top <= height + word.shape[0] and 0 <= left <= width + word.shape[1]:
                canvas[top : top + word.shape[0], left : left + word.shape[1]] |= word
    return canvas[word.shape[0] :, word.shape[1] :][:height, :width].copy()


def logits(certain: np.ndarray, uncertain: np.ndarray | bool = False) -> np.ndarray:
    """Of 5 and of 1, and -5 elsewhere; as `detect_logits` gives them."""
    return (np.where(certain, 5, np.where(uncertain, 1, -5)) * LEVELS).astype(np.int8)


def marked(mask: np.ndarray, blend: Blend = WHITE) -> np.ndarray:
    """A photograph of the size of `mask` (H,W) with the mark in it, uint8."""
    photo = to_float(read_image(ROOT / "samples" / "clean" / "chelsea.png").pixels)
    photo = cv2.resize(photo, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    overlay = np.array(blend.colour, np.float32) * blend.opacity
    return to_dtype(np.where(mask[..., None], photo * (1 - blend.opacity) + overlay, photo), np.uint8)


def test_copies_are_completed_and_cleaned():
    """One word that was missed, letters at the border, and something of the scene that was taken for a mark."""
    whole = tiled(300, 420, (60, -25), (14, 95))
    found = whole.copy()
    found[:, :6] = False
    found[120:160, 180:290] = False
    scene = cv2.ellipse(np.zeros(whole.shape, np.uint8), (70, 115), (18, 5), 30, 0, 360, 1, -1).astype(bool) & ~whole
    missed, alien = whole & ~found, scene & ~cv2.dilate(whole.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert missed.sum() > 300
    assert alien.sum() > 100
    result = reconcile_copies(marked(whole), found | scene, logits(found, scene), WHITE, CPU)
    assert (result & missed).sum() > 0.95 * missed.sum()
    assert not (result & alien).any()
    assert (result & found).sum() > 0.99 * found.sum()
    assert not (result & ~whole & ~scene).any()


def test_a_mark_of_its_own_between_copies_stays():
    """A number beside tiled words is as certain as they are."""
    whole = tiled(300, 420, (60, -25), (14, 95))
    number = draw_text("2026", "sans", 30) > 127
    whole[150 : 150 + number.shape[0], 180 : 180 + number.shape[1]] |= number
    result = reconcile_copies(marked(whole), whole, logits(whole), WHITE, CPU)
    assert result.sum() > 0.99 * whole.sum()


def test_the_corners_of_a_block_of_copies_stay():
    """They have a few copies on two sides, and nothing on the others."""
    mask = np.zeros((300, 500), bool)
    for row in range(4):
        for column in range(3):
            top, left = 40 + 55 * row, 60 + 120 * column + 60 * (row % 2)
            mask[top : top + WORD.shape[0], left : left + WORD.shape[1]] = WORD
    assert np.array_equal(reconcile_copies(marked(mask), mask, logits(mask), WHITE, CPU), mask)


def test_copies_that_are_not_in_the_image_are_not_added():
    """A row ends within the image, a word of the lattice is left out."""
    whole = tiled(300, 420, (60, -25), (14, 95))
    whole[120:160, 180:290] = False
    whole[:, 330:] = False
    result = reconcile_copies(marked(whole), whole, logits(whole), WHITE, CPU)
    assert not (result & ~whole).any()
    assert result.sum() > 0.99 * whole.sum()


def test_large_images():
    """Their mask is correlated in a smaller size; the distance is exact nevertheless."""
    whole = tiled(1500, 1501, (301, -97), (53, 467), draw_text("proof", "sans", 90) > 127)
    found = whole.copy()
    found[700:1000, 600:1000] = False
    assert {(301, -97), (53, 467)} <= set(find_shifts(torch.from_numpy(found)))
    result = reconcile_copies(marked(whole), found, logits(found), WHITE, CPU)
    assert (result & whole).sum() > 0.99 * whole.sum()
    assert (result & ~whole).sum() < 0.01 * whole.sum()


@pytest.mark.parametrize("kind", ["one word", "letters", "blob", "full", "frame", "two words"])
def test_what_does_not_repeat_stays(kind):
    mask = np.zeros((240, 320), bool)
    word = draw_text("noon moon" if kind == "letters" else "sample 7", "sans", 50) > 127
    if kind in ("one word", "letters"):
        mask[90 : 90 + word.shape[0], 20 : 20 + word.shape[1]] = word[:150, :300]
    elif kind == "blob":
        mask = cv2.circle(mask.astype(np.uint8), (150, 110), 60, 1, -1).astype(bool)
    elif kind == "full":
        mask[:] = True
    elif kind == "frame":
        mask[:20] = mask[-20:] = mask[:, :20] = mask[:, -20:] = True
    else:
        for top, left in ((40, 50), (150, 170)):
            mask[top : top + WORD.shape[0], left : left + WORD.shape[1]] = WORD
    assert np.array_equal(reconcile_copies(marked(mask), mask, logits(mask), WHITE, CPU), mask)


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ([(17, 72), (34, 145), (51, 217)], True),
        ([(33, -41), (33, 41), (66, 0), (0, 82)], True),
        ([(92, -73), (92, 73), (0, 146)], True),
        ([(0, 15), (0, 23), (0, 57), (0, 68)], False),
        ([(10, -16), (24, -38)], False),
        ([(40, 0), (3, 60), (90, 31)], False),
    ],
)
def test_lattices(shifts, expected):
    """The letters of one word, in the fourth and fifth case, are at the distances of no lattice."""
    assert is_lattice(shifts) == expected


def test_letters_of_a_word_are_no_copies():
    """They resemble each other, at distances that are no multiples."""
    word = draw_text("illllillilil", "sans", 30) > 127
    mask = np.zeros((120, 360), bool)
    mask[40 : 40 + word.shape[0], 10 : 10 + word.shape[1]] = word
    assert len(find_shifts(torch.from_numpy(mask))) > 1
    assert np.array_equal(reconcile_copies(marked(mask), mask, logits(mask), WHITE, CPU), mask)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_any_size(height, width, share, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    image, levels = rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(-128, 128, mask.shape, np.int8)
    result = reconcile_copies(image, mask, levels, WHITE, CPU)
    assert result.shape == mask.shape
    assert result.dtype == bool
