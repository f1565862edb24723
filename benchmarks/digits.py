"""Inpainting of digits: 28x28 pixels with a white bar two pixels thick across the whole digit.

    restore train inpaint $RESTORE_DATA/digits/train --bars lecture -o digits.safetensors --steps 4000 \\
        --batch-size 64
    python benchmarks/digits.py -m digits.safetensors [--picture digits.png]

Prints the mean squared error inside the bars (white at 1) over the test digits: of the weights, with a detected and
with the given bar, and of linear interpolation across the given bar.
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

MAX_ERROR = 0.015
SHOWN = 12  # digits in the picture


def interpolate(damaged: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills the bar in (28,28) linearly from the lines on both sides; from one side at the border."""
    horizontal = bool(mask.all(axis=1).any())
    filled, bar = (damaged.copy(), mask) if horizontal else (damaged.T.copy(), mask.T)
    rows = np.flatnonzero(bar.all(axis=1))
    before, after = rows[0] - 1, rows[-1] + 1
    above = filled[before if before >= 0 else after]
    below = filled[after if after < len(filled) else before]
    for row in rows:
        share = (row - before) / (after - before)
        filled[row] = (1 - share) * above + share * below
    return filled if horizontal else filled.T


def main() -> int:
    """Measures and prints; exit code 0 if the error with a detected bar is at most `MAX_ERROR`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="weights trained on digits")
    parser.add_argument("--picture", type=Path, help="also write damaged, restored and clean digits, in three rows")
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    inpaint, bars = restore.load("inpaint", flags.model), OcclusionBars(bars="lecture")
    errors: dict[str, list[float]] = {"blind": [], "bar given": [], "interpolation, bar given": []}
    shown = []
    paths = find_images(Path(data) / "digits" / "test")
    for number, path in enumerate(paths):
        clean = read_image(path).pixels
        damaged = bars.apply(clean, bars.sample(clean.shape, np.random.default_rng(number)))
        assert damaged.mask is not None
        results = {
            "blind": inpaint(damaged.image)[..., 0] / 255,
            "bar given": inpaint(damaged.image, mask=damaged.mask)[..., 0] / 255,
            "interpolation, bar given": interpolate(damaged.image[..., 0] / 255, damaged.mask),
        }
        for name, restored in results.items():
            errors[name].append(float(((restored - clean[..., 0] / 255)[damaged.mask] ** 2).mean()))
        if number % (len(paths) // SHOWN) == 0 and len(shown) < SHOWN:
            rows = damaged.image, np.rint(results["blind"] * 255).astype(np.uint8)[..., None], clean
            shown.append(np.concatenate([np.pad(row, ((2, 2), (2, 2), (0, 0)), constant_values=96) for row in rows]))
    for name, found in errors.items():
        print(f"{name}: mean squared error inside the bar {np.mean(found):.4f} over {len(found)} digits")
    if flags.picture:
        sheet = np.concatenate(shown, axis=1)[..., 0]
        large = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        write_image(Image(large[..., None]), flags.picture, overwrite=True)
    return int(np.mean(errors["blind"]) > MAX_ERROR)


if __name__ == "__main__":
    sys.exit(main())
