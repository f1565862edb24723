"""The command line in processes of its own: interrupted, killed, piped, on two devices, and watching."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from folder_tools import files_in, many, wait_for_more, write

from restore.images import read_image
from restore.utils import atomic_write
from restore.utils.atomic_write import TEMPORARY_SUFFIX


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with a picture, `in/a.png`."""
    monkeypatch.chdir(tmp_path)
    data = write(Path("in/a.png")).read_bytes()
    yield tmp_path
    assert files_in("in") == {"a.png": data}
    assert not [name for name in files_in(".") if name.endswith(TEMPORARY_SUFFIX)]


@pytest.fixture
def started(tiny) -> Iterator[Callable[..., subprocess.Popen]]:
    """The command in a process of its own, running."""
    processes = []

    def start(*arguments: object, **how) -> subprocess.Popen:
        command = [sys.executable, "-m", "restore", "denoise", "-m", str(tiny("denoise")), *map(str, arguments)]
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **how}
        processes.append(subprocess.Popen(command, **how))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_interrupted_and_killed_runs_are_resumed(here, denoise, started):
    """kill -INT, then kill -9, then -k: the bytes of a run that nobody disturbed."""
    count = many()
    denoise("many", "whole", "-q")

    run = started("many", "out")
    wait_for_more("out", 2)
    run.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert run.wait(10) == 130
    assert time.monotonic() - start < 3
    assert run.stderr.read().splitlines()[-1] == b"restore: interrupted"
    interrupted = files_in("out")
    assert 2 < len(interrupted) < count
    assert not [name for name in interrupted if name.startswith(".")]
    assert interrupted.items() <= files_in("whole").items()

    run = started("many", "out", "-k")
    wait_for_more("out", len(interrupted) + 2)
    run.kill()
    run.wait()
    stale = Path("out", f".a.png.{atomic_write._HOST}-{run.pid}-0123456789ab{TEMPORARY_SUFFIX}")
    stale.touch()  # if the kill came at no such moment
    finals = {name: data for name, data in files_in("out").items() if not name.endswith(TEMPORARY_SUFFIX)}
    assert len(finals) < count
    assert finals.items() <= files_in("whole").items()

    denoise("many", "out", "-k", "-q")
    assert files_in("out") == files_in("whole")


def test_streams_of_pictures(here, started, denoise, monkeypatch):
    data = Path("in/a.png").read_bytes()
    denoise("in/a.png", "file.png")
    run = started("-", "-", stdin=subprocess.PIPE)
    out, err = run.communicate(data, timeout=60)
    assert run.returncode == 0
    assert out == Path("file.png").read_bytes()
    assert b"1 restored" in err

    with open("to", "w") as stdout, open("in/a.png") as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stdin", stdin)
        denoise("-", "--ext", "jpg", "-q")
        stdin.seek(0)
        denoise("-", "from.webp")
    assert read_image(Path("to")).format == "jpeg"


def test_two_processes_do_the_work_of_one(here, denoise, started):
    """--device cpu,cpu: the same bytes, also when one of the two is killed in the middle."""
    many(count=20)
    denoise("many", "whole", "-q")
    run = started("many", "out", "--device", "cpu,cpu")
    wait_for_more("out", 2)
    workers = [child for child in psutil.Process(run.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    err = run.communicate(timeout=120)[1].decode()
    assert run.returncode == 0, err
    assert "another takes its place" in err
    assert "20 restored, 0 skipped, 0 failed" in err
    assert files_in("out") == files_in("whole")


def test_watch(here, denoise, started):
    os.mkdir("inbox")
    run = started("inbox", "out", "--watch")
    assert b"denoise on" in run.stderr.readline()
    assert b"watching" in run.stderr.readline()
    shutil.copy("in/a.png", "inbox")
    assert run.stderr.readline().startswith(b"inbox/a.png: ")  # how much noise was removed
    assert run.stderr.readline() == b"out/a.png\n"
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 0
    assert b"1 restored, 0 skipped, 0 failed" in run.stderr.read()
    denoise("in/a.png", "same.png")
    assert Path("same.png").read_bytes() == Path("out/a.png").read_bytes()
