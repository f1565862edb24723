"""Weights of a latent autoencoder, ready to make codes and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from restore import weights
from restore.devices import pick_device
from restore.errors import WeightsError
from restore.latent.data import Pictures, read_folder, to_pixels, to_planes
from restore.latent.kinds.variational import importance_weighted
from restore.latent.networks import LatentAutoencoder, LatentConfig
from restore.latent.objective import TASK

BATCH = 512  # pictures at once
Network = TypeVar("Network", bound=torch.nn.Module)


class Latent:
    """An autoencoder on a device.

    Args:
        network: With its weights.
        device: Where to compute.
        name: What to call it.
    """

    def __init__(self, network: LatentAutoencoder, device: torch.device | str = "cpu", name: str = "") -> None:
        self.device = torch.device(device)
        self.network = network.eval().to(self.device)
        self.name = name

    @property
    def config(self) -> LatentConfig:
        """Of the network."""
        return self.network.config

    @property
    def digest(self) -> str:
        """A hash of the weights."""
        known = hashlib.sha256()
        for tensor in self.network.state_dict().values():
            known.update(tensor.cpu().numpy().tobytes())
        return known.hexdigest()[:16]

    def read(self, folder: Path, report: Callable[[str], None] = print) -> Pictures:
        """The pictures below `folder` as this network takes them; see `read_folder`."""
        return read_folder(folder, self.config.size, self.config.channels, report)

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(N,S,S,C) uint8 -> codes (N,code) float32."""
        return np.concatenate(
            [self.network.encode(self._planes(pixels, at)).cpu().numpy() for at in range(0, len(pixels), BATCH)]
        )

    @torch.no_grad()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N,code) -> pictures (N,S,S,C) uint8."""
        made = torch.from_numpy(np.asarray(codes, np.float32)).to(self.device)
        return np.concatenate(
            [to_pixels(self.network.decode(made[at : at + BATCH])) for at in range(0, len(made), BATCH)]
        )

    @torch.no_grad()
    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """(N,S,S,C) uint8 -> reconstructions (N,S,S,C) float32, not rounded."""
        made = [self.network(self._planes(pixels, at)).cpu() for at in range(0, len(pixels), BATCH)]
        return torch.cat(made).permute(0, 2, 3, 1).numpy()

    def errors(self, pixels: np.ndarray) -> np.ndarray:
        """(N,S,S,C) uint8 -> squared errors (N,S,S) float32, white at 1, the mean over the channels."""
        errors: np.ndarray = ((self.reconstruct(pixels) - pixels.astype(np.float32) / 255) ** 2).mean(-1)
        return errors

    def log_likelihood(self, pixels: np.ndarray, count: int) -> np.ndarray:
        """Estimates (N,) in nats for (N,S,S,C) uint8, of the variational kind; see `importance_weighted`."""
        draw, starts = torch.Generator().manual_seed(0), range(0, len(pixels), BATCH)
        parts = [importance_weighted(self.network, self._planes(pixels, at), count, draw) for at in starts]
        return torch.cat(parts).cpu().numpy()

    def _planes(self, pixels: np.ndarray, at: int) -> torch.Tensor:
        return to_planes(pixels[at : at + BATCH]).to(self.device)


def load_latent(path: Path, device: str = "auto") -> Latent:
    """The autoencoder in a weights file; see `load_network`."""
    return Latent(*load_network(LatentAutoencoder, path, TASK, device, "train FOLDER -o"), path.stem)


def load_network(kind: type[Network], path: Path, task: str, device: str, command: str) -> tuple[Network, torch.device]:
    """The network in a weights file, on a device.

    Args:
        kind: What it has to be.
        path: The file.
        task: The task in its header.
        device: auto, or a name.
        command: Of `restore latent`, which makes such a file when its name is put behind.

    Raises:
        WeightsError: The file is missing, damaged, or holds something else.
        DeviceError: The device is not there.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; `restore latent {command} {path}` makes one")
    header, network = weights.load(path, task)
    if not isinstance(network, kind):
        raise WeightsError(f"{path}: weights of {header.arch}; name others with -m")
    place = pick_device(device)
    return network.to(place), place
