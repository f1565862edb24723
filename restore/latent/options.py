"""The kinds by name and their options: all that the command line needs before torch is imported."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from restore.errors import UsageError
from restore.tasks.spec import Options, option

# Name -> what it is, in a line. The losses are in restore/latent/kinds.
KINDS: dict[str, str] = {
    "pca": "linear, squared error: finds the subspace of principal component analysis",
    "undercomplete": "a code smaller than the picture",
    "overcomplete": "a code larger than the picture and no penalty: learns to copy",
    "stacked": "several layers; --tied shares weights, --layerwise trains one layer at a time first",
    "denoising": "reconstructs the clean picture from a damaged one (Vincent et al. 2008)",
    "sparse": "the mean activation of each unit is held at --target (Ng 2011)",
    "k-sparse": "only the --active largest units of a code are kept (Makhzani and Frey 2013)",
    "winner-take-all": "a unit is kept only for the pictures that excite it most (Makhzani and Frey 2015)",
    "contractive": "codes that change little with the picture (Rifai et al. 2011)",
    "variational": "a distribution as code, near the standard normal one (Kingma and Welling 2014)",
    "adversarial": "a discriminator makes the codes normally distributed (Makhzani et al. 2015)",
}
SIGMOID_CODES = ("sparse", "contractive")  # their penalties are about activations between 0 and 1
AUTO = (0,)  # widths by kind and net
ONE_LAYER = ("pca", "overcomplete", "denoising", "sparse", "k-sparse", "winner-take-all", "contractive")
PROBABILISTIC = ("variational", "adversarial")  # codes that can be drawn


@dataclass(frozen=True)
class ModelOptions(Options):
    """The network and what keeps its code from being a copy.

    Raises:
        UsageError: Options that do not go together.
    """

    kind: str = option("undercomplete", "Which autoencoder.", choices=tuple(KINDS))
    code: int = option(32, "Numbers in a code.", min=1)
    net: str = option("dense", "Fully connected, or convolutional layers before the last.", choices=("dense", "conv"))
    widths: tuple[int, ...] = option(
        AUTO,
        "Units (dense) or channels (conv) of the hidden layers; 0: 512,256 or 32,64, and none where the code itself "
        "is what to look at (pca, overcomplete, denoising, sparse, contractive).",
        metavar="N[,N...]",
    )
    size: int = option(64, "Side that pictures are shrunk to, cut to squares around their centres.", min=4)
    tied: bool = option(False, "The decoder uses the encoder's weights, transposed.")
    loss: str = option("mse", "How pictures are compared.", choices=("mse", "bce"))
    damage: str = option(
        "noise", "What a denoising autoencoder has to undo.", choices=("noise", "dropout", "bars", "move")
    )
    amount: float = option(
        0.3,
        "Of damage: sigma (white is 1), share of pixels dropped, thickness of the bar, or how far it moves.",
        min=0.0,
    )
    target: float = option(0.1, "Mean activation of a sparse code's units.")
    weight: float | None = option(
        None, "Weight of the penalty [default: sparse 0.1, contractive 0.01, adversarial 0.01].", min=0.0
    )
    active: int | None = option(None, "Units that k-sparse keeps [default: a quarter].", min=1)
    winners: float = option(0.05, "Share of pictures that a winner-take-all unit is kept for.")
    beta: float = option(1.0, "Weight of the divergence in a variational autoencoder.", min=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tied and self.net != "dense":
            raise UsageError("--tied shares the weights of dense layers; leave out --net conv")
        if self.tied and self.kind == "variational":
            raise UsageError("--tied: a variational encoder has twice the outputs, which no decoder can share")
        if self.kind == "pca" and (self.widths not in (AUTO, ()) or self.net != "dense" or self.loss != "mse"):
            raise UsageError("pca is one linear layer and squared error; leave out --widths, --net and --loss")
        if self.kind != "k-sparse" and self.active is not None:
            raise UsageError("--active is for --kind k-sparse")
        if self.active is not None and self.active > self.code:
            raise UsageError(f"--active {self.active} is more than the {self.code} units there are")
        for name in ("target", "winners"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"--{name} must be between 0 and 1; got {getattr(self, name)}")
        if self.damage == "dropout" and not 0 <= self.amount < 1:
            raise UsageError(f"--amount is the share of pixels dropped, from 0 to below 1; got {self.amount}")
        if self.widths != AUTO and any(width < 1 for width in self.widths):
            raise UsageError("--widths must be at least 1 each")


@dataclass(frozen=True)
class RunOptions(Options):
    """Options of both kinds of training."""

    output: Path = option(Path("latent.safetensors"), "Weights file to write.", flags=("-o",), metavar="FILE")
    overwrite: bool = option(False, "Replace an output, or a checkpoint, that exists.")
    resume: bool = option(False, "Go on from the checkpoint beside the output.")
    stop_after: float | None = option(
        None, "Pause after so many minutes; the same command with --resume goes on.", metavar="MINUTES"
    )
    lr: float = option(1e-3, "Peak learning rate.")
    seed: int = option(0, "Seed of everything random.", min=0)
    device: str = option("auto", "Where to train.", metavar="auto|cpu|mps|cuda|cuda:N")
    data_terms: str = option("", "Under which terms the pictures stand, for the header of the weights.", metavar="TEXT")
    quiet: bool = option(False, "Print errors only.", flags=("-q",))


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """How long and how an autoencoder is trained."""

    steps: int = option(3000, "Length of the run in optimiser steps.", min=1)
    batch_size: int = option(128, "Pictures a step.", min=1)
    augment: float = option(
        0.0, "Random shifts, turns and zooms of the pictures: 0.1 is 10 % of the side and 9 degrees.", min=0.0, max=1.0
    )
    layerwise: bool = option(False, "Train each layer of a stacked autoencoder as one of its own first.")
    val: Path | None = option(
        None, "Pictures to choose the best weights by; else every twentieth is held out.", metavar="FOLDER"
    )
    snapshots: int = option(0, "Weights to keep on the way, for `map` over the epochs.", min=0)


@dataclass(frozen=True, kw_only=True)
class CodecOptions(RunOptions):
    """The network of `compress` and how it is trained; without `steps` and `minutes` for an hour."""

    folders: list[Path] = option(
        MISSING, "Folders of pictures, searched through and through.", metavar="FOLDER...", argument=True
    )
    output: Path = option(Path("codec.safetensors"), "Weights file to write.", flags=("-o",), metavar="FILE")
    channels: int = option(96, "Channels of the hidden layers.", min=8)
    code: int = option(128, "Channels of the code, one place for every 16x16 pixels.", min=1)
    patch: int = option(128, "Side of a patch, in pixels.", min=16)
    steps: int | None = option(None, "Length of the run in optimiser steps.", min=1)
    minutes: float | None = option(None, "Length of the run in minutes, made into steps by a short timing.")
    batch_size: int = option(16, "Patches a step.", min=1)
    val: list[Path] | None = option(
        None, "Pictures to choose the best weights by; else some of FOLDER are held out.", metavar="FOLDER"
    )
    precision: str = option(
        "auto", "Precision of the convolutions.", choices=("auto", "fp32", "bf16"), metavar="auto|fp32|bf16"
    )
