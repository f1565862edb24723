"""Several processes, one of which may die, and a folder that is watched.

This module imports no torch: the processes of `Spread` import it again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from folder_tools import files_in, inverted, jobs_of, write
from restore.inference.restored import Restored

from restore.errors import DeviceError
from restore.images import Image
from restore.inference.batch import Pipeline, Writing, run
from restore.inference.job import Job
from restore.inference.jobs import plan
from restore.inference.naming import Naming
from restore.inference.spread import Spread
from restore.inference.spread_worker import Ready
from restore.inference.watch import watch

KILLER = 251  # the value of a picture that ends the process it is restored in


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def preparing(device: str, processes: int) -> Ready:
    if device == "none":
        raise DeviceError("--device none: not there")
    if device == "dies":
        os._exit(3)

    def transform(image: Image, mask: np.ndarray | None) -> Restored:
        if image.pixels[0, 0, 0] == KILLER:
            os._exit(9)
        time.sleep(0.05)
        return inverted(image, mask)

    return Ready(transform, f"{device} of {processes}")


def test_several_processes_write_the_same_bytes_and_survive_a_killing(here):
    names = [f"{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        write(Path("in", name), number, size=(8 + number, 9))
    write(Path("in/killer.png"), KILLER)
    Path("in/broken.png").write_bytes(b"broken")
    list(run(jobs_of(*names, output="alone"), inverted, Writing()))
    with Spread(["one", "two"], preparing, Writing(), workers=2) as spread:
        assert spread.about == ["one of 2", "two of 2"]
        outcomes = []
        for outcome in spread.run(jobs_of(*names, "killer.png", "broken.png")):
            outcomes.append(outcome)
            if len(outcomes) == 3:
                os.kill(spread._workers[0].process.pid, signal.SIGKILL)
        processes = [worker.process for worker in spread._workers]
    assert not any(process.is_alive() for process in processes)
    assert sorted(str(outcome.job.input) for outcome in outcomes) == sorted(
        f"in/{name}" for name in [*names, "killer.png", "broken.png"]
    )
    failed = {outcome.job.input.name: outcome.error for outcome in outcomes if outcome.error}
    assert set(failed) == {"killer.png", "broken.png"}
    assert "exit code 9), and so did another before" in failed["killer.png"]
    assert files_in("out") == files_in("alone")
    assert outcomes[0].job.input.name in ("29.png", "28.png", "27.png", "26.png", "25.png")  # the largest begin


class Inverting:
    """Restores several pictures at once; what it is given together, and each alone, comes out the same."""

    def at_once(self, image: Image) -> int:
        time.sleep(0.02)  # so that some wait
        return 4

    def restore_all(self, pictures):
        Path(f"groups.{os.getpid()}.{time.monotonic_ns()}").write_text(str(len(pictures)))
        return [inverted(*picture) for picture in pictures]


def preparing_several(device: str, processes: int) -> Ready:
    return Ready(inverted, device, together=Inverting())


def test_pictures_share_batches_in_every_process(here):
    names = [f"{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        write(Path("in", name), number)
    list(run(jobs_of(*names, output="alone"), inverted, Writing()))
    with Spread(["one", "two"], preparing_several, Writing(), workers=6) as spread:
        assert sum(outcome.error is None for outcome in spread.run(jobs_of(*names))) == 30
    assert files_in("out") == files_in("alone")
    groups = [(path.name.split(".")[1], int(path.read_text())) for path in here.glob("groups.*")]
    assert len({process for process, _ in groups}) == 2
    assert {size for _, size in groups} <= {2, 3, 4}


def test_a_device_that_is_not_there_is_said_before_anything_is_written(here):
    for device, says in (("none", "not there"), ("dies", "died while it began")):
        with pytest.raises(Exception, match=says), Spread(["one", device], preparing, Writing()):
            pytest.fail("began")


def test_an_interrupted_spread_ends_its_processes(here):
    """As Ctrl-C in a terminal: the signal goes to all of them."""
    names = [f"{number:02}.png" for number in range(60)]
    for name in names:
        write(Path("in", name))
    program = (
        "import test_spread as t\n"
        "if __name__ == '__main__':\n"
        f"    with t.Spread(['one', 'two'], t.preparing, t.Writing()) as spread:\n"
        f"        for outcome in spread.run(t.jobs_of(*{names})):\n"
        "            print([w.process.pid for w in spread._workers], flush=True)\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, "env": paths}
    with subprocess.Popen([sys.executable, "-c", program], **options) as process:
        workers = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
        os.killpg(process.pid, signal.SIGINT)
        start = time.monotonic()
        err = process.communicate(timeout=20)[1].decode()
        assert time.monotonic() - start < 3
        assert err.count("Traceback") == 1  # the program's own
        assert psutil.wait_procs(workers, timeout=3)[1] == []
    done = files_in("out")
    assert 0 < len(done) < 60
    assert len(set(done.values())) == 1
    assert all(name in names for name in done)


def test_processes_that_keep_dying_are_given_up(here, monkeypatch):
    monkeypatch.setattr("restore.inference.spread.DEATHS", 2)
    names = [f"{number}.png" for number in range(9)]
    for name in names:
        write(Path("in", name), KILLER)
    with Spread(["one"], preparing, Writing()) as spread:
        outcomes = list(spread.run(jobs_of(*names)))
    assert len(outcomes) == 9
    assert all("died" in outcome.error for outcome in outcomes)


def test_watching(here, monkeypatch):
    """What is there, what arrives, what is half written, what is broken, what is mended."""
    monkeypatch.setattr("restore.inference.watch.PATIENCE", 1.0)
    whole = write(Path("made/whole.png")).read_bytes()
    write(Path("in/first.png"))

    def look() -> list[Job]:
        return plan(["in"], "out", Naming("denoised"), empty=True).jobs

    told: list[tuple[str, str]] = []
    tried: list[str] = []

    class Recording(Pipeline):
        def run(self, jobs, *, fail_fast=False):
            tried.extend(job.input.name for job in jobs)
            return super().run(jobs, fail_fast=fail_fast)

    with Recording(inverted, Writing(skip_existing=True)) as pipeline:
        rounds = 0
        for outcome in watch(look, pipeline, poll=0.15):
            if outcome is not None:
                told.append((outcome.job.input.name, outcome.status))
                continue
            rounds += 1
            if rounds == 3:
                Path("in/half.png").write_bytes(whole[:40])
                Path("in/broken.png").write_bytes(b"broken")
                write(Path("in/late.png"))
            if 3 < rounds < 7:  # never still for a whole interval
                Path("in/half.png").write_bytes(whole[: 40 + rounds])
            if rounds == 7:
                assert "half.png" not in tried
                Path("in/half.png").write_bytes(whole)
            if {("broken.png", "failed"), ("half.png", "restored")} <= set(told):
                if ("broken.png", "restored") in told:
                    break
                if Path("in/broken.png").read_bytes() != whole:
                    Path("in/broken.png").write_bytes(whole)
            assert rounds < 150
    assert sorted(told) == [
        ("broken.png", "failed"),
        ("broken.png", "restored"),
        ("first.png", "restored"),
        ("half.png", "restored"),
        ("late.png", "restored"),
    ]
    assert set(files_in("out")) == {"broken.png", "first.png", "half.png", "late.png"}
