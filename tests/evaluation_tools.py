"""What tests of evaluation share: a few small photographs, weights that know nothing, the command in this process."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from restore import weights
from restore.cli.app import run
from restore.evaluation import baselines
from restore.evaluation.evaluate import all_methods, evaluate
from restore.evaluation.results import Results
from restore.evaluation.trials import find_entries
from restore.images import Image, read_image, write_image
from restore.models import build
from restore.models.autoencoder import ConvAutoencoderConfig
from restore.tasks import TASKS
from restore.tasks.base import load_task

PICTURES = {
    "astronaut": (skimage.data.astronaut, (100, 190)),
    "cat": (skimage.data.chelsea, (90, 150)),
    "sub/coffee": (skimage.data.coffee, (120, 200)),
}


def write_pictures(folder: Path) -> Path:
    """Three small photographs, one of them in a subfolder."""
    for number, (name, (load, (top, left))) in enumerate(PICTURES.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(np.ascontiguousarray(load()[top : top + 72, left : left + 60 + 12 * number])), path)
    return folder


def tiny_weights(path: Path, task: str, scales: tuple[int, ...]) -> Path:
    """A network that is small and knows nothing."""
    config = ConvAutoencoderConfig(widths=(4, 4), blocks=(1, 1), fold=1, scales=scales)
    network = build("conv-autoencoder", config)
    header = weights.Header(task=task, arch="conv-autoencoder", config=weights.config_values(config))
    weights.save(path, header, network.state_dict())
    return path


def evaluated(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    """What `restore evaluate ... --json` prints, in this process."""
    assert run(["evaluate", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def denoise_results(folder: Path, names: list[str] | None = None, seed: int = 0) -> Results:
    """The baselines on the pictures of a folder, through the library alone."""
    task, damage = load_task("denoise"), TASKS["denoise"].damage(sigma=(25.0, 25.0))
    methods = all_methods([], [baseline.method() for baseline in baselines.choose("denoise", names)[0]])
    results = Results("denoise", seed, "restore evaluate denoise clean", methods)
    for scored in evaluate(find_entries(folder), task, damage, methods, seed):
        results.add(scored)
    return results


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.links.append(value or "")
            if name == "class":
                self.classes += (value or "").split()
        if tag not in ("meta", "link", "img", "input", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str, sliders: int) -> Page:
    """The page is well formed, holds what it should, and asks nothing of the network."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.classes.count("slider") == sliders
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|//cdn", text)
    for data in re.findall(r"data:image/png;base64,([^\"]+)", text):
        assert read_image(base64.b64decode(data)).pixels.dtype == np.uint8
    return page
