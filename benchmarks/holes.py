"""What `restore inpaint` makes of a wide hole: a square in the middle of 256x256 pixels, told the mask.

    python benchmarks/holes.py FOLDER [--side 64] [--sheet FILE]

FOLDER holds clean pictures. Printed are, for the network with and without the texture that wide holes get, and for the
fillings of OpenCV with the same mask: the share of the gradient energy (sum of squared differences of adjacent pixels)
of what was there, the mean over pictures and the median; PSNR inside the hole; and seconds a picture.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

import restore
from restore.images import Image, find_images, read_image, write_image
from restore.metrics import masked_psnr
from restore.pixels import to_float
from restore.tasks.inpaint import task as inpaint

SIDE = 256  # pixels, of the crops
METHODS = ("restore", "restore, no texture", "telea", "navier-stokes")


def gradient_energy(image: np.ndarray, mask: np.ndarray) -> float:
    """The sum of squared differences of adjacent pixels of the mean of RGB inside of a mask (H,W) bool."""
    gray = to_float(image).mean(-1)
    down, across = np.diff(gray, axis=0)[:, :-1], np.diff(gray, axis=1)[:-1]
    return float((down**2 + across**2)[mask[:-1, :-1]].sum())


def fill(method: str, restorer: Callable[..., np.ndarray], image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`image` (H,W,3) uint8 with the pixels of `mask` filled."""
    if method.startswith("restore"):
        wide = inpaint.WIDE
        inpaint.WIDE = SIDE if "," in method else wide
        try:
            return restorer(image, mask=mask)
        finally:
            inpaint.WIDE = wide
    kind = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), 3, kind))


def main() -> None:
    """Prints the table."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=64, help="of the hole, in pixels")
    parser.add_argument("--sheet", type=Path, help="the pictures, and what each method made of them, as one file")
    chosen = parser.parse_args()
    restorer = restore.load("inpaint", device="cpu")
    start = (SIDE - chosen.side) // 2
    mask = np.zeros((SIDE, SIDE), bool)
    mask[start : start + chosen.side, start : start + chosen.side] = True
    figures: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    rows = []
    for path in find_images(chosen.folder):
        pixels = np.asarray(read_image(path).pixels)
        if min(pixels.shape[:2]) < SIDE:
            continue
        top, left = (pixels.shape[0] - SIDE) // 2, (pixels.shape[1] - SIDE) // 2
        clean = np.ascontiguousarray(np.broadcast_to(pixels[top : top + SIDE, left : left + SIDE], (SIDE, SIDE, 3)))
        damaged, energy = np.where(mask[..., None], 255, clean).astype(np.uint8), gradient_energy(clean, mask)
        row = [clean]
        for method in METHODS:
            before = time.perf_counter()
            row.append(filled := fill(method, restorer, damaged, mask))
            seconds = time.perf_counter() - before
            share = gradient_energy(filled, mask) / energy
            figures[method].append((share, masked_psnr(filled, clean, mask), seconds))
        rows.append(np.concatenate(row, axis=1))
    print(f"{len(rows)} pictures of {chosen.folder.name}, a hole of {chosen.side} pixels")
    print("| method | gradient energy, mean | median | PSNR inside, dB | s |\n|---|---:|---:|---:|---:|")
    for method, values in figures.items():
        shares, scores, seconds = np.array(values).T
        finite = np.mean([score for score in scores if math.isfinite(score)])
        print(
            f"| {method} | {np.mean(shares):.0%} | {np.median(shares):.0%} | {finite:.2f} | {np.median(seconds):.2f} |"
        )
    if chosen.sheet:
        write_image(Image(np.concatenate(rows)), chosen.sheet)


if __name__ == "__main__":
    main()
