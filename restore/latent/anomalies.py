"""Pictures unlike those an autoencoder learnt from: it reconstructs them badly."""

from __future__ import annotations

import csv
import io

import cv2
import numpy as np

from restore.latent.data import LEAST_CONTRAST, Pictures
from restore.latent.model import Latent


def scores(latent: Latent, pixels: np.ndarray, relative: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """How odd pictures are, and where.

    Args:
        latent: Trained on what is usual.
        pixels: (N,S,S,C) uint8.
        relative: Whether errors are divided by the standard deviation of the picture's values: bold strokes, or much
            contrast, make larger errors without being odd.

    Returns:
        Scores (N,), and maps of squared errors (N,S,S).
    """
    maps = latent.errors(pixels)
    values = maps.mean((1, 2))
    if relative:
        values = values / np.maximum(pixels.std((1, 2, 3)) / 255, LEAST_CONTRAST)
    return values, maps


def to_csv(pictures: Pictures, values: np.ndarray) -> str:
    """A line a picture, the oddest first."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["file", "folder", "score"])
    for number in np.argsort(-values, kind="stable"):
        writer.writerow([str(pictures.paths[number]), pictures.labels[number], f"{values[number]:.6f}"])
    return target.getvalue()


def heat(picture: np.ndarray, errors: np.ndarray, worst: float) -> np.ndarray:
    """A picture (S,S,C) in gray under its errors (S,S) in red to yellow, `worst` being full heat -> (S,S,3) uint8."""
    gray = picture.mean(2, keepdims=True).repeat(3, 2)
    share = np.clip(errors / max(worst, 1e-9), 0, 1)[..., None]
    coloured = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_HOT)[..., ::-1]
    shown: np.ndarray = np.rint(gray * 0.5 * (1 - share) + coloured * share).astype(np.uint8)
    return shown
