"""`restore train TASK FOLDER...`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from restore.cli.flags import argument, command
from restore.cli.reporting import say
from restore.errors import UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option


@dataclass(frozen=True)
class TrainFlags:
    """Flags of every `restore train TASK`."""

    folders: list[Path] = argument("Folders of clean pictures, searched through and through.", "FOLDER...")
    output: Path | None = option(
        None, "Weights file to write [default: TASK.safetensors].", flags=("-o",), metavar="FILE"
    )
    val: list[Path] | None = option(
        None, "Pictures to choose the best weights by; else some of FOLDER are held out.", metavar="FOLDER"
    )
    steps: int | None = option(None, "Length of the run in optimiser steps.", min=1)
    minutes: float | None = option(
        None, "Length of the run in minutes, made into steps by a short timing [default: 60]."
    )
    stop_after: float | None = option(
        None, "Pause after so many minutes; the same command with --resume goes on.", metavar="MINUTES"
    )
    resume: bool = option(False, "Go on from the checkpoint beside the output.")
    overwrite: bool = option(False, "Replace an output, or a checkpoint, that exists.")
    init: str | None = option(
        None, "Start from these weights: a shipped variant, `default`, or a file.", metavar="VARIANT|FILE"
    )
    batch_size: int = option(16, "Patches a step.", min=1)
    patch: int | None = option(None, "Side of a patch as the network sees it, in pixels [default: the task's].", min=1)
    lr: float = option(1e-3, "Peak learning rate.")
    optimizer: str = option("muon", "How weights follow the gradient.", choices=("muon", "adamw"))
    loss: str = option("l1", "How pixels are compared.", choices=("l1", "charbonnier", "mse", "psnr"))
    mse_share: float = option(0.0, "Last share of the steps, where the loss is mse.", min=0.0, max=1.0)
    encoder_lr: float = option(1.0, "Share of the learning rate for the network's encoder.", min=0.0, max=1.0)
    ema: float = option(0.999, "Decay of the averaged weights, which are the ones kept; 0 keeps the last.")
    precision: str = option("auto", "Precision of the convolutions.", metavar="auto|fp32|bf16")
    device: str = option("auto", "Where to train.", metavar="auto|cpu|mps|cuda|cuda:N")
    compile: bool = option(False, "Compile the network first (slow start, quicker steps).")
    workers: int | None = option(None, "Processes that prepare patches.", flags=("-j",), min=0)
    cache: float | None = option(
        None, "Gigabytes of decoded pictures to keep in memory [default: 40 % of what is free].", min=0.0
    )
    seed: int = option(0, "Seed of everything random.", min=0)
    net: list[str] | None = option(
        None, "A setting of the network, such as widths=48,96,192; may be repeated.", metavar="NAME=VALUE"
    )
    variant: str = option("", "Variant name for the header of the weights.")
    data_terms: str = option("", "Under which terms the pictures stand, for the header of the weights.", metavar="TEXT")
    quiet: bool = option(False, "Print errors only.", flags=("-q",))


def add(app: typer.Typer) -> None:
    """Adds `train`, with a command for every task."""
    group = typer.Typer(help="Train weights on your own pictures.", no_args_is_help=True)
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = f"Train weights for {spec.name} on folders of clean pictures, which are damaged on the fly."
        group.command(spec.name)(command(body, TrainFlags, spec.training_options))
    app.add_typer(group, name="train")


def _body(spec: TaskSpec) -> Any:
    def body(flags: TrainFlags, damage: Options) -> None:
        from restore import weights
        from restore.tasks.objective import RestorationObjective
        from restore.training.train import Request, train

        if flags.steps and flags.minutes:
            raise UsageError("--steps and --minutes are two ways to say one thing; give one")
        init = weights.find(spec.name, flags.init) if flags.init else None
        task = spec.load()
        config = _config(task.arch, task.config, init, flags.net or [])
        objective = RestorationObjective(task, damage, config, flags.patch)
        request = Request(
            folders=flags.folders,
            out=flags.output or Path(f"{spec.name}{weights.SUFFIX}"),
            val=flags.val or (),
            steps=flags.steps,
            minutes=flags.minutes,
            stop_after=flags.stop_after,
            batch_size=flags.batch_size,
            lr=flags.lr,
            optimizer=flags.optimizer,
            ema=flags.ema,
            loss=flags.loss,
            mse_share=flags.mse_share,
            encoder_lr=flags.encoder_lr,
            seed=flags.seed,
            precision=flags.precision,
            device=flags.device,
            compile=flags.compile,
            workers=flags.workers,
            cache=None if flags.cache is None else int(flags.cache * 1e9),
            resume=flags.resume,
            overwrite=flags.overwrite,
            init=init,
            variant=flags.variant,
            data_terms=flags.data_terms,
        )
        result = train(objective, request, report=_mute if flags.quiet else say, bar=True if flags.quiet else None)
        if result.status == "interrupted":
            raise typer.Exit(130)

    return body


def _config(arch: str, config: Any, init: Path | None, settings: list[str]) -> Any:
    """The config of the network: the task's or that of `init`, with the settings of --net put in."""
    from restore import weights
    from restore.models import config_from_dict

    values = weights.read_header(init).config if init else weights.config_values(config)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--net {setting}: write NAME=VALUE, such as widths=48,96,192")
        values[name] = _value(setting, text, values.get(name))
    return config_from_dict(arch, values)


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


def _mute(text: str) -> None:
    """What --quiet prints."""
