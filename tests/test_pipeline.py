"""Folders: what is written is whole and independent of timing, whatever happens to files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from folder_tools import files_in, inverted, jobs_of, run, write

from restore.errors import UsageError
from restore.folders import pipeline as pipelines
from restore.folders.compute_queue import BATCHES_IN_FLIGHT, ComputeQueue, PerPicture
from restore.folders.limits import MemoryLimiter, estimate_memory
from restore.folders.names import Naming
from restore.folders.pipeline import FilePipeline, Outcome, WriteOptions
from restore.folders.plan import Job, plan
from restore.images import Image, read_image
from restore.inference.restored import Restored


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_timing_and_workers_change_nothing(here):
    names = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        write(Path("in", name), number, size=(8 + number % 5, 9))
    Path("in/5.png").write_bytes(b"broken")

    def uneven(image: Image, mask: np.ndarray | None) -> Restored:
        time.sleep(0.02 * (int(image.pixels[0, 0, 0]) % 3))
        return inverted(image)

    told, written = [], []
    for workers in (1, 5):
        outcomes = list(run(jobs_of(*names, output=f"out{workers}"), uneven, workers=workers))
        told.append([(outcome.job.input, outcome.status, outcome.size, outcome.error) for outcome in outcomes])
        written.append(files_in(f"out{workers}"))
    assert told[0] == told[1]
    assert [str(path) for path, *_ in told[0]] == [f"in/{name}" for name in names]  # in the order of the jobs
    assert written[0] == written[1]
    assert len(written[0]) == 11


def test_decoding_computing_and_encoding_overlap(here, monkeypatch):
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        write(Path("in", name))
    busy: set[str] = set()
    together: set[frozenset[str]] = set()
    lock = threading.Lock()

    def slow(what, function):
        def call(*arguments, **named):
            with lock:
                assert what != "compute" or what not in busy  # one network, one picture at a time
                busy.add(what)
                together.add(frozenset(busy))
            time.sleep(0.03)
            with lock:
                busy.discard(what)
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(pipelines, "read_image", slow("decode", read_image))
    monkeypatch.setattr(pipelines, "encode_image", slow("encode", pipelines.encode_image))
    assert all(outcome.error is None for outcome in run(jobs_of(*names), slow("compute", inverted)))
    assert any({"decode", "compute"} <= pair for pair in together)
    assert any({"encode", "compute"} <= pair for pair in together)


def test_memory_is_bounded_by_bytes(here):
    """Pictures of which only one fits are decoded one at a time, whatever -j; one that never fits goes alone."""
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        write(Path("in", name), size=(100, 100))
    assert estimate_memory(Path("in/0.png")) == 100 * 100 * 5 * 2
    assert estimate_memory(Path("in/0.png"), 4) == 100 * 100 * 5 * 17
    Path("unknown.tif").write_bytes(bytes(1000))  # as floating point TIFF is to the library that reads headers
    assert estimate_memory(Path("unknown.tif")) == 2000
    assert estimate_memory(Path("in/none.png")) == 0
    for limit, most in ((150_000, 1), (50_000, 1), (10**9, 4)):
        memory = MemoryLimiter(limit)
        held: list[int] = []

        def watched(image, mask, memory=memory, held=held) -> Restored:
            time.sleep(0.02)
            held.append(memory.used)
            return inverted(image)

        with FilePipeline(PerPicture(watched), WriteOptions(overwrite=True), 3, memory=memory) as pipeline:
            assert all(outcome.error is None for outcome in pipeline.run(jobs_of(*names)))
        assert max(held) <= most * 100_000
        assert most == 1 or max(held) > 100_000
        assert memory.used == 0


def test_every_fault_is_told_and_stops_nothing(here, monkeypatch):
    long, good = "n" * 251 + ".png", {"good.png", "plain.png", "z.png"}
    for name in ("good.png", "bug.png", "memory.png", "changes.png", "vanishes.png", "shut/a.png", "nan.png", "z.png"):
        write(Path("in", name))
    write(Path("in/plain.png"))
    Path("in/broken.png").write_bytes(Path("in/good.png").read_bytes()[:-20])
    jobs = [*jobs_of(*sorted(name for name in os.listdir("in") if name != "shut")), *jobs_of("shut/a.png")]
    jobs += [Job(Path("in/plain.png"), Path("out", "o" + long)), Job(Path("in/gone.png"), Path("out/gone.png"))]
    jobs += [Job(Path("in/plain.png"), Path("in/plain.png/below/a.png"))]
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("shut"))  # root may write anywhere
    reading: list[Path | None] = []
    monkeypatch.setattr(pipelines, "read_image", lambda path, **_: (reading.append(path), read_image(path))[1])

    def faulty(image: Image, mask: np.ndarray | None) -> Restored:
        name = reading[-1].name
        if name == "bug.png":
            raise ZeroDivisionError("of ours")
        if name == "memory.png":
            raise MemoryError
        if name == "nan.png":
            raise UsageError("the image holds NaN")
        if name == "changes.png":
            write(Path("in/changes.png"), 7)
        if name == "vanishes.png":
            os.unlink("in/vanishes.png")
        return inverted(image)

    told: dict[str, Outcome] = {}
    for job in jobs:  # one by one, so that `faulty` knows the name
        (told[str(job.output)],) = run([job], faulty)
    reasons = {
        "bug.png": "unexpected ZeroDivisionError: of ours",
        "memory.png": "not enough memory",
        "nan.png": "the image holds NaN",
        "changes.png": "changed or vanished",
        "vanishes.png": "changed or vanished",
        "broken.png": "damaged or incomplete PNG",
        "gone.png": "no such file",
        "o" + long: "name is too long",
    }
    for name, reason in reasons.items():
        outcome = told.pop(f"out/{name}")
        assert reason in outcome.error, name
        assert str(outcome.job.input) not in outcome.error  # it stands beside it
    assert "not a folder" in told.pop("in/plain.png/below/a.png").error
    assert told.pop("out/shut/a.png").error == "out/shut: no permission to write there; choose another folder"
    assert {name: outcome.error for name, outcome in told.items()} == dict.fromkeys(f"out/{name}" for name in good)
    assert set(files_in("out")) == good


def test_no_permission_is_known_before_computing(here, monkeypatch):
    write(Path("in/a.png"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    (outcome,) = run(jobs_of("a.png"), lambda *_: pytest.fail("computed"))
    assert outcome.error == "out: no permission to write there; choose another folder"


def test_fail_fast_tells_all_that_is_on_the_disk(here):
    names = [f"{number}.png" for number in range(30)]
    for name in names:
        write(Path("in", name))
    Path("in/4.png").write_bytes(b"broken")
    outcomes = list(run(jobs_of(*names), inverted, workers=4, fail_fast=True))
    assert [str(outcome.job.input) for outcome in outcomes if outcome.error] == ["in/4.png"]
    assert len(outcomes) < 20
    assert {outcome.output.name for outcome in outcomes if outcome.output} == set(files_in("out"))


def test_what_exists(here):
    write(Path("in/a.png"))
    write(Path("in/b.png"))
    write(Path("out/a.png"), 1)
    Path("out/b.png").touch()  # what a power cut may leave
    before = files_in("out")
    refused = list(run(jobs_of("a.png", "b.png"), inverted))
    assert all("exists already" in outcome.error for outcome in refused)
    assert files_in("out") == before
    skipped, again = run(jobs_of("a.png", "b.png"), inverted, WriteOptions(skip_existing=True))
    assert (skipped.status, again.status) == ("skipped", "restored")
    assert files_in("out")["a.png"] == before["a.png"]
    assert read_image(Path("out/b.png")).pixels[0, 0, 0] == 155
    assert [outcome.status for outcome in run(jobs_of("a.png"), inverted, WriteOptions(overwrite=True))] == ["restored"]
    assert read_image(Path("out/a.png")).pixels[0, 0, 0] == 155


def test_another_run_that_is_quicker(here):
    write(Path("in/a.png"))

    def overtaken(image: Image, mask: np.ndarray | None) -> Restored:
        write(Path("out/a.png"), 9)
        return inverted(image)

    Path("out").mkdir()
    (outcome,) = run(jobs_of("a.png"), overtaken, WriteOptions(skip_existing=True))
    assert outcome.status == "skipped"
    os.unlink("out/a.png")
    (outcome,) = run(jobs_of("a.png"), overtaken)
    assert "exists already" in outcome.error
    assert read_image(Path("out/a.png")).pixels[0, 0, 0] == 9


def test_a_format_that_cannot_hold_the_picture(here):
    """Transparency sent to JPEG goes to PNG, says so, and is found again by -k without computing."""
    write(Path("in/a.png"), alpha=True)
    jobs = plan(["in"], "out", Naming("denoised", ".jpg")).jobs
    (first,) = run(jobs, inverted)
    assert first.output == Path("out/a.png")
    assert "transparency" in first.note
    (second,) = run(jobs, lambda *_: pytest.fail("computed"), WriteOptions(skip_existing=True))
    assert second.status == "skipped"
    assert second.output == Path("out/a.png")


class FakeDevice:
    """A processor that computes in its own time, as a GPU does; what it is given together it finishes together."""

    def __init__(self, size: int, function: Callable[..., Restored] = inverted) -> None:
        self.size, self.function, self.batches = size, function, list[int]()
        self.stream, self.runs = ThreadPoolExecutor(1), threading.Event()
        self.runs.set()

    def batch_size(self, image: Image) -> int:
        return self.size

    def enqueue(self, pictures):
        assert len({(image.pixels.shape, image.pixels.dtype) for image, _ in pictures}) == 1
        self.batches.append(len(pictures))
        started = self.stream.submit(time.sleep, 0.02)

        def compute(image: Image, mask: np.ndarray | None) -> Restored:
            started.result()
            self.runs.wait()
            return self.function(image, mask)

        return [self.stream.submit(compute, *picture) for picture in pictures]


def test_pictures_of_one_shape_are_computed_together(here):
    """The same files as one by one, also with faults, after an end in the middle, and in any order."""
    names = [f"{number:02}.png" for number in range(40)]
    for number, name in enumerate(names):
        write(Path("in", name), number, size=(8, 9) if number % 4 else (9, 8))
    Path("in/07.png").write_bytes(b"broken")

    def faulty(image: Image, mask: np.ndarray | None = None) -> Restored:
        if image.pixels[0, 0, 0] == 11:
            raise UsageError("the image holds NaN")
        return inverted(image)

    alone = list(run(jobs_of(*names, output="alone"), faulty, workers=1))
    device = FakeDevice(4, faulty)
    with FilePipeline(device, WriteOptions(), workers=12) as pipeline:
        outcomes = pipeline.run(jobs_of(*names))
        first = [next(outcomes) for _ in range(4)]
    assert all(outcome.seconds > 0 for outcome in first)
    done = files_in("out")
    assert 3 < len(done) < 38
    with FilePipeline(device, WriteOptions(skip_existing=True), workers=12) as pipeline:
        outcomes = list(pipeline.run(reversed(jobs_of(*names))))
    assert sum(outcome.status == "skipped" for outcome in outcomes) == len(done)
    assert files_in("out") == files_in("alone")
    assert [outcome.error for outcome in reversed(outcomes)] == [outcome.error for outcome in alone]
    assert max(device.batches) == 4


def test_few_batches_are_in_flight():
    """Others gather meanwhile; one that fails to start, or that ends in an error, makes room for the next."""
    device = FakeDevice(100)
    queue = ComputeQueue(device)
    image = Image(np.zeros((4, 5, 3), np.uint8))
    device.runs.clear()
    with ThreadPoolExecutor(30) as threads:
        results = threads.map(lambda _: queue.compute(image, None), range(30))
        while sum(device.batches) + len(queue._waiting) < 30:
            time.sleep(0.01)
        device.runs.set()
        assert all(restored.image.pixels.max() == 255 and seconds > 0 for seconds, restored in results)
    assert len(device.batches) <= BATCHES_IN_FLIGHT + 1 and sum(device.batches) == 30

    device.function = lambda *_: 1 / 0
    for _ in range(2 * BATCHES_IN_FLIGHT):
        with pytest.raises(ZeroDivisionError):
            queue.compute(image, None)
    device.enqueue = lambda _: 1 / 0
    for _ in range(2 * BATCHES_IN_FLIGHT):
        with pytest.raises(ZeroDivisionError):
            queue.compute(image, None)
    queue.stop()
    with pytest.raises(CancelledError):
        queue.compute(image, None)
