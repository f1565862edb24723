"""What the training loop minimises for a latent autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from restore.latent.data import to_pixels, to_planes
from restore.latent.kinds import Kind
from restore.latent.networks import ARCH, SWAP_ARCH, LatentAutoencoder, LatentConfig
from restore.latent.options import AUTO, ONE_LAYER, SIGMOID_CODES, ModelOptions
from restore.tasks.losses import PixelLoss
from restore.training.objective import Objective

TASK = "latent"  # in the headers of weights
VALIDATION_SEED = 0
WIDTHS = {"dense": (512, 256), "conv": (32, 64)}


def config_for(options: ModelOptions, size: int, channels: int) -> LatentConfig:
    """The config of the network that `options` ask for."""
    return LatentConfig(
        kind=options.kind,
        code=options.code,
        size=size,
        channels=channels,
        net=options.net,
        widths=_widths(options),
        tied=options.tied,
        active=(options.active or max(1, options.code // 4)) if options.kind == "k-sparse" else 0,
        sigmoid_code=options.kind in SIGMOID_CODES or (options.kind == "denoising" and not _widths(options)),
        linear=options.kind == "pca",
        loss=options.loss,
    )


def _widths(options: ModelOptions) -> tuple[int, ...]:
    if options.widths != AUTO:
        return options.widths
    return () if options.net == "dense" and options.kind in ONE_LAYER else WIDTHS[options.net]


class LatentObjective(Objective):
    """A batch is `clean`, planes (N,C,S,S), and `seed`, of all random numbers of its loss."""

    name = TASK

    def __init__(self, kind: Kind, config: LatentConfig) -> None:
        self.kind, self.config, self.patch = kind, config, config.size
        self.arch = SWAP_ARCH if config.kind == "swap" else ARCH

    @property
    def options(self) -> Mapping[str, Any]:
        """Of the network and its penalty."""
        return {name: value for name, value in vars(self.kind.options).items() if name != "size"}

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One picture (S,S,C) in uint8."""
        return {"clean": to_planes(clean[None])[0], "seed": torch.tensor(int(rng.integers(2**62)))}

    def loss(
        self, network: Any, batch: Mapping[str, torch.Tensor], variant: int, pixel_loss: PixelLoss
    ) -> torch.Tensor:
        """The loss of the kind, by which pixels are compared too."""
        return self.kind.loss(network, batch["clean"], torch.Generator().manual_seed(int(batch["seed"].flatten()[0])))

    @torch.no_grad()
    def validate(self, network: LatentAutoencoder, pictures: Sequence[np.ndarray]) -> dict[str, float]:
        """PSNR of all reconstructions together; of kinds with a penalty -10 log10 of the loss, which is chosen by."""
        clean = to_planes(np.stack(list(pictures))).to(network.mean.device)
        if self.kind.penalised:
            loss = float(self.kind.loss(network, clean, torch.Generator().manual_seed(VALIDATION_SEED)))
            return {"objective": -10 * math.log10(max(loss, 1e-10))}
        error = float((network(clean) - clean).square().mean())
        return {"reconstruction": -10 * math.log10(max(error, 1e-10))}

    def score(self, network: LatentAutoencoder | None, picture: np.ndarray, number: int) -> dict[str, float]:
        """`validate` for one picture; doing nothing has no score."""
        return {} if network is None else self.validate(network, [picture])

    @torch.no_grad()
    def preview(self, network: LatentAutoencoder, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the encoder sees, its reconstruction, and the picture, (S,S,3); of a pair those of the first folder."""
        clean = to_planes(picture[None]).to(network.mean.device)
        seen = self.kind.seen(clean, torch.Generator().manual_seed(VALIDATION_SEED))
        rows = (to_pixels(seen)[0], to_pixels(network(seen))[0], picture)
        shown = (np.broadcast_to(row[..., : self.config.channels], (*picture.shape[:2], 3)) for row in rows)
        return tuple(shown)  # type: ignore[return-value]
