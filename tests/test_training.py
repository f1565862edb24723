"""Training: the same samples for any number of workers, a resumed run is an uninterrupted one, bad news in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file

from restore import weights
from restore.cli.app import run as run_cli
from restore.errors import RestoreError, TrainingError, UsageError
from restore.tasks import TASKS
from restore.tasks.objective import RestorationObjective
from restore.training import checkpoint
from restore.training.data import Batches, Key, Patches, fitting_patch, loader, variant_of
from restore.training.loop import Result, Run, checkpoint_folder
from restore.training.pictures import Pictures, list_pairs, list_pictures
from restore.training.settings import Settings
from restore.training.train import Request, train, widened

TINY = {"widths": (8, 32), "blocks": (1, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nested, of mixed formats and sizes, colour and gray, with a broken one and a text file among them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "deep" / "er").mkdir(parents=True)
    cat, coffee = skimage.data.chelsea()[..., ::-1], skimage.data.coffee()[..., ::-1]
    cv2.imwrite(str(root / "cat.png"), cat)
    cv2.imwrite(str(root / "deep" / "coffee.jpg"), coffee)
    cv2.imwrite(str(root / "deep" / "er" / "camera.tif"), skimage.data.camera()[:200, :300])
    cv2.imwrite(str(root / "deep" / "sixteen.png"), cat[:120, :130].astype(np.uint16) * 257)
    (root / "broken.jpg").write_bytes((root / "deep" / "coffee.jpg").read_bytes()[:5000])
    (root / "notes.txt").write_text("no picture")
    return root


def objective(name: str = "denoise", patch: int = 32) -> RestorationObjective:
    task = TASKS[name].load()
    return RestorationObjective(task, task.spec.training_options(), replace(task.config, **TINY), patch)


def request(folder: Path, out: Path, **changes) -> Request:
    settings = {"steps": 12, "batch_size": 4, "lr": 2e-3, "precision": "fp32", "device": "cpu", "workers": 0}
    return Request(folders=[folder], out=out, **{**settings, **changes})


def quietly(text: str) -> None:
    """A report nobody reads."""


@pytest.mark.parametrize("name", sorted(TASKS))
def test_samples_do_not_depend_on_workers_or_the_start(name, folder):
    """Batch b is the same made here, made by two workers, or made by a run that starts at b; processes share it out."""
    pictures = Pictures(list_pictures([folder]), report=quietly)
    made = objective(name)
    patches = Patches(pictures, made, seed=5)

    def batches(workers: int, start: int = 0, stop: int = 4, process: int = 0, processes: int = 1) -> list[dict]:
        keys = Batches(len(pictures), 4, len(made.variants), 5, start, stop, process, processes)
        return list(loader(patches, keys, workers, pin=False))

    alone, together, later = batches(0), batches(2), batches(0, start=2)
    for first, second in zip(alone, together, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(alone[2]["corrupted"], later[0]["corrupted"])
    assert not torch.equal(alone[0]["clean"], alone[len(made.variants)]["clean"])
    halves = [batches(0, stop=1, process=p, processes=2)[0]["clean"] for p in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), alone[0]["clean"])


def test_two_processes_share_a_batch(folder, tmp_path):
    """Under torchrun each process takes half of every batch: one file, one voice, the weights of one process."""
    command = ["train", "denoise", folder, "--steps", 5, "--batch-size", 4, "--patch", 32, "--precision", "fp32"]
    command += ["--net", "widths=8,12", "--net", "blocks=1,1", "--device", "cpu", "--workers", 0, "--lr", 2e-3, "-o"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "restore"]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert run_cli([str(word) for word in (*command, one)]) == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *map(str, command), str(two)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote ") == 1
    assert done.stderr.count("training denoise") == 1
    alone, shared = load_file(one), load_file(two)
    assert all(torch.allclose(alone[key], shared[key], atol=1e-3) for key in alone)


def test_every_kind_of_batch_comes_equally_often():
    kinds = [variant_of(batch, 3, seed=0) for batch in range(300)]
    assert [kinds.count(kind) for kind in range(3)] == [100, 100, 100]
    assert kinds[:9] != sorted(kinds[:9])


def test_pictures(folder):
    """Alpha is dropped, gray becomes RGB, deeper ones 8 bit; what cannot be read is named; the budget is kept."""
    said: list[str] = []
    cached = Pictures(list_pictures([folder]), report=said.append)
    assert [path.name for path in cached.paths] == ["cat.png", "coffee.jpg", "camera.tif", "sixteen.png"]
    assert len(said) == 1
    assert "broken.jpg" in said[0]
    assert all(cached[n].dtype == np.uint8 and cached[n].shape[-1] == 3 for n in range(4))
    assert np.array_equal(cached[0], skimage.data.chelsea())
    assert np.array_equal(cached[3], skimage.data.chelsea()[:120, :130])
    uncached = Pictures(list_pictures([folder]), budget=0, report=said.append)
    assert any("decoded as needed" in text for text in said)
    names = [path.name for path in uncached.paths]
    assert np.array_equal(uncached[names.index("cat.png")], cached[0])
    assert uncached[names.index("broken.jpg")] is None, "a header alone does not show the damage: it is found later"


def test_shrunk_and_small_pictures(tmp_path):
    big, small = tmp_path / "big", tmp_path / "small"
    for folder, side in ((big, 1200), (small, 20)):
        folder.mkdir()
        stripes = np.zeros((side, side, 3), np.uint8)
        stripes[:, ::2] = 255
        cv2.imwrite(str(folder / "a.png"), stripes)
    made = objective(patch=64)
    made.task = type("Plain", (), {"prepare": lambda self, clean, damage, rng: clean})()
    patches = Patches(Pictures(list_pictures([big]), report=quietly), made, seed=0)
    keys = [key for batch in Batches(1, 64, 1, 0, 0, 1) for key in batch]
    grays = sum(float(patches[key]["clean"].std()) < 0.4 for key in keys)
    assert 16 <= grays <= 48, "about half of the patches are shrunk, and stripes blur"
    tiny = Pictures(list_pictures([small]), report=quietly)
    assert fitting_patch(tiny, 64) == 20
    assert Patches(tiny, made, seed=0)[keys[0]]["clean"].shape == (3, 64, 64)


def test_large_pictures_do_not_crowd_out_small_ones(tmp_path):
    """A picture of ten times the side is seen ten times as often, not a hundred times."""
    for side, value in ((60, 0), (600, 255)):
        cv2.imwrite(str(tmp_path / f"{side}.png"), np.full((side, side, 3), value, np.uint8))
    made = objective(patch=32)
    patches = Patches(Pictures(list_pictures([tmp_path]), report=quietly), made, seed=0)
    small = sum(float(patches[Key(0, index, 0)]["clean"].max()) < 0.5 for index in range(660))
    assert 30 <= small <= 90


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "muon") for name in sorted(TASKS)), ("denoise", "adamw")])
def test_resume_is_no_interruption(name, optimizer, folder, tmp_path):
    """Stopped after each of two steps and resumed: the weights of a run that was never stopped, to the bit."""

    def run(out: Path, **changes) -> Result:
        return train(objective(name), request(folder, out, optimizer=optimizer, **changes), report=quietly, bar=True)

    straight, stopped = tmp_path / "straight.safetensors", tmp_path / "stopped.safetensors"
    run(straight)
    first = run(stopped, stop_after=1e-9)
    assert (first.status, first.step) == ("paused", 1)
    assert not stopped.exists()
    second = run(stopped, stop_after=1e-9, resume=True)
    assert second.step == 2
    last = run(stopped, resume=True)
    assert last.status == "finished"
    one, other = load_file(straight), load_file(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    files = list(checkpoint_folder(stopped).rglob("*.safetensors"))
    assert files
    assert max(path.stat().st_size for path in files) < 15e6


def test_training_learns_and_keeps_the_best(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    loud = replace(TASKS["denoise"].training_options(), noise="white", sigma=(50.0, 50.0))
    start = RestorationObjective(TASKS["denoise"].load(), loud, replace(TASKS["denoise"].load().config, **TINY), 32)
    result = train(start, request(folder, out, steps=120, lr=8e-3), report=quietly, bar=True)
    torch.manual_seed(0)
    pictures = Pictures(list_pictures([folder]), report=quietly)
    noisy = start.validate(weights.build(start.arch, start.config).eval(), [pictures[0]])
    header, network = weights.load(out, "denoise")
    learnt = start.validate(network, [pictures[0]])
    assert learnt["sigma 50"] > noisy["sigma 50"] + 3
    assert header.scores == {label: round(score, 3) for label, score in result.scores.items()}
    assert header.provenance["steps"] == 120
    history = checkpoint.load(checkpoint_folder(out)).state["progress"]["history"]
    best = max(np.mean([point[label] for label in header.scores]) for point in history)
    assert np.mean(list(result.scores.values())) == pytest.approx(best)


def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(folder, tmp_path, monkeypatch):
    made, out = objective(), tmp_path / "out.safetensors"
    loss = made.loss
    calls = iter(range(1000))
    monkeypatch.setattr(made, "loss", lambda *a: loss(*a) * (torch.nan if next(calls) >= 15 else 1))
    with pytest.raises(TrainingError, match=r"no number any more.*lower --lr.*out\.safetensors"):
        train(made, request(folder, out, steps=100), report=quietly, bar=True)
    weights.load(out, "denoise")  # refuses what is not finite


def test_init_starts_from_weights(folder, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    train(objective(), request(folder, first), report=quietly, bar=True)
    train(objective(), request(folder, second, steps=1, lr=1e-9, init=first), report=quietly, bar=True)
    one, other = load_file(first), load_file(second)
    assert all(torch.allclose(one[key], other[key], atol=1e-3) for key in one)
    wider = RestorationObjective(TASKS["denoise"].load(), TASKS["denoise"].training_options(), None, 32)
    with pytest.raises(UsageError, match="another architecture or config"):
        train(wider, request(folder, tmp_path / "third.safetensors", init=first), report=quietly, bar=True)


def test_init_widens_the_first_convolution(folder, tmp_path):
    """A network that looks at more planes starts as the one it came from: what is new has no effect at first."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    narrow, wide = objective(), objective()
    narrow.config = replace(narrow.config, in_channels=3)
    train(narrow, request(folder, first), report=quietly, bar=True)
    train(wide, request(folder, second, steps=1, lr=1e-9, init=first), report=quietly, bar=True)
    (_, three), (header, five) = weights.load(first), weights.load(second)
    assert header.config["in_channels"] == 5
    planes = torch.rand(1, 5, 32, 32)
    assert torch.allclose(three(planes[:, :3]), five(planes), atol=1e-3)
    with pytest.raises(UsageError, match="another architecture or config"):
        train(narrow, request(folder, tmp_path / "third.safetensors", init=second), report=quietly, bar=True)


def test_widened_refuses_what_differs_otherwise():
    wanted = {"stem": torch.zeros(8, 20, 3, 3), "bias": torch.zeros(8)}
    grown = widened({"stem": torch.ones(8, 12, 3, 3), "bias": torch.ones(8)}, wanted)
    assert grown["stem"].sum((0, 2, 3)).tolist() == [72.0] * 12 + [0.0] * 8
    assert torch.equal(grown["bias"], torch.ones(8))
    for shape in ((9, 12, 3, 3), (8, 12, 5, 5), (8, 24, 3, 3)):
        with pytest.raises(UsageError, match="stem is"):
            widened({"stem": torch.zeros(shape)}, wanted)


def test_real_pairs(tmp_path):
    """Pictures with a namesake among the corrupted ones come as they are, as often as told; the others are damaged."""
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    clean.mkdir()
    noisy.mkdir()
    cat = skimage.data.chelsea()[..., ::-1]
    for number in range(4):
        cv2.imwrite(str(clean / f"{number}.png"), cat[number : number + 100, :120])
    for number in (0, 1):  # all of one value: nothing that is damaged on the fly looks like it
        cv2.imwrite(str(noisy / f"{number}.png"), np.full((100, 120, 3), 7, np.uint8))
    paths = list_pictures([clean])
    pictures = Pictures(paths, report=quietly, corrupted=list_pairs(paths, noisy))
    assert pictures.paired == [True, True, False, False]
    made = objective()
    patches = Patches(pictures, made, seed=0, paired=0.25)
    samples = [patches[Key(0, number, 0)] for number in range(400)]
    paired = [bool(sample["corrupted"].std() < 1e-6) for sample in samples]
    assert np.mean(paired) == pytest.approx(0.25, abs=0.06)
    assert all(sample["clean"].shape == (3, 32, 32) and sample["clean"].std() > 0 for sample in samples)
    out = tmp_path / "out.safetensors"
    said: list[str] = []
    train(made, request(clean, out, corrupted=noisy, val=[clean]), report=said.append, bar=True)
    assert "2 pairs; the other 2 pictures are damaged on the fly" in said
    assert "pairs" in weights.read_header(out).scores


def test_pairs_that_do_not_fit_are_named(tmp_path):
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    (clean / "more").mkdir(parents=True)
    noisy.mkdir()
    cat = skimage.data.chelsea()[..., ::-1]
    cv2.imwrite(str(clean / "a.png"), cat[:64, :64])
    cv2.imwrite(str(noisy / "a.jpg"), cat[:64, :60])
    with pytest.raises(UsageError, match=r"a\.jpg: is 60x64, but its clean picture .*a\.png is 64x64"):
        list_pairs(list_pictures([clean]), noisy)
    cv2.imwrite(str(noisy / "a.jpg"), cat[:64, :64])
    cv2.imwrite(str(clean / "more" / "a.png"), cat[:64, :64])
    with pytest.raises(UsageError, match=r"a\.jpg: more than one picture called a in the folders"):
        list_pairs(list_pictures([clean]), noisy)
    (noisy / "a.jpg").rename(noisy / "b.jpg")
    with pytest.raises(UsageError, match=r"b\.jpg: no clean picture called b in the folders"):
        list_pairs(list_pictures([clean]), noisy)


def test_the_level_is_told_to_a_share_of_the_patches(folder):
    """What stands in the planes of the level is the noise that was added; zeros say that it is not told."""
    task = TASKS["denoise"].load()
    damage = replace(task.spec.training_options(), noise="white", clip=0.0, sigma=(20.0, 20.0), told=0.5)
    made = RestorationObjective(task, damage, None, 64)
    pictures = Pictures(list_pictures([folder]), report=quietly)
    hints = torch.stack([Patches(pictures, made, seed=0)[Key(0, number, 0)]["hints"] for number in range(100)])
    told = hints[:, 0, 0, 0] == 1
    assert 0.3 < told.float().mean() < 0.7
    assert (50 * hints[told, 1]).mean().item() == pytest.approx(20.0, rel=0.02)
    assert not hints[~told].any()


def test_training_says_where_it_stands(folder, tmp_path):
    """Beside doing nothing, at every validation and at the end; and it warns of a run too short to help."""
    said: list[str] = []
    train(objective(), request(folder, tmp_path / "out.safetensors", steps=2, lr=1e-9), report=said.append, bar=True)
    assert any("2 steps are few" in text for text in said)
    wrote = next(text for text in said if text.startswith("wrote "))
    before, after = (
        float(text) for text in re.search(r"as they are ([\d.]+) dB, restored ([\d.]+) dB", wrote).groups()
    )
    assert 20 < before < 30
    assert ("worse than the input, train longer or start with `--init default`" in wrote) == (after <= before)
    said.clear()
    run = objective()
    run.validate = lambda network, pictures: dict.fromkeys(run.untouched(pictures), 1.0)
    train(run, request(folder, tmp_path / "bad.safetensors", steps=2, lr=1e-9), report=said.append, bar=True)
    assert any(text.startswith("wrote ") and "restored 1.00 dB: worse than the input" in text for text in said)


def test_init_takes_what_fits_of_weights_for_other_scales(folder, tmp_path):
    """The trunk is shared: weights for x2 are a start for x4, whose head is new."""
    double, fourfold = objective("super-resolve", 16), objective("super-resolve", 16)
    task = double.task
    for made, scales in ((double, (2,)), (fourfold, (2, 4))):
        made.damage = task.spec.damage(scales=scales)
        made.config = task.config_for(made.config, made.damage)
        made.variants = task.variants(made.damage)
    train(double, request(folder, tmp_path / "x2.safetensors"), report=quietly, bar=True)
    start = request(folder, tmp_path / "x4.safetensors", init=tmp_path / "x2.safetensors", steps=1, lr=1e-9)
    train(fourfold, start, report=quietly, bar=True)
    before, after = load_file(tmp_path / "x2.safetensors"), load_file(tmp_path / "x4.safetensors")
    assert torch.equal(before["stem.weight"], after["stem.weight"])
    assert torch.equal(before["heads.2.weight"], after["heads.2.weight"])
    assert "heads.4.weight" in after


@pytest.mark.parametrize(
    "changes", [{"loss": "mse"}, {"loss": "charbonnier"}, {"loss": "psnr"}, {"mse_share": 0.5}, {"ema": 0.0}]
)
def test_what_shapes_the_weights_does(changes, folder, tmp_path):
    """Each setting leads to other weights than the run without it, and stands in the header."""
    train(objective(), request(folder, tmp_path / "plain.safetensors"), report=quietly, bar=True)
    train(objective(), request(folder, tmp_path / "other.safetensors", **changes), report=quietly, bar=True)
    plain, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "other"))
    assert not torch.equal(plain["stem.weight"], other["stem.weight"])
    provenance = weights.read_header(tmp_path / "other.safetensors").provenance
    assert {name: provenance[name] for name in changes} == changes


def test_settings_that_cannot_be():
    for wrong in ({"loss": "huber"}, {"mse_share": 1.5}, {"ema": 1.0}, {"lr": 0.0}):
        with pytest.raises(UsageError):
            Settings(steps=10, **wrong)


def test_scenes_are_seen_upright_and_whole(tmp_path):
    """Where a patch is to cover most of a scene: the sky stays above, and a large picture counts as much as a small."""
    small, large = tmp_path / "a.png", tmp_path / "b.png"
    for path, side, dark in ((small, 60, 0), (large, 600, 100)):
        image = np.full((side, side + 20, 3), dark, np.uint8)
        image[: side // 2] = 255
        cv2.imwrite(str(path), image)
    made = objective("colorize", 32)
    patches = Patches(Pictures(list_pictures([tmp_path]), report=quietly), made, seed=0)
    assert made.coverage(0) is not None
    darkest = []
    for index in range(60):
        clean = patches[Key(0, index, 0)]["clean"]
        assert clean.shape == (3, 32, 32)
        assert clean[:, 0].min() > clean[:, -1].max()
        darkest.append(float(clean.min()))
    assert 0.3 < np.mean(np.array(darkest) < 0.2) < 0.7


def test_minutes_become_steps_once(folder, tmp_path, monkeypatch):
    """By the time a step takes; a resumed run does not measure again."""
    timed: list[float] = []
    measure = Run.seconds_a_step

    def half_a_second(run: Run) -> float:
        timed.append(measure(run, count=2))
        return 0.5

    monkeypatch.setattr(Run, "seconds_a_step", half_a_second)
    out, same = tmp_path / "out.safetensors", tmp_path / "same.safetensors"
    paused = request(folder, out, steps=None, minutes=0.05, stop_after=1e-9)
    train(objective(), paused, report=quietly, bar=True)
    train(objective(), replace(paused, stop_after=None, resume=True), report=quietly, bar=True)
    assert weights.read_header(out).provenance["steps"] == 6
    assert len(timed) == 1
    assert timed[0] > 0
    train(objective(), request(folder, same, steps=6), report=quietly, bar=True)
    one, other = load_file(out), load_file(same)
    assert all(torch.equal(one[key], other[key]) for key in one), "the timing left a trace"


def test_patches_shrink_to_fit_and_say_so(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), skimage.data.camera()[:28, :28])
    said: list[str] = []
    made = objective("super-resolve", patch=48)
    train(made, request(tmp_path, tmp_path / "out.safetensors", steps=2), report=said.append, bar=True)
    assert made.patch == 7
    assert any("patches shrink from 48 to 7" in text for text in said)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resume": True}, "no checkpoint to resume"),
        ({"folders": [Path("/nowhere")]}, "no such folder"),
        ({"val": [Path("/nowhere")]}, "no such folder"),
        ({"steps": None, "minutes": -1.0}, "minutes must be above 0"),
        ({"lr": 0.0}, "learning rate"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"precision": "fp16"}, "overflows"),
    ],
)
def test_requests_that_cannot_be(changes, reason, folder, tmp_path):
    with pytest.raises(UsageError, match=reason):
        train(objective(), replace(request(folder, tmp_path / "out.safetensors"), **changes), report=quietly, bar=True)


def test_outputs_are_not_overwritten_and_settings_are_kept(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    train(objective(), request(folder, out, stop_after=1e-9), report=quietly, bar=True)
    with pytest.raises(UsageError, match="--resume goes on"):
        train(objective(), request(folder, out), report=quietly, bar=True)
    with pytest.raises(UsageError, match="--lr was 0.002"):
        train(objective(), request(folder, out, resume=True, lr=1.0), report=quietly, bar=True)
    train(objective(), request(folder, out, resume=True), report=quietly, bar=True)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        train(objective(), request(folder, out), report=quietly, bar=True)
    assert out.read_bytes() == before
    train(objective(), request(folder, out, overwrite=True, seed=1), report=quietly, bar=True)
    assert out.read_bytes() != before


def test_folders_without_a_readable_picture(tmp_path):
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    for folder in (empty, broken):
        folder.mkdir()
    (broken / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (broken / "b.png").write_bytes(b"")
    with pytest.raises(UsageError, match="no pictures in this folder"):
        train(objective(), request(empty, tmp_path / "out.safetensors"), report=quietly, bar=True)
    with pytest.raises(TrainingError, match="none of the training pictures can be read"):
        train(objective(), request(broken, tmp_path / "out.safetensors"), report=quietly, bar=True)


def test_checkpoints_are_whole_and_in_small_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1000)
    torch.manual_seed(0)
    groups = {"model": {"large": torch.rand(20, 30), "small": torch.rand(3)}, "best": {"a.b": torch.rand(7, 7).half()}}
    checkpoint.save(tmp_path, 1, checkpoint.Checkpoint(groups, {"step": 1}))
    checkpoint.save(tmp_path, 12, checkpoint.Checkpoint(groups, {"step": 12}))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]
    assert max(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 1500
    again = checkpoint.load(tmp_path)
    assert again.state == {"step": 12}
    for group, tensors in groups.items():
        assert again.groups[group].keys() == tensors.keys()
        assert all(torch.equal(again.groups[group][name], tensors[name]) for name in tensors)
    monkeypatch.setattr(
        checkpoint, "save_tensors", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(RestoreError, match="No space left"):
        checkpoint.save(tmp_path, 20, checkpoint.Checkpoint(groups, {}))
    assert checkpoint.load(tmp_path).state == {"step": 12}
    (tmp_path / "step-00000012" / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        checkpoint.load(tmp_path)


def test_schedule():
    settings = Settings(steps=1000, lr=1.0)
    rates = [settings.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (99, 100)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    assert all(a > b for a, b in zip(rates[100:], rates[101:], strict=False))


def test_the_command_trains_pauses_at_ctrl_c_and_resumes(folder, tmp_path, restore):
    """As a person does it; the file it makes restores a picture."""
    out = tmp_path / "mine.safetensors"
    command = ["train", "denoise", folder, "-o", out, "--steps", 2000, "--batch-size", 2, "--patch", 32, "--workers", 1]
    command += ["--net", "widths=8,12", "--net", "blocks=1,1", "--device", "cpu", "--sigma", "10,30"]
    running = subprocess.Popen(
        [sys.executable, "-m", "restore", *map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stderr is not None
    lines = []
    for line in running.stderr:
        lines.append(line)
        if line.startswith("step "):
            break
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the whole group
    stopped = time.monotonic()
    rest = running.communicate(timeout=60)[1]
    assert running.returncode == 130, "".join(lines) + rest
    assert time.monotonic() - stopped < 30
    assert "Traceback" not in rest
    assert "interrupted at step" in rest
    assert any("broken.jpg" in line for line in lines), "the unreadable picture is named"
    assert not out.exists()
    state = checkpoint.load(checkpoint_folder(out)).state
    assert state["progress"]["step"] >= 100
    done = restore(*command, "--resume", "--stop-after", 0.0001)
    assert "paused at step" in done.stderr
    listed = json.loads(restore("models", "-m", make_finished(out, folder), "--json").stdout)
    assert listed[0]["task"] == "denoise"
    assert listed[0]["provenance"]["pictures"] >= 3


def make_finished(out: Path, folder: Path) -> Path:
    """A short run of the same command, to its end."""
    finished = out.with_name("finished.safetensors")
    train(objective(), request(folder, finished), report=quietly, bar=True)
    return finished


def test_logs_hold_curves_and_previews(folder, tmp_path, monkeypatch):
    """Where TensorBoard is installed: the loss, the validation scores, and a grid of corrupted, restored, clean."""
    written: dict[str, list] = {}

    class Writer:
        def __init__(self, where: str) -> None:
            assert where.endswith("tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.setdefault(name, []).append((step, value))

        def add_image(self, name: str, grid: torch.Tensor, step: int) -> None:
            written.setdefault(name, []).append(tuple(grid.shape))

        def close(self) -> None:
            written["closed"] = []

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    train(objective(), request(folder, tmp_path / "out.safetensors"), report=quietly, bar=True)
    assert [step for step, _ in written["loss"]] == [0, 10, 11]
    assert written["validation/sigma 25"][0][0] == 12
    height, width = written["corrupted, restored, clean"][0][1:]
    assert width > 3 * 200 > height
    assert "closed" in written
