"""Weights of other projects through spandrel: small random networks, as their authors' code saves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from restore import load
from restore.cli.app import run
from restore.errors import UsageError, WeightsError
from restore.images import Image, encode_image, read_image, write_image
from restore.inference.tiling import TilePlanner

pytest.importorskip("spandrel")

from spandrel.architectures import ESRGAN, NAFNet, SCUNet, SwinIR
from spandrel.architectures.DnCNN import DnCNN
from spandrel.architectures.LaMa import LaMa

SWIN = {"img_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0}
NETWORKS = {
    "esrgan": ("super-resolve", lambda: ESRGAN.ESRGAN(num_filters=16, num_blocks=1, scale=4)),
    "swinir": ("super-resolve", lambda: SwinIR.SwinIR(upscale=2, upsampler="pixelshuffledirect", **SWIN)),
    "dncnn": ("denoise", lambda: DnCNN(in_nc=1, out_nc=1, nc=16, nb=17, act_mode="R")),
    "scunet": ("denoise", lambda: SCUNet.SCUNet(config=[1] * 7, dim=64)),
    "nafnet": ("denoise", lambda: NAFNet.NAFNet(width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])),
    "lama": ("inpaint", lambda: LaMa(in_nc=4, out_nc=3)),
}


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def saved(tmp_path):
    """Makes a file with random weights: by its name, where that is in a checkpoint, and the task that it is for."""

    def make(name):
        task, build = NETWORKS[name]
        torch.manual_seed(0)
        tensors = {key: value.clone().contiguous() for key, value in build().state_dict().items()}
        path = tmp_path / f"{name}.{'safetensors' if name == 'esrgan' else 'pth'}"
        if path.suffix == ".pth":
            torch.save({"params": tensors} if name == "swinir" else tensors, path)
        else:
            save_file(tensors, path)
        return task, path

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_and_in_tiles(name, saved, photo, monkeypatch):
    """The picture has the size of the task, the network has an effect, and tiles do not show where it sees locally."""
    task, path = saved(name)
    scale = {"esrgan": 4, "swinir": 2}.get(name, 1)
    options = {"scale": scale} if task == "super-resolve" else {}
    picture, mask = photo[:75, :150], None
    if task == "inpaint":
        mask = np.zeros(picture.shape[:2], bool)
        mask[15:60, 40:100] = True
    whole = load(task, str(path), "cpu", "fp32", tile=256, **options)
    restored = whole(picture, mask)
    assert restored.shape == (75 * scale, 150 * scale, 3)
    if mask is not None:
        assert np.array_equal(restored[~mask], picture[~mask]) and not np.array_equal(restored[mask], picture[mask])
        with pytest.raises(UsageError, match="LaMa finds no damage; name what to paint"):
            whole(picture)
        monkeypatch.setattr("restore.tasks.inpaint.task.synthesize_texture", None)
        assert np.array_equal(whole(picture, mask), restored)  # wide as the hole is, this is LaMa's own
        return
    assert scale > 1 or not np.array_equal(restored, picture)
    tiles = load(task, str(path), "cpu", "fp32", tile=64, **options)(picture)
    if name not in ("nafnet", "scunet"):  # these average over all they are given, or see far
        assert np.abs(tiles.astype(int) - restored).max() <= 1
    assert whole(picture[:3, :5]).shape == (3 * scale, 5 * scale, 3)  # smaller than they require


def test_what_spandrel_advises_against_is_whole(saved, monkeypatch):
    """A SwinIR gets a picture in one piece where that fits into memory; an ESRGAN gets tiles."""
    monkeypatch.setattr(TilePlanner, "_fitting", lambda self: 100_000)  # pixels
    for name, scale, expected in (("swinir", 2, 1), ("esrgan", 4, 4)):
        task, path = saved(name)
        planner = load(task, str(path), "cpu", scale=scale)._planner
        assert len(planner.plan(240, 300)) == expected and len(planner.plan(400, 300)) > 1


def test_on_the_command_line(saved, photo, tmp_path, capsys):
    write_image(Image(np.ascontiguousarray(photo[:40, :50])), tmp_path / "a.png")
    _, path = saved("esrgan")
    words = ["super-resolve", str(tmp_path / "a.png"), "--device", "cpu", "-m", str(path)]
    assert run([*words, "-s", "4", "-o", str(tmp_path / "b.png")]) == 0
    assert read_image(tmp_path / "b.png").pixels.shape == (160, 200, 3)
    assert run([*words, "-s", "2", "-o", str(tmp_path / "c.png")]) == 2
    assert "enlarge by 4, not by 2" in capsys.readouterr().err


def test_in_the_server(saved, photo):
    tools = pytest.importorskip("serve_tools")
    _, path = saved("dncnn")
    picture = np.ascontiguousarray(photo[:40, :50])
    with tools.serving({"denoise": str(path)}) as server:
        answer = server.post("denoise", encode_image(Image(picture), "png"))
    restored = load("denoise", str(path), "cpu", "fp32")(picture)
    assert np.array_equal(read_image(answer.content).pixels, restored)


def test_refused(saved, tmp_path):
    """What is for another task, no network, or code instead of weights: one line, and nothing runs."""
    _, path = saved("dncnn")
    with pytest.raises(WeightsError, match="DnCNN, made for Restoration, cannot be used for colorize"):
        load("colorize", str(path))
    with pytest.raises(UsageError, match="enlarge by 1, not by 2"):
        load("super-resolve", str(path))
    with pytest.raises(UsageError, match="DnCNN does not compute in fp16"):
        load("denoise", str(path), "cpu", "fp16")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="spandrel knows no network that they fit"):
        load("denoise", str(tmp_path / "other.pth"))
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read as weights alone"):
        load("denoise", str(tmp_path / "cut.pth"))
    torch.save(Trap(tmp_path / "ran"), tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights alone, without code"):
        load("denoise", str(tmp_path / "trap.pth"))
    assert not (tmp_path / "ran").exists()
