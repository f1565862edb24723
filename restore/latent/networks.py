"""The network of every kind: an encoder, a code, a decoder; built from a config alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from restore.errors import UsageError
from restore.models.registry import Architecture, register

ARCH = "latent-autoencoder"
SWAP_ARCH = "latent-swap"
CRITIC_WIDTH = 128  # hidden units of the adversarial kind's discriminator


@dataclass(frozen=True)
class LatentConfig:
    """All it takes to build a latent autoencoder.

    Attributes:
        kind: Name in `restore.latent.options.KINDS`; decides activations, and what the code is.
        code: Numbers in a code.
        size: Side of the pictures, in pixels.
        channels: 1 or 3.
        net: dense or conv.
        widths: Units or channels of the hidden layers, from the picture on.
        tied: Whether the decoder shares the encoder's weights, transposed.
        active: Units that are kept of a k-sparse code; 0: all.
        sigmoid_code: Whether the code's activations are between 0 and 1; one layer alone is linear without.
        linear: No activations at all, neither inside nor at the end.
        loss: How pixels are distributed around the decoded ones: mse (normal) or bce (Bernoulli).
    """

    kind: str = "undercomplete"
    code: int = 32
    size: int = 64
    channels: int = 1
    net: str = "dense"
    widths: tuple[int, ...] = (512, 256)
    tied: bool = False
    active: int = 0
    sigmoid_code: bool = False
    linear: bool = False
    loss: str = "mse"

    def __post_init__(self) -> None:
        if self.code < 1 or self.size < 1 or self.channels not in (1, 3) or self.net not in ("dense", "conv"):
            raise UsageError(f"no latent autoencoder is built from {self}")

    @property
    def values(self) -> int:
        """Numbers in a picture."""
        return self.channels * self.size * self.size


@register(ARCH, LatentConfig)
class LatentAutoencoder(Architecture):
    """Pictures (N,C,S,S) in [0,1] to codes (N,code) and back.

    `encode` gives the code that is used (of a distribution its mean), `decode` the picture.
    """

    stride = 1
    scales = (1,)
    mean: torch.Tensor  # the mean picture (C,S,S)
    down: nn.ModuleList
    encoder: nn.ModuleList

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.radius = config.size
        outputs = config.code * (2 if config.kind == "variational" else 1)
        sides = [config.size]
        convolutions = config.widths if config.net == "conv" else ()
        for _ in convolutions:
            sides.append(-(-sides[-1] // 2))
        channels = (config.channels, *convolutions)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in pairwise(channels))
        # Mirrors `down`: output_padding makes odd sides come out as they went in.
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(o, i, 3, 2, 1, output_padding=(side + 1) % 2)
            for i, o, side in reversed(list(zip(channels, channels[1:], sides, strict=False)))
        )
        self.inner = (channels[-1], sides[-1], sides[-1])
        flat = channels[-1] * sides[-1] ** 2
        widths = (flat, *(config.widths if config.net == "dense" else ()))
        self.encoder = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, (*widths[1:], outputs), strict=True))
        self.layers = len(self.encoder)
        ends = list(reversed(list(zip(widths, (*widths[1:], config.code), strict=True))))
        if config.tied:
            self.decoder_biases = nn.ParameterList(nn.Parameter(torch.zeros(i)) for i, _ in ends)
        else:
            self.decoder = nn.ModuleList(nn.Linear(o, i) for i, o in ends)
        self.register_buffer("mean", torch.zeros(config.channels, config.size, config.size))
        if config.kind == "adversarial":
            self.critic = nn.Sequential(
                nn.Linear(config.code, CRITIC_WIDTH), nn.LeakyReLU(0.2), nn.Linear(CRITIC_WIDTH, 1)
            )

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        """(N,C,S,S) -> its reconstruction, in [0,1] unless the network is linear."""
        return self.decode(self.encode(planes))

    def values_a_pixel(self, scale: int) -> float:
        """Numbers kept at once for each input pixel."""
        return 2.0 + sum(self.config.widths) / self.config.size**2

    def encode(self, planes: torch.Tensor) -> torch.Tensor:
        """(N,C,S,S) -> codes (N,code)."""
        code = self.encoded(planes)[:, : self.config.code]
        return kept_largest(code, self.config.active) if self.config.active else code

    def encoded(self, planes: torch.Tensor) -> torch.Tensor:
        """(N,C,S,S) -> outputs of the last layer (N,code), of the variational kind (N,2*code): means, log-variances."""
        hidden = planes - self.mean
        for layer in self.down:
            hidden = F.gelu(layer(hidden))
        hidden = hidden.flatten(1)
        for layer in self.encoder[:-1]:
            hidden = self.activate(layer(hidden))
        code: torch.Tensor = self.encoder[-1](hidden)
        return torch.sigmoid(code) if self.config.sigmoid_code else code

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(N,code) -> pictures (N,C,S,S)."""
        decoded = self.logits(codes)
        return decoded if self.config.linear else torch.sigmoid(decoded)

    def logits(self, codes: torch.Tensor) -> torch.Tensor:
        """(N,code) -> pictures before the last sigmoid; of linear networks the pictures themselves."""
        hidden = codes
        last = self.layers - 1
        for number in range(last + 1):
            hidden = self.decode_layer(number, hidden)
            if number < last or self.up:
                hidden = self.activate(hidden)
        hidden = hidden.unflatten(1, self.inner)
        for number, layer in enumerate(self.up):
            hidden = layer(F.gelu(hidden) if number else hidden)
        decoded: torch.Tensor = hidden + self.mean if self.config.linear else hidden
        return decoded

    def decode_layer(self, number: int, hidden: torch.Tensor) -> torch.Tensor:
        """Dense decoder layer `number`, from the code on, without its activation."""
        if self.config.tied:
            weight = self.encoder[self.layers - 1 - number].get_parameter("weight")
            return F.linear(hidden, weight.t(), self.decoder_biases[number])
        layer: torch.Tensor = self.decoder[number](hidden)
        return layer

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        """The activation between dense layers."""
        return hidden if self.config.linear else F.gelu(hidden)


@register(SWAP_ARCH, LatentConfig)
class SwapAutoencoder(Architecture):
    """One encoder and two decoders, for pictures of two folders at once.

    Pictures are (N,2C,S,S), one of each folder behind the other, and so are codes (N,2*code).
    """

    stride = 1
    scales = (1,)

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.radius = config.size
        self.first, self.second = LatentAutoencoder(config), LatentAutoencoder(config)
        self.second.down, self.second.encoder = nn.ModuleList(), nn.ModuleList()

    @property
    def mean(self) -> torch.Tensor:
        """The mean picture (C,S,S)."""
        return self.first.mean

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        """(N,2C,S,S) -> the reconstruction of each by the decoder of its folder."""
        return torch.sigmoid(self.logits(self.encoded(planes)))

    def values_a_pixel(self, scale: int) -> float:
        """Numbers kept at once for each input pixel."""
        return 2 * self.first.values_a_pixel(scale)

    def encoded(self, planes: torch.Tensor) -> torch.Tensor:
        """(N,2C,S,S) -> codes (N,2*code)."""
        return torch.cat([self.first.encoded(half) for half in planes.chunk(2, 1)], 1)

    def logits(self, codes: torch.Tensor) -> torch.Tensor:
        """(N,2*code) -> both pictures (N,2C,S,S) before the last sigmoid."""
        first, second = codes.chunk(2, 1)
        return torch.cat([self.first.logits(first), self.second.logits(second)], 1)


def kept_largest(codes: torch.Tensor, count: int) -> torch.Tensor:
    """(N,code) with all but the `count` largest of each row set to zero."""
    if count >= codes.shape[1]:
        return codes
    least = codes.topk(count, dim=1).values[:, -1:]
    return torch.where(codes >= least, codes, 0)
