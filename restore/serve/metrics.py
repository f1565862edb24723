"""Metrics of a running server in the text format of Prometheus."""

from __future__ import annotations

import threading
import time
from collections import Counter

import psutil

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
METHODS = ("GET", "HEAD", "POST", "DELETE")  # clients may write any word there


class Metrics:
    """Counts answers and restored pictures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, list[float]] = {}  # of a route: how many within each bucket, all, sum
        self._pictures: Counter[str] = Counter()
        self._pixels: Counter[str] = Counter()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        with self._lock:
            self._answers[method if method in METHODS else "other", route, status] += 1
            found = self._seconds.setdefault(route, [0.0] * (len(BUCKETS) + 2))
            for number, bound in enumerate(BUCKETS):
                found[number] += seconds <= bound
            found[-2] += 1
            found[-1] += seconds

    def restored(self, task: str, pixels: int) -> None:
        """Counts a picture and the pixels of its result."""
        with self._lock:
            self._pictures[task] += 1
            self._pixels[task] += pixels

    def text(self, gauges: dict[str, float]) -> str:
        """All figures, and `gauges` of the moment by their names."""
        lines = ["# TYPE restore_http_requests_total counter"]
        with self._lock:
            lines += [
                f'restore_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
                for (method, route, status), count in sorted(self._answers.items())
            ]
            lines.append("# TYPE restore_http_request_seconds histogram")
            for route, found in sorted(self._seconds.items()):
                bounds = [*map(str, BUCKETS), "+Inf"]
                lines += [
                    f'restore_http_request_seconds_bucket{{route="{route}",le="{bound}"}} {count:.0f}'
                    for bound, count in zip(bounds, found, strict=False)
                ]
                lines.append(f'restore_http_request_seconds_count{{route="{route}"}} {found[-2]:.0f}')
                lines.append(f'restore_http_request_seconds_sum{{route="{route}"}} {found[-1]:.6f}')
            for name, counter in (("pictures", self._pictures), ("pixels", self._pixels)):
                lines.append(f"# TYPE restore_{name}_total counter")
                lines += [f'restore_{name}_total{{task="{task}"}} {count}' for task, count in sorted(counter.items())]
        gauges = gauges | {
            "uptime_seconds": time.monotonic() - self._start,
            "resident_memory_bytes": float(psutil.Process().memory_info().rss),
        }
        for name, value in gauges.items():
            lines += [f"# TYPE restore_{name} gauge", f"restore_{name} {value:g}"]
        return "\n".join(lines) + "\n"
