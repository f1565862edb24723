"""What needs a CUDA GPU: contracts, precision, compiling, lack of memory, streams, training. `pytest -m gpu`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import restore as package
from restore.images import Image
from restore.inference.restorer import Restorer
from restore.tasks import TASKS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]
tasks = pytest.mark.parametrize("task", sorted(TASKS))


@pytest.fixture(autouse=True)
def exact_arithmetic(monkeypatch):
    """float32 is float32 in these tests, not TensorFloat-32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def load(tiny, task: str, device: str = "cuda", **options) -> Restorer:
    force = {"force": True} if task == "colorize" else {}
    return package.load(task, str(tiny(task)), device=device, **{"precision": "fp32", **force, **options})


def mask_for(task: str, image: np.ndarray) -> np.ndarray | None:
    if not TASKS[task].masks:
        return None
    mask = np.zeros(image.shape[:2], bool)
    mask[20:30] = True
    return mask


@tasks
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (129, 83)])
def test_as_on_the_cpu(task, dtype, size, tiny, photo):
    image = photo[: size[0], : size[1]]
    if dtype != "uint8":
        image = image.astype(np.uint16) * 257 if dtype == "uint16" else image.astype(np.float32) / 255
    mask = mask_for(task, image)
    level = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    ours, expected = load(tiny, task)(image, mask), load(tiny, task, "cpu")(image, mask)
    assert ours.dtype == expected.dtype
    assert np.abs(ours.astype(np.float64) - expected).max() <= level


@tasks
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(task, precision, tiny, photo):
    mask = mask_for(task, photo)
    half, exact = load(tiny, task, precision=precision)(photo, mask), load(tiny, task)(photo, mask)
    assert np.abs(half.astype(int) - exact).max() <= 6


@tasks
def test_tiles_and_batches_make_the_same_picture(task, tiny, photo):
    """In tiles, in one piece, and enqueued together before any result is asked for: within one level."""
    mask = mask_for(task, photo)
    whole = load(tiny, task, tile=4096)(photo, mask)
    assert np.abs(load(tiny, task, tile=64)(photo, mask).astype(int) - whole).max() <= 1
    restorer = load(tiny, task)
    turned = [np.ascontiguousarray(np.roll(photo, 10 * number, axis=1)) for number in range(12)]
    pending = restorer.enqueue([(Image(one), mask) for one in turned])
    for one, result in zip(turned, [waiting.result() for waiting in reversed(pending)][::-1], strict=True):
        assert np.abs(result.image.pixels.astype(int) - restorer(one, mask)).max() <= 1


def test_overflow_is_computed_again(tiny, photo, monkeypatch):
    restorer = load(tiny, "denoise", precision="fp16", tile=64)
    exact, run = load(tiny, "denoise", tile=64)(photo), restorer.head.run

    def overflowing(network, planes, stage=""):
        output = run(network, planes, stage)
        return output * torch.inf if next(network.parameters()).dtype == torch.float16 else output

    monkeypatch.setattr(restorer.head, "run", overflowing)
    assert np.abs(restorer(photo).astype(int) - exact).max() <= 1


def test_compile(tiny, photo):
    compiled = load(tiny, "denoise", compile=True)
    for image in (photo, photo[:100, :90]):
        assert np.abs(compiled(image).astype(int) - load(tiny, "denoise")(image)).max() <= 1


def test_out_of_memory_and_recovery(tiny, photo, caplog):
    """With a sliver of the GPU's memory tiles shrink or the CPU takes over; once there is memory, it is used again."""
    image = np.tile(photo, (8, 8, 1))
    expected = load(tiny, "denoise")(image)
    restorer = load(tiny, "denoise", tile=2048)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150e6) / total)
    try:
        assert np.abs(restorer(image).astype(int) - expected).max() <= 1
        assert "out of memory on cuda:0" in caplog.text
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for _ in range(3):
        restorer(photo)
    assert restorer._planner.device.type == "cuda"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=ROOT, timeout=600, check=True)


@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--nproc-per-node", "1"]])
def test_training_pauses_and_goes_on(launcher, tmp_path):
    """`restore train` on the GPU, stopped and resumed; and under torchrun."""
    out = tmp_path / "w.safetensors"
    command = [sys.executable, *launcher, "-m", "restore", "train", "denoise", "samples/clean", "--steps", 200]
    command += ["--net", "widths=16,24", "--net", "blocks=1,1", "--patch", 32, "-o", out, "--device", "cuda"]
    run(*command, "--stop-after", 0.01)
    assert not out.exists()
    run(*command, "--resume")
    assert out.exists()
    assert np.isfinite(package.load("denoise", str(out))(np.zeros((20, 20, 3), np.float32))).all()
