"""A server in a thread of this process, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra [web] is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra [web] is not installed")

from restore.serve.app import create_app  # noqa: E402 (after the check that they can be)
from restore.serve.guard import Access  # noqa: E402
from restore.serve.limits import Limits  # noqa: E402
from restore.serve.restorers import Restorers  # noqa: E402
from restore.serve.server import listen  # noqa: E402
from restore.serve.service import Service  # noqa: E402


@dataclass
class Served:
    """A server, and a client of it."""

    url: str
    client: httpx.Client
    app: Any

    def post(self, path: str, data: bytes, name: str = "a.png", mask: bytes | None = None, **more: Any) -> Any:
        """Sends a picture as a form."""
        files = {"file": (name, data)} | ({} if mask is None else {"mask": ("mask.png", mask)})
        return self.client.post(f"/api/v1/{path}", files=files, **more)

    def begin(self, task: str, data: bytes, mask: bytes | None = None, **options: Any) -> dict[str, Any]:
        """Begins a job."""
        answer = self.post("jobs", data, mask=mask, params={"task": task, **options})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def ended(self, job: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """The job once it has ended."""
        return self.until(lambda: (s := self.client.get(job["url"]).json())["stage"] in ENDED and s, seconds)

    def gauge(self, name: str) -> float:
        """A figure of /metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"restore_{name} "))

    @staticmethod
    def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
        """What `condition` gives once that is true."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)
        return found


ENDED = ("done", "failed", "cancelled")


@contextmanager
def serving(
    models: dict[str, str] | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    tile: int = 0,
) -> Iterator[Served]:
    """A server on the CPU at a free port."""
    service = Service(Restorers("cpu", "fp32", tile, models), limits or Limits(), workers=4)
    app = create_app(service, Access(token))
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            yield Served(url, client, app)
    finally:
        app.state.server.stop()
        server.should_exit = True
        thread.join(10)
        listening.close()
