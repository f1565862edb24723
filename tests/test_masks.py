"""Masks as files: which belongs to which picture, what is saved, and what a picture without damage becomes."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from folder_tools import files_in, pixels

import restore as package
from restore.cli import app, restoring
from restore.errors import UsageError
from restore.folders.compute_queue import PerPicture
from restore.folders.devices import Prepared
from restore.folders.masks import MaskPaths, mask_outputs, match_masks, read_mask
from restore.folders.names import Naming
from restore.folders.pipeline import FilePipeline, WriteOptions
from restore.folders.plan import Job, plan
from restore.folders.watch import watch
from restore.images import Image, encode_image, read_image, write_image
from restore.images.masks import as_mask
from restore.inference.restored import Restored
from restore.metrics import masked_psnr
from restore.tasks import TASKS
from restore.tasks.mask_detection import dilate

NAMING = Naming("inpainted")
SIZE = (40, 56)


def hole(top: int = 5, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H,W) bool with a square hole."""
    mask = np.zeros(size, bool)
    mask[top : top + 6, 10:20] = True
    return mask


def spoilt(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], np.uint8(255), picture)


def save(path: str | Path, array: np.ndarray, **about: object) -> bytes:
    """(H,W) or (H,W,C) written to `path`; the bytes of the file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image(np.zeros((1, 1, 1), np.uint8)).with_array(array)
    write_image(replace(image, **about), path, overwrite=True)
    return path.read_bytes()


def save_mask(path: str | Path, mask: np.ndarray) -> bytes:
    return save(path, mask.astype(np.uint8) * np.uint8(255))


def find(image: Image, mask: np.ndarray | None) -> np.ndarray:
    """White is damage, unless a mask says more."""
    found = (image.pixels == 255).all(axis=-1) if mask is None else mask
    if found.shape != image.pixels.shape[:2]:
        raise UsageError(f"a mask of {found.shape[::-1]} does not fit")
    if mask is not None and not found.any():
        raise UsageError("the mask marks nothing")
    if found.all():
        raise UsageError("the mask covers the whole picture, which leaves nothing to fill it from")
    return found


def filling(image: Image, mask: np.ndarray | None) -> Restored:
    """A task that needs no network: what is white becomes black."""
    found = find(image, mask)
    painted = np.where(found[..., None], np.uint8(0), image.pixels)
    return Restored(replace(image, pixels=painted), found, not found.any())


def examining(image: Image, mask: np.ndarray | None) -> Restored:
    found = find(image, mask)
    return Restored(image, found, not found.any())


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def inpaint(here, monkeypatch) -> Callable[..., None]:
    """The command, with `filling` for its network; `code` is the exit code."""

    def prepare(task, model, options, dry_run, device, processes) -> Prepared:
        return Prepared(PerPicture(examining if dry_run else filling), "paper")

    monkeypatch.setattr(restoring, "prepare", prepare)

    def call(*arguments: object, code: int = 0) -> None:
        before = files_in("in") if os.path.isdir("in") else {}
        assert app.run(["inpaint", *map(str, arguments)]) == code, arguments
        assert before.items() <= (files_in("in") if before else {}).items()

    return call


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    """The lines of --json, by input."""
    return {line["input"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def album() -> dict[str, np.ndarray]:
    """`in` with pictures that have a hole each, elsewhere; the masks of these, by name without suffix."""
    masks = {}
    for number, name in enumerate(("z.png", "a.png", "sub/a.png", "sub/b c ü.webp", "sub/deep/a.png")):
        mask = hole(3 * number)
        save(Path("in", name), spoilt(pixels(number, *SIZE) // 2, mask))
        masks[os.path.splitext(name)[0]] = mask
    return masks


def test_masks_belong_by_path_and_stem(inpaint, capsys):
    """In any format; neither the order of the files nor what else lies there matters."""
    masks = album()
    for name, mask in masks.items():
        Path("masks", name).parent.mkdir(parents=True, exist_ok=True)
        suffix = {"z": ".bmp", "sub/a": ".webp", "a": ".jpg"}.get(name, ".png")
        save(Path("masks", name + suffix), mask.astype(np.uint8) * np.uint8(255), lossless=True)
    save_mask("masks/0 first.png", hole(30))
    save_mask("masks/sub/deep/0.png", hole(30))
    inpaint("in", "out", "-r", "--mask", "masks", "--save-mask", "saved", "-q")
    for name, mask in masks.items():
        saved = read_mask(Path("saved", name + ".png"))
        assert np.array_equal(saved, mask), name
        assert set(np.unique(cv2.imread(f"saved/{name}.png", cv2.IMREAD_UNCHANGED))) == {0, 255}
    for name in ("z.png", "a.png", "sub/a.png", "sub/deep/a.png"):
        painted = read_image(Path("out", name)).pixels
        mask = masks[name[:-4]]
        assert (painted[mask] == 0).all()
        assert np.array_equal(painted[~mask], read_image(Path("in", name)).pixels[~mask])
    assert len(files_in("saved")) == len(masks)
    inpaint("in/sub/a.png", "one.png", "--mask", "masks/sub")
    assert Path("one.png").read_bytes() == Path("out/sub/a.png").read_bytes()
    inpaint("in/sub/a.png", "two.png", "--mask", "masks/sub/a.webp")
    assert Path("two.png").read_bytes() == Path("out/sub/a.png").read_bytes()
    inpaint("in/**/*.png", "globbed", "--mask", "masks", "-q")
    assert files_in("globbed") == {name: data for name, data in files_in("out").items() if name.endswith("png")}


def test_saved_masks_are_masks_again(inpaint):
    """Also for several inputs, and for two pictures of one stem."""
    album()
    save("in/a.jpg", spoilt(pixels(9, *SIZE) // 2, hole(20)), quality=95)
    inpaint("-i", "in", "-i", "in/sub", "-o", "out", "--save-mask", "saved", "-q")
    assert set(files_in("saved")) == {
        "in/z.png", "in/a.png.png", "in/a.jpg.png", "sub/a.png", "sub/b c ü.png",
    }  # fmt: skip
    inpaint("-i", "in", "-i", "in/sub", "-o", "again", "--mask", "saved", "-q")
    assert files_in("again") == files_in("out")


def test_case_and_accents(here):
    """A name that fits exactly comes first; one that fits as macOS and Windows see it, where only one picture does."""
    for name in ("A.png", "a.png", "é.png", "B.png", "C.png"):
        save_mask(Path("masks", name), hole())
    names = [Path(name) for name in ("a.jpg", "A.webp", "e\u0301.jpg", "b.png", "c.png", "C.jpg")]
    found = [mask and mask.name for mask, _ in match_masks(names, Path("masks"))]
    assert found == ["a.png", "A.png", "é.png", "B.png", None, "C.png"]


@pytest.mark.parametrize(
    ("name", "scale", "dtype"),
    [("m.png", 1, np.uint8), ("m.png", 257, np.uint16), ("m.tif", 257, np.uint16), ("m.tif", 1 / 255, np.float32)],
)
def test_over_127_is_a_hole_in_every_depth(here, name, scale, dtype):
    values = np.array([[0, 1, 127, 0, 0, 0, 0, 128, 254, 255]], np.float64) * scale
    save(name, values.astype(dtype))
    assert read_mask(Path(name)).tolist() == [[False] * 7 + [True] * 3]


def disc() -> np.ndarray:
    """(40,56) float32, 1 inside and 0 outside of a disc, with a soft edge."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.clip(9.5 - np.hypot(y - 20, x - 25), 0, 1).astype(np.float32)


@pytest.mark.parametrize("kind", ["white", "black", "red", "erased", "ones", "sixteen", "boolean", "gray alpha"])
def test_masks_as_people_make_them(kind, here):
    """Painted on black, painted in any colour on transparency, erased from the picture; with soft edges or without."""
    level, photo = np.rint(255 * disc()).astype(np.uint8), pixels(2, *SIZE)
    clear = np.zeros((*SIZE, 3), np.uint8)
    array = {
        "white": level,
        "black": np.dstack([clear, level]),
        "red": np.dstack([clear + np.array([255, 0, 0], np.uint8), level]),
        "erased": np.dstack([photo, 255 - level]),
        "ones": (level > 16).astype(np.uint8),
        "sixteen": level.astype(np.uint16) * np.uint16(257),
        "boolean": level > 16,
        "gray alpha": np.dstack([np.zeros(SIZE, np.uint8), level]),
    }[kind]
    assert np.array_equal(as_mask(array), disc() > 1 / 16)
    if kind != "boolean":
        save("m.png", array)
        assert np.array_equal(read_mask(Path("m.png")), disc() > 1 / 16)


def test_masks_of_programs():
    """Floats, integers of any size and pictures of Pillow; nothing else."""
    expected = disc() > 1 / 16
    level = np.where(expected, 255, 0).astype(np.uint8)
    for made in (disc(), disc() * 255, disc()[..., None], (level > 0).astype(np.int64), level.astype(np.int64)):
        assert np.array_equal(as_mask(made), expected)
    for mode in ("1", "L", "P", "RGB", "I;16"):
        picture = PIL.Image.fromarray(level > 0 if mode == "1" else np.where(level > 0, 255, 0).astype(np.uint8))
        if mode == "I;16":
            picture = PIL.Image.fromarray((level > 0).astype(np.uint16) * np.uint16(65535))
        assert np.array_equal(as_mask(picture if mode in ("1", "I;16") else picture.convert(mode)), expected), mode
    for wrong in ([[1]], np.zeros((2, 2, 5)), np.array(["a"]), np.zeros((0, 3)), None):
        with pytest.raises(UsageError, match="mask"):
            as_mask(wrong)


def test_what_was_erased_of_a_picture_is_its_mask(tmp_path, monkeypatch, capsys, tiny):
    """`--mask` names the picture itself; what is painted is opaque again."""
    monkeypatch.chdir(tmp_path)
    picture = np.dstack([pixels(2, *SIZE), np.where(disc() > 0.5, 0, 255).astype(np.uint8)])
    save("holed.png", picture)
    arguments = ["--mask", "holed.png", "-m", str(tiny("inpaint")), "--device", "cpu"]
    assert app.run(["inpaint", "holed.png", "out.png", *arguments]) == 0
    out = read_image(Path("out.png"))
    assert out.alpha.min() == 255
    assert np.array_equal(out.pixels[disc() < 0.5], picture[..., :3][disc() < 0.5])
    save("holed.png", picture[..., :3])
    assert app.run(["inpaint", "holed.png", "again.png", *arguments]) == 1
    assert "is no mask of itself: nothing of it is transparent" in capsys.readouterr().err


def test_a_mask_of_most_of_the_picture_is_questioned(tiny, photo):
    restorer = package.load("inpaint", str(tiny("inpaint")), device="cpu")
    mask = np.ones(photo.shape[:2], bool)
    mask[:100] = False
    assert "the mask covers 67 % of the picture; is it inverted?" in restorer.examine(Image(photo), mask).note
    assert not restorer.examine(Image(photo), ~mask).note
    with pytest.raises(UsageError, match="marks nothing"):
        restorer(photo, mask=mask & False)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_a_mask_may_be_painted_loosely_over_a_mark(name):
    """What surrounds the marks stays as it was, and they are removed about as well as by a tight mask."""
    clean, marked = (read_image(ROOT / "samples" / kind / f"{name}.png").pixels for kind in ("clean", "marked"))
    tight = (clean != marked).any(-1)
    loose = dilate(tight, 8)
    restorer = package.load("dewatermark", device="cpu")
    examined = restorer.examine(Image(marked), loose)
    found = examined.mask
    assert not (found & ~loose).any()
    left = 100 * (loose & ~found).sum() / loose.sum()
    said = f"the mask is wider than what was found in it: {left:.0f} % of it is left unchanged"
    inverted = f"; the mask covers {100 * loose.mean():.0f} % of the picture; is it inverted?"
    assert examined.note == said + (inverted if loose.mean() > 0.5 else "")
    assert found.sum() < 1.3 * tight.sum() < 0.8 * loose.sum()
    by_tight, by_loose = (restorer(marked, mask=mask) for mask in (tight, loose))
    assert np.array_equal(by_loose[~found], marked[~found])
    assert masked_psnr(by_loose, clean, tight) > masked_psnr(by_tight, clean, tight) - 4
    by_all = restorer.examine(Image(marked), tight)
    assert np.array_equal(by_all.mask, tight) and "wider" not in by_all.note


def test_a_loose_mask_over_a_small_mark_in_a_large_picture():
    """What is looked at is the mask and what surrounds it."""
    clean, marked = (read_image(ROOT / "samples" / kind / "astronaut.png").pixels for kind in ("clean", "marked"))
    tight = (clean != marked).any(-1)
    restorer = package.load("dewatermark", device="cpu")
    alone = restorer.examine(Image(marked), dilate(tight, 8)).mask
    large, mask = np.tile(clean, (3, 4, 1)), np.zeros((3 * 512, 4 * 512), bool)
    large[512:1024, 512:1024], mask[512:1024, 512:1024] = marked, tight
    found = restorer.examine(Image(large), dilate(mask, 8)).mask
    assert (found[512:1024, 512:1024] & alone).sum() > 0.95 * max(alone.sum(), found.sum())


def test_a_mask_is_turned_upright_as_its_picture_is(here):
    mask = hole()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = encode_image(Image(np.rot90(mask)[..., None].astype(np.uint8) * np.uint8(255)), "jpeg", quality=100)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    Path("m.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_mask(Path("m.jpg")).shape == mask.shape
    assert (read_mask(Path("m.jpg")) == mask).mean() > 0.99


def test_what_is_wrong_with_a_mask_fails_its_picture_alone(inpaint, capsys):
    for name in ("good", "none", "twice", "small", "whole", "broken", "missing"):
        save(f"in/{name}.png", pixels(1, *SIZE) // 2)
    save_mask("masks/good.png", hole())
    save_mask("masks/none.png", hole() & False)
    save_mask("masks/twice.png", hole())
    save_mask("masks/twice.jpg", hole())
    save_mask("masks/small.png", hole(5, (39, 56)))
    save_mask("masks/whole.png", hole() | True)
    Path("masks/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save_mask("masks/sub/missing.png", hole())
    inpaint("in", "out", "--mask", "masks", "--json", code=1)
    captured = capsys.readouterr()
    lines = {line["input"][3:-4]: line for line in map(json.loads, captured.out.splitlines())}
    assert {name for name, line in lines.items() if line["status"] == "failed"} == {
        "none", "twice", "small", "whole", "broken", "missing",
    }  # fmt: skip
    for name, says in {
        "twice": "twice.jpg and twice.png in masks may both be its mask",
        "none": "the mask marks nothing",
        "small": "does not fit",
        "whole": "covers the whole picture, which leaves nothing to fill it from",
        "broken": "masks/broken.png: ",
        "missing": "has no mask: none is called 'missing' in masks",
    }.items():
        assert says in lines[name]["error"], name
        assert f"failed: in/{name}.png: {lines[name]['error']}" in captured.err
    assert (lines["good"]["status"], lines["good"]["mask_share"]) == ("restored", round(60 / 2240, 6))
    assert set(files_in("out")) == {"good.png"}


def test_two_pictures_of_one_stem_need_masks_of_their_own(inpaint, capsys):
    for name in ("a.png", "a.bmp"):
        save(f"in/{name}", pixels(1, *SIZE) // 2)
    save_mask("masks/a.webp", hole())
    inpaint("in", "out", "--mask", "masks", code=1)
    assert "failed: in/a.bmp: other pictures are called 'a' too; call its mask 'a.bmp.png'" in capsys.readouterr().err
    assert not os.path.exists("out")
    save_mask("masks/a.bmp.png", hole())
    save_mask("masks/a.png.tif", hole())
    inpaint("in", "out", "--mask", "masks")
    assert set(files_in("out")) == {"a.png", "a.bmp"}


def test_wrong_calls_write_nothing(inpaint, capsys, monkeypatch):
    album()
    shutil.copy("in/a.png", "picture.png")
    save_mask("mask.png", hole())
    save_mask("masks/a.png", hole())
    Path("empty").mkdir()
    Path("notes.txt").write_text("no folder")
    before = files_in(".")
    for wrong, says in {
        ("in", "--mask", "nowhere"): "--mask nowhere: no such file or folder; name a mask, or a folder of masks",
        ("in", "--mask", "empty"): "--mask empty: no pictures here",
        ("in", "--mask", "mask.png"): "--mask mask.png: is one mask, and there are several pictures",
        ("in/sub", "--watch", "--mask", "mask.png"): "is one mask",
        ("in", "--mask", "in"): "in: holds the pictures; give masks a folder of their own",
        ("in", "--save-mask", "in"): "in: holds the pictures",
        ("in/*.png", "--save-mask", "in"): "in: holds the pictures",
        ("picture.png", "--save-mask", "."): "picture.png: is an input, and inputs are never written over",
        ("picture.png", "mask.png", "--mask", "mask.png", "-k"): "mask.png: is an input",
        ("in", "--mask", "masks", "--save-mask", "masks"): "--mask and --save-mask are both masks",
        ("in", "out", "--save-mask", "out"): "out/a.png: a picture goes there; give another --save-mask",
        ("in", "out", "--save-mask", "./out/../out"): "a picture goes there",
        ("in", "--save-mask", "notes.txt"): "notes.txt: is not a folder",
        ("in/a.png", "out.png", "--save-mask", "masks"): "masks/a.png exists",
        ("in/a.png", "--dry-run", "--save-mask", "masks"): "masks/a.png exists",
        ("-", "out.png", "--mask", "masks"): "a picture from stdin has no name; give a file",
    }.items():
        inpaint(*wrong, code=2)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, wrong
        assert says in lines[0], wrong
    assert files_in(".") == before


def test_folders_of_masks_are_no_pictures(inpaint, capsys):
    """Below the input, as people keep them."""
    masks = album()
    for name, mask in masks.items():
        save_mask(Path("in/masks", name + ".png"), mask)
    inpaint("in", "out", "-r", "--mask", "in/masks", "--save-mask", "in/saved")
    assert set(files_in("out")) == {"z.png", "a.png", "sub/a.png", "sub/b c ü.webp", "sub/deep/a.png"}
    assert "left out" not in capsys.readouterr().err
    inpaint("in", "again", "-r", "--mask", "in/masks", "--save-mask", "in/saved", "--overwrite", "-q")
    assert files_in("again") == files_in("out")


def test_a_dry_run_writes_nothing_but_masks(inpaint, capsys):
    masks = album()
    save("in/clean.png", pixels(7, *SIZE) // 2)
    Path("in/broken.png").write_bytes(b"broken")
    os.mkdir("in.inpainted")  # outputs that are there do not matter
    shutil.copy("in/a.png", "in.inpainted/a.png")
    before = files_in(".")
    inpaint("in", "-r", "--dry-run", code=1)
    err = capsys.readouterr().err
    assert files_in(".") == before
    assert "in/a.png: 2.7 % of it would be restored" in err.splitlines()
    assert "in/clean.png: nothing found" in err.splitlines()
    assert "6 examined, 0 skipped, 1 failed in" in err
    inpaint("in", "-r", "--dry-run", "--save-mask", "found", "--json", code=1)
    lines = told(capsys)
    assert lines["in/a.png"]["mask_share"] == round(60 / 2240, 6)
    assert lines["in/a.png"]["output"] is None
    assert lines["in/clean.png"]["note"] == "nothing found"
    assert {line["status"] for line in lines.values()} == {"examined", "failed"}
    after = files_in(".")
    assert after.keys() - before.keys() == {f"found/{name}.png" for name in (*masks, "clean")}
    assert not read_mask(Path("found/clean.png")).any()
    inpaint("in/a.png", "--dry-run", "-q", "--mask", "found")
    assert capsys.readouterr().err == ""
    assert files_in(".") == after


def test_what_is_there_is_left_or_replaced(inpaint, capsys):
    masks = album()
    inpaint("in", "out", "-r", "--save-mask", "saved", "-q")
    first = files_in(".")
    os.unlink("out/a.png")
    os.unlink("out/z.png")
    os.unlink("saved/z.png")
    Path("saved/a.png").write_bytes(b"mine")
    inpaint("in", "out", "-r", "--save-mask", "saved", "-k", "--json")
    statuses = {name: line["status"] for name, line in told(capsys).items()}
    assert {name for name, status in statuses.items() if status == "restored"} == {"in/a.png", "in/z.png"}
    assert files_in(".") == {**first, "saved/a.png": b"mine"}
    inpaint("in", "-r", "--dry-run", "--save-mask", "saved", "-k", "--json")
    assert {line["status"] for line in told(capsys).values()} == {"skipped"}
    Path("saved/a.png").write_bytes(b"")  # what a power cut leaves
    inpaint("in", "-r", "--dry-run", "--save-mask", "saved", "-k", "--json")
    assert told(capsys)["in/a.png"]["status"] == "examined"
    assert files_in(".") == first
    Path("saved/a.png").write_bytes(b"mine")
    inpaint("in", "out", "-r", "--save-mask", "saved", "--overwrite", "-q")
    assert files_in(".") == first
    assert len(masks) == len(files_in("saved"))


def test_where_nothing_is_found_the_bytes_are_copied(inpaint, capsys):
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x02\0\0\0\x06\0\0\0\x1a\0\0\0\0hello\0"
    clean = pixels(3, *SIZE) // 2
    data = {
        "a.png": save("in/a.png", clean, exif=exif) + b"what follows the end",
        "b.jpg": save("in/b.jpg", clean, exif=exif, quality=60),
    }
    Path("in/a.png").write_bytes(data["a.png"])
    save("in/really.png", clean)
    os.rename(write_image(Image(clean), Path("in/x.jpg")), "in/jpeg.png")  # the name lies: so it is written anew
    inpaint("in", "out")
    err = capsys.readouterr().err
    assert {name: files_in("out")[name] for name in data} == data
    assert "in/b.jpg: nothing found, copied" in err.splitlines()
    assert "in/jpeg.png: nothing found" in err.splitlines()
    assert read_image(Path("out/jpeg.png")).format == "png"
    assert "1 restored, 3 copied, 0 skipped, 0 failed" in err
    inpaint("in/b.jpg", "in/a.png", "-o", "other", "--ext", "webp", "-q")
    inpaint("in/b.jpg", "-o", "bare.jpg", "--strip-metadata")
    inpaint("in/b.jpg", "-o", "low.jpg", "--quality", 30)
    assert "in/b.jpg: nothing found" in capsys.readouterr().err.splitlines()
    assert set(files_in("other")) == {"b.webp", "a.webp"}
    assert read_image(Path("bare.jpg")).exif is None
    assert os.path.getsize("low.jpg") < len(data["b.jpg"])
    shutil.copy("in/b.jpg", "changes.jpg")
    inpaint("changes.jpg", "copy.jpeg", "-q")
    assert Path("copy.jpeg").read_bytes() == data["b.jpg"]


def test_a_note_of_the_task_replaces_the_words(here, capsys, monkeypatch):
    save("in/a.png", pixels(3, *SIZE))
    save("in/b.png", pixels(4, *SIZE))

    def coloured(image: Image, mask: np.ndarray | None) -> Restored:
        return Restored(image, np.zeros(SIZE, bool), True, "has colours already")

    monkeypatch.setattr(restoring, "prepare", lambda *_: Prepared(PerPicture(coloured), "paper"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # beside the progress bar
    assert app.run(["inpaint", "in", "out"]) == 0
    assert "in/a.png: has colours already, copied\n" in capsys.readouterr().err
    assert app.run(["inpaint", "in", "out", "--overwrite", "--json"]) == 0
    assert told(capsys)["in/b.png"]["note"] == "has colours already, copied"


def test_streams(inpaint, capsysbinary, monkeypatch):
    mask = hole()
    data = save("in/a.png", pixels(3, *SIZE) // 2)
    save_mask("mask.png", mask)

    def call(*arguments: object) -> bytes:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data + b"tail")))
        inpaint("-", *arguments)
        return capsysbinary.readouterr().out

    assert call() == data + b"tail"  # nothing found
    painted = call("--mask", "mask.png")
    assert (read_image(painted).pixels[mask] == 0).all()
    assert call("--mask", "mask.png", "--dry-run", "--save-mask", "saved") == b""
    assert np.array_equal(read_mask(Path("saved/stdin.png")), mask)
    call("out.png", "--mask", "mask.png")
    assert Path("out.png").read_bytes() == painted


def test_watching_waits_for_a_mask(here, monkeypatch):
    """A picture that came before its mask fails, and is restored when that is there."""
    monkeypatch.setattr("restore.folders.watch.RETRY_AFTER", 0.3)
    save("in/a.png", pixels(1, *SIZE) // 2)
    save_mask("masks/b.png", hole())
    places = MaskPaths(Path("masks"), Path("saved"))

    def find_jobs() -> list[Job]:
        return plan(["in"], "out", NAMING, allow_empty=True, masks=places).jobs

    seen: list[str] = []
    until = time.monotonic() + 30
    with FilePipeline(PerPicture(filling), WriteOptions(skip_existing=True)) as pipeline:
        for outcome in watch(find_jobs, pipeline, interval=0.1):
            if outcome is not None:
                seen.append(outcome.status)
                if outcome.error:
                    save_mask("masks/a.png", hole())
                else:
                    break
            assert time.monotonic() < until
    assert seen == ["failed", "restored"]
    assert np.array_equal(read_mask(Path("saved/a.png")), hole())


def test_no_two_masks_go_to_one_file(here):
    names = [Path(name) for name in ("a.png", "A.jpg", "sub/a.png", "a.png.tif", "b")]
    saved = mask_outputs(names, Path("saved"))
    assert len({str(path).lower() for path in saved}) == len(names)
    assert saved[2:] == [Path("saved/sub/a.png"), Path("saved/a.png.png"), Path("saved/b.png")]


def test_a_mask_that_cannot_be_written_fails_its_picture(inpaint, capsys, monkeypatch):
    album()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != Path("shut"))  # root may write anywhere
    inpaint("in/a.png", "out.png", "--save-mask", "shut", code=1)
    assert "failed: in/a.png: shut: no permission to write there" in capsys.readouterr().err
    assert not os.path.exists("out.png")


masked = pytest.mark.parametrize("task", sorted(name for name, spec in TASKS.items() if spec.masks))


@masked
def test_the_tasks_themselves(task, here, tiny, photo, capsys):
    """With random weights: outside of a given mask nothing changes, and an empty one is an error."""
    save("in/a.png", photo[:96, :120])
    for name in ("b", "whole", "small"):
        save(f"in/{name}.png", photo[:96, :120])
    mask = hole(40, (96, 120))
    save_mask("masks/a.png", mask & False)
    save_mask("masks/b.png", mask)
    save_mask("masks/whole.png", mask | True)
    save_mask("masks/small.png", hole())
    model = [task, "in", "-m", str(tiny(task)), "--device", "cpu"]
    failing = {"in/a.png", "in/small.png"} | ({"in/whole.png"} if task == "inpaint" else set())
    assert app.run([*model, "-o", "out", "--mask", "masks", "--save-mask", "saved", "--json"]) == 1
    lines = told(capsys)
    assert {name for name, line in lines.items() if line["error"]} == failing
    assert "a mask of 56x40 does not fit a picture of 120x96" in lines["in/small.png"]["error"]
    if task == "inpaint":
        assert "covers the whole picture, which leaves nothing to fill it from" in lines["in/whole.png"]["error"]
    assert "the mask marks nothing" in lines["in/a.png"]["error"] and not Path("out/a.png").exists()
    assert np.array_equal(read_mask(Path("saved/b.png")), mask)
    painted = read_image(Path("out/b.png")).pixels
    assert np.array_equal(painted[~mask], photo[:96, :120][~mask])
    assert not np.array_equal(painted[mask], photo[:96, :120][mask])
    before = files_in(".")
    assert app.run([*model, "--dry-run", "--mask", "masks/b.png"]) == 2
    assert app.run([model[0], "in/b.png", *model[2:], "--dry-run", "--mask", "masks/b.png"]) == 0
    assert "in/b.png: 0.5 % of it would be restored" in capsys.readouterr().err
    assert files_in(".") == before


@masked
def test_corrupt_saves_the_mask_of_the_damage(task, here, photo):
    save("in/a.png", photo[:200, :240])
    save("in/sub/b.png", photo[100:, 100:])
    assert app.run(["corrupt", task, "in", "out", "-r", "-q", "--save-mask", "masks"]) == 0
    assert set(files_in("masks")) == set(files_in("out")) == {"a.png", "sub/b.png"}
    for name in ("a.png", "sub/b.png"):
        mask = read_mask(Path("masks", name))
        changed = (read_image(Path("out", name)).pixels != read_image(Path("in", name)).pixels).any(axis=-1)
        assert mask.any()
        assert not (changed & ~mask).any()


def test_flags_of_masks_are_where_they_do_something(capsys):
    assert app.run(["denoise", "a.png", "--mask", "b.png"]) == 2
    assert app.run(["corrupt", "denoise", "a.png", "b.png", "--save-mask", "c"]) == 2
    assert capsys.readouterr().err.count("No such option") == 2
