"""Weights files: safetensors whose header says all it takes to use them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised

from restore.errors import RestoreError, UsageError, WeightsError, unknown_name
from restore.models import Architecture, build, config_from_dict, foreign
from restore.utils.atomic_write import write_atomic

FORMAT = "1"
SUFFIX = ".safetensors"
_OBJECTS = ("config", "scores", "provenance")  # fields of the header that are JSON
_MOST_ENTRIES, _LARGEST_NUMBER = 16, 1 << 16  # of a setting of a network
_LARGEST_STRIDE, _LARGEST_SCALE = 1024, 16
_NO_FILE = "no such weights file; check the path"


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself."""

    task: str
    arch: str
    config: dict[str, Any]  # the fields of its config
    variant: str = ""  # name among the weights of the task; empty: the default
    scores: dict[str, float] = field(default_factory=dict)  # by label, on validation pictures
    provenance: dict[str, Any] = field(default_factory=dict)  # how it was made
    data_terms: str = ""  # the terms of the training pictures


def default_folder() -> Path:
    """Where the weights that come with the package are: in the wheel, or in the source tree it runs from."""
    here = Path(__file__).parent
    installed = here / "_data" / "weights"
    return installed if installed.is_dir() else here.parent / "weights"


def shipped() -> list[Path]:
    """The weights files that come with the package, by name."""
    return sorted(default_folder().glob(f"*{SUFFIX}"))


def find(task: str, model: str | None = None) -> Path:
    """The weights of a task: the default, a shipped variant by its name, or a file.

    Raises:
        WeightsError: no such file or variant; the message lists the variants.
    """
    if model and (model.endswith(SUFFIX) or os.sep in model or Path(model).is_file()):
        path = Path(model)
        if not path.is_file():
            raise WeightsError(f"{model}: {_NO_FILE}")
        return path
    path = default_folder() / f"{task}{'-' + model if model and model != 'default' else ''}{SUFFIX}"
    if path.is_file():
        return path
    if not model:
        raise WeightsError(f"no weights for '{task}' come with this installation; name a file with -m")
    variants = [
        p.stem[len(task) + 1 :] or "default" for p in shipped() if p.stem == task or p.stem.startswith(f"{task}-")
    ]
    raise WeightsError(f"{unknown_name(f'model of {task}', model, variants)}, or a {SUFFIX} file")


def read_header(path: Path) -> Header:
    """The header of a weights file, without its tensors.

    Raises:
        WeightsError: it cannot be read, is no weights file of this package, or was written by a later version; the
            message names the file.
    """
    if not path.exists():
        raise WeightsError(f"{path}: {_NO_FILE}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({_first_line(error)}); get a whole copy"
        ) from error
    found = metadata.get("restore.format")
    if found is None:
        raise WeightsError(
            f"{path}: these weights were not made by `restore train`; their header says nothing of a task"
        )
    if found != FORMAT:
        raise WeightsError(f"{path}: weights of format {found}, this version reads format {FORMAT}; upgrade restore")
    try:
        values: dict[str, Any] = {known.name: metadata[known.name] for known in dataclasses.fields(Header)}
        header = Header(**(values | {name: _mapping(values[name]) for name in _OBJECTS}))
        if not all(isinstance(score, (int, float)) for score in header.scores.values()):
            raise ValueError("a score is no number")
        return header
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged header ({_first_line(error)})") from error


def _mapping(text: str) -> dict[str, Any]:
    """A JSON object; NaN and infinity are refused."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def load(path: Path, task: str | None = None) -> tuple[Header, Architecture]:
    """The header and the network of a weights file, in float32 on the CPU, in evaluation mode.

    Networks of other projects are loaded by spandrel, for a `task` that they fit.

    Raises:
        WeightsError: it is not weights of `task`, does not fit the architecture it names, or holds numbers that are not
            finite; the message names the file.
    """
    if task is not None and foreign.is_foreign(path):
        return _load_foreign(path, task)
    header = read_header(path)
    if task is not None and header.task != task:
        raise WeightsError(f"{path}: weights for {header.task}, not for {task}")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            _check_config(header.config, len(names))
            config = config_from_dict(header.arch, header.config)
            with torch.device("meta"):  # without memory: a header may claim more than its file holds
                network = build(header.arch, config)
            _check_shapes(network, {name: file.get_slice(name).get_shape() for name in names})
            # Copies: in float32 they are the mapped file, and change, or end the process, as it is overwritten.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in names}
        network.load_state_dict(tensors, assign=True)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise WeightsError(f"{path}: the tensors do not fit the header ({_first_line(error)})") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise WeightsError(f"{path}: damaged weights (some are not finite)")
    return header, network.eval()


def _load_foreign(path: Path, task: str) -> tuple[Header, Architecture]:
    network = foreign.load(path)
    if task not in (("inpaint",) if network.masked else ("denoise", "super-resolve")):
        raise WeightsError(f"{path}: {network.name}, made for {network.purpose}, cannot be used for {task}")
    return Header(task=task, arch=network.name, config={}, variant=path.stem), network


def _check_config(config: Mapping[str, Any], tensors: int) -> None:
    """Raises ValueError where the settings of a network name more layers than there are `tensors`, or are no settings.

    Building a network takes as long as it has layers, so this comes first.
    """
    layers = 0
    for name, value in config.items():
        values = value if isinstance(value, list) else [value]
        if len(values) > _MOST_ENTRIES or not all(isinstance(one, (int, str)) for one in values):
            raise ValueError(f"the setting '{name}' is not a few whole numbers")
        numbers = [one for one in values if isinstance(one, int)]
        if any(not 0 <= number <= _LARGEST_NUMBER for number in numbers):
            raise ValueError(f"the setting '{name}' is out of range")
        layers += sum(numbers) if "blocks" in name or name == "members" else 0
    if layers > tensors:
        raise ValueError(f"it names {layers} layers, and the file holds {tensors} tensors")


def _check_shapes(network: Architecture, shapes: Mapping[str, list[int]]) -> None:
    """Raises ValueError where `network`, on the meta device, is not of tensors of these shapes."""
    expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    if differing := sorted(name for name in {*expected, *shapes} if expected.get(name) != shapes.get(name)):
        name = differing[0]
        raise ValueError(f"{name} should be of {expected.get(name)} and is of {shapes.get(name)}")
    if network.stride > _LARGEST_STRIDE or max(network.scales) > _LARGEST_SCALE:
        raise ValueError(f"a stride of {network.stride} and scales up to {max(network.scales)}")


def save(path: Path, header: Header, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes `tensors` in half precision with `header`; the file appears whole or not at all.

    Raises:
        RestoreError: it cannot be written; the message names the file.
    """
    metadata = {name: json.dumps(value) if name in _OBJECTS else value for name, value in vars(header).items()}
    halves = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    save_tensors(path, halves, {"restore.format": FORMAT, **metadata})


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file atomically.

    Raises:
        RestoreError: it cannot be written; the message names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(serialised(dict(tensors), metadata=dict(metadata or {})), path, overwrite=True)
    except (OSError, SafetensorError) as error:
        raise RestoreError(f"{path}: cannot be written ({_first_line(error)})") from error


def config_values(config: Any) -> dict[str, Any]:
    """The fields of an architecture's config, ready for `Header.config`."""
    return dataclasses.asdict(config)


def _first_line(error: Exception) -> str:
    """The gist of an error in one line: torch lists every tensor that does not fit on lines of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next(
        (line for line in lines[1:] if "state_dict" in line or "size mismatch" in line), lines[0] if lines else ""
    )
    return text[:200] or type(error).__name__
