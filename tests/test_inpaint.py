"""inpaint and dewatermark: only masked pixels change, given masks are used, similar objects are left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import restore as package
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.errors import UsageError
from restore.metrics import masked_psnr
from restore.models import build
from restore.pixels import luma, to_dtype, to_float, white
from restore.tasks import TASKS
from restore.tasks.base import Picture, Sample, Window, load_task
from restore.tasks.functional import sample_window
from restore.tasks.inpaint import detection, filling
from restore.tasks.inpaint.filling import rough_filling
from restore.tasks.inpaint.solid_colour import complete_shapes, extend_strokes, has_solid_colour
from restore.tasks.inpaint.task import InpaintHead
from restore.tasks.losses import l1
from restore.tasks.mask_detection import (
    LEVELS,
    HysteresisThreshold,
    dilate,
    mask_from_logits,
    mask_loss,
    masked_mean,
    plain_border,
)
from restore.tasks.objective import RestorationObjective

mask_tasks = pytest.mark.parametrize("task", [name for name, spec in TASKS.items() if spec.masks])
DTYPES = ("uint8", "uint16", "float32")


def as_dtype(photo: np.ndarray, dtype: str) -> np.ndarray:
    return (photo / 255 * white(dtype)).astype(dtype)


def bars(shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape[:2], bool)
    mask[20:24], mask[:, 60:63] = True, True
    return mask


@mask_tasks
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gray", [False, True])
def test_outside_of_the_mask_is_bit_identical(task, dtype, gray, tiny, photo):
    image = as_dtype(photo[:120, :150], dtype)
    if gray:
        image = np.repeat(image[..., 1:2], 3, axis=-1)
    restorer, mask = package.load(task, str(tiny(task)), device="cpu"), bars(image.shape)
    restored = restorer(image, mask=mask)
    assert np.array_equal(restored[~mask], image[~mask])
    assert not np.array_equal(restored[mask], image[mask])


@mask_tasks
def test_only_the_detected_mask_changes(task, tiny, photo):
    """Without a mask: only pixels of the mask found change, the same in tiles as in one piece."""
    restorer = package.load(task, str(tiny(task)), device="cpu", precision="fp32")
    found = restorer.find(photo)
    restored = restorer(photo)
    changed = (restored != photo).any(axis=-1)
    assert not (changed & ~found.mask).any()
    tiled = package.load(task, str(tiny(task)), device="cpu", precision="fp32", tile=64)
    assert (tiled.find(photo).mask != found.mask).mean() < 1e-3  # a value at the threshold may fall to either side


@mask_tasks
def test_masks_that_do_not_fit(task, tiny, photo):
    restorer = package.load(task, str(tiny(task)), device="cpu")
    with pytest.raises(UsageError, match="a mask of 10x10 does not fit a picture of 451x300"):
        restorer(photo, mask=np.zeros((10, 10), bool))
    with pytest.raises(UsageError, match="marks nothing"):
        restorer(photo, mask=np.zeros(photo.shape[:2], bool))


def test_mask_of_the_whole_image_is_refused(tiny, photo):
    restorer = package.load("inpaint", str(tiny("inpaint")), device="cpu")
    with pytest.raises(UsageError, match="covers the whole picture"):
        restorer(photo, mask=np.ones(photo.shape[:2], bool))


@mask_tasks
def test_grow_dilates_the_mask(task, tiny, photo):
    image, mask = photo[:80, :80], np.zeros((80, 80), bool)
    mask[30:40, 30:40] = True
    near, far = (package.load(task, str(tiny(task)), device="cpu", grow=pixels)(image, mask=mask) for pixels in (0, 3))
    outside = ~mask
    assert np.array_equal(near[outside], image[outside])
    changed = (far != image).any(axis=-1)
    assert changed[27:43, 30:40].mean() > 0.9
    assert not changed[:26].any()


def test_rough_filling_ignores_hidden_pixels(photo, monkeypatch):
    """Also where a large image is shrunk: the pixels of the hole have no influence."""
    image, mask = photo[:200, :200], bars((200, 200))
    hidden = np.where(mask[..., None], 255, image).astype(np.uint8)
    rough = rough_filling(hidden, mask)
    assert np.array_equal(rough[~mask], image[~mask])
    assert masked_psnr(rough, image, mask) > masked_psnr(hidden, image, mask) + 8
    monkeypatch.setattr(filling, "MAX_FILLING_PIXELS", 1 << 20)
    large = cv2.resize(photo, (3000, 2400))
    mask = np.zeros(large.shape[:2], bool)
    mask[1000:1040] = True
    small = rough_filling(np.where(mask[..., None], 0, large).astype(np.uint8), mask)
    assert small.shape[0] * small.shape[1] <= 1 << 20
    window = Window(1000, 0, 40, 3000)
    stretched = sample_window(torch.from_numpy(small).permute(2, 0, 1), mask.shape, window).permute(1, 2, 0).numpy()
    assert masked_psnr(stretched / 255, large[1000:1040] / np.float32(255), mask[1000:1040]) > 25


@pytest.mark.parametrize("shape", [(1, 79), (79, 1), (1, 1)])
def test_rough_filling_of_a_single_row_is_the_same_each_time(shape, photo):
    image, mask = np.ascontiguousarray(photo[: shape[0], : shape[1]]), np.zeros(shape, bool)
    mask[shape[0] * 4 // 5 :, shape[1] * 4 // 5 :] = True
    made = set()
    for size in range(30):
        used = np.random.default_rng(size).integers(0, 255, 50 + 97 * size)  # what memory held before
        made.add(rough_filling(image, mask).tobytes())
        del used
    assert len(made) == 1


def test_training_masks_are_dilated(photo):
    """Masks in training contain the true one, and are sometimes dilated; holes are filled by them."""
    clean, head, sizes, shown = photo[:96, :96], InpaintHead(), set(), []
    damaged = OcclusionBars().apply(clean, OcclusionBars().sample(clean.shape, np.random.default_rng(3)))
    for seed in range(20):
        hints = head.hints(damaged, clean, np.random.default_rng(seed))
        mask = hints[..., 3] > 0
        assert (mask >= damaged.mask).all()
        assert np.allclose(hints[~mask, :3], damaged.image[~mask] / 255, atol=1e-6)
        assert (hints[~mask, 4:] == 0).all()
        shown.append(np.allclose(hints[..., :3] + hints[..., 4:], damaged.image / 255, atol=1e-6))
        sizes.add(int(mask.sum()))
    assert len(sizes) == 3
    assert 0 < shown.count(False) < shown.count(True), "some holes show an object instead"


@mask_tasks
def test_loss_decreases(task, photo):
    """Forty steps on one batch; every parameter gets a gradient."""
    built = load_task(task)
    objective = RestorationObjective(built, built.spec.training_options(), patch=48)
    rng = np.random.default_rng(1)
    side = objective.clean_patch(0)
    samples = [objective.example(photo[10 : 10 + side, x : x + side], 0, rng) for x in (0, 100, 200, 300)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    torch.manual_seed(0)
    small = {"widths": (16, 24), "blocks": (1, 1), "finder_widths": (16, 24), "finder_blocks": (1, 1)}
    network = build(built.arch, small)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = objective.loss(network, batch, 0, l1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert all(weight.grad is not None for weight in network.parameters())


def test_hysteresis_and_small_components():
    mask = np.zeros((60, 60), bool)
    mask[5, 5:8] = True
    mask[30:36, 10:50] = True
    levels = np.where(mask, 1, -1).astype(np.int8) * LEVELS
    cleaned = mask_from_logits(levels, HysteresisThreshold())
    assert not cleaned[:20].any()
    assert np.array_equal(cleaned[20:], mask[20:])
    assert not mask_from_logits(levels, HysteresisThreshold(high=2.0)).any()
    assert not mask_from_logits(levels, HysteresisThreshold(min_share=0.5)).any()
    levels[32, 20] = 2 * LEVELS
    together = mask_from_logits(levels, HysteresisThreshold(high=2.0))
    assert np.array_equal(together, cleaned), "one certain pixel is enough for its component"
    assert np.array_equal(dilate(mask, 0), mask)
    assert dilate(mask, 2)[28:38, 10:50].all()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (61, 61))  # what large ones are computed without
    assert (dilate(mask, 30) != cv2.dilate(mask.astype(np.uint8), disc).astype(bool)).mean() < 0.01


def test_mask_losses():
    mask = (torch.rand(2, 1, 16, 16) > 0.7).float()
    right, wrong = mask_loss(20 * (2 * mask - 1), mask), mask_loss(-20 * (2 * mask - 1), mask)
    assert right < 1e-3
    assert wrong > 1
    distances = torch.ones(2, 3, 16, 16)
    assert masked_mean(distances * mask, mask) == pytest.approx(1)
    assert masked_mean(distances, torch.zeros_like(mask)) == 0


def test_lecture_bars_train_on_small_pictures():
    """28x28 digits: two-pixel bars, no re-encoding, patches of the whole picture."""
    built = load_task("inpaint")
    objective = RestorationObjective(built, built.spec.training_options(bars="lecture"), patch=28)
    assert objective.clean_patch(0) == 28
    digit = np.zeros((28, 28, 3), np.uint8)
    sample = objective.example(digit, 0, np.random.default_rng(0))
    assert sample["mask"].sum() == 56
    assert sample["corrupted"].max() == 1
    assert sample["clean"].max() == 0
    assert Sample(**{name: planes[None] for name, planes in sample.items()}).hints is not None


def test_training_damage_follows_its_flags(photo, tmp_path):
    """--reencoded, --unmarked, --opacity and --logo each change what is trained on."""

    def samples(task: str, count: int = 12, **flags) -> list[dict[str, torch.Tensor]]:
        built = load_task(task)
        objective = RestorationObjective(built, built.spec.training_options(**flags), patch=64)
        side = objective.clean_patch(0)
        return [
            objective.example(photo[20 : 20 + side, 100 : 100 + side], 0, np.random.default_rng(seed))
            for seed in range(count)
        ]

    def strays(sample: dict[str, torch.Tensor]) -> bool:
        """Whether pixels outside of the mask differ from the clean ones, as only re-encoding makes them."""
        differing = (sample["corrupted"] != sample["clean"]).any(0, keepdim=True)
        return bool((differing & (sample["mask"] == 0)).any())

    for task in ("inpaint", "dewatermark"):
        assert not any(strays(sample) for sample in samples(task, reencoded=0.0))
        assert sum(strays(sample) for sample in samples(task, reencoded=1.0)) >= 10
        sharp = samples(task, reencoded=1.0, rescaled=1.0)  # of patches that need no margin
        assert all(sample["corrupted"].shape[-1] == 64 for sample in sharp) and any(map(strays, sharp))
        coarse, fine = (
            [sample["corrupted"] for sample in samples(task, reencoded=1.0, rescaled=1.0, jpeg_quality=quality)]
            for quality in (5, 95)
        )
        compressed = [(one - other).square().mean() for one, other in zip(coarse, fine, strict=True)]
        assert np.median([float(one) for one in compressed if one]) > 1e-4
    assert not any(sample["mask"].any() for sample in samples("inpaint", undamaged=1.0, prints=0.0))
    light = samples("inpaint", prints=0.0, undamaged=0.0, aged=0.0, reencoded=0.0)
    aged = samples("inpaint", prints=1.0, undamaged=0.0, aged=1.0, reencoded=0.0)
    assert all(sample["mask"].any() for sample in light + aged)
    assert sum(bool((sample["clean"].std(0) < 1e-6).all()) for sample in aged) >= 3  # gray
    assert not any(bool((sample["clean"].std(0) < 1e-6).all()) for sample in light)
    assert np.mean([float(sample["mask"].mean()) for sample in aged]) < 0.1  # thin
    assert not any(sample["mask"].any() for sample in samples("dewatermark", unmarked=1.0, reencoded=0.0))
    assert all(sample["mask"].any() for sample in samples("dewatermark", 4, unmarked=0.0, reencoded=0.0))
    faint = samples("dewatermark", unmarked=0.0, reencoded=0.0, opacity=(0.2, 0.3))
    assert max(float(sample["opacity"].max()) for sample in faint) <= 0.3 + 1e-6
    logo = np.zeros((40, 60, 4), np.uint8)
    logo[5:35, 5:55] = (0, 0, 255, 255)  # red, as OpenCV orders channels
    cv2.imwrite(str(tmp_path / "logo.png"), logo)
    marked = samples("dewatermark", 30, unmarked=0.0, reencoded=0.0, logo=str(tmp_path))
    red = [(torch.tensor([1.0, 0.0, 0.0]) == sample["colour"][:, sample["mask"][0] > 0].T).all(1) for sample in marked]
    assert sum(bool(found.numel() and found.float().mean() > 0.5) for found in red) >= 5
    with pytest.raises(UsageError, match="logo"):
        samples("dewatermark", logo=str(tmp_path / "nowhere"))


def test_mask_is_completed_by_colour(photo):
    """From half of a bar and pixels around it to exactly the bar, with hard or soft edges."""
    image, bar = photo[:120, :160].copy(), np.zeros((120, 160), bool)
    bar[50:56] = True
    image[bar] = (200, 30, 90)
    found = np.zeros_like(bar)
    found[48:57, 20:110] = True
    excluded = np.zeros_like(found)
    assert np.array_equal(complete_shapes(image, found, found, excluded), bar)
    assert has_solid_colour(image, found)
    assert not has_solid_colour(photo[:120, :160], found), "a photograph has no solid colour"
    soft = image.copy()
    soft[49] = (soft[49] / 2 + np.array([100, 15, 45])).astype(np.uint8)
    assert complete_shapes(soft, found, found, excluded)[49:56].all()
    image[:], bar[:] = (9, 7, 8), False  # a black vest
    bar[50:56, 20:110], bar[70:76, 20:110], bar[50:76, 20:26], bar[50:76, 104:110] = True, True, True, True
    image[bar], found = 255, bar.copy()
    found[56:60, 40:80] = True
    assert np.array_equal(complete_shapes(image, found, bar, excluded), bar), "what a letter encloses is not damaged"


def test_strokes_are_extended(photo):
    """After JPEG, from a third of a stroke to all of it; a thick area or one with soft contours is not added."""
    image, stroke = photo[:200, :300].copy(), np.zeros((200, 300), bool)
    stroke[90:101, 20:280] = True
    image[stroke] = (30, 200, 60)
    found = stroke & (np.arange(300) < 100)
    extended = extend_strokes(compressed(image), found, certain=found)
    assert extended[stroke].mean() > 0.9
    assert extended[~dilate(stroke, 2)].mean() < 0.002
    assert np.array_equal(extend_strokes(compressed(photo[:200, :300]), found, certain=found), found), "no stroke"
    wall, fading = image.copy(), image.copy()
    wall[95:140, 200:280] = (30, 200, 60)
    assert np.array_equal(extend_strokes(compressed(wall), found, certain=found), found)
    fading[70:121, 80:280] = (30, 200, 60)
    steps = np.abs(np.arange(70, 121) - 95)[:, None, None]
    fading[70:121, 80:280] += (steps * np.array([4, 0, 4])).astype(np.uint8)
    assert np.array_equal(extend_strokes(compressed(fading), found, certain=found), found)


class Found:
    """A network that finds `logits` (H,W), and judges the parts by `odds`, in the order of their first rows."""

    def __init__(self, logits: np.ndarray, odds: list[float] | None, whole: float = 9.0) -> None:
        self.logits, self.odds, self.whole_odds = logits, odds, whole

    def tiles(self, size, planes, stage=""):
        height, width = size
        evidence = 0 if self.odds is None else 2
        for top, rows in ((0, 48), (48, height - 48)):  # in two tiles
            window = Window(top, 0, rows, width)
            output = torch.zeros(1 + evidence, rows, width)
            output[0] = torch.from_numpy(self.logits[window.slices])
            yield window, output

    def whole(self, planes, stage=""):
        assert planes.shape[1:] == (len(self.odds), 1)
        return torch.tensor([self.odds, [self.whole_odds] * len(self.odds)])[..., None]


def test_pictures_and_parts_are_judged(photo):
    """Of a picture that is damaged the likely parts are taken; of one that may be, they are spoken of."""
    logits = np.full((120, 160), -8.0, np.float32)
    logits[10:20, 20:80], logits[40:52, 20:80], logits[80:90], logits[100:104, 5:9] = 2.0, 3.0, 6.0, 6.0
    logits[115, 100] = 7.0  # a single pixel
    picture, odds = Picture.of(compressed(photo[:120, :160])), [-3.0, 1.0, 5.0, 1.5, 9.0]
    mask, _, note = detection.detect_holes(picture, Found(logits, odds), aggressive=False)
    assert mask[80:90].all() and mask[40:52, 20:80].all() and mask[100:104, 5:9].all()
    assert not mask[:35].any() and not mask[115].any() and not note
    doubtful = Found(logits, odds, (detection.CONVINCING[0] + detection.DOUBTFUL) / 2)
    mask, _, note = detection.detect_holes(picture, doubtful, aggressive=False)
    assert not mask.any()
    assert note.startswith("3 parts may be damage and are left unchanged; --aggressive restores them too")
    assert detection.detect_holes(picture, doubtful, aggressive=True)[0][80:90].all()
    uncertain = Found(logits, [-3.0, 1.0, 0.5, -1.0, 9.0])  # of the parts that are large enough
    mask, _, note = detection.detect_holes(picture, uncertain, aggressive=False)
    assert not mask.any() and note.startswith("3 parts")
    unlikely = detection.detect_holes(picture, Found(logits, odds, detection.DOUBTFUL - 1), aggressive=True)
    assert not unlikely[0].any() and not unlikely[2]
    assert not detection.detect_holes(picture, Found(np.minimum(logits, 0.4), []), aggressive=True)[0].any()
    logits[60:115] = 6.0  # nearly half of the picture
    mask, _, note = detection.detect_holes(picture, Found(logits, [-3.0, 1.0, 5.0]), aggressive=False)
    assert not mask.any() and "may be damage" in note
    assert detection.detect_holes(picture, Found(logits, [-3.0, 1.0, 5.0]), aggressive=True)[0][70:110].all()


def test_less_is_needed_to_restore_old_prints(photo):
    """In gray and sepia pictures; in one with colours the same is in doubt."""
    logits = np.full((120, 160), -8.0, np.float32)
    logits[40:44, 20:150] = 6.0  # 3 % of the picture
    found = Found(logits, [detection.CONVINCING_MONOCHROME[1] + 0.1], detection.CONVINCING_MONOCHROME[0] + 0.1)
    gray = to_dtype(luma(to_float(photo[:120, :160]))[..., None], np.uint8)
    for pixels in (gray, np.repeat(gray, 3, axis=-1), to_dtype(to_float(gray) * [1, 0.9, 0.7], np.uint8)):
        mask, _, note = detection.detect_holes(Picture.of(pixels), found, aggressive=False)
        assert mask[40:44, 20:150].all() and not note
    mask, _, note = detection.detect_holes(Picture.of(photo[:120, :160]), found, aggressive=False)
    assert not mask.any() and note.startswith("1 part may be damage")
    for rows in (slice(40, 48), slice(40, 65, 8)):  # wide; more than a twentieth of the picture
        wider = np.full_like(logits, -8.0)
        for row in range(rows.start, rows.stop, rows.step or 1):
            wider[row : row + 4, 20:150] = 6.0
        other = Found(wider, found.odds * (1 if rows.step is None else 4), found.whole_odds)
        mask, _, note = detection.detect_holes(Picture.of(gray), other, aggressive=False)
        assert not mask.any() and "may be damage" in note
    found.whole_odds = detection.CONVINCING_MONOCHROME[0] - 0.1
    assert not detection.detect_holes(Picture.of(gray), found, aggressive=False)[0].any()


def test_weak_parts_of_another_colour_are_left(photo):
    """In a picture in colours: what covers it has few of them. In gray ones scratches are light and dark."""
    logits, pixels = np.full((120, 160), -8.0, np.float32), photo[:120, :160].copy()
    rows = [slice(10, 18), slice(40, 48), slice(70, 78)]
    for place, colour in zip(rows, [(30, 200, 60), (50, 180, 60), (200, 30, 30)], strict=True):
        logits[place, 20:150], pixels[place, 20:150] = 6.0, colour
    logits[110, 100], pixels[110, 100] = 7.0, (200, 30, 30)  # too small to count, whatever its odds
    found = Found(logits, [4.0, -1.0, -1.0, 9.0])
    mask, _, note = detection.detect_holes(Picture.of(compressed(pixels)), found, aggressive=False)
    assert [mask[place, 20:150].all() for place in rows] == [True, True, False]
    assert not mask[60:].any() and note.startswith("1 part may be damage")
    gray = np.repeat(to_dtype(luma(to_float(pixels))[..., None], np.uint8), 3, axis=-1)
    gray[rows[2], 20:150] = 255
    for picture, aggressive in ((gray, False), (pixels, True)):
        mask, _, note = detection.detect_holes(Picture.of(compressed(picture)), found, aggressive)
        assert all(mask[place, 20:150].all() for place in rows) and not note


def test_uniform_colours_are_believed_in_spite_of_the_judge(photo):
    """A bar from side to side with a part at its edge, and shapes of one colour; the rest is as the judge has it."""
    pixels, logits = photo[:120, :160].copy(), np.full((120, 160), -8.0, np.float32)
    first, other, bar, edge, second = (
        (slice(10, 22), slice(30, 60)),
        (slice(30, 34), slice(100, 120)),
        (slice(60, 68), slice(None)),
        (slice(69, 70), slice(20, 150)),
        (slice(90, 102), slice(70, 120)),
    )
    for place in (first, other, bar, second):
        pixels[place], logits[place] = (200, 30, 30) if place is other else (30, 200, 60), 6.0
    logits[edge] = 1.0
    little = (slice(108, 115), slice(8, 16))  # of the same colour, too small for evidence
    pixels[little], logits[little] = (30, 200, 60), 6.0
    picture = Picture.of(compressed(pixels))

    def find(odds: list[float], whole: float = -1.0) -> tuple[np.ndarray, float, str]:
        mask, confidence, note = detection.detect_holes(picture, Found(logits, odds, whole), aggressive=False)
        assert confidence is not None
        return mask, confidence, note

    mask, confidence, note = find([-1.9, -1.2, -3.0, -3.0, -1.9, -1.2])
    assert all(mask[place].all() for place in (first, bar, edge, second, little)) and not mask[other].any()
    assert confidence > 0.9 and not note
    mask = find([-1.9, -1.2, -3.0, -3.0, -2.5, -1.6])[0]  # doubted too much
    assert mask[bar].all() and mask[first].all() and not mask[second].any() and not mask[little].any()
    mask = find([-9.0, 5.0, -9.0, -9.0, -9.0, -9.0], 5.0)[0]
    assert mask[other].all() and mask[bar].all() and not mask[first].any()
    for place in (bar, (slice(72, 92), slice(None))):  # more than a fifth of the picture
        pixels[place], logits[place] = (30, 200, 60), 6.0
    picture = Picture.of(compressed(pixels))
    mask, confidence, _ = find([-9.0, 5.0, -9.0, -9.0, -9.0, -9.0], 5.0)
    assert mask[other].all() and not mask[bar].any() and confidence < 0.995


@pytest.mark.parametrize("gray", [False, True])
def test_what_was_found_grows_further_in_gray_pictures(gray, photo):
    logits, pixels = np.full((120, 160), -8.0, np.float32), photo[:120, :160].copy()
    if gray:
        pixels = np.repeat(to_dtype(luma(to_float(pixels))[..., None], np.uint8), 3, axis=-1)
    logits[50:54, 20:140], logits[48:50, 20:140], logits[54:56, 20:140] = 6.0, -3.0, -1.5
    mask, _, _ = detection.detect_holes(Picture.of(compressed(pixels)), Found(logits, [5.0]), aggressive=False)
    assert mask[54:56, 20:140].all()
    assert mask[48:50, 20:140].all() == gray == mask[48:50, 20:140].any()


def test_isolated_high_logits_are_ignored(photo):
    """A component with high logits in one spot only is left, unless another one is damage all over."""
    levels = np.full((120, 160), -8 * LEVELS, np.int8)
    levels[20:40, 20:80] = -2 * LEVELS
    levels[25:29, 30:34] = 7 * LEVELS
    image = compressed(photo[:120, :160])
    assert detection.detect_unjudged(Picture.of(image), levels, aggressive=False)[0] is None
    assert detection.detect_unjudged(Picture.of(image), levels, aggressive=True)[0].any()
    levels[80:90] = 6 * LEVELS
    found, _ = detection.detect_unjudged(Picture.of(image), levels, aggressive=False)
    assert found[80:90].all()
    assert found[20:40, 20:80].all()
    assert not found[:15].any()


def test_verdicts_are_learnt():
    """The loss falls where parts are called what they are; pictures without parts cost nothing."""
    logits, mask = torch.full((2, 1, 20, 20), -5.0), torch.zeros(2, 1, 20, 20)
    logits[0, :, 2:6, 2:6], logits[0, :, 12:16, 2:18] = 3.0, 3.0
    mask[0, :, 2:6, 2:6] = 1
    right, wrong = torch.zeros(2, 2, 20, 20), torch.zeros(2, 2, 20, 20)
    right[0, 0, :10], right[0, 0, 10:], right[0, 1] = 8.0, -8.0, 8.0
    wrong[0, 0, :10], wrong[0, 0, 10:], wrong[0, 1] = -8.0, 8.0, -8.0
    assert detection.verdict_loss(logits, right, mask) < 0.01
    assert detection.verdict_loss(logits, wrong, mask) > 4
    assert detection.verdict_loss(logits, right[:, :0], mask) == 0
    assert detection.verdict_loss(torch.full_like(logits, -5.0), wrong, mask) == 0


def compressed(image: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8, through a JPEG file of quality 85."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)


def test_background_of_equal_colour_is_kept(photo):
    """A white bar in front of a white sky."""
    image = photo[:120, :160].copy()
    image[:60] = 255
    image[:, 70:76] = 255
    found = np.zeros(image.shape[:2], bool)
    found[:, 70:76] = True
    assert np.array_equal(complete_shapes(image, found, found, np.zeros_like(found)), found)


def test_excluded_pixels_of_equal_colour_are_kept():
    """A white digit under a white bar, where the network is certain of the digit."""
    image, bar = np.zeros((28, 28, 3), np.uint8), np.zeros((28, 28), bool)
    image[4:24, 12:15] = 255
    bar[10:12] = True
    image[bar] = 255
    assert not np.array_equal(complete_shapes(image, bar, bar, np.zeros_like(bar)), bar)
    assert np.array_equal(complete_shapes(image, bar, bar, ~bar), bar)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_plain_borders(photo, dtype):
    """All around, at two opposite sides, also after JPEG; a bar along a single side may be damage."""
    for widths, level in (((20, 20), (12, 9)), 255), (((15, 30), (0, 0)), 0), (((0, 0), (8, 8)), 130):
        bordered = np.pad(photo, (*widths, (0, 0)), constant_values=level)
        packed = cv2.imdecode(cv2.imencode(".jpg", bordered, [cv2.IMWRITE_JPEG_QUALITY, 92])[1], cv2.IMREAD_COLOR)
        expected = np.pad(np.zeros(photo.shape[:2], bool), widths, constant_values=True)
        assert np.array_equal(plain_border(to_dtype(to_float(bordered), dtype)), expected)
        blurred = plain_border(to_dtype(to_float(packed), dtype))
        assert not (blurred & ~expected).any()
        assert blurred.sum() > 0.4 * expected.sum(), "but for the pixels where JPEG rings"
    barred = photo.copy()
    barred[:9] = 255
    assert not plain_border(to_dtype(to_float(barred), dtype)).any()
    assert plain_border(np.zeros((5, 7, 3), dtype)).all()
