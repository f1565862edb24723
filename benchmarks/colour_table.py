"""Fits the table from luma to CIELAB ab that is a baseline of colorize, and writes it into the package.

    RESTORE_DATA=... python benchmarks/colour_table.py

The least-squares estimate of ab from luma alone is the mean at each luma; every training picture weighs the same.
Levels are averaged with their neighbours, or a picture with a flat background would have one to itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from pathlib import Path

import numpy as np
from tqdm import tqdm

import restore.evaluation
from restore.colour import luma_of, to_lab
from restore.errors import RestoreError
from restore.evaluation.page import write_text
from restore.images import find_images, read_image
from restore.pixels import is_gray, to_float

LEVELS = 256
SMOOTHING = 3.0  # levels; sigma of a Gaussian
SHORT_SIDE = 160  # larger pictures are thinned to about this: it takes seconds, and moves no entry by a whole step
MODULE = '''"""The mean CIELAB ab of each level of BT.601 luma; written by `benchmarks/colour_table.py`, not by hand.

Fitted on the {pictures} coloured pictures of train/, each weighing the same. Tenths of ab, "a b" for luma 0 to 255.
"""

TENTHS = """
{numbers}
"""
'''


def main() -> int:
    """Fits and writes; exit code 2 if there is nothing to fit to."""
    parser = argparse.ArgumentParser(description="Fits the table from luma to ab.")
    target = Path(restore.evaluation.__file__).with_name("colour_table.py")
    parser.add_argument("--out", type=Path, default=target)
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA does not say where the training pictures are", file=sys.stderr)
        return 2
    table, pictures = fit(find_images(Path(data) / "train"))
    tenths = np.rint(10 * table).astype(int)
    numbers = textwrap.fill("  ".join(f"{a}\xa0{b}" for a, b in tenths), 118).replace("\xa0", " ")
    write_text(flags.out, MODULE.format(pictures=pictures, numbers=numbers))
    print(f"{flags.out.name}: written, from {pictures} pictures", file=sys.stderr)
    return 0


def fit(paths: list[Path]) -> tuple[np.ndarray, int]:
    """The table (256,2), and from how many pictures: gray ones say nothing."""
    total, weight, pictures = np.zeros((LEVELS, 2)), np.zeros(LEVELS), 0
    for path in tqdm(paths):
        try:
            image = read_image(path).pixels
        except RestoreError as error:
            print(error, file=sys.stderr)
            continue
        if is_gray(image):
            continue
        step = max(1, min(image.shape[:2]) // SHORT_SIDE)
        pixels = to_float(image[::step, ::step])
        level = np.rint(255 * luma_of(pixels)).astype(int).ravel()
        ab = to_lab(pixels)[..., 1:].reshape(-1, 2)
        weight += np.bincount(level, minlength=LEVELS) / len(level)
        for channel in range(2):
            total[:, channel] += np.bincount(level, ab[:, channel], LEVELS) / len(level)
        pictures += 1
    levels = np.arange(LEVELS)
    near = np.exp(-0.5 * ((levels[:, None] - levels) / SMOOTHING) ** 2)
    return (near @ total) / (near @ weight)[:, None], pictures


if __name__ == "__main__":
    sys.exit(main())
