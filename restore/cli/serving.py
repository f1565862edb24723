"""`restore serve`: a page in the browser, and an HTTP API."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from urllib.parse import quote

import typer

from restore.cli.flags import ComputeFlags, add_command
from restore.errors import UsageError, install_hint
from restore.serve import LOCAL_NAMES
from restore.tasks import TASKS
from restore.tasks.spec import option

NEEDED = ("fastapi", "uvicorn", "python_multipart")


@dataclass(frozen=True)
class ServeFlags:
    host: str = option("127.0.0.1", "Address to listen at; another than localhost needs --token or --insecure.")
    port: int = option(7860, "Port to listen at; 0: any that is free.", min=0, max=65535)
    token: str | None = option(None, "What clients have to know, as 'Authorization: Bearer TOKEN' or ?token=TOKEN.")
    insecure: bool = option(False, "Let everyone in who reaches --host.")
    open: bool = option(False, "Open the page in a browser.")
    model: list[str] | None = option(
        None, "Weights of a task, a variant or a file; may be repeated.", flags=("-m",), metavar="TASK=VARIANT|FILE"
    )
    workers: int | None = option(None, "Threads that decode and encode [default: by cores].", flags=("-j",), min=1)
    max_mb: int = option(128, "Largest body of a request, in megabytes.", min=1)
    max_megapixels: float = option(100.0, "Largest picture; results may be four times as large.", min=0.001)
    max_queue: int = option(256, "Pictures of all clients that may wait.", min=1)
    per_client: int = option(32, "Pictures of one client that may wait.", min=1)
    timeout: float = option(300.0, "Seconds until an answer is given up; jobs have twelve times as long.", min=0.1)
    keep: float = option(3600.0, "Seconds for which results of jobs are kept.", min=1.0)
    quiet: bool = option(False, "Print failures only.", flags=("-q",))

    def __post_init__(self) -> None:
        if self.host not in LOCAL_NAMES and not self.token and not self.insecure:
            raise UsageError(
                f"--host {self.host} lets others in: give a --token that they must know, or say --insecure"
            )
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isalnum()):
            raise UsageError("--token: at least 8 letters and digits, such as `openssl rand -hex 16` prints")


def add(app: typer.Typer) -> None:
    """Adds `serve`."""
    examples = (
        "restore serve --open                                      # the page, on this machine",
        "restore serve --host 0.0.0.0 --token 0123456789abcdef     # for others who know the token",
    )
    add_command(app, "serve", serve, examples=examples, pictures=False)


def serve(flags: ServeFlags, compute: ComputeFlags) -> None:
    """Serve a page that does every task, and an HTTP API, on this machine."""
    models = _models(flags.model or [])
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"restore serve needs {missing[0]}: {install_hint('web')}")

    from restore.serve.server import listen

    with listen(flags.host, flags.port) as listening:  # before torch loads, which takes seconds
        import cv2

        from restore.devices import describe, keep_freed_memory
        from restore.serve.app import create_app
        from restore.serve.guard import Access
        from restore.serve.limits import Limits
        from restore.serve.restorers import Restorers
        from restore.serve.server import run
        from restore.serve.service import Service

        keep_freed_memory()
        cv2.setNumThreads(1)  # codecs have threads of their own, and the network the cores
        logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)
        limits = Limits(
            max_bytes=flags.max_mb * 1_000_000,
            max_megapixels=flags.max_megapixels,
            max_queue=flags.max_queue,
            per_client=flags.per_client,
            seconds=flags.timeout,
            job_seconds=12 * flags.timeout,
            keep_seconds=flags.keep,
        )
        service = Service(Restorers(**asdict(compute), models=models), limits, flags.workers)
        access = Access(flags.token, LOCAL_NAMES if flags.host in LOCAL_NAMES else None)
        host = f"[{flags.host}]" if ":" in flags.host else flags.host
        token = f"?token={quote(flags.token)}" if flags.token else ""
        address = f"http://{host}:{listening.getsockname()[1]}/{token}"
        if not flags.quiet:
            where = describe(service.restorers.device, service.restorers.dtype)
            print(f"restore: {address} on {where}; Ctrl-C stops", file=sys.stderr, flush=True)
        if flags.open:
            import threading
            import webbrowser

            threading.Timer(1.0, webbrowser.open, [address]).start()
        with suppress(KeyboardInterrupt):  # not raised in a shell's background, where Python ignores SIGINT
            run(create_app(service, access), listening)
        # All is told and removed by now. Ending the interpreter takes seconds once torch is loaded, and would wait
        # for the tile that is computed.
        print("restore: interrupted", file=sys.stderr, flush=True)
        os._exit(130)


def _models(given: list[str]) -> dict[str, str]:
    models = {}
    for one in given:
        task, equals, model = one.partition("=")
        if task not in TASKS or not equals or not model:
            raise UsageError(f"-m {one}: write TASK=VARIANT or TASK=FILE; tasks: {', '.join(TASKS)}")
        models[task] = model
    return models
