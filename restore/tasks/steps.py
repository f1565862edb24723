"""Several tasks one after the other, as in `denoise+inpaint`: their names and their options. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from restore.errors import UsageError, unknown_name
from restore.tasks.spec import TASKS, Options, TaskSpec, option, task_spec

SEPARATOR = "+"
SUFFIX = "restored"  # in the names of pictures that went through several tasks
AUTO = "auto"  # instead of names of tasks: those that a picture needs


def parse_steps(names: str) -> tuple[TaskSpec, ...]:
    """The tasks in `names`, such as `denoise+inpaint`.

    Raises:
        UsageError: a name is unknown or appears twice, or damage would be looked for after the picture was enlarged.
    """
    if "," in names:
        raise UsageError(f"{names}: steps are joined by {SEPARATOR}, such as denoise{SEPARATOR}inpaint")
    steps = tuple(task_spec(name) for name in names.split(SEPARATOR))
    check_steps(steps)
    return steps


def check_steps(steps: Sequence[TaskSpec]) -> None:
    """Raises UsageError where a task appears twice, or looks for damage after the picture was enlarged."""
    names = [step.name for step in steps]
    if not names:
        raise UsageError("no steps; name one at least, such as denoise")
    for number, step in enumerate(steps):
        if step.name in names[:number]:
            raise UsageError(f"{step.name} appears twice in {SEPARATOR.join(names)}; name each step once")
        if step.masks and "super-resolve" in names[:number]:
            raise UsageError(f"super-resolve before {step.name}: damage is restored first; write {step.name} before it")


def step_with_input(steps: Sequence[TaskSpec], *, hints: bool) -> TaskSpec:
    """The step that takes a mask, or `hints`. Raises UsageError if none or several do."""
    what, found = (
        ("hints", [step for step in steps if step.hints]) if hints else ("a mask", [s for s in steps if s.masks])
    )
    if len(found) != 1:
        names = " and ".join(step.name for step in found) or "none of the steps"
        raise UsageError(f"{names} {'take' if found else 'takes'} {what}; name exactly one step that does")
    return found[0]


def _tables() -> tuple[dict[str, tuple[str, str]], type[Options]]:
    """Names of options -> (task, name in the task); and a dataclass of them all."""
    kinds = {name: (spec.weights, spec.options) for name, spec in TASKS.items()}
    found = [(task, known) for task, pair in kinds.items() for kind in pair for known in fields(kind)]
    names = [known.name for _, known in found]
    places: dict[str, tuple[str, str]] = {}
    made: list[tuple[str, Any, Any]] = []
    for task, known in found:
        clash = names.count(known.name) > 1
        name = f"{task.replace('-', '_')}_{known.name}" if clash else known.name
        about = {key: value for key, value in known.metadata.items() if not (clash and key in ("flags", "alias"))}
        about["help"] = f"{task}: {about['help']}"
        hint = next(get_type_hints(kind)[known.name] for kind in kinds[task] if known in fields(kind))
        places[name] = task, known.name
        made.append((name, hint, field(default=known.default, metadata=about)))
    return places, make_dataclass("StepOptions", made, bases=(Options,), frozen=True)


# The options of every task; those of several have the name of the task before theirs: `inpaint_grow`, but `sigma`.
PLACES, StepOptions = _tables()


def options_by_task(steps: Sequence[TaskSpec], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each task its options by their own names, of `values` by their names in `StepOptions`.

    Raises:
        UsageError: an unknown option, or one of a task that is not among the steps.
    """
    found: dict[str, dict[str, Any]] = {step.name: {} for step in steps}
    own = [name for name, (task, _) in PLACES.items() if task in found]
    for name, value in values.items():
        if name not in PLACES:
            raise unknown_name(f"option of {SEPARATOR.join(found)}", name, own)
        task, known = PLACES[name]
        if task not in found:
            raise UsageError(f"{name} is an option of {task}, which is not among the steps {SEPARATOR.join(found)}")
        found[task][known] = value
    return found


@dataclass(frozen=True)
class AutoOptions(Options):
    """What is done to every picture beside what it needs."""

    colorize: bool = option(False, "Colour gray pictures too.")
    enlarge: int = option(1, "Enlarge every picture too: how many times longer its sides become.", choices=(1, 2, 3, 4))
    aggressive: bool = option(False, "Restore uncertain detections too: for pictures that are known to be damaged.")

    def steps(self) -> dict[str, dict[str, Any]]:
        """The tasks in their order, with the options of each."""
        masks = {"aggressive": self.aggressive}
        steps: dict[str, dict[str, Any]] = {"denoise": {}, "dewatermark": masks, "inpaint": masks}
        if self.colorize:
            steps["colorize"] = {}
        if self.enlarge > 1:
            steps["super-resolve"] = {"scale": self.enlarge}
        return steps
