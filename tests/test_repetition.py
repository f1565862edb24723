"""Marks that repeat: parts missed of some copies are completed, and nothing else is taken for a copy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.text import draw_text
from restore.tasks.dewatermark.repetition import complete_copies, find_shifts

CPU = torch.device("cpu")


def tiled(height: int, width: int, down: tuple[int, int], across: tuple[int, int], size: int = 22) -> np.ndarray:
    """A word at `down` * n + `across` * m, cut by the border of (height,width): bool."""
    word = draw_text("proof", "sans", size) > 127
    mask = np.zeros((height, width), bool)
    canvas = np.zeros((height + 2 * word.shape[0], width + 2 * word.shape[1]), bool)
    for n in range(-20, 20):
        for m in range(-20, 20):
            top = down[0] * n + across[0] * m + word.shape[0]
            left = down[1] * n + across[1] * m + word.shape[1]
            if 0 <= top <= height + word.shape[0] and 0 <= left <= width + word.shape[1]:
                canvas[top : top + word.shape[0], left : left + word.shape[1]] |= word
    mask[:] = canvas[word.shape[0] :, word.shape[1] :][:height, :width]
    return mask


def test_missed_parts_of_copies_are_completed():
    """One word that was missed, and letters at the border."""
    whole = tiled(300, 420, (60, -25), (14, 95))
    found = whole.copy()
    found[:, :6] = False
    found[120:160, 180:290] = False
    missed = whole & ~found
    completed = complete_copies(found, CPU)
    assert missed.sum() > 300
    assert (completed & missed).sum() > 0.95 * missed.sum()
    assert not (completed & ~whole).any()
    assert not (found & ~completed).any()


def test_rows_end_where_they_end():
    """Beside the last copy of a row, none is added."""
    word = draw_text("proof", "sans", 22) > 127
    mask = np.zeros((200, 600), bool)
    for left in (120, 210, 300, 390):
        mask[90 : 90 + word.shape[0], left : left + word.shape[1]] = word
    found = mask.copy()
    found[:, 305:325] = False
    assert (mask & ~found).sum() > 50
    assert np.array_equal(complete_copies(found, CPU), mask)


def test_large_pictures():
    """Their mask is correlated in a smaller size, and the distance found to the pixel nevertheless."""
    whole = tiled(1500, 1501, (301, -97), (53, 467), size=90)
    found = whole.copy()
    found[700:1000, 600:1000] = False
    shifts = find_shifts(torch.from_numpy(found))
    assert {(301, -97), (-301, 97), (53, 467), (-53, -467)} <= set(shifts)
    completed = complete_copies(found, CPU)
    assert (completed & whole).sum() > 0.99 * whole.sum()
    assert (completed & ~whole).sum() < 0.01 * whole.sum()


@pytest.mark.parametrize("kind", ["one word", "letters", "blob", "empty", "full", "frame"])
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
    assert np.array_equal(complete_copies(mask, CPU), mask)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_any_size(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    completed = complete_copies(mask, CPU)
    assert completed.shape == mask.shape and completed.dtype == bool
    assert not (mask & ~completed).any()
