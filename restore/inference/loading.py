"""`restore.load`: weights of one task, of several, or of all that a picture may need."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from restore import weights
from restore.devices import pick_device, pick_precision
from restore.errors import UsageError, unknown_name
from restore.inference.automatic import AutoPipeline
from restore.inference.pipeline import Pipeline
from restore.inference.restorer import Restorer
from restore.tasks import task_spec
from restore.tasks.base import OptionsT, load_head
from restore.tasks.steps import AUTO, SEPARATOR, AutoOptions, options_by_task, parse_steps


def load(
    task: str,
    model: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    tile: int = 0,
    *,
    overlap: int | None = None,
    strength: float = 1.0,
    tta: bool = False,
    compile: bool = False,
    **options: Any,
) -> Restorer | Pipeline:
    """Loads the weights of one or several tasks and makes a restorer of them.

    Args:
        task: denoise, super-resolve, inpaint, dewatermark or colorize; several in their order, "denoise+inpaint"; or
            "auto", which looks at each picture and does what it needs.
        model: a shipped variant or a weights file; None: the default weights. Of several tasks `denoise_model`.
        device: auto, cpu, mps, cuda or cuda:N.
        precision: of the convolutions: auto, fp32, bf16 or fp16.
        tile: side of a tile in pixels; 0: as large as memory allows.
        overlap: what a tile sees beyond itself, in pixels; None: as far as matters.
        strength: from 0, the input, to 1, the restored picture; denoise takes up to 2. Of several `denoise_strength`.
        tta: average over the eight symmetries of the square: a little better, up to eight times the work.
        compile: use torch.compile, which takes long for the first picture of a size.
        options: those of the task, such as `scale`. Of several tasks, those that more than one task has carry its name:
            `sigma`, but `inpaint_grow`. Of auto: `colorize`, `enlarge`, `aggressive`.

    Raises:
        UsageError: (also as WeightsError, DeviceError) a task, weights or the device do not exist, or an option does
            not fit.
    """
    several = SEPARATOR in task
    how: dict[str, Any] = {"tile": tile, "overlap": overlap, "tta": tta, "compile": compile}
    if task == AUTO or several:
        if model is not None or strength != 1:
            raise UsageError(
                "model and strength are of one task: write, for example, denoise_model and denoise_strength"
            )
        kind = Pipeline if several else AutoPipeline
        steps = options_by_task(parse_steps(task), options) if several else _options(task, AutoOptions, options).steps()
        made: list[Any] = [load(name, device=device, precision=precision, **how, **own) for name, own in steps.items()]
        return kind(made)
    own = _options(task, task_spec(task).options, options)
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    header, network = weights.load(weights.find(task, model), task)
    head = load_head(task, own, network)
    if precision != "auto" and dtype not in network.precisions:
        raise UsageError(f"{header.arch} does not compute in {precision}; leave out --precision")
    return Restorer(head, network, own, where, dtype, strength=strength, header=header, **how)


def _options(task: str, kind: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """An instance of `kind` with `values`. Raises UsageError for unknown ones, and as `kind` does."""
    known = [option.name for option in fields(kind)]
    if unknown := [name for name in values if name not in known]:
        raise unknown_name(f"option of {task}", unknown[0], known)
    return kind(**values)
