"""Networks as ONNX graphs, for programs without torch.

denoise and super-resolve become one graph from pixels to pixels. The other tasks look at the whole picture between
two runs of their network, so of them only the networks are exported.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore import weights
from restore.errors import UsageError, install_hint
from restore.evaluation.page import refuse_existing, write_bytes
from restore.inference.engine import PixelModel
from restore.models.foreign import ForeignNetwork
from restore.models.masking import FIND, MaskedAutoencoder
from restore.tasks.base import Window, load_head
from restore.tasks.spec import Options, task_spec

OPSET = 18
EXAMPLE = (2, 45, 38)  # batch, height and width of what is traced: no size has a meaning


@dataclass(frozen=True)
class Graph:
    """One graph to write."""

    name: str  # what is added to the file's name; empty for the only one, or the first
    module: nn.Module  # what is computed, of one tensor
    example: torch.Tensor  # an input
    what: str  # input and output in words, kept in the file


class PixelsToPixels(nn.Module):
    """(N,H,W,3) uint8 to (N,H*scale,W*scale,3) uint8; `context` (1,K,1,1) of the head for any tile, if it gives one."""

    def __init__(self, model: PixelModel, context: torch.Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("context", context)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels, self.context)[0]


class Stage(nn.Module):
    """A stage of a network: (N,C,H,W) to (N,C',H,W), float32."""

    def __init__(self, network: nn.Module, stage: str | None = None) -> None:
        super().__init__()
        self.network, self.stage = network, stage

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(planes) if self.stage is None else self.network(planes, stage=self.stage)
        return found.float()


def graphs(
    task: str, model: str | None = None, *, strength: float = 1.0, options: Options | None = None
) -> list[Graph]:
    """The graphs of a task.

    Args:
        task: its name.
        model: a shipped variant or a weights file; None: the default weights.
        strength: from 0 to 1, for graphs from pixels to pixels.
        options: of the task, such as the scale; None: the defaults.

    Raises:
        UsageError: (also as WeightsError) for anything that is not there or does not fit.
    """
    spec = task_spec(task)
    header, network = weights.load(weights.find(task, model), task)
    if isinstance(network, ForeignNetwork):
        raise UsageError(f"{model}: {header.arch} is exported by its own project's tools, not by `restore export`")
    head = load_head(task, options or spec.options(), network)
    batch, height, width = EXAMPLE
    analysis = head.static_analysis()
    if analysis is not None:
        if not 0 < strength <= 1:
            raise UsageError(f"strength is over 0 and at most 1 in an exported graph; got {strength}")
        pixels = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
        context = head.context(analysis, Window(0, 0, height, width))
        whole = PixelsToPixels(PixelModel(head, network, strength), None if context is None else context[None])
        return [Graph("", whole, pixels, f"RGB pixels (N,H,W,3) uint8 to (N,{head.scale}H,{head.scale}W,3) uint8")]
    if strength != 1:
        raise UsageError(f"of {task} only the network is exported, which has no strength")
    if isinstance(network, MaskedAutoencoder):
        painter = torch.rand(batch, network.painter.config.in_channels, height, width)
        finder = torch.rand(batch, network.FINDER_CHANNELS, height, width)
        return [
            Graph("", Stage(network, ""), painter, (type(network).__doc__ or "").strip()),
            Graph("find", Stage(network, FIND), finder, "the stage FIND of the other graph: logits of the mask"),
        ]
    planes = torch.rand(batch, 1, height, width)
    return [Graph("", Stage(network), planes, "planes as the head's analysis makes them (N,C,H,W) to (N,C',H,W)")]


def export_onnx(
    task: str,
    path: Path,
    model: str | None = None,
    *,
    strength: float = 1.0,
    options: Options | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes the graphs of a task, and returns the files: `path`, and for a second graph `NAME.find.onnx`.

    Batch, height and width are dynamic. The files hold the weights, appear only when they are whole, and have been
    through ONNX's checker. Arguments as of `graphs`.

    Raises:
        UsageError: for anything that does not fit, a file that exists, or if the extra [onnx] is not installed.
        RestoreError: a file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (the exporter of torch needs it)
    except ImportError as error:
        raise UsageError(f"export needs {error.name}: {install_hint('onnx')}") from error
    made = graphs(task, model, strength=strength, options=options)
    files = [path if not graph.name else path.with_suffix(f".{graph.name}.onnx") for graph in made]
    for file in files:
        refuse_existing(file, overwrite)
    for graph, file in zip(made, files, strict=True):
        program = _exported(graph)
        program.doc_string = f"{task}: {graph.what}"
        onnx.checker.check_model(program)
        write_bytes(file, program.SerializeToString())
    return files


def _exported(graph: Graph) -> Any:
    pixels = graph.example.dtype == torch.uint8
    sides = (1, 2) if pixels else (2, 3)
    dimension = torch.export.Dim
    dynamic = {0: dimension("batch", min=1), sides[0]: dimension("height", min=1), sides[1]: dimension("width", min=1)}
    names = ("pixels", "restored") if pixels else ("planes", "output")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.module.eval(),
                (graph.example,),
                dynamo=True,
                dynamic_shapes=(dynamic,),
                input_names=[names[0]],
                output_names=[names[1]],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    return program.model_proto
