"""The tasks by name: all that the command line needs to know before anything heavy is imported.

A new damage is an entry here and a file beside this one; flags, training, evaluation and the
contract tests follow from the entry.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from restore.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from restore.tasks.base import Task


def option(default: Any, help: str, **flag: Any) -> Any:
    """A dataclass field that becomes a command-line flag.

    flag: `flags` (a tuple of short forms), `min`, `max`, `choices`, `metavar`.
    """
    return field(default=default, metadata={"help": help, **flag})


@dataclass(frozen=True)
class Options:
    """What a person may ask of a task when restoring; subclasses add fields made by `option`."""

    def __post_init__(self) -> None:
        for known in fields(self):
            value, choices = getattr(self, known.name), known.metadata.get("choices")
            if choices and value not in choices:
                raise UsageError(f"{known.name} must be one of {', '.join(map(str, choices))}; got {value}")


@dataclass(frozen=True)
class NoOptions(Options):
    """A task with nothing to choose."""


@dataclass(frozen=True)
class NoiseOptions(Options):
    """The level of Gaussian noise."""

    sigma: tuple[float, float] = option(
        (0.0, 55.0), "Noise level on the 0-255 scale: one number, or the lowest and highest.", metavar="LOW[,HIGH]"
    )


@dataclass(frozen=True)
class NoiseTraining(NoiseOptions):
    """The Gaussian noise that a denoiser is trained against."""

    clip: float = option(
        0.5, "Share of patches whose noise is clipped and rounded, as files hold it.", min=0.0, max=1.0
    )
    gray: float = option(
        0.1, "Share of patches turned gray, half of them with equal noise in all channels.", min=0.0, max=1.0
    )


@dataclass(frozen=True)
class NoiseTrial(NoiseOptions):
    """The Gaussian noise that a denoiser is measured against."""

    clipped: bool = option(False, "Clip and round the noise, as files hold it; papers do not.")


@dataclass(frozen=True)
class ScaleOptions(Options):
    """By how much a picture is enlarged."""

    scale: int = option(2, "How many times larger each side becomes.", flags=("-s",), choices=(2, 3, 4))


@dataclass(frozen=True)
class DownsampleOptions(Options):
    """The scales that a super-resolver is trained for."""

    scales: tuple[int, ...] = option((2, 3, 4), "Scales to learn, with a head for each.", metavar="N[,N...]")


@dataclass(frozen=True)
class TaskSpec:
    """One task: a corruption paired with its matching head, under one name.

    suffix: what is put into the names of restored files; may name options in braces.
    options: flags of restoring. damage: flags of the corruption in `restore corrupt`. training, trial:
    the same and more, for `restore train` and `restore evaluate` (None: just the same).
    module: where the task itself lives, imported when it is needed.
    """

    name: str
    help: str
    suffix: str
    module: str
    options: type[Options] = NoOptions
    damage: type[Options] = NoOptions
    training: type[Options] | None = None
    trial: type[Options] | None = None

    @property
    def training_options(self) -> type[Options]:
        """The dataclass of what to train on."""
        return self.training or self.damage

    @property
    def trial_options(self) -> type[Options]:
        """The dataclass of what to be measured on."""
        return self.trial or self.damage

    def load(self) -> Task:
        """The task itself; imports torch."""
        return cast("Task", import_module(self.module).TASK)

    def file_suffix(self, options: Options) -> str:
        """`suffix` with the values of `options` put in: `x{scale}` becomes `x2`."""
        return self.suffix.format(**asdict(options))


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            name="denoise",
            help="Remove noise from photographs, whatever its level.",
            suffix="denoised",
            module="restore.tasks.denoise",
            damage=NoiseOptions,
            training=NoiseTraining,
            trial=NoiseTrial,
        ),
        TaskSpec(
            name="super-resolve",
            help="Enlarge pictures 2, 3 or 4 times.",
            suffix="x{scale}",
            module="restore.tasks.super_resolve",
            options=ScaleOptions,
            damage=DownsampleOptions,
        ),
    )
}


def task_spec(name: str) -> TaskSpec:
    """The spec called `name`. Raises UsageError, listing the names there are, for any other."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
