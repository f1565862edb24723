"""A task's options as query parameters, generated from its dataclass as the command line's flags are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from pydantic import Field as Parameter

from restore.errors import UsageError
from restore.images import FORMATS, SUFFIXES, WRITABLE
from restore.images.failures import printable
from restore.tasks.spec import TASKS, Options, TaskSpec
from restore.tasks.steps import AUTO, SUFFIX, AutoOptions

# What a client may ask for, by name.
SPECS = TASKS | {
    AUTO: TaskSpec(
        AUTO,
        "Look at each picture and do what it needs: noise and JPEG blocks, then watermarks, then scratches and bars.",
        SUFFIX,
        module="restore.inference.automatic",
        options=AutoOptions,
    )
}
EXTENSIONS = tuple(sorted(suffix.lstrip(".") for suffix in WRITABLE))
# What is wrong with a query parameter, by the names that pydantic has for it.
_WRONG = {
    "missing": "has to be given",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "starts at {ge:g}",
    "less_than_equal": "goes up to {le:g}",
    "string_too_long": "has at most {max_length} characters",
    "too_long": "is given at most {max_length} times",
}


@dataclass(frozen=True)
class Order:
    """What is asked for a picture.

    Attributes:
        spec: the task, or that of auto.
        options: of the task.
        strength: from 0, the input, to 1 or as far as the task goes.
        tta: average over the symmetries of the square.
        extension: the format to write (`.png`); None: the input's.
        quality: 1 to 100, of lossy formats; None: the input's.
        metadata: write EXIF and XMP.
        salvage: take what can be decoded of a JPEG whose end is missing.
        examine: only say what would be restored.
        with_mask: give the mask that was found, too.
    """

    spec: TaskSpec
    options: Options
    strength: float = 1.0
    tta: bool = False
    extension: str | None = None
    quality: int | None = None
    metadata: bool = True
    salvage: bool = False
    examine: bool = False
    with_mask: bool = False

    @property
    def scale(self) -> int:
        """How many times longer the sides of the picture become."""
        return int(getattr(self.options, "scale", getattr(self.options, "enlarge", 1)))


class CommonQuery(BaseModel):
    """Query parameters of every task, and of auto."""

    model_config = ConfigDict(extra="forbid")

    tta: bool = Parameter(False, description="Average over 8 symmetries: a little better, up to 8 times slower.")
    ext: str | None = Parameter(None, description=f"Format to write: {', '.join(EXTENSIONS)}; else the input's.")
    quality: int | None = Parameter(None, ge=1, le=100, description="Quality of lossy formats; else the input's.")
    strip_metadata: bool = Parameter(False, description="Leave out EXIF and XMP (the colour profile stays).")
    salvage: bool = Parameter(False, description="Take what can be decoded of a JPEG whose end is missing.")
    name: str | None = Parameter(
        None, max_length=255, description="File name of a picture that is sent as the body itself."
    )


@lru_cache
def query_model(spec: TaskSpec) -> type[CommonQuery]:
    """The query parameters of a task: those of `CommonQuery`, and its own options."""
    own: dict[str, Any] = {known.name: _parameter(known, kind) for known, kind in _open_fields(spec)}
    if (most := max_strength(spec)) is not None:
        about = "How much of the effect, from 0 (none)."
        own["strength"] = float, Parameter(1.0, ge=0.0, le=most, description=about)
    name = "".join(part.capitalize() for part in spec.name.split("-"))
    return create_model(f"{name}Query", __base__=CommonQuery, **own)


def max_strength(spec: TaskSpec) -> float | None:
    """The largest strength that a task takes; None for auto, which takes none."""
    return spec.max_strength if spec.name in TASKS else None


def wrong_query(errors: Sequence[Any]) -> str:
    """The first of pydantic's complaints about a query, in one line."""
    error = errors[0]
    name = ".".join(str(part) for part in error["loc"] if part != "query")[:60]
    if error["type"] == "extra_forbidden":
        return f"unknown option '{name}'; GET /api/v1/tasks lists those there are"
    wrong = _WRONG.get(error["type"], "is not understood; /docs says what it may be").format(**error.get("ctx", {}))
    return f"{name} {wrong}" + ("" if error["type"] == "missing" else f"; got {printable(str(error['input'])[:40])}")


def order(spec: TaskSpec, query: CommonQuery, *, examine: bool = False, with_mask: bool = False) -> Order:
    """What a query asks for. Raises UsageError for values that do not fit together."""
    values = {known.name: getattr(query, known.name) for known, _ in _open_fields(spec)}
    return Order(
        spec,
        spec.options(**values),
        round(getattr(query, "strength", 1.0), 3),
        query.tta,
        _extension(query),
        query.quality,
        not query.strip_metadata,
        query.salvage,
        examine,
        with_mask,
    )


def describe(spec: TaskSpec) -> dict[str, Any]:
    """A task, or auto, as JSON, from which a page makes its controls."""
    return {
        "name": spec.name,
        "help": spec.help,
        "masks": spec.masks,
        "hints": spec.hints,
        "max_strength": max_strength(spec),
        "options": [_described(known, kind) for known, kind in _open_fields(spec)],
    }


def _extension(query: CommonQuery) -> str | None:
    if query.ext is None:
        return None
    extension = query.ext.lower().lstrip(".")
    if extension not in EXTENSIONS:
        raise UsageError(f"ext={query.ext}: no format that can be written; known: {' '.join(EXTENSIONS)}")
    if query.quality is not None and not FORMATS[SUFFIXES["." + extension]].lossy:
        raise UsageError(f"quality does nothing for ext={extension}, which loses nothing")
    return "." + extension


def _open_fields(spec: TaskSpec) -> list[tuple[Field[Any], Any]]:
    """The options that a client may set, with their types: all but those that name files of this machine."""
    hints = get_type_hints(spec.options)
    return [(known, hints[known.name]) for known in fields(spec.options) if not _names_a_file(known, hints[known.name])]


def _names_a_file(known: Field[Any], kind: Any) -> bool:
    metavar = str(known.metadata.get("metavar", ""))
    return Path in (kind, *get_args(kind)) or "FILE" in metavar or "DIR" in metavar


def _plain(kind: Any) -> tuple[type, bool]:
    """The type, and whether None is a value too. Raises TypeError for what no query parameter can be."""
    optional = False
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        optional = len(parts) < len(get_args(kind))
        kind = parts[0]
    if kind not in (bool, int, float, str):
        raise TypeError(f"an option of type {kind} has no query parameter")
    return kind, optional


def _parameter(known: Field[Any], kind: Any) -> tuple[Any, Any]:
    plain, optional = _plain(kind)
    about = known.metadata
    limits: dict[str, Any] = {bound: about[name] for bound, name in (("ge", "min"), ("le", "max")) if name in about}
    if "choices" in about:  # the dataclass refuses others: of numbers, a Literal would not be read from text
        limits["json_schema_extra"] = {"enum": list(about["choices"])}
    return plain | None if optional else plain, Parameter(known.default, description=about.get("help"), **limits)


def _described(known: Field[Any], kind: Any) -> dict[str, Any]:
    plain, optional = _plain(kind)
    about = known.metadata
    found = {"name": known.name, "type": plain.__name__, "default": known.default, "help": about.get("help", "")}
    found |= {name: about[name] for name in ("min", "max", "choices") if name in about}
    return found | ({"optional": True} if optional else {})
