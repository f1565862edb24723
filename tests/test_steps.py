"""Several tasks in one go: `restore run`, `restore auto`, `restore.Pipeline`, and what they promise of files."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

import restore as package
from restore.cli.app import run
from restore.cli.files import FileFlags
from restore.cli.pipelines import AutoFlags
from restore.cli.restoring import DeviceFlags, HintFlags, MaskFlags
from restore.errors import UsageError
from restore.images import Image
from restore.inference import automatic
from restore.inference.automatic import measure_noise
from restore.inference.loading import load
from restore.inference.restored import Restored
from restore.tasks.spec import task_spec
from restore.tasks.steps import AutoOptions, StepOptions, options_by_task, parse_steps

SAMPLES = Path(__file__).parents[1] / "samples"


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def call(*arguments: object, expect: int = 0) -> None:
    assert run([str(argument) for argument in (*arguments, "--device", "cpu")]) == expect


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo[:64, :80, ::-1])
    return path


@pytest.fixture
def flags(tiny) -> list[object]:
    """Weights of tiny networks for `restore run`."""
    return ["--denoise-model", tiny("denoise"), "--super-resolve-model", tiny("super-resolve"), "--precision", "fp32"]


# --- Python ----------------------------------------------------------------------------------------------------------


def test_steps_follow_each_other_without_rounding_to_8_bits(photo, tiny):
    """As by hand in float32 from 0 to 1; rounding to 8 bits in between gives another picture."""
    one, two = (load(task, str(tiny(task)), device="cpu", precision="fp32") for task in ("denoise", "super-resolve"))
    image = photo[:64, :80]
    result = package.Pipeline([one, two])(image)
    exact = 255 * two(np.clip(one(image.astype(np.float32) / 255), 0, 1))
    assert result.shape == (128, 160, 3) and result.dtype == np.uint8
    assert np.abs(np.clip(exact, 0, 255) - result).max() < 0.6
    assert not np.array_equal(result, two(one(image)))


@pytest.mark.parametrize("shape", [(64, 80), (64, 80, 1), (64, 80, 2), (64, 80, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pipelines_keep_channels_and_dtype(shape, dtype, tiny):
    pipeline = load(
        "denoise+super-resolve",
        denoise_model=str(tiny("denoise")),
        super_resolve_model=str(tiny("super-resolve")),
        scale=3,
        device="cpu",
    )
    values = np.random.default_rng(0).random(shape)
    image = (values * {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]).astype(dtype)
    result = pipeline(image)
    assert result.shape == (192, 240, *shape[2:]) and result.dtype == dtype


def test_loading_several_tasks_assigns_options(tiny):
    pipeline = load("inpaint+denoise", sigma=12.0, inpaint_grow=3, denoise_strength=0.5, device="cpu")
    inpaint, denoise = pipeline.steps
    assert (inpaint.options.grow, denoise.options.sigma, denoise.strength, inpaint.strength) == (3, 12.0, 0.5, 1.0)
    for values, reason in (
        ({"inpaint_grwo": 1}, "did you mean 'inpaint_grow'"),
        ({"scale": 2}, "scale is an option of super-resolve, which is not among the steps"),
    ):
        with pytest.raises(UsageError, match=reason):
            options_by_task(parse_steps("inpaint+denoise"), values)
    with pytest.raises(UsageError, match="denoise_model"):
        load("denoise+inpaint", "gaussian")
    with pytest.raises(UsageError, match="appears twice"):
        package.Pipeline([denoise, denoise])


def test_masks_go_to_the_step_that_takes_one(photo, tiny):
    pipeline = load("denoise+inpaint", denoise_strength=0.0, inpaint_model=str(tiny("inpaint")), device="cpu")
    image, mask = photo[:64, :80], np.zeros((64, 80), bool)
    mask[20:30, 20:40] = True
    changed = (pipeline(image, mask) != image).any(axis=-1)
    assert changed.any() and not changed[~mask].any()
    with pytest.raises(UsageError, match="inpaint and dewatermark take a mask"):
        load("inpaint+dewatermark", device="cpu")(image, mask)
    with pytest.raises(UsageError, match="does not fit"):
        pipeline(image, mask[:50])


def test_one_bad_picture_of_a_batch_fails_alone(photo, tiny):
    pipeline = load("denoise+inpaint", denoise_model=str(tiny("denoise")), device="cpu")
    good, bad = Image(photo[:32, :32].astype(np.float32) / 255), Image(np.full((32, 32, 3), np.nan, np.float32))
    first, second = pipeline.enqueue([(good, None), (bad, None)])
    assert first.result().image.size == (32, 32)
    with pytest.raises(UsageError, match="NaN"):
        second.result()


# --- restore run -----------------------------------------------------------------------------------------------------


def test_run_restores_in_one_go(picture, flags, tmp_path, photo, capsys):
    """One file with a name of its own, of all steps; it is no input of the next run; -k and exit codes as ever."""
    call("run", "denoise+super-resolve", picture, *flags, "-s", 3, "--json")
    assert read(tmp_path / "photo.restored.png").shape == (192, 240, 3)
    record = json.loads(capsys.readouterr().out)
    assert [step["task"] for step in record["steps"]] == ["denoise", "super-resolve"]
    assert all(step["done"] for step in record["steps"])
    assert record["note"] == "; ".join(f"{step['task']}: {step['note']}" for step in record["steps"])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    call("run", "denoise+super-resolve", tmp_path, "-o", tmp_path / "out", *flags, "-q", expect=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]
    before = (tmp_path / "out" / "photo.png").stat().st_mtime_ns
    (tmp_path / "bad.png").unlink()
    cv2.imwrite(str(tmp_path / "new.png"), photo[:40, :40])
    call("run", "denoise+super-resolve", tmp_path, "-o", tmp_path / "out", *flags, "-q", "-k")
    assert (tmp_path / "out" / "photo.png").stat().st_mtime_ns == before
    assert read(tmp_path / "out" / "new.png").shape == (80, 80, 3)


def test_run_with_one_step_and_flags_of_a_task_give_what_its_command_gives(picture, tiny, tmp_path):
    weights = tiny("denoise")
    call("denoise", picture, tmp_path / "a.png", "-m", weights, "--strength", 0.5, "-q")
    call("run", "denoise", picture, tmp_path / "b.png", "--denoise-model", weights, "--denoise-strength", 0.5, "-q")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_run_copies_what_no_step_changes(photo, tmp_path):
    """A JPEG in colours comes back byte for byte from colorize and a denoiser of strength 0; metadata is kept."""
    source = tmp_path / "a.jpg"
    exif = PIL.Image.Exif()
    exif[0x010E] = "the cat"
    PIL.Image.fromarray(photo[:64, :80]).save(source, exif=exif)
    call("run", "denoise+colorize", source, "--denoise-strength", 0, "-q")
    assert (tmp_path / "a.restored.jpg").read_bytes() == source.read_bytes()
    call("run", "denoise+colorize", source, tmp_path / "b.jpg", "-q")
    assert (tmp_path / "b.jpg").read_bytes() != source.read_bytes()
    assert PIL.Image.open(tmp_path / "b.jpg").getexif()[0x010E] == "the cat"


def test_run_takes_and_saves_masks_and_hints(picture, tiny, tmp_path):
    mask = np.zeros((64, 80), np.uint8)
    mask[20:30, 20:40] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    steps = ["inpaint+super-resolve", picture, "--super-resolve-model", tiny("super-resolve")]
    call("run", *steps, "--mask", tmp_path / "mask.png", "--save-mask", tmp_path / "masks", "-q")
    assert np.array_equal(read(tmp_path / "masks" / "photo.png"), mask)
    assert read(tmp_path / "photo.restored.png").shape == (128, 160, 3)
    gray, hints = tmp_path / "gray.png", np.full((64, 80, 3), 255, np.uint8)
    hints[10:14, 10:14] = (0, 0, 200)
    cv2.imwrite(str(gray), cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE))
    cv2.imwrite(str(tmp_path / "hints.png"), hints)
    flags = ["--denoise-strength", 0, "-q"]
    call("run", "denoise+colorize", gray, tmp_path / "plain.png", *flags)
    call("run", "denoise+colorize", gray, tmp_path / "told.png", *flags, "--hints", tmp_path / "hints.png")
    assert not np.array_equal(read(tmp_path / "plain.png"), read(tmp_path / "told.png"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["denoise+inpant"], "unknown task 'inpant'; did you mean 'inpaint'"),
        (["denoise+"], "unknown task ''"),
        (["denoise,inpaint"], "denoise,inpaint: steps are joined by +, such as denoise+inpaint"),
        (["denoise+denoise"], "denoise appears twice"),
        (["super-resolve+inpaint"], "write inpaint before it"),
        (["denoise+inpaint", "--scale", "3"], "scale is an option of super-resolve"),
        (["denoise+colorize", "--mask", "{picture}"], "none of the steps takes a mask"),
        (["inpaint+dewatermark", "--mask", "{picture}"], "inpaint and dewatermark take a mask"),
        (["denoise+inpaint", "--hints", "{picture}"], "none of the steps takes hints"),
        (["denoise+colorize", "--save-mask", "masks"], "none of the steps looks for damage"),
        (["denoise+inpaint", "--inpaint-model", "nowhere"], "unknown model of inpaint 'nowhere'"),
    ],
)
def test_wrong_runs_get_one_line(arguments, reason, picture, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps, *rest = arguments
    call("run", steps, picture, *(str(picture) if word == "{picture}" else word for word in rest), expect=2)
    assert reason in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_every_flag_is_documented(capsys):
    for name, kinds in (
        ("run", (FileFlags, DeviceFlags, StepOptions, MaskFlags, HintFlags)),
        ("auto", (FileFlags, DeviceFlags, AutoOptions, AutoFlags)),
    ):
        call(name, "--help")
        text = " ".join(capsys.readouterr().out.split())
        flags = [known for kind in kinds for known in fields(kind) if "argument" not in known.metadata]
        missing = [known.name for known in flags if f"--{known.name.replace('_', '-')}" not in text]
        assert not missing and all(known.metadata["help"] in text for known in flags)


# --- restore auto ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples that are noisy, covered and healthy; the gray one saved as a JPEG of low and of high quality."""
    folder = tmp_path_factory.mktemp("mixed")
    for kind, name in (("noisy", "chelsea"), ("covered", "astronaut"), ("gray", "chelsea")):
        cv2.imwrite(str(folder / f"{kind}.png"), read(SAMPLES / kind / f"{name}.png")[20:276, 100:356])
    cv2.imwrite(str(folder / "blocks.jpg"), read(folder / "gray.png"), [cv2.IMWRITE_JPEG_QUALITY, 30])
    cv2.imwrite(str(folder / "healthy.jpg"), read(folder / "gray.png"), [cv2.IMWRITE_JPEG_QUALITY, 97])
    return folder


def test_auto_does_what_each_picture_needs(mixed, tmp_path, capsys):
    expected = {"noisy.png": ["denoise"], "covered.png": ["inpaint"], "blocks.jpg": ["denoise"]}
    for flags in (["--dry-run", "--save-mask", tmp_path / "masks"], []):
        call("auto", mixed, tmp_path / "out", "--json", *flags)
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        done = {
            Path(record["input"]).name: [step["task"] for step in record["steps"] if step["done"]] for record in records
        }
        assert done == {"gray.png": [], "healthy.jpg": []} | expected
        noise = {Path(record["input"]).name: record["steps"][0]["measured"] for record in records}
        assert noise["noisy.png"]["level"] > 10 > 1 > noise["gray.png"]["level"]
        assert noise["blocks.jpg"]["jpeg_step"] > 15 > 3 > noise["healthy.jpg"]["jpeg_step"]
        notes = {Path(record["input"]).name: record["note"] for record in records}
        assert "JPEG blocks" in notes["blocks.jpg"] and "JPEG blocks" not in notes["healthy.jpg"]
        assert "would be" in notes["noisy.png"] if flags else "denoised" in notes["noisy.png"]
        assert (tmp_path / "out").exists() != bool(flags)
    for name in ("gray.png", "healthy.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (mixed / name).read_bytes()
    mask = read(tmp_path / "masks" / "covered.png") > 0
    changed = (read(tmp_path / "out" / "covered.png") != read(mixed / "covered.png")).any(axis=-1)
    assert mask.any() and not changed[~mask].any()


@pytest.mark.parametrize(("kind", "opaque"), [("covered", True), ("marked", False)])
def test_auto_leaves_opaque_bars_to_inpaint(kind, opaque):
    """What `dewatermark` found is given up where `inpaint` is sure of it too, and kept where that sees nothing."""
    pipeline = load("auto", device="cpu", precision="fp32")
    before = Image(read(SAMPLES / kind / "astronaut.png"))
    mask = (before.pixels != read(SAMPLES / "clean" / "astronaut.png")).any(axis=-1)
    taken_off = Restored(Image(255 - before.pixels), mask, confidence=0.9)
    accepted = pipeline.accept(task_spec("dewatermark"), before, taken_off)
    if opaque:
        assert accepted.nothing and accepted.image is before and "opaque" in accepted.note
    else:
        assert accepted is taken_off


def test_auto_colours_and_enlarges_only_when_asked(mixed, tmp_path):
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), read(mixed / "gray.png")[:96, :96])
    call("auto", small, "-q", "--colorize", "--enlarge", 2)
    assert read(tmp_path / "small.restored.png").shape == (192, 192, 3)


def test_auto_loads_what_is_asked_for():
    steps = load("auto", device="cpu", aggressive=True, colorize=True, enlarge=3).steps
    assert [step.header.task for step in steps] == ["denoise", "dewatermark", "inpaint", "colorize", "super-resolve"]
    assert steps[1].options.aggressive and steps[2].options.aggressive and steps[4].head.scale == 3
    assert len(load("auto", device="cpu").steps) == 3
    with pytest.raises(UsageError, match="enlarge must be one of 1, 2, 3, 4"):
        load("auto", enlarge=7)
    with pytest.raises(UsageError, match="unknown option of auto 'sigma'. Known: aggressive, colorize, enlarge"):
        load("auto", sigma=3)
    with pytest.raises(UsageError, match="sigma must be a number; got '20'"):
        load("denoise", sigma="20")


def test_noise_and_blocks_are_told_from_drawings(photo):
    """Black and white rectangles have no noise, whatever lies between them, and edges are no grid of blocks."""
    page = np.full((128, 160, 1), 255, np.uint8)
    for left in range(3, 150, 16):
        page[20:90, left : left + 7] = 0
    assert not measure_noise(page, page).found
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 8, photo.shape), 0, 255).astype(np.uint8)
    assert measure_noise(noisy, photo).level == pytest.approx(8, abs=1)
    assert not measure_noise(photo[:5, :3], photo[:5, :3]).found


def test_the_quantization_step_of_jpeg_is_measured_wherever_its_grid_lies(photo):
    """That of the standard's table at quality 50: 13 in the median of its low frequencies."""
    for quality, step in ((50, 13), (25, 26), (90, 3), (98, 1)):
        _, file = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
        saved = cv2.imdecode(file, cv2.IMREAD_COLOR).reshape(photo.shape)
        for top, left in ((0, 0), (3, 5)):
            part = saved[top:, left:]
            assert measure_noise(part, part).jpeg_step == pytest.approx(step, rel=0.2, abs=2), (quality, top, left)
    assert measure_noise(photo, photo).jpeg_step == 1


def test_auto_judges_large_pictures_by_their_middle(photo, monkeypatch):
    """A healthy one costs only that; a noisy one is denoised as a whole."""
    pipeline = load("auto", device="cpu", precision="fp32")
    healthy = cv2.GaussianBlur(photo, (0, 0), 3)
    noisy = np.clip(healthy + np.random.default_rng(0).normal(0, 20, photo.shape), 0, 255).astype(np.uint8)
    monkeypatch.setattr(automatic, "JUDGED_SIDE", 96)
    sizes, enqueue = [], pipeline.steps[0].enqueue
    monkeypatch.setattr(
        pipeline.steps[0], "enqueue", lambda given: sizes.extend(one.size for one, _ in given) or enqueue(given)
    )
    results = [pipeline.restore(image).steps[0] for image in (healthy, noisy)]
    assert [result.done for result in results] == [False, True]
    assert sizes == [(96, 96), (96, 96), (photo.shape[1], photo.shape[0])]
