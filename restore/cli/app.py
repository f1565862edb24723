"""The command `restore`: parse, call, report. Only here do errors become exit codes."""

from __future__ import annotations

import os
import sys
import threading

import typer

from restore.cli import benchmarking, corrupting, evaluating, latent, models, restoring, training
from restore.errors import RestoreError

app = typer.Typer(
    name="restore",
    help="Restore pictures: one word for each damage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
restoring.add(app)
training.add(app)
corrupting.add(app)
evaluating.add(app)
models.add(app)
benchmarking.add(app)
latent.add(app)


def main() -> None:
    """Runs the command line and exits: 0 all done, 1 something failed, 2 wrong usage, 130 interrupted."""
    # Waiting threads shall sleep, not spin: spinning ones fight with those that decode and encode. OpenMP
    # reads this when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = run(sys.argv[1:])
    if code == 130 and threading.active_count() > 1:  # threads are at work on what nobody waits for any more
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of `restore` with `arguments`; errors are one line on stderr."""
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
        return _fail(f"{error.format_message()} ({where} --help shows how)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left; nothing more to say, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(text: str, code: int) -> int:
    print(f"restore: {' '.join(text.split())}", file=sys.stderr)
    return code
