"""Logos: reading from a folder, cropping, size limit, blending in their own colours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from restore.corruptions.base import Corrupted
from restore.corruptions.drawing.logos import MAX_SIDE, Logo, make_logo
from restore.corruptions.drawing.marks import Ink, LogoMark
from restore.corruptions.watermark_overlay import Layer, WatermarkOverlay, WatermarkOverlayParams
from restore.errors import ImageError, UsageError
from restore.images import Image, write_image
from restore.tasks.dewatermark.task import read_logos

RED, GREEN = (230, 20, 30), (10, 200, 90)
DISC = np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]) < 0.9


def logo(colour=RED, alpha=DISC) -> Image:
    return Image(np.full((*alpha.shape, 3), colour, np.uint8), (alpha * 255).astype(np.uint8))


BOTH = make_logo("red.png", logo()), make_logo("green.png", logo(GREEN))


def apply_logo(logos: tuple[Logo, ...], index: int, size: int, angle: float = 0.0) -> Corrupted:
    """A logo in the middle of a gray picture, at an opacity of 0.4."""
    mark, ink = LogoMark(index, size), Ink((0.0, 0.0, 0.0))
    layer = Layer(mark, ink, "single", ((0.5, 0.5),), angle, (0.5, 0.5), 0.0, opacity=(0.4, 0.4), slope=0.0, edge=0.0)
    image = np.full((120, 160, 3), 128, np.uint8)
    return WatermarkOverlay(logos=logos).apply(image, WatermarkOverlayParams((layer,)))


@pytest.mark.parametrize(("index", "colour"), [(0, RED), (1, GREEN)])
@pytest.mark.parametrize(("size", "angle"), [(30, 0.0), (90, 33.0)])
def test_logos_keep_their_colours(index, colour, size, angle):
    done = apply_logo(BOTH, index, size, angle)
    assert done.opacity.max() == pytest.approx(0.4, abs=1e-6)
    assert np.abs(done.colour[done.mask] - np.float32(colour) / 255).max() < 1e-3, "up to the edge of the disc"
    assert done.mask.sum() == pytest.approx(np.pi / 4 * size**2, rel=0.1), "the disc, and not its square"


def test_alpha_scales_opacity():
    half = make_logo("half.png", Image(logo().pixels, np.full((64, 64), 128, np.uint8)))
    done = apply_logo((half,), 0, 50)
    assert done.opacity[60, 80] == pytest.approx(0.4 * 128 / 255, abs=1e-6)
    assert done.colour[60, 80] == pytest.approx(np.float32(RED) / 255, abs=1e-3)


def test_logos_from_a_folder(tmp_path):
    write_image(logo(), tmp_path / "a.png")
    gray16 = np.full((900, 300, 1), 30000, np.uint16)
    write_image(Image(gray16, np.full((900, 300), 65535, np.uint16)), tmp_path / "b.png")
    logos = read_logos(tmp_path)
    assert len(logos) == 2
    assert logos == read_logos(tmp_path) == pickle.loads(pickle.dumps(logos))
    disc, tall = logos
    # Cropped to the visible part, and the longer side limited.
    assert (disc.width, disc.height) == (DISC.any(0).sum(), DISC.any(1).sum())
    assert (tall.width, tall.height) == (round(MAX_SIDE / 3), MAX_SIDE)
    assert tall.render(100).shape == (100, 33, 4)
    assert tall.render(100) == pytest.approx(np.broadcast_to([117 / 255] * 3 + [1], (100, 33, 4)), abs=1e-3)


def test_folders_without_logos(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere: does not exist; name a folder"):
        read_logos(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no images in this folder; put logos there"):
        read_logos(tmp_path)
    write_image(Image(np.zeros((8, 8, 3), np.uint8)), tmp_path / "logo.png")
    with pytest.raises(UsageError, match=r"logo\.png: has no alpha channel; save the logo with a transparent"):
        read_logos(tmp_path)
    with pytest.raises(UsageError, match=r"is not a folder"):
        read_logos(tmp_path / "logo.png")
    write_image(logo(alpha=np.zeros((8, 8))), tmp_path / "logo.png", overwrite=True)
    with pytest.raises(UsageError, match=r"logo\.png: is completely transparent"):
        read_logos(tmp_path)
    (tmp_path / "logo.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"logo\.png"):
        read_logos(tmp_path)


def test_parameters_with_logos_need_logos():
    with pytest.raises(UsageError, match="use logos"):
        apply_logo((), 0, 20)
