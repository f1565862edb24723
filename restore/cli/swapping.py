"""`restore latent swap`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from restore.cli.flags import OutputFlags, argument, output
from restore.cli.reporting import say
from restore.tasks.spec import option


@dataclass(frozen=True, kw_only=True)
class SwapFlags(OutputFlags):
    first: Path = argument("A folder of aligned pictures, such as faces.", "A")
    second: Path = argument("Another, aligned alike.", "B")
    model: Path = option(
        Path("swap.safetensors"), "Weights: used where they exist, else trained.", flags=("-m",), metavar="FILE"
    )
    output: Path = output("swapped.png")
    pictures: Path | None = option(None, "Also write every picture of A as B to this folder, as PNG.", metavar="DIR")
    n: int = option(12, "Pictures to show, spread over A.", flags=("-n",), min=1)
    code: int = option(64, "Numbers in a code.", min=1)
    net: str = option("conv", "Convolutional layers before the last, or fully connected.", choices=("conv", "dense"))
    size: int = option(64, "Side that pictures are shrunk to, cut to squares around their centres.", min=4)
    amount: float = option(0.1, "How far the encoder's pictures are moved.", min=0.0)
    steps: int = option(3000, "Length of the training in steps.", min=1)
    batch_size: int = option(64, "Pairs a step.", min=1)
    lr: float = option(1e-3, "Peak learning rate.")
    seed: int = option(0, "Seed of everything random.", min=0)
    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")
    resume: bool = option(False, "Go on with a training that was interrupted.")
    overwrite: bool = option(False, "Train anew where weights exist, and replace outputs.")


def swap(flags: SwapFlags) -> None:
    """Show pictures of folder A as a decoder for folder B makes them: one encoder, a decoder for each."""
    from restore.evaluation.page import write_bytes
    from restore.latent.compression import names_of
    from restore.latent.data import read_folder, root_of
    from restore.latent.options import TrainingOptions
    from restore.latent.swapping import SwapModel, decoded_as, load_swap, train_pair
    from restore.latent.views import png, png_targets, write_sheet
    from restore.training.data import list_pictures

    names = names_of(list_pictures([flags.first]), root_of(flags.first))
    if flags.pictures is not None:  # refused before hours of training
        png_targets(flags.pictures, names.values(), flags.overwrite)
    if flags.overwrite or flags.resume or not flags.model.exists():
        model = SwapModel(code=flags.code, net=flags.net, size=flags.size, amount=flags.amount)
        same = ("steps", "batch_size", "lr", "seed", "device", "resume", "overwrite")
        training = TrainingOptions(output=flags.model, **{name: getattr(flags, name) for name in same})
        if train_pair(flags.first, flags.second, model, training, say).status != "finished":
            raise typer.Exit(130)
    else:
        say(f"as {flags.model} makes them; --overwrite trains anew")
    network, device = load_swap(flags.model, flags.device)
    pictures = read_folder(flags.first, network.config.size, network.config.channels, say)
    own, other = (decoded_as(network, device, pictures.pixels, number) for number in (0, 1))
    chosen = pictures.spread(flags.n)
    write_sheet(flags.output, [part[chosen] for part in (pictures.pixels, own, other)], "Pictures of A; as A; as B")
    if flags.pictures is not None:
        for path, picture in zip(pictures.paths, other, strict=True):
            write_bytes(flags.pictures / f"{names[path]}.png", png(picture))
    say(f"{flags.output}: written")
