"""Watermarks: the blend formula, all kinds of marks; and grayscale."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.corruptions.drawing.logos import make_logo
from restore.corruptions.drawing.marks import (
    ACCENTS,
    FRAMES,
    SHAPES,
    Ink,
    LogoMark,
    ShapeMark,
    TextMark,
    draw_accent,
    draw_mark,
)
from restore.corruptions.grayscale import Grayscale, GrayscaleParams
from restore.corruptions.watermark_overlay import (
    ARRANGEMENTS,
    MAX_SIDE,
    MIN_OPACITY,
    Layer,
    WatermarkOverlay,
    WatermarkOverlayParams,
)
from restore.errors import ImageError
from restore.images import Image
from restore.pixels import luma, to_dtype, to_float, white

DISC = np.uint8(255 * (np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]) < 0.9))
LOGOS = tuple(
    make_logo(name, Image(np.full((64, 64, 3), colour, np.uint8), DISC))
    for name, colour in {"red.png": (230, 20, 30), "green.png": (10, 200, 90)}.items()
)
BLOCK = ShapeMark("rectangle", 40, 1.0, 0.1, 4, filled=True)
LAYER = Layer(
    BLOCK, Ink((0.2, 0.6, 1.0)), "single", ((0.5, 0.5),), 0.0, (0.5, 0.5), 0.0, opacity=(0.4, 0.4), slope=0, edge=0
)


def apply_one(image: np.ndarray, **changes):
    return WatermarkOverlay().apply(image, WatermarkOverlayParams((replace(LAYER, **changes),)))


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape, np.float32)
    return values * 1.5 - 0.2 if dtype == "float32" else (values * white(dtype)).astype(dtype)


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    seed=st.integers(0, 2**32),
    logos=st.sampled_from([(), LOGOS]),
    short_side=st.sampled_from([None, (100, 500)]),
)
@settings(max_examples=150, deadline=None)
def test_blend_formula(size, channels, dtype, seed, logos, short_side):
    image = noise((*size, channels), dtype, seed)
    operator = WatermarkOverlay(logos=logos, short_side=short_side)
    params = operator.sample(image.shape, np.random.default_rng(seed))
    done = operator.apply(image, params)
    assert done.opacity.shape == done.mask.shape == size and done.colour.shape == image.shape
    assert done.image.dtype == image.dtype and done.opacity.dtype == done.colour.dtype == np.float32
    opacity = done.opacity[..., None]
    expected = to_float(image) * (1 - opacity) + done.colour * opacity
    rounding = 1e-6 if dtype == "float32" else 0.5 / white(dtype) + 1e-6
    assert np.abs(to_float(done.image) - expected).max() <= rounding
    assert np.array_equal(done.mask, done.opacity > MIN_OPACITY)
    assert done.image[~done.mask].tobytes() == image[~done.mask].tobytes()
    assert not done.opacity[~done.mask].any() and not done.colour[~done.mask].any()
    assert done.opacity.max() <= 0.8 + 1e-6
    assert done.colour.min() >= 0 and done.colour.max() <= 1
    assert operator.target(image, params) is image
    assert len(pickle.dumps(params)) < 4000


def test_opacity_stays_in_range():
    """Also where two marks overlap, and where the opacity changes along the picture."""
    image, operator, rng = noise((96, 96, 3), "uint8"), WatermarkOverlay((0.3, 0.6)), np.random.default_rng(0)
    pairs, highest = 0, 0.0
    for _ in range(200):
        params = operator.sample(image.shape, rng)
        # Hard edges: every pixel that is covered is covered wholly.
        hard = WatermarkOverlayParams(tuple(replace(layer, edge=-1.0) for layer in params.layers))
        done = operator.apply(image, hard)
        pairs += len(params.layers) > 1
        if done.mask.any():
            assert done.opacity[done.mask].min() >= 0.3 - 1e-6
            highest = max(highest, float(done.opacity.max()))
    assert pairs > 10 and 0.55 < highest <= 0.6 + 1e-6
    assert WatermarkOverlay((0.5, 0.5)).sample((64, 64, 3), rng).layers[0].opacity == (0.5, 0.5)


def test_two_marks_equal_sequential_blends():
    image, operator = noise((120, 120, 3), "float32"), WatermarkOverlay()
    other = replace(LAYER, places=((0.6, 0.6),), ink=Ink((0.9, 0.1, 0.3)), opacity=(0.3, 0.6), edge=1.0, angle=10.0)
    first, second = (WatermarkOverlayParams((layer,)) for layer in (LAYER, other))
    together = operator.apply(image, WatermarkOverlayParams((LAYER, other)))
    one_by_one = operator.apply(operator.apply(image, first).image, second).image
    assert np.abs(together.image - one_by_one).max() < 1e-6
    assert together.opacity.max() > 0.6, "they overlap"


def test_every_kind_of_mark_appears():
    rng, seen = np.random.default_rng(0), Counter()
    count = 3000
    for _ in range(count):
        params = WatermarkOverlay(logos=LOGOS).sample((400, 600, 3), rng)
        for layer in params.layers[:1]:
            mark = layer.mark
            seen.update([type(mark), layer.arrangement, ("accent", layer.ink.accent), layer.angle])
            seen.update(["gradient"] if layer.opacity[0] != layer.opacity[1] else [])
            seen.update(["staggered"] if layer.stagger else [])
            seen.update(["soft" if layer.edge > 0 else "hard" if layer.edge < 0 else "as drawn"])
            seen.update([("white", layer.ink.colour == (1, 1, 1)), ("mild", abs(layer.angle) <= 30)])
            if isinstance(mark, TextMark):
                seen.update([("frame", mark.frame), ("font", mark.font)])
                assert 0.03 * 400 - 1 <= mark.size <= 0.25 * 400
            elif isinstance(mark, ShapeMark):
                seen.update([("shape", mark.shape), ("filled", mark.filled)])
            else:
                seen.update([("logo", mark.index)])
    kinds = [*ARRANGEMENTS, TextMark, ShapeMark, LogoMark, "gradient", "staggered", "soft", "hard", "as drawn"]
    kinds += [("frame", f) for f in ("", *FRAMES)] + [("shape", s) for s in SHAPES] + [("logo", 0), ("logo", 1)]
    kinds += [("accent", a) for a in ("", *ACCENTS)] + [0.0, 45.0, 90.0, ("filled", True)]
    assert not [kind for kind in kinds if seen[kind] < 15]
    assert seen[LogoMark] / count == pytest.approx(0.5, abs=0.05)
    assert seen["white", True] / count == pytest.approx(0.4, abs=0.05)
    assert seen["mild", True] > count / 2
    assert len({n for n in seen if isinstance(n, tuple) and n[0] == "font"}) > 3


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_drawn(shape):
    outline = draw_mark(ShapeMark(shape, 60, 1.0 if shape != "line" else 0.5, 0.06, 5, filled=False))
    assert outline.dtype == np.uint8 and outline.max() == 255
    assert 58 <= np.ptp(np.flatnonzero(outline.any(0))) <= 68 or shape in ("polygon", "star")
    assert not np.concatenate([outline[0], outline[-1], outline[:, 0], outline[:, -1]]).any()
    assert 0.01 < (outline > 127).mean() < 0.6


@pytest.mark.parametrize("frame", FRAMES)
def test_frames_go_around_the_text(frame):
    text = TextMark("Abc", "sans", 24)
    plain, framed = draw_mark(text), draw_mark(replace(text, frame=frame))
    top, left = ((a - b) // 2 for a, b in zip(framed.shape, plain.shape, strict=True))
    assert min(top, left) >= 8
    assert np.array_equal(framed[top : top + plain.shape[0], left : left + plain.shape[1]], plain)
    assert framed[framed.shape[0] // 2, :left].max() > 200, "the frame left of the text"


def test_accents_are_drawn_beneath():
    text = TextMark("Abc", "sans", 40)
    plain = draw_mark(text)
    for accent in ACCENTS:
        both = draw_accent(plain, text, accent)
        assert (both[..., 1] >= both[..., 0]).all() and both[..., 0].sum(dtype=int) == plain.sum(dtype=int)
        assert (both[..., 1] > 127).sum() > (plain > 127).sum() * 1.1
    image = noise((120, 200, 3), "uint8")
    done = apply_one(image, mark=text, ink=Ink((1, 0, 0), "plate", (0, 0, 1)))
    seen = done.colour[done.opacity > 0.39]
    assert {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)} <= {tuple(c) for c in seen.tolist()}
    assert seen.sum(1) == pytest.approx(1, abs=1e-5), "mixtures of the two, and nothing else"


def test_places_and_tiles():
    image = noise((200, 300, 3), "uint8")
    rows, columns = (np.flatnonzero(apply_one(image).mask.any(axis)) for axis in (1, 0))
    assert rows.mean() == pytest.approx(99.5, abs=1) and columns.mean() == pytest.approx(149.5, abs=1)
    corner = apply_one(image, places=((1.0, 0.0),)).mask
    assert corner[:46, -46:].sum() == corner.sum() > 1500
    beyond = apply_one(image, places=((5.0, 5.0),)).mask
    assert beyond[-1, -1] and 0 < beyond.sum() < corner.sum() / 2
    assert apply_one(image, arrangement="repeated", places=((0.0, 0.0), (1.0, 1.0))).mask.sum() == 2 * corner.sum()
    overlapping = apply_one(image, arrangement="repeated", places=((0.5, 0.5), (0.55, 0.5)))
    assert overlapping.opacity.max() == np.float32(0.4)
    for angle in (0.0, 20.0, 90.0):
        for stagger in (0.0, 0.5):
            tiles = apply_one(image, arrangement="tiled", angle=angle, stagger=stagger).mask
            parts = [part for row in np.array_split(tiles, 2) for part in np.array_split(row, 3, axis=1)]
            assert all(0.15 < part.mean() < 0.75 for part in parts)


def test_edges_gradients_and_angles():
    image = noise((200, 300, 3), "uint8")
    drawn, soft, hard = (apply_one(image, angle=20.0, edge=edge).opacity for edge in (0.0, 1.5, -1.0))
    assert set(np.unique(hard).tolist()) == {0.0, np.float32(0.4)}
    between = [((o > 0) & (o < 0.39)).sum() for o in (hard, drawn, soft)]
    assert between[0] < between[1] < between[2]
    slope = apply_one(image, mark=replace(BLOCK, size=280), opacity=(0.2, 0.7), slope=0.0).opacity[100]
    inside = slope[20:-20]
    assert (np.diff(inside) > 0).all() and inside[0] > 0.2 and inside[-1] < 0.7
    assert inside[-1] - inside[0] == pytest.approx(0.5 * 259 / 300, abs=0.01)
    line = replace(BLOCK, shape="line", size=150, stroke=0.04, filled=False)
    rising = apply_one(image, mark=line, angle=45.0).mask
    y, x = np.nonzero(rising)
    assert np.corrcoef(x, y)[0, 1] < -0.99, "counterclockwise"


def test_gray_images_get_the_luma_of_colours():
    done = apply_one(noise((60, 60, 1), "uint8"))
    assert done.colour[30, 30, 0] == pytest.approx(0.299 * 0.2 + 0.587 * 0.6 + 0.114)


def test_unmarked(photo):
    for operator in (WatermarkOverlay(unmarked=1.0), WatermarkOverlay(unmarked=1.0, logos=LOGOS)):
        params = operator.sample(photo.shape, np.random.default_rng(0))
        done = operator.apply(photo, params)
        assert params == WatermarkOverlayParams(())
        assert np.array_equal(done.image, photo) and done.image is not photo
        assert not done.mask.any() and not done.opacity.any()
    rng = np.random.default_rng(1)
    without = sum(not WatermarkOverlay(unmarked=0.25).sample((64, 64, 3), rng).layers for _ in range(1000))
    assert without == pytest.approx(250, abs=50)


def test_marks_on_patches_are_scaled_to_the_image():
    def mean_size(operator, shape):
        rng = np.random.default_rng(0)
        marks = [operator.sample(shape, rng).layers[0].mark for _ in range(500)]
        return np.mean([mark.size for mark in marks if isinstance(mark, TextMark)])

    patch = mean_size(WatermarkOverlay(short_side=(1000, 1000)), (128, 128, 3))
    assert patch == pytest.approx(mean_size(WatermarkOverlay(), (1000, 1500, 3)), rel=1e-9)
    assert patch > 4 * mean_size(WatermarkOverlay(), (128, 128, 3))


def test_too_large_images_are_refused():
    with pytest.raises(ImageError, match="too large"):
        apply_one(np.zeros((1, MAX_SIDE + 1, 3), np.uint8))
    assert apply_one(np.zeros((2, MAX_SIDE, 3), np.uint8), arrangement="tiled", angle=3.0).mask.any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_grayscale_is_the_luma(dtype):
    image = noise((40, 50, 3), dtype)
    params = Grayscale().sample(image.shape, np.random.default_rng(0))
    assert params == GrayscaleParams()
    done = Grayscale().apply(image, params)
    assert done.image.dtype == image.dtype and done.image.shape == (40, 50, 1)
    assert np.array_equal(done.image[..., 0], to_dtype(luma(to_float(image)), image.dtype))
    step = 0.501 if dtype != "float32" else 1e-6
    assert np.abs(done.image[..., 0] - luma(image)).max() <= step + (0.01 if dtype == "uint16" else 0)
    assert done.mask is done.opacity is done.colour is None
    assert Grayscale().target(image, params) is image
    gray = done.image
    assert np.array_equal(Grayscale().apply(gray, params).image, gray)
    assert np.array_equal(Grayscale().apply(np.repeat(gray, 3, axis=2), params).image, gray) or dtype == "float32"
