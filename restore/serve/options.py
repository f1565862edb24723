"""A task's options as query parameters, generated from its dataclass as the command line's flags are."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from pydantic import Field as Parameter

from restore.errors import UsageError
from restore.images import SUFFIXES
from restore.tasks.spec import Options, TaskSpec

EXTENSIONS = tuple(sorted({suffix.lstrip(".") for suffix, kind in SUFFIXES.items() if kind != "heic"}))
_LOSSLESS = ("png", "tiff", "bmp")


@dataclass(frozen=True)
class Order:
    """What is asked for a picture.

    Attributes:
        spec: the task.
        options: of the task.
        strength: from 0, the input, to 1 or as far as the task goes.
        tta: average over the symmetries of the square.
        extension: the format to write (`.png`); None: the input's.
        quality: 1 to 100, of lossy formats; None: the input's.
        metadata: write EXIF and XMP.
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
    examine: bool = False
    with_mask: bool = False


class CommonQuery(BaseModel):
    """Query parameters of every task."""

    model_config = ConfigDict(extra="forbid")

    strength: float = Parameter(1.0, ge=0.0, description="How much of the effect, from 0 (none).")
    tta: bool = Parameter(False, description="Average over the eight symmetries: a little better, eight times slower.")
    ext: str | None = Parameter(None, description=f"Format to write: {', '.join(EXTENSIONS)}; else the input's.")
    quality: int | None = Parameter(None, ge=1, le=100, description="Quality of lossy formats; else the input's.")
    strip_metadata: bool = Parameter(False, description="Leave out EXIF and XMP (the colour profile stays).")
    name: str | None = Parameter(
        None, max_length=255, description="File name of a picture that is sent as the body itself."
    )


@lru_cache
def query_model(spec: TaskSpec) -> type[CommonQuery]:
    """The query parameters of a task: those of `CommonQuery`, and its own options."""
    own: dict[str, Any] = {known.name: _parameter(known, kind) for known, kind in _open_fields(spec)}
    own["strength"] = (
        float,
        Parameter(1.0, ge=0.0, le=spec.max_strength, description="How much of the effect, from 0 (none)."),
    )
    name = "".join(part.capitalize() for part in spec.name.split("-"))
    return create_model(f"{name}Query", __base__=CommonQuery, **own)


def order(spec: TaskSpec, query: CommonQuery, *, examine: bool = False, with_mask: bool = False) -> Order:
    """What a query asks for. Raises UsageError for values that do not fit together."""
    values = {known.name: getattr(query, known.name) for known, _ in _open_fields(spec)}
    return Order(
        spec,
        spec.options(**values),
        round(query.strength, 3),
        query.tta,
        _extension(query),
        query.quality,
        not query.strip_metadata,
        examine,
        with_mask,
    )


def describe(spec: TaskSpec) -> dict[str, Any]:
    """A task as JSON, from which a page makes its controls."""
    return {
        "name": spec.name,
        "help": spec.help,
        "masks": spec.masks,
        "hints": spec.hints,
        "most_strength": spec.max_strength,
        "options": [_described(known, kind) for known, kind in _open_fields(spec)],
    }


def _extension(query: CommonQuery) -> str | None:
    if query.ext is None:
        return None
    extension = query.ext.lower().lstrip(".")
    if extension not in EXTENSIONS:
        raise UsageError(f"ext={query.ext}: no format that can be written; known: {' '.join(EXTENSIONS)}")
    if query.quality is not None and SUFFIXES["." + extension] in _LOSSLESS:
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
    limits = {bound: about[name] for bound, name in (("ge", "min"), ("le", "max")) if name in about}
    hint: Any = plain
    description = about.get("help")
    if (choices := about.get("choices")) and plain is str:
        hint = Literal[tuple(choices)]
    elif choices:  # numbers: a literal would not be read from text; the dataclass refuses others
        description = f"{description} One of {', '.join(map(str, choices))}."
    return hint | None if optional else hint, Parameter(known.default, description=description, **limits)


def _described(known: Field[Any], kind: Any) -> dict[str, Any]:
    plain, optional = _plain(kind)
    about = known.metadata
    found = {"name": known.name, "type": plain.__name__, "default": known.default, "help": about.get("help", "")}
    found |= {name: about[name] for name in ("min", "max", "choices") if name in about}
    return found | ({"optional": True} if optional else {})
