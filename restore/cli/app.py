"""The command `restore`: entry point, and conversion of errors to exit codes."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from restore import __version__
from restore.cli import (
    benchmarking,
    corrupting,
    evaluating,
    exporting,
    latent,
    models,
    pipelines,
    restoring,
    serving,
    training,
)
from restore.cli.reporting import discard_stdout, say
from restore.errors import RestoreError

app = typer.Typer(
    name="restore",
    help="Restore pictures: one command for each kind of damage.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Prints the version, or without a command the help."""
    if version:
        typer.echo(f"restore {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for part in (restoring, pipelines, training, corrupting, evaluating, models, benchmarking, serving, exporting, latent):
    part.add(app)


def main() -> None:
    """Runs the command line and exits: 0 success, 1 something failed, 2 wrong usage, 130 interrupted."""
    # Waiting threads of OpenMP must not spin, since the cores also decode and encode. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    try:
        os.getcwd()
    except OSError:  # torch would end the process without a word of sense
        sys.exit(_fail("the folder this was started in is gone; change to one that exists", 2))
    code = run(sys.argv[1:])
    if code == 130 and threading.active_count() > 1:  # do not wait for threads that still work
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def open_streams() -> None:
    """Opens stdin, stdout and stderr where whoever started us closed them.

    Else the next file that is opened would become one of them, and what is meant for people land in it. What is read
    from or written to a closed stdin or stdout still fails, as it should; messages to a closed stderr go nowhere.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            wrong_way = os.O_WRONLY if name == "stdin" else os.O_RDONLY
            opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else wrong_way)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(arguments: list[str]) -> int:
    """Runs `restore` with `arguments`; prints errors as one line to stderr.

    Returns:
        The exit code.
    """
    try:
        code = int(app(arguments, prog_name="restore", standalone_mode=False) or 0)
        return _fail("interrupted", code) if code == 130 else code  # typer catches Ctrl-C itself
    except RestoreError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "restore"
        dashed = next((name for name in arguments if name.startswith("-") and os.path.isfile(name)), None)
        hint = f"{where} --help shows how" if dashed is None else f"the file of that name is ./{dashed}"
        return _fail(f"{error.format_message()} ({hint})", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of stdout has ended
        discard_stdout()
        return 0
    except (OSError, MemoryError, ImportError) as error:
        return _fail(_of_the_machine(error), 1)


def _of_the_machine(error: Exception) -> str:
    """One line for what no part of the program foresees: no memory for torch, a disk that fails."""
    if isinstance(error, ImportError) or (isinstance(error, OSError) and "shared object" in str(error)):
        return f"a library cannot be loaded ({error}); free some memory, or install restore-toolkit anew"
    from restore.images.failures import reason

    return reason(error)


def _fail(text: str, code: int) -> int:
    say(f"restore: {' '.join(text.split())}")
    return code
