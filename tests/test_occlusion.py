"""Opaque bars, strokes, rectangles and text."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.shapes import BLACK, WHITE, Colour, Line, Rectangle, Text
from restore.corruptions.drawing.text import FONTS, draw_text, random_text
from restore.corruptions.occlusion_bars import FAMILIES, OcclusionBars, OcclusionBarsParams
from restore.pixels import to_float, white

sizes = st.integers(1, 200)
dtypes = st.sampled_from(["uint8", "uint16", "float16", "float32", "float64"])
seeds = st.integers(0, 2**32)
channels = st.sampled_from([1, 3])


def noise(height: int, width: int, count: int, dtype: str, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width, count))
    return (values * white(np.dtype(dtype))).astype(dtype)


@given(height=sizes, width=sizes, count=channels, dtype=dtypes, seed=seeds, patch=st.booleans())
@settings(max_examples=150, deadline=None)
def test_mask_is_exact(height, width, count, dtype, seed, patch):
    """The mask is what may have changed, and nothing else has."""
    image = noise(height, width, count, dtype, seed)
    operator = OcclusionBars(short_side=(200, 900) if patch else None)
    params = operator.sample(image.shape, np.random.default_rng(seed))
    found = operator.apply(image, params)
    assert operator.target(image, params) is image
    assert found.image.shape == image.shape and found.image.dtype == image.dtype
    assert found.mask.mean() <= 0.6
    assert found.image[~found.mask].tobytes() == image[~found.mask].tobytes()
    colours = {shape.colour for shape in params.shapes}
    if not params.antialiased and all(colour.at is None for colour in colours):
        allowed = {np.float32(value) / np.float32(255) for colour in colours for value in colour.rgb}
        step = {1: 1 / 255, 2: 1 / 1000}.get(image.dtype.itemsize, 1e-6)
        inside = np.unique(to_float(found.image[found.mask]))
        assert all(min(abs(value - other) for other in allowed) < step for value in inside)
    if count == 1:
        assert all(len(set(colour.rgb)) == 1 for colour in colours)


@given(height=st.integers(4, 200), width=st.integers(4, 200), count=channels, dtype=dtypes, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_lecture_bar(height, width, count, dtype, seed):
    """Two whole rows or two whole columns next to each other, white, and nothing else."""
    image = noise(height, width, count, dtype, seed)
    operator = OcclusionBars(bars="lecture")
    found = operator.apply(image, operator.sample(image.shape, np.random.default_rng(seed)))
    mask = found.mask if found.mask[:, 0].sum() == 2 else found.mask.T
    rows = np.flatnonzero(mask[:, 0])
    assert len(rows) == 2 and rows[1] == rows[0] + 1
    assert mask[rows].all() and mask.sum() == 2 * mask.shape[1]
    assert (found.image[found.mask] == white(image.dtype)).all()
    assert np.array_equal(found.image[~found.mask], image[~found.mask])


def test_lecture_bar_positions_are_uniform():
    """On 28x28 each of the 27 rows and 27 columns where it fits is equally likely."""
    rng, operator, seen = np.random.default_rng(0), OcclusionBars(bars="lecture"), Counter()
    for _ in range(5400):
        mask = operator.apply(np.zeros((28, 28, 1), np.float32), operator.sample((28, 28, 1), rng)).mask
        assert mask.sum() == 56
        seen[mask.tobytes()] += 1
    assert len(seen) == 54
    assert min(seen.values()) > 50 and max(seen.values()) < 160


@pytest.mark.parametrize("shape", [(300, 451, 3), (28, 28, 1), (1, 1, 3), (64, 2000, 3)])
def test_bar_thickness(shape):
    """1 pixel to 4 % of the short side; two are always possible; whole pixels where edges are exact."""
    rng, seen = np.random.default_rng(3), set()
    most = max(2.0, 0.04 * min(shape[:2]))
    for _ in range(300):
        params = OcclusionBars(("bars",)).sample(shape, rng)
        assert params.families == ("bars",)
        assert 1 <= len(params.shapes) <= 8
        for bar in params.shapes:
            if isinstance(bar, Line):
                thickness = bar.thickness
            else:
                left, top, right, bottom = bar.box
                thickness = min(right - left, bottom - top)
            assert (1 if min(shape[:2]) > 1 else 0) - 1e-9 <= thickness <= most + 1e-9
            assert params.antialiased or thickness == int(thickness)
            seen.add(round(thickness))
    assert len(seen) == int(most + 0.5)


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 135])
@pytest.mark.parametrize("thickness", [1.0, 2.5, 8.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_area_of_slanted_lines(angle, thickness, rounded):
    """The coverage adds up to length x thickness at every angle, within a quarter pixel of thickness."""
    run, rise = 80 * np.cos(np.deg2rad(angle)), 80 * np.sin(np.deg2rad(angle))
    middle = 100.3  # no pixel is covered by just a half
    line = Line(((middle - run, middle - rise), (middle + run, middle + rise)), thickness, rounded, WHITE)
    image = np.zeros((201, 201, 1), np.float32)
    soft = OcclusionBars().apply(image, OcclusionBarsParams(("bars",), (line,), True)).image.sum()
    hard = OcclusionBars().apply(image, OcclusionBarsParams(("bars",), (line,), False))
    ends = np.pi / 4 * thickness**2 if rounded else 0
    assert abs(soft - 160 * thickness - ends) < 160 * 0.3 + 4
    assert abs(hard.image.sum() - 160 * thickness - ends) < 160 * 0.5 + 4
    assert set(np.unique(hard.image)) == {0.0, 1.0}
    rows, columns = np.nonzero(hard.mask)
    assert max(np.ptp(rows), np.ptp(columns)) >= 2 * max(abs(run), abs(rise)) - 3, "the line is not broken off"


def test_rectangles_and_frames():
    image = np.full((20, 30, 3), 100, np.uint8)
    boxes = (Rectangle((3, 4, 10, 9), 0, BLACK), Rectangle((12, 2, 28, 18), 2, Colour((1, 2, 3))))
    found = OcclusionBars().apply(image, OcclusionBarsParams(("rectangles",), boxes, False))
    expected = np.zeros((20, 30), bool)
    expected[4:9, 3:10] = True
    assert (found.image[expected] == 0).all()
    expected[2:18, 12:28] = True
    expected[4:16, 14:26] = False
    assert np.array_equal(found.mask, expected)
    assert (found.image[2:18, 12:14] == (1, 2, 3)).all()


def test_soft_edges_blend_in_proportion():
    """A bar that covers a quarter of a row of pixels changes them by a quarter."""
    image = np.full((8, 8, 1), 40, np.uint8)
    bar = Rectangle((0, 2, 8, 4.25), 0, Colour((240, 240, 240)))
    found = OcclusionBars().apply(image, OcclusionBarsParams(("bars",), (bar,), True))
    assert found.image[:, 0, 0].tolist() == [40, 40, 240, 240, 90, 40, 40, 40]
    assert found.mask[:, 0].tolist() == [False, False, True, True, True, False, False, False]


def test_relative_colour(photo):
    shape = Rectangle((0, 0, 9, 9), 0, Colour((5, -5, 0), (0.5, 0.25)))
    found = OcclusionBars().apply(photo, OcclusionBarsParams(("rectangles",), (shape,), False))
    height, width = photo.shape[:2]
    expected = np.clip(photo[height // 4, width // 2].astype(int) + np.array((5, -5, 0)), 0, 255)
    assert (found.image[:9, :9] == expected).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_share_of_each_family(family, photo):
    rng, lost = np.random.default_rng(11), []
    for short_side in (None, (300, 1200)):
        for _ in range(40):
            operator = OcclusionBars((family,), short_side=short_side)
            params = operator.sample((256, 256, 3), rng)
            assert params.families == (family,) and params.shapes
            lost.append(operator.apply(photo[:256, :256], params).mask.mean())
    assert np.median(lost) > 0.01 and np.mean(np.array(lost) > 0) > 0.9


def test_family_frequencies():
    """All families, one or two in a sample; white and black a third each, half of the edges exact."""
    rng = np.random.default_rng(5)
    samples = [OcclusionBars().sample((256, 256, 3), rng) for _ in range(1500)]
    first = Counter(sample.families[0] for sample in samples)
    assert set(first) == set(FAMILIES) and min(first.values()) > 300
    assert np.mean([len(sample.families) for sample in samples]) == pytest.approx(1.2, abs=0.04)
    assert np.mean([sample.antialiased for sample in samples]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([len(sample.shapes) > 1 for sample in samples]) > 0.8
    colours = [{shape.colour for shape in sample.shapes} for sample in samples]
    single = [found.copy().pop() for found in colours if len(found) == 1]
    assert 0.8 < len(single) / len(samples) < 0.95
    for colour in (WHITE, BLACK):
        assert np.mean([found == colour for found in single]) == pytest.approx(0.35, abs=0.05)
    assert any(found.at is not None for found in single)


def test_shapes_over_the_limit_are_dropped():
    image = np.zeros((10, 10, 1), np.uint8)
    shapes = (Rectangle((0, 0, 10, 2), 0, WHITE), Rectangle((0, 0, 10, 9), 0, WHITE))
    found = OcclusionBars().apply(image, OcclusionBarsParams(("rectangles",), shapes, False))
    assert found.mask.sum() == 20


def test_large_pictures_are_drawn_in_bands_without_seams():
    image = np.zeros((1500, 1200, 1), np.uint8)
    line = Line(((100.0, 0.0), (900.0, 1500.0)), 11.0, False, WHITE)
    whole = OcclusionBars().apply(image, OcclusionBarsParams(("bars",), (line,), True)).image
    moved = replace(line, points=((100.0, -700.0), (900.0, 800.0)))
    part = OcclusionBars().apply(image[:700], OcclusionBarsParams(("bars",), (moved,), True)).image
    off = np.abs(whole[700:1400].astype(int) - part)
    assert off.max() <= 16, "one subpixel at most"


@pytest.mark.parametrize("font", FONTS)
def test_letter_size_and_weight(font):
    for size in (5, 9, 20, 21, 60):
        ink = draw_text("HEH", font, size)
        assert ink.dtype == np.uint8 and abs(ink.shape[0] - size) <= 2
        assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()
        assert np.array_equal(ink, draw_text("HEH", font, size))
    assert len(np.unique(draw_text("Sample", font, 24))) > 8, "antialiased"
    assert draw_text("two\nlines", font, 20).shape[0] > 1.7 * draw_text("two", font, 20).shape[0]
    assert draw_text("    ", font, 20).tolist() == [[0]]
    if font.split()[0] != "uni":
        assert draw_text("Sample", font, 40, 900).mean() > 1.1 * draw_text("Sample", font, 40, 400).mean()


def test_fonts_have_all_letters():
    """A missing glyph is drawn as the same box as any other, such as one of the private use area."""
    rng, missing, seen = np.random.default_rng(2), {}, set()
    letters = {(font, letter) for font, text in (random_text(rng) for _ in range(3000)) for letter in text}
    for font, letter in sorted(letters):
        if letter.isspace() or letter == "?":
            continue
        missing.setdefault(font, [draw_text(sign, font, 16) for sign in ("\ue123", "?")])
        ink = draw_text(letter, font, 16)
        assert ink.any(), (font, letter)
        assert not any(np.array_equal(ink, box) for box in missing[font]), (font, letter)
        seen.add((ord(letter) // 256, font))
    blocks = {block for block, _ in seen}
    assert {0x00, 0x03, 0x04, 0x30} <= blocks and any(block > 0x4D for block in blocks)
    assert {font for _, font in seen} == set(FONTS)


def test_strings_vary():
    rng = np.random.default_rng(4)
    texts = [random_text(rng)[1] for _ in range(1000)]
    assert len(set(texts)) > 900
    assert 0.04 < np.mean(["\n" in text for text in texts]) < 0.14
    for found in (str.isupper, str.islower, lambda text: any(c.isdigit() for c in text), lambda text: "©" in text):
        assert sum(map(found, texts)) > 15


def test_text_beyond_the_border():
    image = np.zeros((30, 30, 1), np.uint8)
    for at in ((-20, -5), (25, 25), (-500, 0), (0, 500), (40, 40)):
        for turns in range(4):
            text = Text("Sample", "sans", 12, 400, at, turns, WHITE)
            mask = OcclusionBars().apply(image, OcclusionBarsParams(("text",), (text,), True)).mask
            assert mask.any() == (abs(at[0]) < 30 and abs(at[1]) < 30) or turns % 2
