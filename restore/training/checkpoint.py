"""Checkpoints: a folder that is whole or not there, in files small enough to carry one at a time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from restore.errors import RestoreError, TrainingError
from restore.weights import save_tensors

MAX_BYTES = 14_000_000  # of tensors in a file; with the header it stays under 15 MB
KEPT = 2  # checkpoints: the newest may turn out to be unreadable
Tensors = dict[str, torch.Tensor]
_STEP = re.compile(r"step-(\d+)")
_STATE, _FILES = "state.json", "files"
_PARTS = re.compile(r"\.?step-\d+(\.restore-tmp)?|tensorboard")  # what a run keeps in its folder
_IN_STEP = re.compile(r"\.?.*\.(safetensors|restore-tmp)|state\.json")


@dataclass(frozen=True)
class Checkpoint:
    """All a run needs to go on: named groups of tensors, and a state that JSON can hold."""

    groups: dict[str, Tensors]
    state: dict[str, Any]


def checkpoint_folder(out: Path) -> Path:
    """Where a run that writes `out` keeps its checkpoints and logs."""
    return out.with_suffix(".checkpoint")


def save(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Writes `folder`/step-N and then removes all but the newest `KEPT`.

    Raises:
        RestoreError: Something cannot be written; the text names it, and the older ones are kept.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.restore-tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for group, tensors in checkpoint.groups.items():
            for number, shard in enumerate(_shards(tensors)):
                save_tensors(temporary / f"{group}-{number:03d}.safetensors", shard)
        state = {**checkpoint.state, _FILES: sorted(path.name for path in temporary.iterdir())}
        (temporary / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except OSError as error:
        raise RestoreError(f"{folder}: the checkpoint cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, report: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint in `folder` that can be read.

    Args:
        folder: Where they are.
        report: Takes a line where an older one has to do.

    Returns:
        Tensors on the CPU, and the state; None if there is no checkpoint.

    Raises:
        TrainingError: None of them can be read; the text names the folder.
    """
    damaged = ""
    for path in reversed(_steps(folder)):
        try:
            found = _read(path)
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            damaged = damaged or f"{path}: damaged checkpoint ({error})"
            continue
        if damaged:
            report(f"{damaged}; going on from {path.name}")
        return found
    if damaged:
        raise TrainingError(f"{damaged}; train anew with --overwrite")
    return None


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if not isinstance(state, dict):
        raise ValueError(f"{_STATE} is not what a run writes")
    if missing := [name for name in state.pop(_FILES, ()) if not (path / str(name)).is_file()]:
        raise ValueError(f"{missing[0]} is missing")
    groups: dict[str, Tensors] = {}
    for file in sorted(path.glob("*.safetensors")):
        groups.setdefault(file.name.rpartition("-")[0], {}).update(load_file(file))
    return Checkpoint({group: _joined(parts) for group, parts in groups.items()}, state)


def exists(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint."""
    return bool(_steps(folder))


def foreign(folder: Path, but: Collection[Path] = ()) -> str | None:
    """The name of something in `folder` that no training run has put there; None where there is nothing.

    Args:
        folder: Where a run keeps its checkpoints and logs.
        but: What not to look at.
    """
    if not folder.is_dir():
        return None
    for path in sorted(set(folder.iterdir()) - set(but)):
        if not _PARTS.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            return path.name
        for inner in sorted(path.iterdir()):
            logs = path.name == "tensorboard" and inner.name.startswith("events.")
            if not (logs or _IN_STEP.fullmatch(inner.name)) or inner.is_dir():
                return f"{path.name}/{inner.name}"
    return None


def clear(folder: Path) -> None:
    """Removes `folder`, where all that it holds is a training run's (see `foreign`)."""
    if folder.is_dir() and foreign(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _STEP.fullmatch(path.name))


def _shards(tensors: Mapping[str, torch.Tensor]) -> list[Tensors]:
    """`tensors` in parts under MAX_BYTES; a larger one is cut into `name@shape@0`, `name@shape@1`, ..."""
    shards: list[Tensors] = [{}]
    room = MAX_BYTES
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu").contiguous()
        pieces = {name: flat}
        count = -(-flat.nbytes // MAX_BYTES)
        if count > 1:
            shape = "x".join(map(str, flat.shape))
            pieces = {f"{name}@{shape}@{n:04d}": piece.clone() for n, piece in enumerate(flat.flatten().chunk(count))}
        for key, piece in pieces.items():
            if piece.nbytes > room:
                shards.append({})
                room = MAX_BYTES
            shards[-1][key] = piece
            room -= piece.nbytes
    return [shard for shard in shards if shard]  # safetensors cannot read back a file without tensors


def _joined(parts: Tensors) -> Tensors:
    whole: Tensors = {}
    cut: dict[tuple[str, str], list[torch.Tensor]] = {}
    for key in sorted(parts):
        name, _, rest = key.partition("@")
        if rest:
            cut.setdefault((name, rest.partition("@")[0]), []).append(parts[key])
        else:
            whole[name] = parts[key]
    for (name, shape), pieces in cut.items():
        whole[name] = torch.cat(pieces).reshape([int(side) for side in shape.split("x")])
    return whole
