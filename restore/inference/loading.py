"""`restore.load`: weights of one task, of several, or of all that a picture may need."""

from __future__ import annotations

from typing import Any

from restore.errors import UsageError
from restore.inference import restorer
from restore.inference.automatic import AutoPipeline
from restore.inference.pipeline import Pipeline
from restore.inference.restorer import Restorer, make_options
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
        model, strength: as in `restorer.load`. Of several tasks by the names `denoise_model`, `denoise_strength`.
        device, precision, tile, overlap, tta, compile: as in `restorer.load`, for every task.
        options: those of the task, such as `scale`. Of several tasks, those that more than one task has carry its name:
            `sigma`, but `inpaint_grow`. Of auto: `colorize`, `enlarge`, `aggressive`.

    Raises:
        UsageError: (also as WeightsError, DeviceError) a task, weights or the device do not exist, or an option does
            not fit.
    """
    several = SEPARATOR in task
    shared: dict[str, Any] = {"device": device, "precision": precision, "tile": tile, "overlap": overlap}
    shared |= {"tta": tta, "compile": compile}
    if task != AUTO and not several:
        return restorer.load(task, model, strength=strength, **shared, **options)
    if model is not None or strength != 1:
        raise UsageError("model and strength are of one task: write, for example, denoise_model and denoise_strength")
    kind = Pipeline if several else AutoPipeline
    chosen = options_by_task(parse_steps(task), options) if several else make_options(AutoOptions, options).steps()
    return kind([restorer.load(name, **shared, **own) for name, own in chosen.items()])
