"""Files that are whole or not there: full disks, hanging ones, and what killed runs leave on them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from folder_tools import files_in, inverted, jobs_of, run, write

from restore.folders import limits, pipeline
from restore.folders.pipeline import CommitGate, WriteOptions
from restore.images import Image, write_image
from restore.inference.restored import Restored
from restore.utils import atomic_write
from restore.utils.atomic_write import TEMPORARY_SUFFIX, remove_stale, write_atomic


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_not_hammered(here, small_disk):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)  # 16 KiB that no codec makes smaller
    names = [f"{number:02}.png" for number in range(20)]
    for name in names:
        Path("in").mkdir(exist_ok=True)
        write_image(Image(noise), Path("in", name))
    computed = []

    def counting(image: Image, mask: np.ndarray | None) -> Restored:
        computed.append(1)
        return Restored(image)

    outcomes = list(run(jobs_of(*names, output=str(small_disk)), counting))
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(outcomes) == 20
    assert len(failed) >= 16
    assert all("disk is full" in outcome.error for outcome in failed)
    assert len(computed) <= 8  # those that fit, and those under way when the first did not
    assert all(data == Path("in/00.png").read_bytes() for data in files_in(small_disk).values())
    done = set(files_in(small_disk))
    assert not any(TEMPORARY_SUFFIX in name for name in done)
    for name in done:
        (small_disk / name).unlink()
    again = list(run(jobs_of(*names[:3], output=str(small_disk)), counting, WriteOptions(skip_existing=True)))
    assert all(outcome.status == "restored" for outcome in again)


def test_room_on_the_disk_is_used_again(tmp_path, monkeypatch):
    disk = limits.DiskSpace()
    source = tmp_path / "a.jpg"
    source.write_bytes(bytes(1000))
    assert disk.refusal(source, tmp_path) is None
    disk.write_failed(OSError(28, "No space left on device"), source, 10_000)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 9_000}))
    assert "disk is full" in disk.refusal(source, tmp_path)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 11_000}))
    assert disk.refusal(source, tmp_path) is None
    disk.write_failed(OSError(122, "Disk quota exceeded"), source, 1)
    assert "quota" in disk.refusal(source, tmp_path)


def test_stopping_waits_for_no_computation_and_leaves_no_temporary(here):
    for number in range(4):
        write(Path(f"in/{number}.png"))
    stop = threading.Event()

    def endless(image: Image, mask: np.ndarray | None) -> Restored:
        stop.wait(20)
        return Restored(image)

    outcomes = run(jobs_of(*(f"{number}.png" for number in range(4))), endless)
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert time.monotonic() - start < 3
    stop.set()
    time.sleep(0.2)  # the threads go on to their ends, and find the gate closed
    assert files_in("out") == {}


def test_a_disk_that_hangs_is_not_waited_for(here, monkeypatch):
    write(Path("in/a.png"))
    writing, goes_on = threading.Event(), threading.Event()
    monkeypatch.setattr(pipeline, "COMMIT_TIMEOUT", 0.2)
    monkeypatch.setattr(os, "fsync", lambda _: (writing.set(), goes_on.wait(20)))

    def interrupt():
        writing.wait(20)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(run(jobs_of("a.png"), inverted))
    assert time.monotonic() - start < 3
    assert files_in("out") == {}
    goes_on.set()
    time.sleep(0.2)
    assert files_in("out") == {}  # nor under the final name, later


def test_the_gate_waits_for_files_that_are_being_written(tmp_path, monkeypatch):
    gate = CommitGate()
    entered, leave = threading.Event(), threading.Event()

    def slow_write():
        with gate.committing() as allowed:
            assert allowed
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=slow_write)
    thread.start()
    entered.wait(10)
    assert not gate.close(0.05)
    leave.set()
    assert gate.close(5)
    with gate.committing() as allowed:
        assert not allowed
    thread.join()

    def abandoned(_):  # the disk hangs, and the run is given up meanwhile
        assert len(list(tmp_path.iterdir())) == 1
        atomic_write.discard_unfinished()

    monkeypatch.setattr(os, "fsync", abandoned)
    with pytest.raises(FileNotFoundError):
        write_atomic(b"data", tmp_path / "a.png", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_only_stale_files_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, mine = atomic_write._HOST, os.getpid()
    names = {
        f".a.png.{host}-{dead.pid}-0123456789ab{TEMPORARY_SUFFIX}": True,
        f".odd\nname.png.{host}-{dead.pid}-0123456789ab{TEMPORARY_SUFFIX}": True,
        f".a.png.{host}-{mine}-0123456789ab{TEMPORARY_SUFFIX}": False,  # of a running process
        f".a.png.00000000-{dead.pid}-0123456789ab{TEMPORARY_SUFFIX}": False,  # of another machine, now
        f".b.png.00000000-{dead.pid}-0123456789ab{TEMPORARY_SUFFIX}": "old",
        f".a.png.0123456789ab{TEMPORARY_SUFFIX}": False,  # of `write_image`, now
        f".b.png.0123456789ab{TEMPORARY_SUFFIX}": "old",
        f".c.png.{host}-{mine}-0123456789ab{TEMPORARY_SUFFIX}": "reused",  # a process of that number, but a later one
        f"a{TEMPORARY_SUFFIX}": False,
        ".hidden": False,
        "a.png": False,
    }
    for name, goes in names.items():
        (tmp_path / name).touch()
        if goes == "old":
            os.utime(tmp_path / name, (time.time() - 2 * atomic_write.STALE_SECONDS,) * 2)
        if goes == "reused":
            os.utime(tmp_path / name, (psutil.Process().create_time() - 60,) * 2)
    assert remove_stale([tmp_path, tmp_path, tmp_path / "none"]) == 5
    assert {path.name for path in tmp_path.iterdir()} == {name for name, goes in names.items() if not goes}
