"""Many clients at once against `restore serve`, beside one `restore` over the same pictures.

    python benchmarks/serve.py --clients 200 --rounds 2 --size 160

The clients are in a process of their own (this one). Printed are throughput and processor time for each, how long
small pictures take alone and while a large one is computed, what was lost, and how the memory of the server grows.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import skimage.data

from restore.images import Image, encode_image


def pictures(count: int, size: int) -> list[bytes]:
    """Noisy parts of photographs, no two the same."""
    rng = np.random.default_rng(0)
    sources = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
    made = []
    for number in range(count):
        source = sources[number % 3]
        top, left = (int(rng.integers(0, side - size)) for side in source.shape[:2])
        part = source[top : top + size, left : left + size] + rng.normal(0, 20, (size, size, 3))
        made.append(encode_image(Image(part.clip(0, 255).astype(np.uint8)), "png"))
    return made


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class Server:
    """`restore serve` in a process of its own."""

    def __init__(self, device: str) -> None:
        command = [sys.executable, "-m", "restore", "serve", "--port", "0", "--device", device]
        command += ["--per-client", "10000", "--max-queue", "10000", "--timeout", "3000"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = re.search(r"http://\S+", line := self.process.stderr.readline())
        assert found, line
        self.url = found[0].rstrip("/")
        self.about = line.strip()
        self.watched = psutil.Process(self.process.pid)

    @property
    def memory(self) -> float:
        return self.watched.memory_info().rss / 1e6

    def stop(self) -> float:
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        return time.monotonic() - start


async def clients(url: str, bodies: list[bytes], count: int) -> tuple[float, list[float], int]:
    """Each client sends the next picture when it has its last: seconds, latencies, and how many were lost."""
    waiting, latencies, lost = iter(bodies), [], 0
    limits = httpx.Limits(max_connections=None)

    async def client(session: httpx.AsyncClient) -> None:
        nonlocal lost
        for body in waiting:
            start = time.perf_counter()
            answer = await session.post("/api/v1/denoise", content=body)
            latencies.append(time.perf_counter() - start)
            lost += answer.status_code != 200 or answer.content[:4] != b"\x89PNG"

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False) as session:
        start = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(count)))
        return time.perf_counter() - start, latencies, lost


async def beside_large(url: str, bodies: list[bytes], large: bytes) -> tuple[list[float], float]:
    """Latencies of small pictures, one after the other, while a large one is computed; and how long that took."""
    async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as session:
        start = time.perf_counter()
        running = asyncio.create_task(session.post("/api/v1/denoise", content=large))
        await asyncio.sleep(1)
        latencies = []
        for body in bodies:
            if running.done():
                break
            begun = time.perf_counter()
            (await session.post("/api/v1/denoise", content=body)).raise_for_status()
            latencies.append(time.perf_counter() - begun)
        (await running).raise_for_status()
        return latencies, time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


def command_line(bodies: list[bytes], device: str) -> tuple[float, float]:
    """Seconds and processor seconds of `restore denoise` over a folder, without its start."""

    def run(files: list[bytes]) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "in"
            folder.mkdir()
            for number, body in enumerate(files):
                (folder / f"{number:04}.png").write_bytes(body)
            command = [sys.executable, "-m", "restore", "denoise", str(folder), str(Path(name) / "out")]
            start, before = time.perf_counter(), psutil.Process().cpu_times()
            subprocess.run([*command, "-q", "--device", device], check=True)
            after = psutil.Process().cpu_times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            return time.perf_counter() - start, used

    run(bodies[:1])  # brings the files of the packages into memory
    one, all_ = run(bodies[:1]), run(bodies)
    return all_[0] - one[0], all_[1] - one[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--large", type=int, default=3000, help="side of the large picture")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    bodies = pictures(chosen.pictures, chosen.size)
    seconds, used = command_line(bodies, chosen.device)
    count = len(bodies) - 1
    print(f"| restore denoise FOLDER | {count / seconds:.2f} | {1000 * used / count:.0f} | | |")
    server = Server(chosen.device)
    try:
        asyncio.run(clients(server.url, bodies[:4], 1))  # loads the weights
        memory = [server.memory]
        for number in range(chosen.rounds):
            before = cpu_seconds(server.watched)
            seconds, latencies, lost = asyncio.run(clients(server.url, bodies, chosen.clients))
            used = cpu_seconds(server.watched) - before
            memory.append(server.memory)
            name = f"restore serve, {chosen.clients} clients, round {number + 1}"
            figures = f"{len(bodies) / seconds:.2f} | {1000 * used / len(bodies):.0f} | {percentile(latencies, 95):.2f}"
            print(f"| {name} | {figures} | {lost} |", flush=True)
        _, alone, _ = asyncio.run(clients(server.url, bodies[:40], 1))
        tiled = np.tile(skimage.data.chelsea(), (1 + chosen.large // 300, 1 + chosen.large // 451, 1))
        large = encode_image(Image(np.ascontiguousarray(tiled[: chosen.large, : chosen.large])), "jpeg")
        beside, took = asyncio.run(beside_large(server.url, bodies * 20, large))
        print(f"small pictures alone: median {percentile(alone, 50):.2f} s, p95 {percentile(alone, 95):.2f} s")
        print(
            f"beside one of {chosen.large}x{chosen.large} ({took:.0f} s): {len(beside)} small ones,"
            f" median {percentile(beside, 50):.2f} s, p95 {percentile(beside, 95):.2f} s"
        )
        print(f"memory in MB, before and after each round: {', '.join(f'{value:.0f}' for value in memory)}")
    finally:
        print(f"{server.about}; ended {server.stop():.2f} s after Ctrl-C")


if __name__ == "__main__":
    main()
