"""The restorer: no seams, no memory beyond the picture's own, what it does when there is not enough, precision."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import restore as package
from restore import devices
from restore.cli.app import run
from restore.corruptions.downsample import resize_bicubic
from restore.corruptions.drawing.text import draw_text
from restore.errors import UsageError
from restore.images import Image
from restore.inference import restorer as restorers
from restore.inference import tiling
from restore.inference.engine import Engine
from restore.inference.restorer import Restorer
from restore.metrics import psnr
from restore.models import build
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.pixels import to_dtype
from restore.tasks import TASKS

tasks = pytest.mark.parametrize("task", sorted(TASKS))


def load(task: str = "denoise", **options) -> Restorer:
    """With the weights that ship."""
    return package.load(task, device="cpu", **{"precision": "fp32", **options})


def gradients(height: int, width: int, sigma: float) -> np.ndarray:
    """Slow ramps, a different one in each channel, where a seam of a level shows; with noise."""
    down, right = np.mgrid[:height, :width].astype(np.float32)
    clean = np.stack([down / height, right / width, 1 - (down + right) / (height + width)], axis=-1) * 230 + 12
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape) if sigma else 0
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


@tasks
@pytest.mark.parametrize("sigma", [0, 50])
def test_tiles_leave_no_seams(task, sigma, tiny):
    """A picture of gradients in tiles, with the overlap that is taken by itself, against the whole.

    What looks for damage is told where: a pixel at the threshold falls to either side, which is no seam.
    """
    image = gradients(192, 192, sigma)
    mask = np.zeros((192, 192), bool)
    mask[60:68], mask[:, 100:140] = True, True
    restorer = load(task, tile=1024)
    if restorer.head.colours:
        image = image[..., :1]
    told = {"mask": mask} if TASKS[task].masks else {}
    whole, tiled = restorer(image, **told), load(task, tile=64)(image, **told)
    assert told == {} or (whole[mask] != image[mask]).any()
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert psnr(tiled, whole) > 60
    # The rows and columns where tiles meet differ no more from their neighbours than in the whole picture.
    meet = 64 * restorer.head.scale
    for one, other in ((whole, tiled), (whole.swapaxes(0, 1), tiled.swapaxes(0, 1))):
        steps = [np.abs(np.diff(picture[meet - 1 : meet + 1].astype(float), axis=0)).mean() for picture in (one, other)]
        assert steps[1] <= steps[0] + 0.05


def test_memory_of_large_pictures(tiny):
    """From 1 to 38 megapixels with alpha: what comes in and what goes out, and not a byte a pixel beside it.

    The allocator keeps up to ten megabytes more or less from one run to the next: the large picture makes half
    a byte a pixel twice that, and the first restored picture pays for what is made once.
    """
    script = f"""
import numpy as np
import torch
from restore.inference import loading
from restore.inference.benchmark import reset_peak_memory, peak_memory
torch.set_num_threads(1)
restore = loading.load("denoise", {str(tiny("denoise"))!r}, "cpu", "fp32", 256)
part = np.random.default_rng(0).integers(0, 256, (256, 256, 4), np.uint8)
part[..., 1:3] = part[..., :1]  # gray in colour form, until the last pixel: all of it has to be looked at
for times in (4, 4, 24):
    image = np.tile(part, (times, times, 1))
    image[-1, -1, :3] = 0, 128, 255
    reset_peak_memory(restore.device)
    restore(image)
    print(peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    _, small, large = map(int, done.stdout.split())
    pixels = (24**2 - 4**2) * 256**2
    assert large - small < pixels * (2 * 4 + 0.5)


def test_alpha_is_enlarged_as_a_gray_picture(tiny):
    """In tiles as all at once, for arrays and for pictures of files; a constant one stays constant."""
    image = np.random.default_rng(0).integers(1, 256, (301, 97, 4), np.uint8)
    for tile in (0, 64):
        restorer = package.load(
            "super-resolve", str(tiny("super-resolve")), device="cpu", precision="fp32", scale=3, tile=tile
        )
        restored = restorer(image)
        assert np.array_equal(restored[..., 3], restorer(image[..., 3]))
        assert np.array_equal(restorer.restore(Image(image[..., :3], image[..., 3])).image.array, restored)
    image[..., 3] = 77
    assert (restorer(image)[..., 3] == 77).all()


def test_a_logo_is_enlarged_without_the_colour_under_its_transparency():
    """On white: half the error of bicubic interpolation, whatever colour the file has where nothing is seen."""
    alpha = draw_text("Restore", "sans", 96, 700)[:96, :400].astype(np.float32)
    large = np.zeros((96, 400, 4), np.float32)
    large[..., :3], large[..., 3] = (0.86, 0.16, 0.16), alpha / alpha.max()
    small = large.reshape(48, 2, 200, 2, 4).mean((1, 3))
    hidden = small[..., 3] == 0
    assert hidden.mean() > 0.2

    def on_white(image: np.ndarray) -> np.ndarray:
        return np.clip(image[..., :3] * image[..., 3:] + 1 - image[..., 3:], 0, 1)

    restorer = package.load("super-resolve", device="cpu", scale=2)
    shown = []
    for colour in (0.0, 1.0):
        small[hidden, :3] = colour
        shown.append(on_white(restorer(to_dtype(small, np.uint8)) / np.float32(255)))
    assert np.array_equal(*shown)
    small[hidden, :3] = 0
    bicubic = psnr(on_white(resize_bicubic(small, (96, 400))), on_white(large))
    assert psnr(shown[0], on_white(large)) > bicubic + 6


def test_gray_is_detected_in_bands(photo, monkeypatch):
    monkeypatch.setattr("restore.colour.BAND", 1000)
    gray = np.repeat(photo[..., :1], 3, axis=-1)
    assert restorers._is_gray(gray)
    for row, column in ((0, 0), (150, 200), (299, 450)):
        coloured = gray.copy()
        coloured[row, column, 2] ^= 1
        assert not restorers._is_gray(coloured)


def test_errors_of_enqueued_pictures_are_separate(tiny, photo):
    """Each picture comes out as by itself; what is wrong with one is raised by its own result."""
    restorer = package.load("inpaint", str(tiny("inpaint")), device="cpu", precision="fp32")
    mask = np.zeros((80, 90), bool)
    mask[30:40] = True
    first, second = Image(photo[:80, :90]), Image(photo[100:180, 100:190])
    pending = restorer.enqueue([(first, mask), (second, mask[:50]), (second, mask)])
    assert np.array_equal(pending[2].result().image.pixels, restorer(second.pixels, mask))
    assert np.array_equal(pending[0].result().image.pixels, restorer(first.pixels, mask))
    with pytest.raises(UsageError, match="a mask of 90x50 does not fit a picture of 90x80"):
        pending[1].result()


@pytest.fixture
def simulated_gpu(tiny, monkeypatch):
    """A restorer that believes in a GPU of so many pixels, the smallest tile of it `smallest`; and what it ran."""

    def make(pixels: int | Callable[[int], int], **options) -> tuple[Restorer, list[tuple[str, tuple[int, ...]]]]:
        """pixels: so many fit, or as many as follow from the overlap of tiles."""
        really, calls = Engine.restore, []

        def on_cpu(self, pixels, context, gray, device, dtype):
            count, height, width, channels = pixels.shape
            calls.append((device.type, (count, channels, height, width)))
            if device.type == "cuda" and count * height * width > fitting:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return really(self, pixels, context, gray, torch.device("cpu"), dtype)

        monkeypatch.setattr(Engine, "restore", on_cpu)
        monkeypatch.setattr(tiling, "free_memory", lambda device: 10**11)
        restorer = package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32", **options)
        gpu = torch.device("cuda:0")
        restorer.device = restorer._planner.device = restorer._planner._preferred_device = gpu
        fitting = pixels if isinstance(pixels, int) else pixels(overlap_of(restorer))
        return restorer, calls

    return make


def overlap_of(restorer: Restorer) -> int:
    """Pixels that a tile sees beyond itself."""
    stride = restorer.network.stride
    return -(-restorer._planner.overlap // stride) * stride


def expected(tiny, image: np.ndarray) -> np.ndarray:
    return package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32", tile=4096)(image)


def test_batches_make_the_same_picture(tiny, photo, simulated_gpu):
    image = photo[:300, :400]
    whole = expected(tiny, image)
    restorer, calls = simulated_gpu(10**9, tile=64)
    assert np.abs(restorer(image).astype(int) - whole).max() <= 1
    assert max(shape[0] for _, shape in calls) > 4
    assert sum(shape[0] for _, shape in calls) == 5 * 7


def test_out_of_memory_shrinks_batches_then_tiles(tiny, photo, simulated_gpu, caplog):
    """It goes on where it was: what is done is not done again, and the next picture does not run into it again."""
    image = np.tile(photo, (2, 1, 1))[:400, :400]
    whole = expected(tiny, image)
    restorer, calls = simulated_gpu(lambda overlap: (200 + overlap) ** 2 - 1, tile=200)
    assert np.abs(restorer(image).astype(int) - whole).max() <= 1
    assert "cuda:0: continuing with tiles of 100 pixels" in caplog.text
    caplog.clear()
    restorer(image)
    assert not caplog.text
    restorer, calls = simulated_gpu(lambda overlap: 2 * (100 + 2 * overlap) ** 2, tile=100)
    most = 2 * (100 + 2 * overlap_of(restorer)) ** 2
    caplog.clear()
    assert np.abs(restorer(image).astype(int) - whole).max() <= 1
    assert "cuda:0: continuing with 2 tiles at a time" in caplog.text
    assert "with tiles of" not in caplog.text
    fitting = [shape for _, shape in calls if np.prod(shape) <= shape[1] * most]
    assert sum(shape[0] for shape in fitting) == 16
    caplog.clear()
    assert np.abs(restorer(image).astype(int) - whole).max() <= 1
    assert not caplog.text
    assert {device for device, _ in calls} == {"cuda"}


def test_finished_tiles_are_not_repeated(tiny, photo, monkeypatch):
    """Memory runs short in the middle of a picture: smaller tiles for what is left of it."""
    image = np.tile(photo, (2, 1, 1))[:400, :400]
    restorer = package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32", tile=100)
    run_network, calls = restorer.head.run, []

    def short_of_memory(network, planes, stage):
        calls.append(planes.shape[-1])
        if len(calls) > 2 and planes.shape[-2] >= 100 + overlap_of(restorer):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_network(network, planes, stage)

    monkeypatch.setattr(restorer.head, "run", short_of_memory)
    assert np.abs(restorer(image).astype(int) - expected(tiny, image)).max() <= 1
    assert len(calls) == 2 + 1 + (16 - 2) * 4


def test_out_of_memory_falls_back_to_the_cpu(tiny, photo, simulated_gpu, caplog):
    image = photo[:200, :200]
    whole = expected(tiny, image)
    restorer, calls = simulated_gpu(100)
    assert np.abs(restorer(image).astype(int) - whole).max() <= 1
    assert caplog.text.count("continuing on the CPU") == 1
    assert calls[-1] == ("cpu", (1, 3, 200, 200))  # not in the small tiles that did not help
    caplog.clear()
    restorer(image)
    assert not caplog.text


def test_a_gpu_is_tried_again_after_the_cpu_has_helped_out(photo, simulated_gpu, monkeypatch):
    image = photo[:64, :64]
    short = [True]
    restorer, calls = simulated_gpu(10**9)
    enough = Engine.restore

    def restore(self, pixels, context, gray, device, dtype):
        if device.type == "cuda" and short[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enough(self, pixels, context, gray, device, dtype)

    monkeypatch.setattr(Engine, "restore", restore)
    restorer(image)
    assert calls[-1][0] == "cpu"
    short[0] = False
    for _ in range(tiling.CPU_PICTURES[0] + 1):
        restorer(image)
    assert calls[-1][0] == "cuda"


def test_what_did_not_fit_is_freed_before_the_cache_is_emptied(monkeypatch):
    """The traceback of an error holds the tensors of the batch that failed."""
    network = build("conv-autoencoder", ConvAutoencoderConfig(widths=(4,), blocks=(1,), fold=1))
    monkeypatch.setattr(tiling, "free_memory", lambda device: 10**9)
    planner = tiling.TilePlanner(network, 1, torch.float32, torch.device("cuda:0"), 128, 0)
    tensors, freed = [], []

    def compute(group):
        tensor = torch.empty(4)
        tensors.append(weakref.ref(tensor))
        if len(tensors) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(tensors[0]() is None))
    items = [tiling.Item(SimpleNamespace(size=(128, 128)), tile) for tile in planner.plan(128, 128)]
    assert sum(len(group) for group, _ in planner.run(items, compute)) == 4
    assert freed == [True]


def test_automatic_precision_asks_the_gpu_that_was_chosen(monkeypatch):
    current = [0]

    @contextmanager
    def device(chosen):
        current.append(chosen.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1] == 1)
    assert devices.pick_precision("auto", torch.device("cuda:1")) == torch.bfloat16
    assert devices.pick_precision("auto", torch.device("cuda:0")) == torch.float16


def test_not_enough_memory_anywhere(tiny, photo, monkeypatch):
    restorer = package.load("denoise", str(tiny("denoise")), device="cpu")

    def full(network, planes, stage):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(restorer.head, "run", full)
    with pytest.raises(MemoryError, match="smallest tiles"):
        restorer(photo)


def test_other_errors_are_raised(tiny, photo, monkeypatch):
    restorer = package.load("denoise", str(tiny("denoise")), device="cpu")
    tried = []

    def broken(network, planes, stage):
        tried.append(planes.shape)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(restorer.head, "run", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        restorer(photo)
    assert len(tried) == 1


def test_only_the_tile_that_overflowed_is_computed_again(tiny, photo, simulated_gpu, monkeypatch):
    """In a batch, too: three of four stay as half precision made them."""
    image = np.ascontiguousarray(np.tile(photo, (2, 2, 1))[:512, :512])
    restorer, _ = simulated_gpu(10**9, tile=128, overlap=0)
    restorer._engine.dtype = torch.bfloat16
    half = restorer(image)
    run_network, batches = restorer.head.run, []

    def overflowing(network, planes, stage):
        output = run_network(network, planes, stage)
        batches.append((next(network.parameters()).dtype, planes.shape[0]))
        if batches[-1][0] == torch.bfloat16:
            output[5, 1, 3, 3] = torch.nan
        return output

    monkeypatch.setattr(restorer.head, "run", overflowing)
    repeated = restorer(image)
    assert batches == [(torch.bfloat16, 16), (torch.float32, 1)]
    rows, columns = np.nonzero((half != repeated).any(axis=-1))
    assert (rows.min() // 128, rows.max() // 128, columns.min() // 128, columns.max() // 128) == (1, 1, 1, 1)
    exact = package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32", tile=128, overlap=0)(image)
    assert np.abs(repeated[128:256, 128:256].astype(int) - exact[128:256, 128:256]).max() <= 1


def test_compile(tiny, photo, monkeypatch, capsys, tmp_path):
    """--compile: what torch.compile returns is what computes; and where it cannot, one line says so."""
    import cv2

    compiled = []

    def compiling(forward):
        compiled.append(forward)

        def doubled(pixels, context, gray):
            restored, finite = forward(pixels, context, gray)
            return pixels + 2 * (restored - pixels), finite

        return doubled

    monkeypatch.setattr(torch, "compile", compiling)
    image = photo[:64, :64].astype(np.float32) / 255
    model = str(tiny("denoise"))
    plain = package.load("denoise", model, device="cpu", precision="fp32")(image, clip=False)
    assert not compiled
    doubled = package.load("denoise", model, device="cpu", precision="fp32", compile=True)(image, clip=False)
    assert np.abs((doubled - image) - 2 * (plain - image)).max() < 1e-5
    assert len(compiled) == 1
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo[:64, :64])
    assert run(["denoise", str(path), "-m", model, "--device", "cpu", "-q", "--compile"]) == 0
    assert len(compiled) == 2

    def refusing(pixels, context, gray):
        from torch._dynamo.exc import Unsupported

        raise Unsupported("no C++ compiler found", real_stack=None)

    monkeypatch.setattr(torch, "compile", lambda forward: refusing)
    with pytest.raises(UsageError, match=r"cannot be compiled here \(no C\+\+ compiler found"):
        package.load("denoise", model, device="cpu", compile=True)(image)


def test_restoring_imports_no_unneeded_modules(tiny, photo, tmp_path):
    """What start-up takes beyond torch: training, evaluation and compiling bring hundreds of modules."""
    import cv2

    cv2.imwrite(str(tmp_path / "photo.png"), photo[:40, :40])
    never = {"albumentations", "accelerate", "skimage", "scipy", "sklearn", "torchvision", "torch._dynamo", "sympy"}
    script = f"""
import sys
import torch
before = set(sys.modules)
from restore.cli.app import run
assert run(["denoise", {str(tmp_path / "photo.png")!r}, "-m", {str(tiny("denoise"))!r}, "-q", "--device", "cpu"]) == 0
new = set(sys.modules) - before
print(len(new), sorted(set({sorted(never)!r}) & new))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, found = done.stdout.split(maxsplit=1)
    assert found.strip() == "[]"
    assert int(count) < 350


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_restores(tiny):
    """After the parent has computed with several threads."""
    script = f"""
import os, numpy as np, torch
from restore.inference import loading
torch.set_num_threads(2)
restore = loading.load("denoise", {str(tiny("denoise"))!r}, "cpu", "fp32")
image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
expected = restore(image)
child = os.fork()
if not child:
    os._exit(0 if np.abs(restore(image).astype(int) - expected).max() <= 1 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_free_memory_stops_at_the_limit_of_a_container(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "_container_limit", lambda: None)
    assert devices.free_memory(cpu) > 50e6
    monkeypatch.setattr(devices, "_container_limit", lambda: 10 << 40)
    assert devices.free_memory(cpu) < 1 << 40
    monkeypatch.setattr(devices, "_container_limit", lambda: 1)
    assert devices.free_memory(cpu) == 0


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_bf16_costs_less_than_a_twentieth_of_a_decibel(sigma, photo):
    """What lets `--precision auto` choose it."""
    clean = photo[40:200, 100:260]
    noisy = clean / np.float32(255) + np.random.default_rng(0).normal(0, sigma / 255, clean.shape).astype(np.float32)
    scores = [
        psnr(package.load("denoise", device="cpu", precision=precision)(noisy), clean.astype(np.float32) / 255)
        for precision in ("fp32", "bf16")
    ]
    assert scores[1] > scores[0] - 0.05


@pytest.mark.parametrize("sigma", [0, 25])
def test_white_and_black_borders_stay(sigma, photo):
    """As scans have them, around real content; in tiles too."""
    content = np.clip(
        np.rint(photo[50:120, 100:190] + np.random.default_rng(0).normal(0, sigma, (70, 90, 3))), 0, 255
    ).astype(np.uint8)
    for value in (255, 0):
        page = np.full((130, 150, 3), value, np.uint8)
        page[30:100, 40:130] = content
        border = np.ones(page.shape[:2], bool)
        border[30:100, 40:130] = False
        for tile in (0, 64):
            restored = package.load("denoise", device="cpu", tile=tile)(page)
            assert (restored[border] == value).all()
        assert not np.array_equal(restored, page)
