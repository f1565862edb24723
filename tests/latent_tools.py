"""What tests of the autoencoder family share: small digits, and networks that train in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from restore.images import Image, write_image
from restore.latent.data import Pictures
from restore.latent.model import Latent, load_latent
from restore.latent.options import ModelOptions, TrainingOptions
from restore.latent.training import train


def small_digits(count: int = 1797) -> Pictures:
    """scikit-learn's digits of 8x8 pixels, labelled."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)[:count]
    paths = [Path(f"{label}/{number}.png") for number, label in enumerate(labels[:count])]
    return Pictures(pixels, paths, [str(label) for label in labels[:count]])


def write_digits(folder: Path, count: int) -> Path:
    """The first `count` as PNG files, in a subfolder a class."""
    pictures = small_digits(count)
    for path, pixels in zip(pictures.paths, pictures.pixels, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(pixels), folder / path)
    return folder


def trained(pictures: Pictures, output: Path, steps: int, **more: object) -> Latent:
    """An autoencoder trained with `more` options of model and training."""
    ways = {name: more.pop(name) for name in list(more) if name in TrainingOptions.__dataclass_fields__}
    ways = {"lr": 3e-3, "batch_size": 64, "device": "cpu"} | ways
    model = ModelOptions(**({"widths": (32,)} if more.get("kind") != "pca" else {}) | more)  # type: ignore[arg-type]
    training = TrainingOptions(output=output, steps=steps, **ways)  # type: ignore[arg-type]
    train(pictures, pictures, model, training, report=lambda text: None, bar=True)
    return load_latent(output, "cpu")
