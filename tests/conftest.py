"""Real pictures, tiny networks, and the command line as a person runs it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import skimage.data
import torch
from evaluation_tools import tiny_weights, write_pictures

from restore import weights
from restore.cli import app
from restore.models import build
from restore.tasks.base import load_task

ROOT = Path(__file__).parents[1]

# One thread in each process, here and in those that tests start: the pictures are small, threads that wait for each
# other would cost more than they compute, and pytest-xdist uses the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# A shell that starts the tests in the background has Ctrl-C ignored, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A cat, (300,451,3) uint8."""
    return skimage.data.chelsea()


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small photographs, one in a subfolder."""
    return write_pictures(tmp_path_factory.mktemp("data") / "clean")


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that knows nothing."""
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", "denoise", (1,))


@pytest.fixture(scope="session")
def bench() -> Path:
    """The standard test sets, where RESTORE_DATA names them."""
    if "RESTORE_DATA" not in os.environ:
        pytest.skip("RESTORE_DATA is not set")
    return Path(os.environ["RESTORE_DATA"]) / "bench"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Weights of a small network for a task, random but far from the identity: contracts hold for any weights."""
    folder = tmp_path_factory.mktemp("tiny")

    def make(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            task = load_task(name)
            small = {"widths": (8, 12), "blocks": (1, 2), "finder_widths": (6, 8), "finder_blocks": (1, 1)}
            if task.arch == "pretrained-unet":
                small = {"widths": (8, 8, 8)}
            known = {known.name for known in fields(task.config)}
            config = replace(task.config, **{name: value for name, value in small.items() if name in known})
            torch.manual_seed(0)
            network = build(task.arch, config)
            for place, weight in network.named_parameters():
                if ".weight" in place and "heads." in place:
                    torch.nn.init.normal_(weight, std=0.02)
                if place.startswith("classify."):
                    torch.nn.init.normal_(weight, std=3.0)  # so that it has colours in mind
                if place.endswith("_judge.4.bias"):
                    torch.nn.init.constant_(weight, 9.0)  # so that it takes what is found
                if place.startswith("finder.heads.") and place.endswith("weight"):
                    with torch.no_grad():  # what it says of the mask, loud enough to be mask_from_logits somewhere
                        weight[: config.finder_fold**2].mul_(500)
            values = asdict(config)
            weights.save(path, weights.Header(name, task.arch, values), network.state_dict())
        return path

    return make


class Said(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture
def restore(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command line in this process; `expect` is the exit code."""

    def run(*arguments: object, expect: int = 0) -> Said:
        capsys.readouterr()
        assert app.run([str(word) for word in arguments]) == expect, arguments
        return Said(*capsys.readouterr())

    return run


@pytest.fixture
def denoise(tiny: Callable[[str], Path]) -> Callable[..., None]:
    """The command in this process (torch takes seconds to load); `code` is the exit code."""

    def call(*arguments: object, code: int = 0) -> None:
        command = ["denoise", "-m", str(tiny("denoise")), "--device", "cpu", *map(str, arguments)]
        assert app.run(command) == code, command

    return call
