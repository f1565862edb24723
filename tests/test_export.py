"""Exported graphs in onnxruntime, beside torch."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import ROOT

import restore
from restore.cli import app
from restore.images import Image, encode_image, read_image
from restore.tasks import TASKS

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")

from restore import export  # noqa: E402 (after the check that it can work)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
    return int(np.abs(one.astype(int) - other).max())


@pytest.fixture(scope="module")
def denoiser_graph(tiny, tmp_path_factory):
    """The graph of a small network, and its weights."""
    path = tmp_path_factory.mktemp("onnx") / "graph.onnx"
    assert app.run(["export", "denoise", "--onnx", str(path), "-m", str(tiny("denoise"))]) == 0
    return path, tiny("denoise")


def same_as_torch(path, restorer, photo) -> None:
    """Any size and any batch, whole numbers in and out, within one level of the restorer."""
    graph = session(path)
    for height, width in ((1, 1), (2, 5), (37, 64), (96, 61)):
        pictures = np.stack([photo[top : top + height, 7 : 7 + width] for top in (0, 50)])
        (found,) = graph.run(None, {"pixels": pictures})
        for picture, one in zip(pictures, found, strict=True):
            assert levels_apart(one, restorer(picture)) <= 1
    white = np.full((1, 20, 20, 3), 255, np.uint8)
    assert (graph.run(None, {"pixels": white})[0] == 255).all()


def test_denoise_from_pixels_to_pixels(denoiser_graph, photo):
    path, weights = denoiser_graph
    same_as_torch(path, restore.load("denoise", str(weights), device="cpu", precision="fp32"), photo)


def test_super_resolve_from_pixels_to_pixels(tiny, photo, tmp_path):
    path, weights = tmp_path / "graph.onnx", str(tiny("super-resolve"))
    flags = ["-s", "3", "--strength", "0.5"]
    assert app.run(["export", "super-resolve", "--onnx", str(path), "-m", weights, *flags]) == 0
    restorer = restore.load("super-resolve", weights, device="cpu", precision="fp32", scale=3, strength=0.5)
    same_as_torch(path, restorer, photo)


@pytest.mark.parametrize("task", ["dewatermark", "colorize"])
def test_the_networks_of_the_others(tiny, tmp_path, task):
    files = export.export_onnx(task, tmp_path / "net.onnx", str(tiny(task)))
    assert [file.name for file in files] == ["net.onnx", "net.find.onnx"][: 2 if TASKS[task].masks else 1]
    for graph, file in zip(export.graphs(task, str(tiny(task))), files, strict=True):
        channels = graph.example.shape[1]
        planes = torch.rand(3, channels, 35, 50)
        with torch.no_grad():
            wanted = graph.module(planes).numpy()
        (found,) = session(file).run(None, {"planes": planes.numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=1e-3)


def test_wrong_calls(tiny, tmp_path, capsys):
    file = tmp_path / "a.onnx"
    for arguments, said in {
        ("denoise",): "--onnx",
        ("denoise", "--onnx", str(tmp_path / "a.bin")): "ends in .onnx",
        ("denoise", "--onnx", str(file), "-s", "2"): "no scale",
        ("denoize", "--onnx", str(file)): "did you mean",
        ("super-resolve", "--onnx", str(file), "-s", "5"): "scale must be",
        ("denoise", "--onnx", str(file), "--strength", "0"): "over 0",
        ("inpaint", "--onnx", str(file), "--strength", "0.5"): "no strength",
    }.items():
        assert app.run(["export", *arguments]) == 2
        assert said in capsys.readouterr().err
        assert not file.exists()
    file.write_bytes(b"mine")
    assert app.run(["export", "denoise", "--onnx", str(file), "-m", str(tiny("denoise"))]) == 2
    assert file.read_bytes() == b"mine" and "exists" in capsys.readouterr().err


class Files(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {".mjs": "text/javascript", ".wasm": "application/wasm", "": "text/html"}

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


def shown_in_a_browser(folder: Path, graph: Path, pictures: list[np.ndarray]) -> list[np.ndarray]:
    """What the page of docs/onnx.md shows of pictures."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium, library = os.environ.get("CHROMIUM") or shutil.which("chromium"), os.environ.get("ORT_WEB")
    if chromium is None or library is None:
        pytest.skip("needs Chromium, and ORT_WEB, the folder 'dist' of the npm package onnxruntime-web")
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / name).symlink_to(Path(library, name).resolve())
    (folder / "denoise.onnx").symlink_to(graph)
    (page_of_docs,) = re.findall(r"```html\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.S)
    (folder / "index.html").write_text(page_of_docs)
    found = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with driver.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for picture in pictures:
                (folder / "photo.png").write_bytes(encode_image(Image(picture), "png"))
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
                page.wait_for_function("document.title === 'restored'", timeout=120_000)
                found.append(read_image(page.locator("canvas").screenshot()).pixels)
                page.close()
            browser.close()
        server.shutdown()
    return found


def test_in_a_browser(denoiser_graph, photo, tmp_path):
    """onnxruntime-web in Chromium gives what torch gives, for any size."""
    path, weights = denoiser_graph
    pictures = [photo[:40, :52], photo[100:177, 30:131]]
    restorer = restore.load("denoise", str(weights), device="cpu", precision="fp32")
    for picture, found in zip(pictures, shown_in_a_browser(tmp_path, path, pictures), strict=True):
        assert levels_apart(found, restorer(picture)) <= 1 < levels_apart(picture, found)
