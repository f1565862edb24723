"""Weights files: what is wrong with one is said in one line that names it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restore import weights
from restore.errors import RestoreError, WeightsError
from restore.tasks import TASKS


def rewritten(source: Path, target: Path, metadata: dict[str, str | None] | None = None, tensors=None) -> Path:
    """`source` with some of its header, or its tensors, replaced; None removes."""
    with safe_open(source, framework="pt") as file:
        values: dict[str, str | None] = {**file.metadata(), **(metadata or {})}
    save_file(tensors or load_file(source), target, {k: v for k, v in values.items() if v is not None})
    return target


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"restore.format": None}, "not made by `restore train`"),
        ({"restore.format": "2"}, "upgrade"),
        ({"arch": None}, "damaged header"),
        ({"config": "{"}, "damaged header"),
        ({"arch": "transformer"}, "unknown architecture 'transformer'"),
        ({"config": '{"widths": [4], "blocks": [1]}'}, "do not fit the header"),
        ({"config": '{"depth": 4}'}, "do not fit the header"),
    ],
)
def test_a_header_that_does_not_fit(metadata, reason, tiny, tmp_path):
    path = rewritten(tiny("denoise"), tmp_path / "odd.safetensors", metadata)
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.load(path, "denoise")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_that_are_not_finite(tiny, tmp_path):
    tensors = load_file(tiny("denoise"))
    tensors["stem.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(WeightsError, match="not finite"):
        weights.load(rewritten(tiny("denoise"), tmp_path / "nan.safetensors", tensors=tensors))


def test_a_file_may_be_overwritten_while_it_is_used(tiny, tmp_path):
    """In single precision, too, of which no copy needs to be made."""
    path = tmp_path / "single.safetensors"
    tensors = {name: tensor.float() for name, tensor in load_file(tiny("denoise")).items()}
    _, network = weights.load(rewritten(tiny("denoise"), path, tensors=tensors))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    assert all(torch.equal(found, tensors[name]) for name, found in network.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_no_safetensors(content, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.read_header(path)


def test_truncated(tiny, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny("denoise").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.load(path)


def test_find(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "default_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="no weights for 'denoise'"):
        weights.find("denoise")
    for name in ("denoise", "denoise-large", "super-resolve"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert weights.find("denoise").name == "denoise.safetensors"
    assert weights.find("denoise", "default").name == "denoise.safetensors"
    assert weights.find("denoise", "large").name == "denoise-large.safetensors"
    assert weights.find("denoise", str(tiny("denoise"))) == tiny("denoise")
    with pytest.raises(WeightsError, match="Known: default, large"):
        weights.find("denoise", "small")
    with pytest.raises(WeightsError, match="no such weights file"):
        weights.find("denoise", str(tmp_path / "none.safetensors"))


def test_a_file_is_whole_or_not_there(tiny, tmp_path, monkeypatch):
    header, network = weights.load(tiny("denoise"))
    path = tmp_path / "new.safetensors"

    def full(*arguments: object, **folders: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RestoreError, match=r"new\.safetensors: cannot be written .*No space left"):
        weights.save(path, header, network.state_dict())
    assert list(tmp_path.iterdir()) == []


def test_saved_in_half_precision_with_the_usual_rights(tiny, tmp_path):
    header, network = weights.load(tiny("denoise"))
    path = tmp_path / "new.safetensors"
    weights.save(path, header, network.state_dict())
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert weights.read_header(path) == header


@pytest.mark.parametrize("task", sorted(TASKS))
def test_shipped_weights_are_complete(task):
    """Every task has default weights, whose header says where they come from; all together stay under 48 MB."""
    header, _ = weights.load(weights.find(task), task)
    assert header.scores
    assert header.provenance["pictures"] > 100
    assert header.data_terms
    card = (weights.default_folder() / "README.md").read_text(encoding="utf-8")
    assert f"`{task}.safetensors`" in card
    assert sum(path.stat().st_size for path in weights.shipped()) < 48e6
