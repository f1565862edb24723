"""Pictures of one folder as a decoder for another folder makes them: face swaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from restore.errors import UsageError
from restore.latent.data import Pictures, read_folder, silent, to_pixels, to_planes
from restore.latent.model import BATCH, load_network
from restore.latent.networks import SwapAutoencoder
from restore.latent.objective import TASK
from restore.latent.options import ModelOptions, TrainingOptions
from restore.latent.training import check_outputs, train
from restore.tasks.spec import option
from restore.training.loop import Result

Report = Callable[[str], None]


@dataclass(frozen=True)
class SwapModel(ModelOptions):
    """The network of a swap, and how the encoder's pictures are moved."""

    kind: str = option("swap", "One encoder, two decoders.", choices=("swap",))
    damage: str = option("move", "What the encoder has to see through.", choices=("move",))
    amount: float = option(0.1, "How far pictures are moved.", min=0.0)


def train_pair(
    first: Path, second: Path, model: SwapModel, training: TrainingOptions, report: Report, bar: bool | None = None
) -> Result:
    """Trains one encoder and a decoder for each of two folders of aligned pictures.

    Args:
        first: A folder.
        second: Another.
        model: The network.
        training: How long and how.
        report: Takes lines for people.
        bar: Whether to hide the progress bar; None: unless on a terminal.

    Raises:
        UsageError: The call is wrong, or a folder is missing or has less than two pictures.
        TrainingError: The loss is no longer finite.
    """
    check_outputs(training)
    pair = [read_folder(folder, model.size, None, report, shrink=True) for folder in (first, second)]
    side, channels = min(one.pixels.shape[1] for one in pair), max(one.pixels.shape[3] for one in pair)
    for number, folder in enumerate((first, second)):
        if len(pair[number]) < 2:
            raise UsageError(f"{folder}: a single picture is not enough to learn from")
        if pair[number].pixels.shape[1:] != (side, side, channels):
            pair[number] = read_folder(folder, side, channels, silent)
    learn, choose = zip(*(one.split() for one in pair), strict=True)
    return train(beside(*learn), beside(*choose), model, training, report, bar, folder=f"{first.name}, {second.name}")


def beside(first: Pictures, second: Pictures) -> Pictures:
    """Each picture of one folder with one of the other behind it, (N,S,S,2C); of the shorter one some come again."""
    count = max(len(first), len(second))
    numbers = [np.arange(count) % len(one) for one in (first, second)]
    pixels = np.concatenate([one.pixels[order] for one, order in zip((first, second), numbers, strict=True)], axis=3)
    return Pictures(pixels, [first.paths[n] for n in numbers[0]], [""] * count)


def load_swap(path: Path, device: str = "auto") -> tuple[SwapAutoencoder, torch.device]:
    """The network in a weights file, on a device; see `load_network`."""
    return load_network(SwapAutoencoder, path, TASK, device, "swap A B -m")


@torch.no_grad()
def decoded_as(network: SwapAutoencoder, device: torch.device, pixels: np.ndarray, folder: int) -> np.ndarray:
    """Pictures (N,S,S,C) uint8 as the decoder of folder 0 or 1 makes them."""
    decoder = network.second if folder else network.first
    batches = (to_planes(pixels[at : at + BATCH]).to(device) for at in range(0, len(pixels), BATCH))
    return to_pixels(torch.cat([decoder.decode(network.first.encode(batch)) for batch in batches]))
