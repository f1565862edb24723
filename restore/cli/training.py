"""`restore train TASK FOLDER...`"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.flags import add_command, group
from restore.cli.reporting import mute, say
from restore.errors import RestoreError, UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option
from restore.training.settings import Settings

if TYPE_CHECKING:
    from restore.tasks.base import Task


@dataclass(frozen=True)
class NetworkFlags:
    """Flags of `restore train` that belong to the objective, and to the terminal."""

    PANEL = "Network"

    arch: str | None = option(
        None, "Architecture: conv-autoencoder, nafnet or another [default: the task's].", metavar="NAME"
    )
    net: list[str] | None = option(
        None, "A setting of the network, such as widths=48,96,192; may be repeated.", metavar="NAME=VALUE"
    )
    patch: int | None = option(None, "Side of a patch as the network sees it, in pixels [default: the task's].", min=1)
    quiet: bool = option(False, "Print errors only.", flags=("-q",))


def add(app: typer.Typer) -> None:
    """Adds `train`, with a command for every task."""
    training = group("Train weights on your own pictures.")
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = f"Train weights for {spec.name} on folders of clean pictures, which are damaged on the fly."
        examples = (
            f"restore train {spec.name} my-pictures/ -o mine.safetensors --minutes 60",
            f"restore train {spec.name} my-pictures/ -o mine.safetensors --init default --steps 5000",
        )
        kinds, panels = (Settings, NetworkFlags, spec.training_options), {spec.training_options: "Damage"}
        add_command(training, spec.name, body, *kinds, examples=examples, panels=panels)
    app.add_typer(training, name="train")


def _body(spec: TaskSpec) -> Any:
    def body(settings: Settings, flags: NetworkFlags, damage: Options) -> None:
        from restore.tasks.base import load_task
        from restore.tasks.objective import RestorationObjective
        from restore.training.train import train

        task = load_task(spec.name)
        arch, config = _network(task, settings.init, flags)
        objective = RestorationObjective(task, damage, config, flags.patch, arch)
        if settings.corrupted and any(pair.head.masked or pair.head.scale > 1 for pair in objective.variants):
            raise UsageError(f"--corrupted: {spec.name} cannot train on pairs of one size without masks; leave it out")
        try:
            result = train(objective, settings, report=mute if flags.quiet else say, bar=True if flags.quiet else None)
        except RestoreError as error:
            if os.environ.get("RANK", "0") == "0":
                raise
            raise typer.Exit(error.exit_code) from error  # of the processes of torchrun the first one says it
        if result.status == "interrupted":
            raise typer.Exit(130)

    return body


def _network(task: Task, init: str | None, flags: NetworkFlags) -> tuple[str, Any]:
    """Architecture and config: those of --init or of the task, or another architecture's, and then --net."""
    from restore import weights
    from restore.models import config_for, config_from_dict

    if init:
        header = weights.read_header(weights.find(task.spec.name, init))
        arch, values = header.arch, weights.config_values(config_from_dict(header.arch, header.config))
        values.pop("trained", None)  # what changes is asked anew for each run
    else:
        arch, values = task.arch, weights.config_values(task.config)
    if flags.arch and flags.arch != arch:
        arch, values = flags.arch, weights.config_values(config_for(flags.arch, task.arch, task.config))
    for setting in flags.net or []:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--net {setting}: write NAME=VALUE, such as widths=48,96,192")
        values[name] = _value(setting, text, values.get(name))
    return arch, config_from_dict(arch, values)


def _value(setting: str, text: str, default: Any) -> Any:
    """`text` as the type that the setting has now."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, (tuple, list)):
            return tuple(int(part) for part in text.split(","))
        return int(text) if isinstance(default, int) else text
    except (KeyError, ValueError):
        raise UsageError(f"--net {setting}: '{text}' does not fit; now it is {default}") from None
