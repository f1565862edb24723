"""What a person may ask of a task: dataclasses whose fields become flags of the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from restore.errors import UsageError


def option(default: Any, help: str, **flag: Any) -> Any:
    """A dataclass field that becomes a command-line flag.

    Args:
        default: MISSING where it has to be given.
        help: what `--help` says.
        flag: `flags` (a tuple of short forms), `alias` (an earlier name of a switch), `min`, `max`, `choices`,
            `metavar`, `argument` (True: a positional one).
    """
    return field(default=default, metadata={"help": help, **flag})


@dataclass(frozen=True)
class Options:
    """What a person may ask of a task when restoring; subclasses add fields made by `option`.

    Raises:
        UsageError: a value is not among the choices of its field, or out of its range.
    """

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            choices, least, most = (known.metadata.get(name) for name in ("choices", "min", "max"))
            if choices and value not in choices:
                raise UsageError(f"{known.name} must be one of {', '.join(map(str, choices))}; got {value}")
            # Negated, since NaN compares as neither.
            if value is not None and not ((least is None or value >= least) and (most is None or value <= most)):
                limits = f"starts at {least:g}" if most is None else f"goes from {least:g} to {most:g}"
                raise UsageError(f"{known.name} {limits}; got {value}")

    @property
    def chosen(self) -> dict[str, Any]:
        """What is not as by default, by its name."""
        plain, values = asdict(type(self)()), asdict(self)
        return {name: value for name, value in values.items() if value != plain[name]}


@dataclass(frozen=True)
class NoOptions(Options):
    """A task with nothing to choose."""
