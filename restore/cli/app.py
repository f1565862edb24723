"""The command `restore`: entry point, and conversion of errors to exit codes."""

from __future__ import annotations

import os
import sys
import threading

import typer

from restore.cli import benchmarking, corrupting, evaluating, models, restoring, training
from restore.errors import RestoreError

app = typer.Typer(
    name="restore",
    help="Restore pictures: one command for each kind of damage.",
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


def main() -> None:
    """Runs the command line and exits: 0 success, 1 something failed, 2 wrong usage, 130 interrupted."""
    # Waiting threads of OpenMP must not spin, since the cores also decode and encode. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = run(sys.argv[1:])
    if code == 130 and threading.active_count() > 1:  # do not wait for threads that still work
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


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
        return _fail(f"{error.format_message()} ({where} --help shows how)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of stdout has ended; avoids another error when stdout is flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(text: str, code: int) -> int:
    print(f"restore: {' '.join(text.split())}", file=sys.stderr)
    return code
