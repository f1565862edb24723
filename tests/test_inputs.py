"""What `restore.load(...)` takes from Python: every kind gives the same pixels, and comes back as it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import restore as package
from restore.errors import UsageError
from restore.images import Image, read_image, write_image


@pytest.fixture(scope="module")
def denoise(tiny):
    return package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def inpaint(tiny):
    return package.load("inpaint", str(tiny("inpaint")), device="cpu", precision="fp32")


@pytest.fixture
def small(photo) -> np.ndarray:
    return np.ascontiguousarray(photo[100:140, 150:206])


def test_every_kind_gives_the_same_pixels(denoise, small, tmp_path):
    expected = denoise(small)
    assert expected.dtype == np.uint8
    assert not np.array_equal(expected, small)

    pil = denoise(PIL.Image.fromarray(small))
    assert isinstance(pil, PIL.Image.Image)
    assert np.array_equal(np.asarray(pil), expected)

    tensor = torch.from_numpy(small).permute(2, 0, 1)
    one = denoise(tensor)
    assert (one.dtype, one.device) == (tensor.dtype, tensor.device)
    assert np.array_equal(one.permute(1, 2, 0).numpy(), expected)
    both = denoise(torch.stack([tensor, tensor.flip(2)]))
    assert both.shape == (2, 3, 40, 56)
    assert torch.equal(both[0], one)
    assert torch.equal(both[1], denoise(tensor.flip(2)))

    path = tmp_path / "small.png"
    write_image(Image(small, dpi=(300, 300)), path)
    for name in (path, str(path)):
        image = denoise(name)
        assert isinstance(image, Image)
        assert np.array_equal(image.pixels, expected)
        assert image.dpi == pytest.approx((300, 300), abs=0.1)
    assert np.array_equal(np.asarray(denoise(read_image(path))), expected)
    assert np.array_equal(denoise.restore(path).image.pixels, expected)


def test_several_pictures(denoise, small):
    """A list gives a list, whatever it holds; an iterator is read only as far as its results are."""
    mixed = denoise([small, PIL.Image.fromarray(small[:20]), small[..., 0]])
    assert [type(one) for one in mixed] == [np.ndarray, PIL.Image.Image, np.ndarray]
    assert np.array_equal(mixed[0], denoise(small))
    assert mixed[1].size == (56, 20)
    assert mixed[2].shape == (40, 56)

    assert denoise([]) == []
    read = []

    def endless():
        while True:
            read.append(1)
            yield small

    stream = denoise(endless())
    assert np.array_equal(next(stream), mixed[0])
    assert len(read) == 1


@pytest.mark.parametrize(
    ("mode", "made", "task"),
    [
        ("L", "L", "denoise"),
        ("LA", "LA", "denoise"),
        ("RGBA", "RGBA", "denoise"),
        ("1", "L", "denoise"),
        ("P", "RGB", "denoise"),
        ("CMYK", "RGB", "denoise"),
        ("I;16", "I;16", "denoise"),
        ("F", "F", "denoise"),
        ("L", "RGB", "colorize"),
    ],
)
def test_modes_of_pillow(mode, made, task, small, tiny):
    restorer = package.load(task, str(tiny(task)), device="cpu", precision="fp32")
    picture = PIL.Image.fromarray(small)
    if mode == "I;16":
        picture = PIL.Image.fromarray(small[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        picture = PIL.Image.fromarray(small[..., 0].astype(np.float32) / 255)
    else:
        picture = picture.convert(mode)
    picture.info["dpi"] = (72, 72)
    restored = restorer(picture)
    assert (restored.mode, restored.size, restored.info["dpi"]) == (made, picture.size, (72, 72))
    # The content is the picture's: not black, and near what it was.
    assert abs(np.asarray(restored.convert("L")).mean() - np.asarray(picture.convert("L")).mean()) < 20


def test_tensors_of_floating_point_keep_their_dtype(denoise, small):
    plain = torch.from_numpy(small).permute(2, 0, 1)
    exact = denoise(plain.float() / 255)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        restored = denoise((plain.float() / 255).to(dtype))
        assert restored.dtype == dtype
        assert (restored.float() - exact).abs().max() < 0.05


MASKS = {
    "bool": lambda m: m,
    "0/1": lambda m: m.astype(np.uint8),
    "0/255": lambda m: m.astype(np.uint8) * 255,
    "float": lambda m: m.astype(np.float32),
    "int64": lambda m: m.astype(np.int64),
    "uint16": lambda m: m.astype(np.uint16) * 65535,
    "rgb": lambda m: np.repeat(m[..., None], 3, -1).astype(np.uint8) * 255,
    "pil 1": lambda m: PIL.Image.fromarray(m.astype(np.uint8) * 255).convert("1"),
    "pil": lambda m: PIL.Image.fromarray(m.astype(np.uint8) * 255),
    "tensor": lambda m: torch.from_numpy(m)[None],
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind(kind, inpaint, small, tmp_path):
    mask = np.zeros(small.shape[:2], bool)
    mask[10:16, 5:50] = True
    expected = inpaint(small, mask)
    assert np.array_equal(expected[~mask], small[~mask])
    assert not np.array_equal(expected[mask], small[mask])
    assert np.array_equal(inpaint(small, MASKS[kind](mask)), expected)
    if kind == "pil":
        MASKS["pil"](mask).save(tmp_path / "mask.png")
        assert np.array_equal(inpaint(small, tmp_path / "mask.png"), expected)
        other = np.roll(mask, 5, axis=0)
        first, second = inpaint([small, small], [mask, other])
        assert np.array_equal(first, expected)
        assert np.array_equal(second, inpaint(small, other))


def test_hints_as_a_pillow_picture(small, tiny):
    colorize = package.load("colorize", str(tiny("colorize")), device="cpu", precision="fp32")
    hints = np.zeros((*small.shape[:2], 4), np.uint8)
    hints[10:14, 10:14] = (200, 30, 30, 255)
    gray = PIL.Image.fromarray(small).convert("L")
    told = np.asarray(colorize(gray, hints=PIL.Image.fromarray(hints)))
    assert np.array_equal(told, colorize(np.asarray(gray), hints=hints))
    assert not np.array_equal(told, np.asarray(colorize(gray)))


def refused(call, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_what_does_not_fit_is_refused_with_the_fix(denoise, inpaint, small):
    mask = np.zeros(small.shape[:2], np.uint8)
    refused(lambda: denoise(small.astype(np.float32)), "reach", "white is 1", "divide by 255")
    refused(lambda: denoise(torch.from_numpy(small).float().permute(2, 0, 1)), "divide by 255")
    refused(lambda: denoise(np.moveaxis(small, -1, 0)), "(3, 40, 56)", "np.moveaxis(x, 0, -1)")
    refused(lambda: denoise(small[None]), "list(array)")
    refused(lambda: denoise(torch.from_numpy(small)), "x.permute(2, 0, 1)")
    refused(lambda: denoise(torch.from_numpy(small[..., 0])), "x[None]")
    refused(lambda: denoise(torch.zeros(0, 3, 8, 8)), "(0, 3, 8, 8)", "no picture")
    refused(lambda: denoise(3), "int is no picture", "a path")
    refused(lambda: denoise(small, mask), "takes no mask")
    refused(lambda: inpaint(small, hints=np.dstack([small, mask])), "no hints")
    refused(lambda: inpaint(small, mask + 3), "marks nothing")
    refused(lambda: inpaint(small, mask.astype(np.float32) + 255), "covers the whole picture")
    refused(lambda: inpaint(small, mask[1:]), "does not fit")
    refused(lambda: inpaint(small, mask[:, 0]), "(H,W)")
    refused(lambda: inpaint([small, small], [np.eye(*mask.shape, dtype=np.uint8)]), "fewer masks")


def test_floating_point_stays_within_the_range(denoise, small):
    noisy = small / np.float32(255) + np.random.default_rng(0).normal(0, 0.2, small.shape).astype(np.float32)
    free = denoise(noisy, clip=False)
    assert free.min() < 0 or free.max() > 1
    assert np.array_equal(denoise(noisy), np.clip(free, 0, 1))


def test_find(inpaint, denoise):
    """Bars are found with confidence, and what is found is what is restored."""
    shipped = package.load("inpaint", device="cpu")
    covered = read_image(Path(__file__).parents[1] / "samples" / "covered" / "coffee.png")
    mask, confidence = shipped.find(covered)
    assert mask.dtype == bool
    assert 0.01 < mask.mean() < 0.5
    assert confidence > 0.9
    clean = read_image(Path(__file__).parents[1] / "samples" / "clean" / "coffee.png")
    nothing, _ = shipped.find(PIL.Image.fromarray(clean.pixels))
    assert not nothing.any()
    with pytest.raises(UsageError, match="only inpaint and dewatermark look for damage"):
        denoise.find(clean)


def test_frames(denoise, small):
    frames = [np.roll(small, shift, 1) for shift in range(3)]
    restored = list(denoise.frames(iter(frames)))
    assert len(restored) == 3
    assert all(np.array_equal(one, denoise(frame)) for one, frame in zip(restored, frames, strict=True))
    refused(lambda: list(denoise.frames([small, small[1:]])), "frame 1")


def test_a_notebook_shows_a_picture(small):
    from io import BytesIO

    shown = PIL.Image.open(BytesIO(Image(small)._repr_png_()))
    assert np.array_equal(np.asarray(shown), small)
    deep = PIL.Image.open(BytesIO(Image(np.full((3000, 20, 1), 65535, np.uint16))._repr_png_()))
    assert (deep.mode, deep.size) == ("L", (10, 1500))
    assert np.asarray(deep).min() == 255


def test_parts_of_one_array_are_joined_without_a_copy(small):
    whole = np.dstack([small[:40, :40], small[:40, :40, 0]])
    assert Image(whole[..., :3], whole[..., 3]).array is whole
    turned = whole.swapaxes(0, 1)
    assert np.array_equal(Image(turned[..., :3], turned[..., 3]).array, turned)
    assert np.array_equal(Image(whole[..., :3], whole[..., 0]).array, whole[..., [0, 1, 2, 0]])
