"""Command-line flags from dataclasses: fields made by `option` or `argument` become flags or arguments."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from restore.errors import UsageError
from restore.tasks.spec import Options, option


@dataclass(frozen=True)
class LimitFlags:
    """Flags of every command that reads pictures."""

    PANEL = "Files"

    max_pixels: float | None = option(
        None, "Pixels that a picture may have, such as 3e9; larger ones are refused [default: 5e8].", min=1
    )


@dataclass(frozen=True)
class ComputeFlags:
    """Flags of every command that runs the network of a task."""

    PANEL = "Network"

    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")
    precision: str = option("auto", "Precision of the convolutions.", metavar="auto|fp32|bf16|fp16")
    tile: int = option(0, "Side of a tile in pixels; 0: as large as memory allows.", flags=("-t",), min=0)


def output(default: str | None, help: str = "A picture, or a page (.html).") -> Any:
    """Declares the field of the file that a command writes."""
    return option(None if default is None else Path(default), help, flags=("-o",), metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class OutputFlags(Options):
    """The file that a command writes.

    Raises:
        UsageError: it cannot be written, or exists without --overwrite; before any work is done.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".png", ".html")

    output: Path | None = output(None)
    overwrite: bool = option(False, "Replace outputs that exist.")

    def __post_init__(self) -> None:
        from restore.evaluation.page import check_output

        super().__post_init__()
        if self.output is not None:
            check_output(self.output, self.overwrite, self.SUFFIXES)


# The groups of flags in `--help`, in this order; others follow as they come.
PANELS = ("Effect", "Damage", "Mask", "Colour hints", "Files", "Measuring", "Training", "Learning", "Network")
NUMBERS = {int: "N", float: "X"}


class GroupedCommand(TyperCommand):
    """A command whose help shows its flags in groups (`rich_help_panel`, in plain text), and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then a section for each group of flags."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{name: [] for name in PANELS}, "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                name = record[0].partition(" <")[0] if kind == "Arguments" else record[0]  # without its type
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append((name, record[1]))
        panels["Options"] = panels.pop("Options")  # last: what every command has, such as --help
        for name, records in panels.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the examples, one a line."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def group(help: str) -> typer.Typer:
    """A group of commands; without one of them it shows its help, and that is no error."""
    made = typer.Typer(help=help, rich_markup_mode=None)

    @made.callback(invoke_without_command=True)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return made


def argument(help: str, metavar: str, *, default: Any = MISSING) -> Any:
    """Declares a dataclass field that becomes a positional argument of a command, required without a default."""
    return field(default=default, metadata={"help": help, "metavar": metavar, "argument": True})


def add_command(
    app: typer.Typer,
    name: str,
    body: Callable[..., None],
    *kinds: type,
    examples: Iterable[str],
    panels: Mapping[type, str] | None = None,
    pictures: bool = True,
) -> None:
    """Adds a command to `app`. It raises UsageError for values that a dataclass of its flags refuses.

    Args:
        app: the command line, or a group of it.
        name: of the command.
        body: takes an instance of each of `kinds`; its docstring is the help.
        kinds: dataclasses whose fields become the flags; by default those that the parameters of `body` are of.
        examples: what people may type, shown in the help.
        panels: the group of the flags of a dataclass in the help, where it is not the `PANEL` of that.
        pictures: whether it reads pictures, and has `LimitFlags` too.
    """
    if not kinds:
        hints = get_type_hints(body)
        kinds = tuple(hints[parameter] for parameter in inspect.signature(body).parameters)
    kinds_shown = (*kinds, *[LimitFlags] * pictures)
    named = {kind: getattr(kind, "PANEL", None) for kind in kinds_shown} | dict(panels or {})
    parameters = [_parameter(kind, known, named[kind]) for kind in kinds_shown for known in fields(kind)]
    aliases = {f"{known.name}_alias": known for kind in kinds for known in fields(kind) if "alias" in known.metadata}
    parameters += [_alias(name, known.metadata["alias"]) for name, known in aliases.items()]

    def call(**values: Any) -> None:
        if limit := values.pop("max_pixels", None):
            os.environ["RESTORE_MAX_PIXELS"] = str(limit)  # `images.image.MAX_PIXELS`, whose import takes long
        for name, known in aliases.items():
            values[known.name] |= values.pop(name)
        body(*(kind(**{known.name: values[known.name] for known in fields(kind)}) for kind in kinds))

    call.__doc__ = body.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, cls=GroupedCommand, epilog="\n".join(examples))(call)


def _parameter(owner: type, known: Field[Any], panel: str | None) -> inspect.Parameter:
    hint, about = get_type_hints(owner)[known.name], known.metadata
    extra = {name: about[name] for name in ("help", "metavar", "min", "max") if name in about}
    default = known.default if known.default is not MISSING else inspect.Parameter.empty
    if about.get("argument"):
        kind: Any = typer.Argument(**extra)
    else:
        if "choices" in about:
            extra["metavar"] = "|".join(map(str, about["choices"]))
        if get_origin(hint) is tuple:
            item = get_args(hint)[0]
            pair = ... not in get_args(hint)
            extra["parser"] = _numbers(known.name, item, pair)
            default = ",".join(f"{number:g}" for number in cast(tuple[float, ...], known.default))
            hint = str
        elif numbers := {int, float} & {hint, *get_args(hint)}:
            extra.setdefault("metavar", NUMBERS[numbers.pop()])
        name = "--" + known.name.replace("_", "-")
        kind = typer.Option(
            *about.get("flags", ()),
            name,
            rich_help_panel=about.get("panel", panel),
            show_default=default not in (None, False, ""),
            **extra,
        )
    return inspect.Parameter(
        known.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, kind]
    )


def _alias(name: str, flag: str) -> inspect.Parameter:
    """A hidden switch, for an earlier name of a flag."""
    annotation = Annotated[bool, typer.Option(flag, hidden=True)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _numbers(name: str, item: type, pair: bool) -> Callable[[str], tuple[Any, ...]]:
    """A parser of `1,2,3`; with `pair` of a range, where one number stands for both ends."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            numbers = tuple(item(part) for part in str(text).split(","))
        except ValueError:
            raise UsageError(f"--{name}: '{text}' is not a list of numbers such as 2,3") from None
        if pair:
            if len(numbers) > 2:
                raise UsageError(f"--{name}: a range is one number or two, such as 15,25; got '{text}'")
            numbers = (numbers[0], numbers[-1])
        return numbers

    return parse


def picture_size(flag: str, text: str) -> tuple[int, int]:
    """`1920x1080` as (width, height). Raises UsageError for another text, or a size that no picture has."""
    width, _, height = text.lower().partition("x")
    if not all(side.isascii() and side.isdecimal() for side in (width, height)):
        raise UsageError(f"{flag} {text}: write WIDTHxHEIGHT in pixels, such as 1920x1080")
    if not 0 < int(width) * int(height) <= 500_000_000:
        raise UsageError(f"{flag} {text}: must be from 1 pixel to 500 megapixels")
    return int(width), int(height)
