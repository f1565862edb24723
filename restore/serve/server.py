"""Runs the application until it is told to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from restore.errors import UsageError

GRACE = 1  # seconds in which answers that have begun may end after Ctrl-C
CONNECTIONS = 1024  # at once
MAX_HEAD = 1 << 20  # bytes of a request before its body; the address of an archive names thousands of results


class _Server(uvicorn.Server):
    """Gives up all pictures at the first signal, so that streams of events end, and the server can."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # In a thread of its own: this one may hold a lock at this moment that is needed to stop.
        threading.Thread(target=self._stop, daemon=True).start()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Args:
        host: name or address to bind to.
        port: to bind to; 0: any that is free.

    Raises:
        UsageError: it cannot be bound to.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: {error}; choose another port or host") from error


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serves `app`, made by `create_app`, until a signal; SIGINT is raised again unless it is ignored."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # any client of this machine could otherwise pass for many others
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    _Server(config, app.state.server.stop).run([listening])
