"""The lectures' exercise: digits of 28x28 with a white bar two pixels thick across them, and what is made of it.

    restore train inpaint $RESTORE_DATA/digits/train --bars lecture -o digits.safetensors --steps 3000 \\
        --batch-size 64
    python benchmarks/digits.py -m digits.safetensors [--picture digits.png]

Prints the mean squared error inside the bars (white at 1) over the test digits: of the weights, which have to find the
bar themselves and are told it, and of interpolation between the rows (or columns) beside it, which is told.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np

import restore
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.images import Image, find_images, read_image, write_image

FLOOR = 0.015
SHOWN = 12  # digits in the picture


def interpolated(damaged: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(28,28) in [0,1], the bar filled linearly from the lines beside it; one alone where it lies at the edge."""
    lying = bool(mask.all(axis=1).any())
    filled, lost = (damaged.copy(), mask) if lying else (damaged.T.copy(), mask.T)
    rows = np.flatnonzero(lost.all(axis=1))
    before, after = rows[0] - 1, rows[-1] + 1
    above = filled[before if before >= 0 else after]
    below = filled[after if after < len(filled) else before]
    for row in rows:
        share = (row - before) / (after - before)
        filled[row] = (1 - share) * above + share * below
    return filled if lying else filled.T


def main() -> int:
    """Measures and prints; 0 if the weights, left to find the bar, are at most `FLOOR` off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="weights trained on digits")
    parser.add_argument("--picture", type=Path, help="also write damaged, restored and clean digits, in three rows")
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA does not say where the digits are", file=sys.stderr)
        return 2
    inpaint, bars = restore.load("inpaint", flags.model), OcclusionBars(bars="lecture")
    errors: dict[str, list[float]] = {"blind": [], "bar given": [], "interpolation, bar given": []}
    shown = []
    paths = find_images(Path(data) / "digits" / "test")
    for number, path in enumerate(paths):
        clean = read_image(path).pixels
        damaged = bars.apply(clean, bars.sample(clean.shape, np.random.default_rng(number)))
        assert damaged.mask is not None
        made = {
            "blind": inpaint(damaged.image)[..., 0] / 255,
            "bar given": inpaint(damaged.image, mask=damaged.mask)[..., 0] / 255,
            "interpolation, bar given": interpolated(damaged.image[..., 0] / 255, damaged.mask),
        }
        for name, restored in made.items():
            errors[name].append(float(((restored - clean[..., 0] / 255)[damaged.mask] ** 2).mean()))
        if number % (len(paths) // SHOWN) == 0 and len(shown) < SHOWN:
            rows = damaged.image, np.rint(made["blind"] * 255).astype(np.uint8)[..., None], clean
            shown.append(np.concatenate([np.pad(row, ((2, 2), (2, 2), (0, 0)), constant_values=96) for row in rows]))
    for name, found in errors.items():
        print(f"{name}: mean squared error inside the bar {np.mean(found):.4f} over {len(found)} digits")
    if flags.picture:
        sheet = np.concatenate(shown, axis=1)[..., 0]
        large = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        write_image(Image(large[..., None]), flags.picture, overwrite=True)
    return int(np.mean(errors["blind"]) > FLOOR)


if __name__ == "__main__":
    sys.exit(main())
