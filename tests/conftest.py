"""Real pictures, tiny networks, and the command line as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

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


@pytest.fixture(scope="session")
def restore() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own; `expect` is the exit code."""

    def run(*arguments: object, expect: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "restore", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd or ROOT, timeout=300)
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks in this process are quickest, and repeat exactly, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def denoise(tiny: Callable[[str], Path], one_thread: None) -> Callable[..., None]:
    """The command in this process (torch takes seconds to load); `code` is the exit code."""

    def call(*arguments: object, code: int = 0) -> None:
        command = ["denoise", "-m", str(tiny("denoise")), "--device", "cpu", *map(str, arguments)]
        assert app.run(command) == code, command

    return call
