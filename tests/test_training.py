"""Training: the same samples for any number of workers, a resumed run is an uninterrupted one, bad news in one line."""

from __future__ import annotations

import os
import re
import shutil
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

from restore import load, weights
from restore.cli.app import run as run_cli
from restore.errors import RestoreError, TrainingError, UsageError
from restore.models import config_for
from restore.tasks import TASKS
from restore.tasks.base import load_task
from restore.tasks.objective import RestorationObjective
from restore.training import checkpoint
from restore.training import train as training
from restore.training.checkpoint import checkpoint_folder
from restore.training.data import Batches, Key, Patches, Pictures, list_pairs, list_pictures, loader, variant_of
from restore.training.loop import Result, Run
from restore.training.processes import Processes
from restore.training.settings import Settings
from restore.training.train import train, widened

TINY = {"widths": (4, 32), "blocks": (1, 1)}  # 32: wide enough for Muon to turn
VALIDATED = 96
FINDER = {"finder_widths": (4, 8), "finder_blocks": (1, 1)}


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


@pytest.fixture(autouse=True)
def short_validation(monkeypatch) -> None:
    """Small pictures show whether validation works."""
    monkeypatch.setattr("restore.tasks.objective.VALIDATED", VALIDATED)


def objective(name: str = "denoise", patch: int = 32) -> RestorationObjective:
    task = load_task(name)
    small = {"widths": (4, 4, 4)} if task.arch == "pretrained-unet" else TINY
    config = replace(task.config, **small, **(FINDER if hasattr(task.config, "finder_widths") else {}))
    return RestorationObjective(task, task.spec.training_options(), config, patch)


def request(folder: Path, out: Path, **changes) -> Settings:
    usual = {"steps": 12, "batch_size": 2, "lr": 2e-3, "precision": "fp32", "device": "cpu", "workers": 0}
    return Settings(**{"folders": [folder], "output": out, **usual, **changes})


def newest(out: Path) -> dict:
    """The state of the newest checkpoint."""
    return checkpoint.load(checkpoint_folder(out)).state


def quietly(text: str) -> None:
    """A report nobody reads."""


@pytest.mark.parametrize("name", sorted(TASKS))
def test_samples_do_not_depend_on_workers_or_the_start(name, folder):
    """Batch b is the same made here, made by two workers, or made by a run that starts at b; processes share it out."""
    pictures = Pictures(list_pictures([folder]), report=quietly)
    made = objective(name)
    patches = Patches(pictures, made, seed=5)

    def batches(workers: int, start: int = 0, stop: int = 4, process: int = 0, processes: int = 1) -> list[dict]:
        keys = Batches(len(pictures), 2, len(made.variants), 5, start, stop, process, processes)
        return list(loader(patches, keys, workers, pin=False))

    alone, together, later = batches(0), batches(2), batches(0, start=2)
    for first, second in zip(alone, together, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(alone[2]["corrupted"], later[0]["corrupted"])
    assert not torch.equal(alone[0]["clean"], alone[len(made.variants)]["clean"])
    halves = [batches(0, stop=1, process=p, processes=2)[0]["clean"] for p in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), alone[0]["clean"])


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = ["--batch-size", 4, "--patch", 32, "--precision", "fp32", "--net", "widths=8,12", "--net", "blocks=1,1"]
SMALL += ["--device", "cpu", "--workers", 0, "--lr", 2e-3]


# Before the command: writes down which process decodes which picture.
DECODING = """
import os, sys
from restore.cli.app import run
from restore.tasks import objective
from restore.training import data

objective.VALIDATED = {side}
read = data.read_image

def noted(path):
    with open({log!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{path.name}}\\n")
    return read(path)

data.read_image = noted
"""


def test_two_processes_are_as_one(folder, tmp_path, capsys):
    """Under torchrun each process takes half of every batch: one file, one voice, the weights of one process.

    Every picture is decoded once, by one of the two. Then --minutes becomes one number of steps for both, and Ctrl-C,
    which torchrun passes on, saves and stops both. One start of torchrun, since that is what takes long.
    """
    short = ["train", "denoise", folder, "--steps", 5, *SMALL, "-o"]
    one, two, out = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out"))
    long = [str(word) for word in ("train", "denoise", folder, *SMALL, "--minutes", 0.5, "-o", out)]
    assert run_cli([str(word) for word in (*short, one)]) == 0
    script = tmp_path / "both.py"
    commands = [str(word) for word in (*short, two)], long
    script.write_text(
        DECODING.format(log=str(tmp_path / "decoded"), side=VALIDATED) + f"sys.exit(max(map(run, {commands!r})))"
    )
    lines = interrupted([*TORCHRUN, str(script)], at=r"step \d{3}")
    said = [sum(text in line for line in lines) for text in ("wrote ", "training denoise", "interrupted at step")]
    assert said == [1, 2, 1]
    alone, shared = load_file(one), load_file(two)
    assert all(torch.allclose(alone[key], shared[key], atol=1e-3) for key in alone)
    scores = [weights.read_header(path).scores["sigma 25"] for path in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    decoded = [line.split() for line in (tmp_path / "decoded").read_text().splitlines()]
    assert sorted(name for _, name in decoded) == sorted(2 * [path.name for path in list_pictures([folder])])
    assert len({process for process, _ in decoded}) == 2
    reached = newest(out)["progress"]["step"]
    assert reached >= 100
    assert run_cli([*long, "--resume", "--stop-after", "0.00001"]) == 0
    assert f"paused at step {reached + 1} of {newest(out)['settings']['steps']}" in capsys.readouterr().err


def interrupted(command: list[str], at: str) -> list[str]:
    """What a command says on stderr, which is interrupted as a terminal does it when a line begins as `at` has it."""
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stderr is not None
    lines = []
    for line in running.stderr:
        lines.append(line)
        if re.match(at, line):
            os.killpg(running.pid, signal.SIGINT)
    running.wait(timeout=60)
    assert running.returncode in (1, 130), "".join(lines)
    return lines


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
    training._fit_patch(made, tiny, quietly)
    assert made.patch == 20
    made.patch = 64
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
    patch = 16 if TASKS[name].masks else 32  # damage that takes long to draw, on few pixels

    def run(out: Path, **changes) -> Result:
        asked = request(folder, out, optimizer=optimizer, steps=5, **changes)
        return train(objective(name, patch), asked, report=quietly, bar=True)

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
    start = RestorationObjective(load_task("denoise"), loud, replace(load_task("denoise").config, **TINY), 32)
    result = train(start, request(folder, out, steps=120, lr=8e-3), report=quietly, bar=True)
    torch.manual_seed(0)
    pictures = Pictures(list_pictures([folder]), report=quietly)
    noisy = start.score(weights.build(start.arch, start.config).eval(), pictures[0], 0)
    header, network = weights.load(out, "denoise")
    learnt = start.score(network, pictures[0], 0)
    assert learnt["sigma 50"] > noisy["sigma 50"] + 2
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
    train(objective(), request(folder, second, steps=1, lr=1e-9, init=str(first)), report=quietly, bar=True)
    one, other = load_file(first), load_file(second)
    assert all(torch.allclose(one[key], other[key], atol=1e-3) for key in one)
    wider = RestorationObjective(load_task("denoise"), TASKS["denoise"].training_options(), None, 32)
    with pytest.raises(UsageError, match="another architecture or config"):
        train(wider, request(folder, tmp_path / "third.safetensors", init=str(first)), report=quietly, bar=True)


def test_init_widens_the_first_convolution(folder, tmp_path):
    """A network that looks at more planes starts as the one it came from: what is new has no effect at first."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    narrow, wide = objective(), objective()
    narrow.config = replace(narrow.config, in_channels=3)
    train(narrow, request(folder, first), report=quietly, bar=True)
    train(wide, request(folder, second, steps=1, lr=1e-9, init=str(first)), report=quietly, bar=True)
    (_, three), (header, five) = weights.load(first), weights.load(second)
    assert header.config["in_channels"] == 5
    planes = torch.rand(1, 5, 32, 32)
    assert torch.allclose(three(planes[:, :3]), five(planes), atol=1e-3)
    with pytest.raises(UsageError, match="another architecture or config"):
        train(narrow, request(folder, tmp_path / "third.safetensors", init=str(second)), report=quietly, bar=True)


def test_what_is_trained_is_asked_anew(folder, tmp_path):
    """Weights of which the judge was trained last are trained as a whole, unless `--net trained` says otherwise."""
    start, out = tmp_path / "start.safetensors", tmp_path / "out.safetensors"
    header, network = weights.load(weights.find("inpaint"), "inpaint")
    weights.save(start, replace(header, config={**header.config, "trained": "judge"}), network.state_dict())
    words = ["train", "inpaint", str(folder), "--init", str(start), "-o", str(out), "--steps", "1", "--patch", "32"]
    words += ["--batch-size", "4", "--device", "cpu", "--precision", "fp32", "--keep", "last", "-j", "0", "-q"]
    assert run_cli(words) == 0
    header, after = weights.load(out, "inpaint")
    assert header.config["trained"] == "all"
    changed = {
        name.partition(".")[0]
        for name, tensor in after.state_dict().items()
        if not torch.equal(tensor, network.state_dict()[name])
    }
    assert {"finder", "painter"} <= changed


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


@pytest.mark.parametrize("task", ["inpaint", "dewatermark", "super-resolve"])
def test_tasks_that_cannot_learn_from_pairs_say_so(task, folder, tmp_path, capsys):
    words = ["train", task, str(folder), "--corrupted", str(folder), "-o", str(tmp_path / "out.safetensors")]
    assert run_cli(words) == 2
    assert capsys.readouterr().err.startswith(f"restore: --corrupted: {task} cannot train on pairs")
    assert not list(tmp_path.iterdir())


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
    task = load_task("denoise")
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
    score = run.score
    run.score = lambda network, picture, number: {
        label: value if network is None else 1.0 for label, value in score(network, picture, number).items()
    }
    train(run, request(folder, tmp_path / "bad.safetensors", steps=2, lr=1e-9), report=said.append, bar=True)
    assert any(text.startswith("wrote ") and "restored 1.00 dB: worse than the input" in text for text in said)


def test_init_takes_what_fits_of_weights_for_other_scales(folder, tmp_path):
    """The trunk is shared: weights for x2 are a start for x4, whose head is new."""
    double, fourfold = objective("super-resolve", 16), objective("super-resolve", 16)
    task = double.task
    for made, scales in ((double, (2,)), (fourfold, (2, 4))):
        made.damage = task.spec.damage(scales=scales)
        made.config = task.config_for(made.config, made.damage)
        made.variants = task.training_pairs(made.damage)
    train(double, request(folder, tmp_path / "x2.safetensors"), report=quietly, bar=True)
    start = request(folder, tmp_path / "x4.safetensors", init=str(tmp_path / "x2.safetensors"), steps=1, lr=1e-9)
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
    for wrong in ({"loss": "huber"}, {"mse_share": 1.5}, {"ema": 1.0}, {"lr": 0.0}, {"minutes": 3.0}, {"workers": -1}):
        with pytest.raises(UsageError):
            Settings([], steps=10, **wrong)


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
        timed.append(measure(run))
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
        ({"folders": [Path("/nowhere")]}, "no such file or folder"),
        ({"val": [Path("/nowhere")]}, "no such file or folder"),
        ({"steps": None, "minutes": -1.0}, "minutes must be above 0"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"precision": "fp16"}, "auto, fp32, bf16"),
    ],
)
def test_requests_that_cannot_be(changes, reason, folder, tmp_path):
    with pytest.raises(UsageError, match=reason):
        train(objective(), request(folder, tmp_path / "out.safetensors", **changes), report=quietly, bar=True)


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
    checkpoint = sorted((tmp_path / "out.checkpoint").rglob("*"))
    with pytest.raises(UsageError, match="nowhere"):
        train(objective(), request(folder, out, overwrite=True, init="nowhere"), report=quietly, bar=True)
    assert checkpoint and sorted((tmp_path / "out.checkpoint").rglob("*")) == checkpoint, "a mistake costs nothing"
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
    checkpoint.save(tmp_path, 15, checkpoint.Checkpoint(groups, {"step": 15}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000012", "step-00000015"]
    assert max(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 1500
    again = checkpoint.load(tmp_path)
    assert again.state == {"step": 15}
    for group, tensors in groups.items():
        assert again.groups[group].keys() == tensors.keys()
        assert all(torch.equal(again.groups[group][name], tensors[name]) for name in tensors)
    monkeypatch.setattr(
        checkpoint, "save_tensors", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(RestoreError, match="No space left"):
        checkpoint.save(tmp_path, 20, checkpoint.Checkpoint(groups, {}))
    assert checkpoint.load(tmp_path).state == {"step": 15}
    (tmp_path / "step-00000015" / "state.json").write_text("{")
    said: list[str] = []
    assert checkpoint.load(tmp_path, said.append).state == {"step": 12}
    assert "step-00000015: damaged checkpoint" in said[0]
    assert "going on from step-00000012" in said[0]
    (tmp_path / "step-00000012" / "model-000.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        checkpoint.load(tmp_path)


def test_schedule():
    settings = Settings([], steps=1000, lr=1.0)
    rates = [settings.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (99, 100)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    assert all(a > b for a, b in zip(rates[100:], rates[101:], strict=False))


def test_the_command_trains_pauses_at_ctrl_c_and_resumes(folder, tmp_path, capsys):
    """As a person does it."""
    out = tmp_path / "mine.safetensors"
    command = ["train", "denoise", folder, "-o", out, "--steps", 2000, "--batch-size", 2, "--patch", 32, "--workers", 1]
    command += ["--net", "widths=8,12", "--net", "blocks=1,1", "--device", "cpu", "--sigma", "10,30"]
    words = [str(word) for word in command]
    lines = interrupted([sys.executable, "-m", "restore", *words], at=r"step \d{3}")
    assert "Traceback" not in "".join(lines)
    assert lines[-1] == "restore: interrupted\n"
    assert any("interrupted at step" in line for line in lines)
    assert any("broken.jpg" in line for line in lines), "the unreadable picture is named"
    assert not out.exists()
    assert newest(out)["progress"]["step"] >= 100
    assert run_cli([*words, "--resume", "--stop-after", "0.0001"]) == 0
    assert "paused at step" in capsys.readouterr().err


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
    assert width > 3 * VALIDATED > height
    assert "closed" in written


def test_an_exact_picture_does_not_decide_which_weights_are_best(folder, tmp_path, monkeypatch):
    """One comes back exactly at the first validation (PSNR is infinite), all others get better later: the last wins."""
    seen = iter(range(1000))
    exact = 4 * 7  # pictures and cases: the first score of a network, after those of doing nothing
    monkeypatch.setattr("restore.training.settings.LEAST_BETWEEN", 4)
    monkeypatch.setattr(
        "restore.tasks.base.Case.value", lambda *a: np.inf if (n := next(seen)) == exact else 20.0 + n / 10
    )
    out = tmp_path / "out.safetensors"
    result = train(objective(), request(folder, out, val=[folder]), report=quietly, bar=True)
    assert weights.read_header(out).provenance["best_step"] == 12
    assert all(np.isfinite(score) for score in result.scores.values())


@pytest.mark.parametrize(("keep", "step"), [("best", 4), ("last", 12)])
def test_which_weights_are_kept(keep, step, folder, tmp_path, monkeypatch):
    """The score falls from the first validation on."""
    seen = iter(range(1000))
    monkeypatch.setattr("restore.training.settings.LEAST_BETWEEN", 4)
    monkeypatch.setattr("restore.tasks.base.Case.value", lambda *a: 40.0 - next(seen) / 10)
    out = tmp_path / "out.safetensors"
    train(objective(), request(folder, out, val=[folder], keep=keep), report=quietly, bar=True)
    assert weights.read_header(out).provenance["best_step"] == step


class OneOfTwo(Processes):
    """The second of two processes, as far as a test can tell without the first."""

    def __init__(self, flags: tuple[bool, ...] = ()) -> None:
        super().__init__(torch.device("cpu"))
        self.index, self.count, self.flags = 1, 2, flags
        self.gathered: list = []

    def any(self, *flags):
        return tuple(a or b for a, b in zip(flags, self.flags or flags, strict=False)) if self.flags else flags

    def gather(self, value):
        self.gathered.append(value)
        return [{0: {**value[1], "sigma 25": 30.0}}, value]

    def once(self, function):
        raise AssertionError("only the first process writes")

    def shared(self, network, unused):
        return network


def a_run(folder: Path, processes: Processes, made: RestorationObjective | None = None, **changes) -> Run:
    pictures = Pictures(list_pictures([folder]), report=quietly)
    clean = [pictures[0], pictures[1]]
    asked = replace(request(folder, folder / "never", **{"steps": 3, **changes}), workers=changes.get("workers", 0))
    return Run(made or objective(), pictures, clean, asked, processes, report=quietly)


def test_validation_is_shared_between_processes(folder):
    """Each scores its own share of the pictures; the mean is over all of them."""
    run = a_run(folder, OneOfTwo())
    run._validate(None, None)
    nothing, mine = run.processes.gathered
    assert list(nothing) == list(mine) == [1]
    assert run.progress.best_scores["sigma 25"] == pytest.approx((30 + mine[1]["sigma 25"]) / 2)


def test_what_another_process_finds_stops_this_one(folder, tmp_path):
    """A loss that is not finite there is an error here too; so is Ctrl-C there a pause here."""
    run = a_run(folder, OneOfTwo((True,)))
    with pytest.raises(TrainingError, match="no number any more"):
        run._check(0, torch.tensor(1.0), None, None)
    run = a_run(folder, OneOfTwo((False, True, False)), steps=100)
    run._check = lambda *a: None
    run._save = lambda folder: None
    assert run.go(tmp_path, True).status == "paused"
    assert run.progress.step == 1


def test_a_loss_that_is_no_number_is_never_saved(folder, tmp_path, monkeypatch):
    """It comes between two looks, and a checkpoint is due then: the one before stays the newest, and there are two."""
    monkeypatch.setattr("restore.training.loop.SAVE_EVERY", 0.0)
    made, out = objective(), tmp_path / "out.safetensors"
    loss, calls = made.loss, iter(range(1000))
    monkeypatch.setattr(made, "loss", lambda *a: loss(*a) * (torch.nan if next(calls) >= 5 else 1))
    with pytest.raises(TrainingError, match="no number any more at step 5"):
        train(made, request(folder, out), report=quietly, bar=True)
    found = checkpoint.load(checkpoint_folder(out))
    assert found.state["progress"]["step"] == 5
    assert all(tensor.isfinite().all() for group in found.groups.values() for tensor in group.values())
    assert len(list(checkpoint_folder(out).glob("step-*"))) == 2


def test_training_is_on_the_device_that_was_named(folder, tmp_path, monkeypatch):
    """--device cuda:1 sends the network there, whatever was trained before in this process."""

    class Arrived(Exception):
        pass

    sent = []

    def to(module, *where, **how):
        if where:
            sent.append(where[0])
            raise Arrived
        return module

    monkeypatch.setattr(training, "pick_device", torch.device)
    monkeypatch.setattr(training, "describe", lambda device, dtype: str(device))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: sent.append(device))
    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(Arrived):
        train(objective(), request(folder, tmp_path / "out.safetensors", device="cuda:1"), report=quietly, bar=True)
    assert sent == [torch.device("cuda:1")] * 2


def test_precisions_one_after_the_other(folder, tmp_path):
    for number, precision in enumerate(("fp32", "bf16", "fp32")):
        out = tmp_path / f"{number}.safetensors"
        train(objective(), request(folder, out, steps=3, precision=precision), report=quietly, bar=True)
        assert weights.read_header(out).provenance["precision"] == precision
    first, other, again = (load_file(tmp_path / f"{number}.safetensors")["stem.weight"] for number in range(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_keep_the_layout_of_their_parameters(name, folder, tmp_path):
    """Convolutions are channels_last, and so are the moments that come back from a file."""
    out = tmp_path / "out.safetensors"
    train(objective(), request(folder, out, optimizer=name, stop_after=1e-9), report=quietly, bar=True)
    past = checkpoint.load(checkpoint_folder(out))
    pictures, clean = training._pictures(request(folder, out), Processes(torch.device("cpu")), quietly)
    asked = request(folder, out, optimizer=name)
    run = Run(objective(), pictures, clean, asked, Processes(torch.device("cpu")), past=past)
    checked = 0
    for parameter, state in run.optimizer.state.items():
        for value in state.values():
            if value.ndim == 4:
                assert value.stride() == parameter.stride()
                checked += not value.is_contiguous()
    assert checked


def test_minutes_reckon_with_slow_loading(folder, monkeypatch):
    """Batches that come slowly decide, though workers have some ready while the first steps are slow."""
    made = objective()
    example, loss, calls = made.example, made.loss, iter(range(1000))

    def slow_example(*given):
        time.sleep(0.1)
        return example(*given)

    def slow_at_first(*given):
        time.sleep(0.8 if next(calls) < 2 else 0)
        return loss(*given)

    monkeypatch.setattr(made, "example", slow_example)
    monkeypatch.setattr(made, "loss", slow_at_first)
    seconds = a_run(folder, Processes(torch.device("cpu")), made, workers=1, batch_size=1, steps=100).seconds_a_step()
    assert 0.09 < seconds < 0.5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"damage": {"sigma": (10.0, 20.0)}}, r"--sigma was \[0.0, 55.0\], now it is \[10.0, 20.0\]"),
        ({"damage": {"gray": 0.5}}, r"--gray was 0.06"),
        ({"patch": 24}, "--patch was 32, now it is 24"),
        ({"net": {"widths": (4, 36)}}, r"--net widths was \[4, 32\], now it is \[4, 36\]"),
        ({"arch": "nafnet"}, "--arch was conv-autoencoder, now it is nafnet"),
        ({"task": "super-resolve"}, "task was denoise"),
        ({"folder": True}, r"FOLDER was .* with 5 pictures .*, now it is .*other with 1 pictures"),
        ({"val": True}, "--val was not given, now it is .*other with 1 pictures"),
        ({"settings": {"minutes": 3.0, "steps": None}}, r"--minutes was not given, now it is 3\.0"),
        ({"settings": {"batch_size": 3, "seed": 4}}, r"--batch-size was 2, now it is 3; --seed was 0"),
    ],
)
def test_a_run_is_not_resumed_as_another(changed, reason, folder, tmp_path):
    """What differs is named, and the checkpoint stays as it is."""
    out, other = tmp_path / "out.safetensors", tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((folder / "cat.png").read_bytes())
    train(objective(), request(folder, out, steps=3, stop_after=1e-9), report=quietly, bar=True)
    before = {path: path.read_bytes() for path in checkpoint_folder(out).rglob("*.*")}
    task = load_task(changed.get("task", "denoise"))
    damage = task.spec.training_options(**changed.get("damage", {}))
    config = replace(task.config, **{**TINY, **changed.get("net", {})})
    if "arch" in changed:
        config = config_for(changed["arch"], task.arch, config)
    made = RestorationObjective(task, damage, config, changed.get("patch", 32), changed.get("arch"))
    asked = request(other if "folder" in changed else folder, out, **{"steps": 3, **changed.get("settings", {})})
    with pytest.raises(UsageError, match=reason):
        train(made, replace(asked, val=[other] if "val" in changed else None, resume=True), report=quietly, bar=True)
    assert before == {path: path.read_bytes() for path in checkpoint_folder(out).rglob("*.*")}


def test_a_folder_may_move_between_two_parts_of_a_run(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    train(objective(), request(folder, out, steps=3, stop_after=1e-9), report=quietly, bar=True)
    moved = shutil.copytree(folder, tmp_path / "moved")
    again = train(objective(), request(moved, out, steps=None, resume=True), report=quietly, bar=True)
    assert (again.status, again.step) == ("finished", 3)


def test_without_fork_there_are_no_workers_and_that_is_said(folder, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(training, "can_fork", lambda: False)
    train(objective(), request(folder, tmp_path / "a.safetensors", steps=2, workers=2), report=said.append, bar=True)
    assert any("cannot fork workers" in text for text in said)


@pytest.mark.parametrize("name", ["denoise", "super-resolve"])
def test_nafnet_is_trained_and_restores(name, folder, tmp_path, photo):
    """By the command line; its tiles are those of the whole picture."""
    out = tmp_path / "nafnet.safetensors"
    net = ["width=4", "encoder_blocks=1,0", "middle_blocks=1", "decoder_blocks=0,1", "window=8"]
    command = ["train", name, folder, "-o", out, "--arch", "nafnet", "--steps", 6, "--batch-size", 2, "--patch", 16]
    command += [word for setting in net for word in ("--net", setting)] + ["--device", "cpu", "-j", 0, "-q"]
    assert run_cli([str(word) for word in command]) == 0
    header = weights.read_header(out)
    assert (header.arch, header.config["window"]) == ("nafnet", 8)
    more = ["train", name, folder, "-o", tmp_path / "more.safetensors", "--init", out, "--steps", 2, "--patch", 16]
    assert run_cli([str(word) for word in (*more, "--device", "cpu", "-j", 0, "-q")]) == 0
    assert weights.read_header(tmp_path / "more.safetensors").arch == "nafnet", "--init decides, where --arch does not"
    whole, tiled = (
        load(name, str(out), device="cpu", precision="fp32", tile=tile)(photo[:70, :90]) for tile in (256, 24)
    )
    assert np.abs(whole.astype(int) - tiled).max() <= 1
