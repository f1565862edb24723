"""Small pictures that share a batch: the same bits, whoever else is in it; on the CPU, where it is made to happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_tools import files_in, jobs_of, pixels
from restore.inference.lockstep import lockstep
from restore.inference.restored import Restored
from restore.inference.sharing import PROBED_AT, Request, Sharing

import restore as package
from restore.errors import UsageError
from restore.images import Image, write_image
from restore.inference import room as rooms
from restore.inference import sharing as shares
from restore.inference.batch import Outcome, Pipeline, Writing, run
from restore.inference.engine import Engine
from restore.inference.job import Job
from restore.inference.masks import encode_mask
from restore.inference.restorer import Restorer

CPU = torch.device("cpu")
SIZES = [(24, 40), (24, 40), (33, 17), (24, 40), (24, 40), (24, 40), (33, 17), (24, 40), (24, 40), (24, 40)]
TASKS = {"denoise": {}, "super-resolve": {"scale": 2}, "inpaint": {}, "dewatermark": {}, "colorize": {"force": True}}


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    """As if a CPU gained from it."""
    monkeypatch.setattr(rooms, "SHARING", {"cpu"})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ran(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the batches that went through an engine."""
    really, seen = Engine.run, []

    def recorded(self, planes, device, stage=""):
        seen.append(tuple(planes.shape))
        return really(self, planes, device, stage)

    monkeypatch.setattr(Engine, "run", recorded)
    return seen


@pytest.fixture
def load(tiny) -> Callable[..., Restorer]:
    return lambda task="denoise", precision="bf16", **options: package.load(
        task, str(tiny(task)), device="cpu", precision=precision, **options
    )


def hole(size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[5:12, 4:11] = True
    return mask


def equal(one: Restored, other: Restored) -> bool:
    alike = (one.mask is None) == (other.mask is None) and (one.nothing, one.note) == (other.nothing, other.note)
    alike = alike and (one.mask is None or np.array_equal(one.mask, other.mask))
    return alike and np.array_equal(one.image.array, other.image.array)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_the_same_bits_as_alone(task, precision, load, ran):
    """In every task, with masks given and looked for; whether or not batches give the same bits here."""
    alone, together = (load(task, precision, **TASKS[task]) for _ in range(2))
    size, masked = (24, 40) if task != "colorize" else (24, 24), task in ("inpaint", "dewatermark")
    channels, count = (1, 3) if task == "colorize" else (3, 6)
    pictures = [
        # Floating point, where the last bit shows.
        (Image(pixels(seed, *size)[..., :channels] / np.float32(255)), hole(size) if masked and seed % 2 else None)
        for seed in range(count)
    ]
    pictures[1] = (Image(np.zeros_like(pictures[1][0].pixels)), pictures[1][1])
    expected = [alone.restore(*picture) for picture in pictures]
    for _ in range(PROBED_AT + 1):
        ran.clear()
        assert all(map(equal, together.restore_all(pictures), expected))
    assert together._sharing._same
    shared = any(together._sharing._same.values())
    assert shared == any(shape[0] > 1 for shape in ran)
    assert shared or precision == "fp32"


def test_pictures_that_are_wrong_do_not_harm_others(load, ran):
    restorer = load()
    good = Image(pixels(0))
    bad = Image(np.full((40, 56, 3), np.nan, np.float32))
    expected = restorer.restore(good)
    for _ in range(PROBED_AT + 1):
        results = restorer.restore_all([(good, None), (bad, None), (good, hole((7, 90))[:5]), (good, None)])
        assert equal(results[0], expected) and equal(results[3], expected)
        assert [type(result) for result in results[1:3]] == [UsageError, UsageError]
        assert "NaN" in str(results[1]) and "does not fit" in str(results[2])
    assert (2, 3, 40, 56) in ran


def test_tta_and_what_overflows_in_half_precision(load, monkeypatch):
    """A picture that overflows is computed in fp32 as it is alone, also if another of its batch does too."""
    pictures = [(Image(pixels(seed)), None) for seed in range(4)]
    restorer, single = load(tta=True), load(tta=True)
    expected = [single.restore(*picture) for picture in pictures]
    for _ in range(PROBED_AT + 1):
        assert all(map(equal, restorer.restore_all(pictures), expected))
    assert list(restorer._sharing._same.values()) == [True]

    restorer, single = load(), load()
    level = pictures[1][0].pixels.sum(), pictures[2][0].pixels.sum()
    for each in (restorer, single):
        run_network = each.head.run

        def overflowing(network, planes, stage, run_network=run_network):
            output = run_network(network, planes, stage)
            if next(network.parameters()).dtype == torch.bfloat16:
                for number, one in enumerate(planes):
                    if int((one * 255).round().sum()) in level:
                        output[number, 0, 3, 3] = torch.inf
            return output

        monkeypatch.setattr(each.head, "run", overflowing)
    mended = [single.restore(*picture) for picture in pictures]
    assert [not equal(one, load().restore(*picture)) for one, picture in zip(mended, pictures, strict=True)] == [
        False,
        True,
        True,
        False,
    ]
    for _ in range(PROBED_AT + 1):
        assert all(map(equal, restorer.restore_all(pictures), mended))


class FakeEngine:
    """Adds one; in batches of `differing` the last picture comes out a little otherwise."""

    def __init__(self, differing: tuple[int, ...] = (), broken: Exception | None = None) -> None:
        self.differing, self.broken, self.ran = differing, broken, []

    def run(self, planes: torch.Tensor, device: torch.device, stage: str) -> torch.Tensor:
        self.ran.append((*planes.shape, stage))
        if self.broken is not None and (len(planes) > 1 or planes.max() > 90):
            raise self.broken
        output = planes + 1
        if len(planes) in self.differing:
            output[-1, -1, -1, -1] += 3e-7
        return output


def requests(*values: float, shape: tuple[int, ...] = (1, 3, 4, 6), stage: str = "") -> list[Request]:
    return [Request(torch.full(shape, float(value)), CPU, stage) for value in values]


def test_where_the_bits_differ_pictures_are_computed_alone():
    engine = FakeEngine(differing=(4,))
    sharing = Sharing(engine)
    for number in range(1, PROBED_AT + 3):
        engine.ran.clear()
        answers = sharing.run(requests(0, 1, 2, 3) + requests(4, 5, shape=(1, 3, 8, 8)) + requests(6, stage="find"))
        assert [float(answer.mean()) for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
        assert [tuple(answer.shape) for answer in answers] == [(1, 3, 4, 6)] * 4 + [(1, 3, 8, 8)] * 2 + [(1, 3, 4, 6)]
        count = [shape[0] for shape in engine.ran]
        if number < PROBED_AT:
            assert count == [1] * 7
        if number == PROBED_AT:  # both ways; then as was found
            assert count == [4, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 2, 1]
        if number > PROBED_AT:
            assert count == [1, 1, 1, 1, 2, 1]
    assert {(key[0], count): same for (key, count), same in sharing._same.items()} == {
        ((1, 3, 4, 6), 4): False,
        ((1, 3, 8, 8), 2): True,
    }


def test_what_is_a_batch_already_stays_as_it_is():
    engine = FakeEngine()
    sharing = Sharing(engine)
    for _ in range(PROBED_AT + 1):
        engine.ran.clear()
        sharing.run(requests(0, 1, shape=(5, 3, 4, 6)))
        assert engine.ran == [(5, 3, 4, 6, "")] * 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("a bug")])
def test_a_batch_that_fails_is_computed_one_by_one(error, caplog):
    engine = FakeEngine(broken=error)
    sharing = Sharing(engine)
    for _ in range(PROBED_AT + 2):
        engine.ran.clear()
        first, second, third, fourth = sharing.run(requests(0, 99, 2, 3))
        assert [float(answer.mean()) for answer in (first, third, fourth)] == [1, 3, 4]
        assert second is error
    assert [shape[0] for shape in engine.ran] == [1] * 4  # and not tried again
    assert caplog.text.count("fewer pictures at a time") == isinstance(error, torch.OutOfMemoryError)


def test_calls_go_in_step_and_one_at_a_time():
    running, asked = [], []

    def call(number: int, ask: Callable[[int], int]) -> int:
        total = 0
        for question in range(number):
            running.append(number)
            assert len(running) == 1
            time.sleep(0.002)
            running.pop()
            total += ask(question)
        if number == 3:
            raise ValueError("of the third")
        return total

    def answer(questions: list[int]) -> list[int | Exception]:
        asked.append(questions)
        return [KeyError("no") if question == 3 else question + 10 for question in questions]

    calls = [lambda ask, number=number: call(number, ask) for number in range(5)]
    results = lockstep(calls, answer)
    assert results[:3] == [0, 10, 21]
    assert [type(result) for result in results[3:]] == [ValueError, KeyError]
    assert asked == [[0] * 4, [1] * 3, [2] * 2, [3]]

    def failing(questions: list[int]) -> list[int | Exception]:
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        lockstep(calls, failing)
    until = time.monotonic() + 5
    while threading.active_count() > before:  # nobody waits for an answer that does not come
        assert time.monotonic() < until


class Recording:
    """A restorer whose groups are remembered; those that come meanwhile have time to gather."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer, self.groups = restorer, []

    def at_once(self, image: Image) -> int:
        time.sleep(0.03)
        return self.restorer.at_once(image)

    def restore_all(self, pictures):
        assert len({image.size for image, _ in pictures}) == 1
        self.groups.append(len(pictures))
        return self.restorer.restore_all(pictures)


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Probes come with the first batch of a size: folders of a few pictures see the third too seldom."""
    monkeypatch.setattr(shares, "PROBED_AT", 1)


def told(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(outcome.job.input.name, outcome.status, outcome.size, outcome.error) for outcome in outcomes]


@pytest.fixture
def album(tmp_path, monkeypatch) -> list[Job]:
    """Small pictures of two sizes, some broken, one with a mask that does not fit it."""
    monkeypatch.chdir(tmp_path)
    jobs = []
    Path("in").mkdir()
    Path("masks").mkdir()
    for number, size in enumerate(SIZES * 3):
        path = write_image(Image(pixels(number, *size)), Path("in", f"{number:02}.png"))
        mask = Path("masks", path.name)
        mask.write_bytes(encode_mask(hole(size if number != 3 else (40, 40)), size[::-1] if number != 3 else (40, 40)))
        jobs.append(Job(path, Path("out", path.name), mask=mask))
    Path("in/05.png").write_bytes(b"broken")
    Path("in/11.png").unlink()
    nan = np.full((24, 40, 3), np.nan, np.float32)
    jobs.append(Job(write_image(Image(nan), Path("in/nan.tif")), Path("out/nan.tif")))
    return jobs


def to(jobs: list[Job], folder: str) -> list[Job]:
    return [Job(job.input, Path(folder, job.output.name), mask=job.mask) for job in jobs]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_folder_is_the_same_with_and_without(album, precision, load, ran, at_once):
    restorer = load("inpaint", precision)
    alone = list(run(to(album, "alone"), restorer.restore, Writing(), workers=1))
    together = Recording(load("inpaint", precision))
    outcomes = list(run(to(album, "out"), restorer.restore, Writing(), workers=9, together=together))
    assert told(outcomes) == told(alone)
    assert [outcome.job.input.name for outcome in alone if outcome.error] == ["03.png", "05.png", "11.png", "nan.tif"]
    assert files_in("out") == files_in("alone")
    assert sum(together.groups) > 10 and max(together.groups) > 3
    assert all(outcome.seconds > 0 for outcome in outcomes if not outcome.error)
    assert precision == "fp32" or any(shape[0] > 1 for shape in ran)


def test_a_run_that_is_ended_is_taken_up_again(album, load, at_once):
    """What is there after an end in the middle, and after -k, are the bytes of a run that nobody disturbed."""
    restorer = load("inpaint")
    list(run(to(album, "whole"), restorer.restore, Writing(), workers=1))
    before = threading.active_count()
    with Pipeline(restorer.restore, Writing(), 9, together=Recording(restorer)) as pipeline:
        outcomes = pipeline.run(album)
        for _ in range(4):
            next(outcomes)
    first = files_in("out")
    assert 2 < len(first) < len(files_in("whole"))
    assert first.items() <= files_in("whole").items()
    until = time.monotonic() + 10
    while threading.active_count() > before:  # those that waited to be computed end as well
        assert time.monotonic() < until
        time.sleep(0.01)
    again = run(album, restorer.restore, Writing(skip_existing=True), workers=9, together=Recording(restorer))
    assert sum(outcome.skipped for outcome in again) == len(first)
    assert files_in("out") == files_in("whole")


def test_fail_fast_begins_nothing_after_the_first_failure(album, load):
    restorer = load("inpaint")
    outcomes = list(run(album, restorer.restore, Writing(), workers=4, fail_fast=True, together=Recording(restorer)))
    assert next(outcome.job.input.name for outcome in outcomes if outcome.error) == "03.png"
    assert len(outcomes) < 20
    assert {outcome.output.name for outcome in outcomes if outcome.output} == set(files_in("out"))


def test_a_picture_that_is_alone_does_not_wait(tmp_path, monkeypatch, load):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    write_image(Image(pixels(0)), Path("in/a.png"))
    together = Recording(load())
    (outcome,) = run(jobs_of("a.png"), together.restorer.restore, Writing(), workers=9, together=together)
    assert outcome.error is None and together.groups == []


def test_how_many_are_computed_at_once(load, monkeypatch):
    small, large = Image(pixels(0, 8, 8)), Image(np.zeros((1200, 1500, 3), np.uint8))
    monkeypatch.setattr(rooms, "free_memory", lambda device: 10**11)
    assert load().at_once(small) == rooms.PICTURES_AT_ONCE
    assert load().at_once(large) == rooms.AT_ONCE // (1200 * 1500) == 2
    assert load(compile=True).at_once(small) == 1
    monkeypatch.setattr(rooms, "free_memory", lambda device: 0)
    assert load().at_once(small) == 1
    monkeypatch.undo()
    assert load().at_once(small) == 1  # a CPU gains nothing


def test_the_command_line_shares_what_may_be_shared(album, denoise, monkeypatch, at_once):
    groups: list[int] = []
    really = Restorer.restore_all
    monkeypatch.setattr(
        Restorer, "restore_all", lambda self, pictures: (groups.append(len(pictures)), really(self, pictures))[1]
    )
    denoise("in", "shared", "-j", 9, "--precision", "bf16", "-q", code=1)
    assert groups
    monkeypatch.setattr(rooms, "SHARING", set())
    groups.clear()
    denoise("in", "alone", "-j", 1, "--precision", "bf16", "-q", code=1)
    assert not groups
    assert files_in("shared") == files_in("alone")
