"""How long reading and writing image files takes, here, in other checkouts, and with libvips.

    python benchmarks/images.py [CHECKOUT ...]

A photograph of 6 megapixels with noise, in each format: milliseconds of computing in one thread (the best of three;
other work on the machine changes little) and the highest memory of a process that does nothing else. Files that all
read are made once. libvips is measured where pyvips is installed. Linux only.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import skimage.data
import tifffile

ROOT = Path(__file__).resolve().parents[1]

# What a process measures: argv is the file, or the array and the format to write; prints milliseconds and MiB.
READ = """
import sys, time
from restore.images import read_image
def work(): read_image(path)
"""
WRITE = """
import sys, time
import numpy as np
from restore.images import Image, encode_image
image = Image(np.load(path))
def work(): encode_image(image, sys.argv[2])
"""
VIPS_READ = """
import sys, time
import pyvips
def work(): pyvips.Image.new_from_buffer(open(path, "rb").read(), "", fail_on="warning").numpy()
"""
VIPS_WRITE = """
import sys, time
import numpy as np
import pyvips
array = np.load(path)
options = {"png": {"compression": 4, "filter": "all"}, "tiff": {"compression": "deflate", "predictor": "horizontal"}}
options |= {"jpeg": {"Q": 95, "subsample_mode": "off"}, "webp": {"lossless": True, "effort": 2}}
def work():
    picture = pyvips.Image.new_from_array(array)
    if array.dtype == np.uint16: picture = picture.copy(interpretation="rgb16")
    picture.write_to_buffer("." + sys.argv[2], **options[sys.argv[2]])
"""
END = """
times = []
for _ in range(3):
    start = time.process_time()
    work()
    times.append(time.process_time() - start)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(min(times) * 1000, int(peak.split()[1]) / 1024)
"""


def photograph() -> np.ndarray:
    """(2000,3000,3) uint8."""
    rng = np.random.default_rng(0)
    tiled = np.tile(skimage.data.astronaut(), (4, 6, 1))[:2000, :3000]
    return np.clip(tiled + rng.normal(0, 3, tiled.shape), 0, 255).round().astype(np.uint8)


def files(folder: Path) -> list[tuple[str, str, list[str]]]:
    """(what, "read" or "write", arguments) of each measurement; the files are made in `folder`."""
    array = photograph()
    deep = array.astype(np.uint16) * 257 + 5
    picture = PIL.Image.fromarray(array)
    made: dict[str, bytes] = {}
    for name, kind, options in (
        ("png", "PNG", {}),
        ("jpeg", "JPEG", {"quality": 92}),
        ("jpeg progressive", "JPEG", {"quality": 92, "progressive": True}),
        ("webp lossy", "WEBP", {"quality": 90, "method": 2}),
        ("avif", "AVIF", {"speed": 9}),
        ("tiff lzw", "TIFF", {"compression": "tiff_lzw"}),
    ):
        out = io.BytesIO()
        picture.save(out, kind, **options)
        made[name] = out.getvalue()
    out = io.BytesIO()
    picture.convert("L").save(out, "PNG")
    made["png gray"] = out.getvalue()
    made["png 16 bit"] = cv2.imencode(".png", deep[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    made["tiff 16 bit lzw"] = cv2.imencode(".tif", deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    out = io.BytesIO()
    tifffile.imwrite(out, deep, photometric="rgb", compression="zlib", predictor=True, rowsperstrip=64)
    made["tiff 16 bit deflate"] = out.getvalue()
    found = []
    for name, data in made.items():
        path = folder / name.replace(" ", "-")
        path.write_bytes(data)
        found.append((name, "read", [str(path)]))
    for name, pixels, kinds in (("", array, ("png", "jpeg", "tiff", "webp")), (" 16 bit", deep, ("png", "tiff"))):
        path = folder / f"array{name.replace(' ', '-')}.npy"
        np.save(path, pixels)
        found += [(kind + name, "write", [str(path), kind]) for kind in kinds]
    return found


def measured(script: str, arguments: list[str], tree: Path) -> tuple[float, float] | None:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"}
    code = f"import sys; path = sys.argv[1]\n{script}{END}"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tree)
    if done.returncode:
        return None
    milliseconds, memory = map(float, done.stdout.split())
    return milliseconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, metavar="CHECKOUT")
    trees = [*parser.parse_args().trees, ROOT]
    columns = [(tree.name, tree, READ, WRITE) for tree in trees] + [("libvips", ROOT, VIPS_READ, VIPS_WRITE)]
    print(f"{platform.machine()}, one thread\n")
    print("| | " + " | ".join(f"{name} ms | MiB" for name, *_ in columns) + " |")
    print("|---|" + "---:|---:|" * len(columns))
    with tempfile.TemporaryDirectory() as name:
        for what, how, arguments in files(Path(name)):
            cells = []
            for _, tree, read, write in columns:
                result = measured(read if how == "read" else write, arguments, tree)
                cells.append("- | -" if result is None else f"{result[0]:.0f} | {result[1]:.0f}")
            print(f"| {how} {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
