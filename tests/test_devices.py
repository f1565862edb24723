"""Several processes, one of which may die, and a folder that is watched.

This module imports no torch: the processes of a `DevicePool` import it again.
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
from folder_tools import files_in, inverted, jobs_of, run, write

from restore.errors import DeviceError
from restore.folders.compute_queue import PerPicture
from restore.folders.devices import DevicePool, Prepared
from restore.folders.masks import MaskPaths
from restore.folders.names import Naming
from restore.folders.pipeline import FilePipeline, WriteOptions
from restore.folders.plan import Job, plan
from restore.folders.watch import watch
from restore.images import Image
from restore.inference.restored import Restored

KILLER = 251  # the value of a picture that ends the process it is restored in


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(device: str, processes: int) -> Prepared:
    if device == "none":
        raise DeviceError("--device none: not there")
    if device == "dies":
        os._exit(3)

    def function(image: Image, mask: np.ndarray | None) -> Restored:
        if image.pixels[0, 0, 0] == KILLER:
            os._exit(9)
        time.sleep(0.03)
        return inverted(image, mask)

    return Prepared(PerPicture(function), f"{device} of {processes}")


def pictures(*values: int) -> list[str]:
    """`in` with a picture of each value, the later ones larger; their names."""
    names = [f"{number:02}.png" for number in range(len(values))]
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        write(Path("in", name), value, size=(8 + number, 9))
    return names


def test_several_processes_write_the_same_bytes_and_survive_a_killing(here, caplog):
    """With masks, too: also of a process that is killed, and of a picture that kills its process."""
    names = pictures(*range(24))
    for number, name in enumerate(names):
        write(Path("masks", name), 255 * (number % 2), size=(8 + number, 9))
    write(Path("in/killer.png"), KILLER)
    Path("in/broken.png").write_bytes(b"broken")
    for name in ("killer.png", "broken.png"):
        write(Path("masks", name))
    jobs = {
        to: plan(["in"], f"{to}/out", Naming("x"), masks=MaskPaths(Path("masks"), Path(to, "masks"))).jobs
        for to in ("alone", "pool")
    }
    list(run([job for job in jobs["alone"] if job.input.name != "killer.png"], inverted))
    with DevicePool(["one", "two"], prepare, WriteOptions(), workers=2) as pool:
        assert pool.descriptions == ["one of 2", "two of 2"]
        outcomes = []
        for outcome in pool.run(jobs["pool"]):
            outcomes.append(outcome)
            if len(outcomes) == 3:
                os.kill(pool._workers[0].process.pid, signal.SIGKILL)
        again = list(pool.run(jobs["pool"][:3]))  # as --watch does
        processes = [worker.process for worker in pool._workers]
    assert {outcome.job.input.name for outcome in again} == {"00.png", "01.png", "02.png"}
    assert all("exists already" in outcome.error for outcome in again)
    assert not any(process.is_alive() for process in processes)
    assert len(outcomes) == len({outcome.job.input for outcome in outcomes}) == len(jobs["pool"]) == 26
    failed = {outcome.job.input.name: outcome.error for outcome in outcomes if outcome.error}
    assert set(failed) == {"killer.png", "broken.png"}
    assert "exit code 9), and so did another before" in failed["killer.png"]
    assert caplog.text.count("another takes its place") <= 4  # tried alone twice, and no more
    assert files_in("pool") == files_in("alone")
    assert outcomes[0].job.input.name > "17.png"  # the largest begin


def test_a_device_that_is_not_there_is_said_before_anything_is_written(here):
    for device, says in (("none", "not there"), ("dies", "died while it began")):
        with pytest.raises(Exception, match=says), DevicePool([device], prepare, WriteOptions()):
            pytest.fail("began")


def test_interrupted_processes_end(here):
    """As Ctrl-C in a terminal: the signal goes to all of them."""
    names = pictures(*[100] * 60)
    program = (
        "import test_devices as t\n"
        "if __name__ == '__main__':\n"
        "    with t.DevicePool(['one', 'two'], t.prepare, t.WriteOptions()) as pool:\n"
        f"        for outcome in pool.run(t.jobs_of(*{names})):\n"
        "            print([w.process.pid for w in pool._workers], flush=True)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    options["env"] = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", program], **options) as process:
        workers = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
        os.killpg(process.pid, signal.SIGINT)
        start = time.monotonic()
        err = process.communicate(timeout=20)[1].decode()
        assert time.monotonic() - start < 3
        assert err.count("Traceback") == 1, err  # the program's own
        assert psutil.wait_procs(workers, timeout=3)[1] == []
    done = files_in("out")
    assert 0 < len(done) < 60
    assert all(name in names for name in done)


def test_processes_that_keep_dying_are_given_up(here, monkeypatch):
    monkeypatch.setattr("restore.folders.devices.MAX_LOSSES", 2)
    names = pictures(*[KILLER] * 9)
    with DevicePool(["one"], prepare, WriteOptions()) as pool:
        outcomes = list(pool.run(jobs_of(*names)))
        write(Path("in/good.png"))
        (good,) = pool.run(jobs_of("good.png"))  # as --watch does
    assert len(outcomes) == 9
    assert all("died" in outcome.error for outcome in outcomes)
    assert good.status == "restored"


def test_watching(here, monkeypatch):
    """What is there, what arrives, what is half written, what is broken, what is mended."""
    monkeypatch.setattr("restore.folders.watch.RETRY_AFTER", 1.0)
    whole = write(Path("made/whole.png")).read_bytes()
    write(Path("in/first.png"))

    def find_jobs() -> list[Job]:
        return plan(["in"], "out", Naming("denoised"), allow_empty=True).jobs

    told: list[tuple[str, str]] = []
    tried: list[str] = []

    class Recording(FilePipeline):
        def run(self, jobs, *, fail_fast=False):
            tried.extend(job.input.name for job in jobs)
            return super().run(jobs, fail_fast=fail_fast)

    with Recording(PerPicture(inverted), WriteOptions(skip_existing=True)) as pipeline:
        rounds = 0
        for outcome in watch(find_jobs, pipeline, interval=0.1):
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
