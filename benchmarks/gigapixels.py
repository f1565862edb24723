"""Memory and time of `restore denoise` on a TIFF that is restored a few rows at a time.

    python benchmarks/gigapixels.py --side 44800 --strength 0     # 2 gigapixels of flat areas, without the network
    python benchmarks/gigapixels.py --side 10240 --noise 15       # 105 megapixels of a noisy photograph, with it

Makes an RGB BigTIFF in tiles of 512 x 512, all of them the same, in a temporary folder.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from skimage import data

TILE = 512


def make(path: Path, side: int, noise: float) -> None:
    """Writes the picture; each side is a multiple of 512 at least as long as `side`."""
    count = -(-side // TILE)
    tile = data.astronaut() + np.random.default_rng(0).normal(0, noise, (TILE, TILE, 3)) if noise else np.full(3, 99)
    tile = np.ascontiguousarray(np.broadcast_to(np.clip(tile, 0, 255), (TILE, TILE, 3)), np.uint8)
    packed = imagecodecs.zlib_encode(tile, level=1)
    tifffile.imwrite(
        path,
        (packed for _ in range(count * count)),
        shape=(count * TILE, count * TILE, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="zlib",
        bigtiff=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=44_800, help="in pixels")
    parser.add_argument("--noise", type=float, default=0.0, help="of 255, on a photograph; 0: flat areas")
    parser.add_argument("--strength", default="1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "a.tif"), Path(name, "b.tif")
        make(source, asked.side, asked.noise)
        command = [
            sys.executable,
            "-m",
            "restore",
            "denoise",
            source,
            target,
            "--max-pixels",
            "1e10",
            "--device",
            "cpu",
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--strength", asked.strength], check=True)
        seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        with tifffile.TiffFile(target) as file:
            height, width, _ = file.pages[0].shape
        computed = used.ru_utime + used.ru_stime
    print(f"{height * width / 1e6:.0f} megapixels: {used.ru_maxrss / 1024:.0f} MiB at most")
    print(f"{computed:.0f} s of computing, {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
