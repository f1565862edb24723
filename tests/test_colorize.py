"""Colorizing: which pictures, the luma that stays, the edges that colours follow."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest
import skimage.color
import skimage.data
import torch
import torch.nn.functional as F
import torchvision

import restore as package
from restore.colour import has_colours, luma_of, to_lab
from restore.errors import UsageError
from restore.images import Image
from restore.inference.restorer import Restorer
from restore.metrics import colorfulness
from restore.models import build
from restore.models.ab_cells import ab_centres, cells_of
from restore.models.pretrained_unet import DISTRIBUTION, LOGIT_CELL
from restore.pixels import luma, to_dtype, to_float, white
from restore.tasks.base import Picture, restore_whole
from restore.tasks.colorize import SIDES, TASK, ColorizeHead, average_logits, rebalancing_weight
from restore.tasks.losses import mse
from restore.tasks.monochrome import ANALYSED, COLOURED_SHARE, GRAY_TOLERANCE, LONGEST, analysed_size, shrunk_luma
from restore.tasks.objective import RestorationObjective
from restore.tasks.spec import ColorizeOptions

SPACING = 12


class Painted:
    """A `Predictor` whose network is sure of any a*b* that one asks for."""

    def __init__(self, a: object, b: object) -> None:
        self.given = [np.atleast_2d(np.asarray(values, np.float32)) for values in (a, b)]
        self.mirrored = False  # each picture is looked at twice, at each of `SIDES`
        self.seen: list[torch.Tensor] = []

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        assert stage == DISTRIBUTION
        values = [cv2.resize(one, planes.shape[:0:-1], interpolation=cv2.INTER_LINEAR) for one in self.given]
        if self.mirrored:
            values = [np.ascontiguousarray(v[:, ::-1]) for v in values]
        else:
            self.seen.append(planes)
        self.mirrored = not self.mirrored
        ab = F.avg_pool2d(torch.from_numpy(np.stack(values)), LOGIT_CELL, ceil_mode=True)[None]
        cells, shares = cells_of(ab, SPACING)
        centres = torch.from_numpy(ab_centres(SPACING))
        logits = torch.full((1, len(centres), *ab.shape[-2:]), -60.0).scatter_(1, cells, (shares + 1e-20).log())
        return logits[0] + (rebalancing_weight(centres.norm(dim=1)).log())[:, None, None]

    def tiles(self, size, planes, stage=""):
        raise AssertionError("the whole picture is looked at in one piece")


def load(tiny, **options) -> Restorer:
    """Weights whose colours are strong enough to tell from gray."""
    options = {"device": "cpu", "precision": "fp32", "saturation": 2.0, **options}
    return package.load("colorize", str(tiny("colorize")), **options)


def painted(gray: np.ndarray, look: Painted, options: ColorizeOptions | None = None) -> np.ndarray:
    """(H,W) in the colours of `look`, as a float picture."""
    head, picture = ColorizeHead(), Picture.of(gray[..., None])
    context = head.context(head.analyse(picture, options or ColorizeOptions(), look), picture.window)
    planes = head.postprocess(torch.empty(0), picture.planes(), None if context is None else context[None])
    return planes[0].permute(1, 2, 0).numpy()


def gray_of(photo: np.ndarray) -> np.ndarray:
    return to_dtype(luma(to_float(photo)), photo.dtype)


# ---------------------------------------------------------------- which pictures


def encoded(picture: np.ndarray, kind: str) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, kind, quality=70)
    return np.asarray(PIL.Image.open(file).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_gray_files_in_colour_form_are_gray(kind, photo, tiny):
    gray = encoded(np.repeat(gray_of(photo)[..., None], 3, -1), kind)
    restorer = load(tiny)
    found = restorer.restore(Image(gray))
    assert not found.nothing
    assert not found.note
    assert colorfulness(found.image.pixels) > 5 > colorfulness(gray)


def test_a_scanner_leaves_gray_gray(photo):
    noise = np.random.default_rng(0).integers(-1, 2, photo.shape)
    scan = np.clip(gray_of(photo)[..., None].astype(int) + noise, 0, 255).astype(np.uint8)
    assert not has_colours(scan, GRAY_TOLERANCE, COLOURED_SHARE)
    assert not has_colours(scan.astype(np.uint16) * 257, GRAY_TOLERANCE, COLOURED_SHARE)
    assert not has_colours(scan.astype(np.float32) / 255, GRAY_TOLERANCE, COLOURED_SHARE)
    stamped = scan.copy()
    stamped[:20, :20] = (180, 30, 30)
    assert has_colours(stamped, GRAY_TOLERANCE, COLOURED_SHARE), "a small stamp is colour enough"


def test_a_sepia_print_is_gray(photo, tiny):
    """It is coloured as the gray picture of its luma is; a picture with colours in it is not one."""
    restorer = load(tiny)
    for tint in ([1.0, 0.9, 0.7], [0.95, 0.85, 0.65]):
        sepia = encoded(np.clip(gray_of(photo)[..., None] * np.array(tint), 0, 255).astype(np.uint8), "JPEG")
        assert has_colours(sepia, GRAY_TOLERANCE, COLOURED_SHARE)
        found = restorer.restore(Image(sepia))
        assert not found.nothing
        assert np.abs(luma(found.image.pixels) - luma(sepia)).max() <= 1
        alike = restorer(np.rint(luma(sepia)).astype(np.uint8))
        assert np.abs(found.image.pixels.astype(float) - alike).mean() < 1
    cold = np.clip(gray_of(photo)[..., None] * np.array([0.7, 0.9, 1.0]), 0, 255).astype(np.uint8)
    for kept in (photo, cold, skimage.data.coffee(), skimage.data.astronaut()):
        assert restorer.restore(Image(kept)).nothing


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_coloured_pictures_are_left_alone(dtype, photo, tiny):
    image = to_dtype(to_float(photo), dtype)
    found = load(tiny).restore(Image(image))
    assert np.array_equal(found.image.pixels, image)
    assert found.nothing
    assert "--force" in found.note
    forced = load(tiny, force=True).restore(Image(image))
    assert not forced.nothing
    assert not np.array_equal(forced.image.pixels, image)
    level = white(dtype) / 255 if dtype == "float32" else 1
    assert np.abs(luma(forced.image.pixels) - luma(image)).max() <= level
    gray = gray_of(image)
    assert np.abs(load(tiny)(gray) - forced.image.pixels.astype(float)).max() <= 2 * 257, (
        "colours of before play no part"
    )


# ---------------------------------------------------------------- luma, tiles, forms


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("ab", [(0, 0), (90, 70), (-80, 60), (70, -110), (1000, -1000)])
def test_luma_stays_within_a_level(dtype, ab):
    rng = np.random.default_rng(1)
    gray = rng.integers(0, int(white(dtype)) + 1, (60, 80)).astype(dtype)
    gray[:20] = 0
    gray[20:40] = white(dtype)
    coloured = to_dtype(painted(gray, Painted(*ab)), dtype)
    assert np.abs(luma(coloured) - gray).max() <= 1
    assert (coloured[:40] == gray[:40, :, None]).all(), "black and white have no colours"
    assert (np.ptp(coloured[40:].astype(int), axis=-1).max() > 20) == (ab != (0, 0))


def test_luma_stays_with_weights(tiny, photo):
    for dtype in ("uint8", "uint16"):
        gray = gray_of(to_dtype(to_float(photo), dtype))
        coloured = load(tiny)(gray)
        assert coloured.shape == (*gray.shape, 3)
        assert np.abs(luma(coloured) - gray).max() <= 1
        assert colorfulness(coloured) > 5


def test_floats_outside_the_range_are_gray(tiny, photo):
    gray = 2 * to_float(gray_of(photo)) - 0.5
    coloured = load(tiny)(gray, clip=False)
    outside = (gray < 0) | (gray > 1)
    assert outside.any()
    assert np.array_equal(coloured[outside], np.repeat(gray[outside][:, None], 3, -1))
    assert np.abs(luma(coloured) - gray).max() < 1e-5


@pytest.mark.parametrize("tile", [32, 50, 77])
def test_tiles_equal_the_whole(tile, tiny, photo):
    gray = to_float(gray_of(photo))
    assert np.array_equal(load(tiny, tile=tile)(gray), load(tiny, tile=4096)(gray))


def test_the_restorer_computes_what_the_definition_says(tiny, photo):
    restorer = load(tiny)
    gray = gray_of(photo)[..., None]
    plain = restore_whole(restorer.network, restorer.head, gray, restorer.options)
    assert np.array_equal(restorer(gray), to_dtype(plain, np.uint8))


# ---------------------------------------------------------------- what is looked at


def test_the_network_sees_the_whole_picture_at_a_bounded_size(photo):
    assert analysed_size(3000, 4000) == (ANALYSED, 256)
    assert analysed_size(20, 10) == (2 * ANALYSED, ANALYSED)
    assert analysed_size(1, 5000) == (ANALYSED, LONGEST * ANALYSED)
    look = Painted(0, 0)
    painted(gray_of(photo), look)
    assert len(look.seen) == len(SIDES)
    for side, seen in zip(SIDES, look.seen, strict=True):
        height, width = analysed_size(*photo.shape[:2], side)
        assert seen.shape == (1, height, -(-width // LOGIT_CELL) * LOGIT_CELL)
        assert 0 <= float(seen.min()) < float(seen.max()) <= 1


def test_all_looks_count_the_same():
    class Told:
        calls = 0

        def whole(self, planes, stage=""):
            self.calls += 1
            return torch.full((3, *(-(-side // LOGIT_CELL) for side in planes.shape[1:])), float(self.calls))

    found = average_logits(torch.rand(1, 256, 300), (256, 300), Told())
    assert found.shape == (3, 64, 75)
    torch.testing.assert_close(found, torch.full_like(found, (1 + 2 * len(SIDES)) / 2))


def test_shrinking_in_bands_is_shrinking(monkeypatch, photo):
    whole = cv2.resize(luma_of(to_float(photo)), analysed_size(*photo.shape[:2])[::-1], interpolation=cv2.INTER_AREA)
    monkeypatch.setattr("restore.tasks.monochrome.BAND_PIXELS", 5000)
    assert np.abs(shrunk_luma(Picture.of(photo)) - whole).max() < 1e-5


def test_saturation(photo, tiny):
    gray = gray_of(photo)
    assert np.array_equal(load(tiny, saturation=0)(gray), np.repeat(gray[..., None], 3, -1))
    pale, full = (colorfulness(load(tiny, saturation=s)(gray)) for s in (0.5, 1.0))
    assert 0 < pale < 0.7 * full
    with pytest.raises(UsageError, match="saturation"):
        load(tiny, saturation=3)


def test_colours_end_where_the_luma_does():
    """Red on the left, blue on the right, as a network sees it: blurred, and not quite in place."""
    height, width, edge = 768, 1024, 515  # 128.75 at the size of the network
    gray = np.full((height, width), 0.3, np.float32)
    gray[:, edge:] = 0.7
    blurred = np.clip((np.arange(256) - 127) / 4 + 0.5, 0, 1)  # from 0 to 1 over 4 pixels of the network, 16 of these
    coloured = painted(gray, Painted(30 - 60 * blurred, 20 - 50 * blurred))
    warmth = coloured[height // 2, :, 0] - coloured[height // 2, :, 2]
    left, right = warmth[400], warmth[700]
    assert left > 0.1 > -0.1 > right
    step = warmth[edge - 1] - warmth[edge]
    assert step > 0.5 * (left - right), "most of the change happens at the edge"
    plain = cv2.resize((30 - 60 * blurred)[None].astype(np.float32), (width, 1))[0]
    assert plain[edge - 1] - plain[edge] < 0.1 * (plain[400] - plain[700]), "where without a guide little would"


# ---------------------------------------------------------------- what a person says


def test_temperature(tiny, photo):
    """With these weights, which know nothing, a low one is bolder; refused outside its range."""
    gray = gray_of(photo)
    bold, mean = (colorfulness(load(tiny, temperature=t, saturation=1.0)(gray)) for t in (0.1, 1.0))
    assert bold > 1.2 * mean
    with pytest.raises(UsageError, match="temperature"):
        load(tiny, temperature=0)


def dots(shape: tuple[int, ...], *colours: tuple[int, int, int]) -> np.ndarray:
    """Squares of colours in a row on transparent."""
    hints = np.zeros((*shape[:2], 4), np.uint8)
    for number, colour in enumerate(colours):
        left = (number + 1) * shape[1] // (len(colours) + 1)
        hints[shape[0] // 2 :, left : left + 20][:20] = (*colour, 255)
    return hints


def test_hints_reach_the_network_as_they_were_painted(photo):
    """A thin stroke on a large picture counts, with its own colour and not that of what is transparent."""
    gray = np.repeat(cv2.resize(gray_of(photo), None, fx=4, fy=4)[..., None], 3, -1)
    hints = np.zeros((*gray.shape[:2], 4), np.uint8)
    hints[..., :3] = (0, 255, 0)
    hints[600, 200:1500] = (200, 40, 40, 255)
    look = Painted(0, 0)
    ColorizeHead().analyse(Picture.of(gray), ColorizeOptions(), look, hints)
    red = to_lab(np.float32([[[200, 40, 40]]]) / 255)[0, 0, 1:] / 110
    for side, seen in zip(SIDES, look.seen, strict=True):
        assert seen.shape[0] == 4
        there = seen[3] > 0
        assert there.any(1).sum() <= 3
        assert 1 <= there.sum() / side <= 4
        assert np.abs(seen[1:3][:, there].numpy() - red[:, None]).max() < 0.01


def test_hints_from_python(tiny, photo):
    gray, hints = gray_of(photo), dots(photo.shape, (220, 30, 30), (30, 30, 220))
    plain, hinted = load(tiny)(gray), load(tiny)(gray, hints=hints)
    assert not np.array_equal(plain, hinted)
    assert np.abs(luma(hinted) - gray).max() <= 1
    for wrong in (hints[:-1], hints[..., :3], hints[..., 0] > 0, hints * np.array([1, 1, 1, 0], np.uint8)):
        with pytest.raises(UsageError, match="hints"):
            load(tiny)(gray, hints=wrong)


def test_hints_from_files(tiny, photo, tmp_path, restore):
    """By file and by folder; on transparent and on white; the same as in Python."""
    gray, hints = gray_of(photo), dots(photo.shape, (220, 30, 30), (30, 30, 220))
    (tmp_path / "in").mkdir()
    (tmp_path / "hints").mkdir()
    PIL.Image.fromarray(gray).save(tmp_path / "in" / "cat.png")
    PIL.Image.fromarray(hints).save(tmp_path / "hints" / "cat.png")
    on_white = np.where(hints[..., 3:] > 0, hints[..., :3], 255).astype(np.uint8)
    PIL.Image.fromarray(on_white).save(tmp_path / "white.png")
    picture, paper = tmp_path / "in" / "cat.png", tmp_path / "white.png"
    command = ("colorize", "-m", tiny("colorize"), "--device", "cpu", "--precision", "fp32", "--saturation", 2)
    restore(*command, picture, tmp_path / "one.png", "--hints", paper)
    restore(*command, tmp_path / "in", tmp_path / "out", "--hints", tmp_path / "hints")
    one, out = (np.asarray(PIL.Image.open(path)) for path in (tmp_path / "one.png", tmp_path / "out" / "cat.png"))
    assert np.array_equal(one, out)
    assert np.array_equal(one, load(tiny)(gray, hints=hints))
    PIL.Image.fromarray(hints[:-2]).save(paper)
    assert "hints of 451x298" in restore(*command, picture, tmp_path / "two.png", "--hints", paper, expect=1).stderr
    assert not (tmp_path / "two.png").exists()
    PIL.Image.new("RGB", gray.shape[1::-1], "white").save(paper)
    empty = restore(*command, picture, tmp_path / "two.png", "--hints", paper, expect=1)
    assert "show no colour" in empty.stderr and not (tmp_path / "two.png").exists()
    missing = restore(*command, picture, tmp_path / "two.png", "--hints", tmp_path / "no", expect=2)
    assert "--hints" in missing.stderr


def test_corrupt_writes_hints_that_colorize_takes(photo, tmp_path, restore):
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(photo).save(tmp_path / "in" / "cat.png")
    corrupt = ("corrupt", "colorize", tmp_path / "in", tmp_path / "gray")
    restore(*corrupt, "--hints", 10, "--save-hints", tmp_path / "hints")
    hints = np.asarray(PIL.Image.open(tmp_path / "hints" / "cat.png"))
    there = hints[..., 3] > 0
    assert hints.shape == (*photo.shape[:2], 4)
    assert 1 <= cv2.connectedComponents(there.astype(np.uint8))[0] - 1 <= 10
    assert 10 <= there.sum() <= 10 * 15**2
    assert np.abs(hints[..., :3].astype(float) - photo)[there].mean() < 12
    again = ("corrupt", "colorize", tmp_path / "in", tmp_path / "other")
    assert "--save-hints" in restore(*again, "--hints", 10, expect=2).stderr
    assert "--hints N" in restore(*again, "--save-hints", tmp_path / "hints", expect=2).stderr


def test_the_palette_of_a_reference(tiny, photo, tmp_path):
    """Colours go to those of the reference, and gray pictures have none to give."""
    gray = gray_of(photo)
    means = []
    for colour in ((200, 40, 40), (40, 60, 200)):
        noise = np.random.default_rng(0).normal(0, 15, (60, 80, 3))
        PIL.Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(tmp_path / "reference.png")
        restored = load(tiny, reference=str(tmp_path / "reference.png"), saturation=1.0)(gray)
        means.append(to_lab(to_float(restored))[..., 1:].mean((0, 1)))
        assert np.abs(luma(restored) - gray).max() <= 1
    assert means[0][1] > means[1][1] + 20, "red is yellower than blue"
    PIL.Image.fromarray(gray).save(tmp_path / "gray.png")
    with pytest.raises(UsageError, match="gray.png: a gray picture has no palette"):
        load(tiny, reference=str(tmp_path / "gray.png"))


# ---------------------------------------------------------------- training


def test_training_sees_what_use_sees(photo):
    """The planes of a training patch are those of the same picture in use, but for its size."""
    side = SIDES[0]
    clean = photo[:side, :side]
    options = TASK.spec.training_options(hints=(20, 20), without=0.0)
    objective = RestorationObjective(TASK, options)
    example = objective.example(clean, 0, np.random.default_rng(0))
    assert example["hints"].shape == (6, side, side)
    operator = objective.variants[0].corruption
    damaged = operator.apply(clean, operator.sample(clean.shape, np.random.default_rng(0)))
    look = Painted(0, 0)
    ColorizeHead().analyse(Picture.of(damaged.image), ColorizeOptions(), look, damaged.hints)
    assert torch.allclose(example["hints"][:4], look.seen[0], atol=1e-3)
    there = example["hints"][3].numpy() > 0
    assert 20 <= there.sum() <= 20 * 81
    ab = skimage.color.rgb2lab(clean)[..., 1:] / 110
    assert np.abs(example["hints"][4:].numpy().transpose(1, 2, 0) - ab).max() < 1e-3
    without = RestorationObjective(TASK, TASK.spec.training_options(without=1.0))
    assert not without.example(clean, 0, np.random.default_rng(0))["hints"][1:4].any()


def test_the_true_colours_score_high_and_train_to_nothing(photo):
    """What is lost by the size of the analysis is little; the loss of the true a*b* is zero."""
    gray = to_float(gray_of(photo))
    height, width = analysed_size(*gray.shape)
    ab = to_lab(cv2.resize(to_float(photo), (width, height), interpolation=cv2.INTER_AREA))[..., 1:]
    coloured = painted(gray, Painted(ab[..., 0], ab[..., 1]))
    case = TASK.cases(TASK.spec.trial_options())[0]
    assert case.score(coloured, photo) > 34
    assert np.isnan(case.score(coloured, np.repeat(gray[..., None], 3, -1))), "gray pictures do not count"


def test_a_network_learns_one_picture():
    torch.manual_seed(0)
    picture = skimage.data.coffee()[::4, ::4]
    config = replace(TASK.config, widths=(16, 24, 24))
    objective = RestorationObjective(TASK, TASK.spec.training_options(), config, patch=64)
    network = build(objective.arch, objective.config)
    batch = {k: v[None] for k, v in objective.example(picture[:64, :64], 0, np.random.default_rng(0)).items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        loss = objective.loss(network, batch, 0, mse)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    score = objective.score(network.eval(), picture, 0)["gray"]
    with torch.autocast("cpu", torch.bfloat16):  # as training validates
        rounded = objective.score(network, picture, 0)["gray"]
    assert score == pytest.approx(rounded, abs=0.3)


def test_validation_sees_whole_scenes():
    """Colours at the rim of a large picture count, though what is looked at is small."""
    scene = np.full((900, 1200, 3), 128, np.uint8)
    rimmed = scene.copy()
    rimmed[:, :100] = 220, 60, 60
    objective = RestorationObjective(TASK, TASK.spec.training_options(), TASK.config)
    _, restored, clean = objective.preview(build(objective.arch, objective.config).eval(), rimmed)
    assert clean.shape == restored.shape == (256, 341, 3)
    assert np.array_equal(clean[100, 5], rimmed[0, 0])


def test_nothing_to_do_is_finished_untouched(photo):
    picture = Picture.of(photo)
    analysis = ColorizeHead().analyse(picture, ColorizeOptions(), Painted(0, 0))
    assert analysis.nothing
    assert ColorizeHead().context(analysis, picture.window) is None
    planes = picture.planes()
    assert ColorizeHead().postprocess(torch.empty(0), planes, None) is planes


def test_training_starts_from_a_pretrained_encoder(tmp_path):
    """From a file of a published network; what is none is refused in a line that names it."""
    published = torchvision.models.mobilenet_v2()
    torch.save(published.state_dict(), tmp_path / "published.pth")
    objective = RestorationObjective(TASK, TASK.spec.training_options(encoder=str(tmp_path / "published.pth")))
    tensors = objective.initial()
    network = build(objective.arch, objective.config)
    assert set(tensors) == {name for name, _ in network.named_parameters() if name.startswith("encoder.")}
    assert RestorationObjective(TASK, TASK.spec.training_options()).initial() == {}
    lite = RestorationObjective(TASK, TASK.spec.training_options(encoder="efficientnet_lite0"))
    assert lite.config.encoder == "efficientnet_lite0"
    (tmp_path / "notes.pth").write_text("no network")
    for wrong in ("notes.pth", "nowhere.pth"):
        objective = RestorationObjective(TASK, TASK.spec.training_options(encoder=str(tmp_path / wrong)))
        with pytest.raises(UsageError, match=wrong):
            objective.initial()
