"""`restore latent ...`: the autoencoder family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from restore.cli.flags import argument, command
from restore.cli.reporting import say
from restore.errors import UsageError
from restore.latent.options import ModelOptions, TrainingOptions
from restore.tasks.spec import Options, option


@dataclass(frozen=True)
class FolderFlags(Options):
    """The pictures a command is about."""

    folder: Path = argument("A folder of pictures, searched through and through, or one picture.", "FOLDER")


@dataclass(frozen=True)
class WeightsFlags(Options):
    """Flags of every command that uses an autoencoder."""

    model: Path = option(
        Path("latent.safetensors"), "Weights made by `restore latent train`.", flags=("-m",), metavar="FILE"
    )
    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")


@dataclass(frozen=True)
class ReconstructFlags(Options):
    """Flags of `restore latent reconstruct`."""

    output: Path = option(
        Path("reconstructed.png"), "A picture, or a page (.html).", flags=("-o",), metavar="FILE"
    )
    n: int = option(12, "Pictures to show, spread over the folder.", flags=("-n",), min=1)
    overwrite: bool = option(False, "Replace an output that exists.")


@dataclass(frozen=True)
class MapFlags(Options):
    """Flags of `restore latent map`."""

    output: Path = option(
        Path("map.png"), "A picture, a page to turn (.html), or over the epochs an animation (.gif).", flags=("-o",),
        metavar="FILE",
    )
    method: str = option(
        "auto", "How codes become points; auto: the code itself, or PCA.", choices=("auto", "code", "pca", "tsne", "umap")
    )
    dimensions: int = option(2, "Of the map.", choices=(2, 3))
    epochs: Path | None = option(
        None, "Snapshots (`train --snapshots N`): a map of each, as a strip or a GIF.", metavar="FOLDER"
    )
    limit: int = option(2000, "Pictures to show, drawn at random.", min=4)
    seed: int = option(0, "Of the draw, t-SNE and UMAP.", min=0)
    overwrite: bool = option(False, "Replace an output that exists.")


def add(app: typer.Typer) -> None:
    """Adds `latent`, with its commands."""
    about = "Autoencoders of your own folder: map, search, generate, compress, find what is odd."
    group = typer.Typer(help=about, no_args_is_help=True)
    group.command("train")(command(train, FolderFlags, ModelOptions, TrainingOptions))
    group.command("reconstruct")(command(reconstruct, FolderFlags, WeightsFlags, ReconstructFlags))
    group.command("map")(command(map_codes, FolderFlags, WeightsFlags, MapFlags))
    app.add_typer(group, name="latent")


def train(folder: FolderFlags, model: ModelOptions, training: TrainingOptions) -> None:
    """Train an autoencoder on a folder of pictures."""
    from restore.latent.training import train_folder

    quiet = training.quiet
    result = train_folder(folder.folder, model, training, _mute if quiet else say, True if quiet else None)
    if result.status == "interrupted":
        raise typer.Exit(130)


def reconstruct(folder: FolderFlags, model: WeightsFlags, flags: ReconstructFlags) -> None:
    """Show pictures, what is made of their codes, and the difference."""
    from restore.latent.views import check_output, png, sheet, write_view

    check_output(flags.output, flags.overwrite)

    import numpy as np

    from restore.latent.model import load_latent

    latent = load_latent(model.model, model.device)
    pictures = latent.read(folder.folder, say)
    made = latent.reconstruct(pictures.pixels)
    error = float(((made - pictures.pixels.astype(np.float32) / 255) ** 2).mean())
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(flags.n, len(pictures))).round().astype(int))
    decoded = np.rint(made[chosen].clip(0, 1) * 255).astype(np.uint8)
    apart = np.abs(decoded.astype(int) - pictures.pixels[chosen]).astype(np.uint8)
    write_view(flags.output, png(sheet([list(pictures.pixels[chosen]), list(decoded), list(apart)])), "Reconstructions")
    print(f"mean squared error {error:.5f} over {len(pictures)} pictures (white is 1)")
    if latent.config.sigmoid_code:
        print(f"mean activation of the code {latent.encode(pictures.pixels).mean():.3f}")
    say(f"{flags.output}: written")


def map_codes(folder: FolderFlags, model: WeightsFlags, flags: MapFlags) -> None:
    """Show where the codes of pictures lie, coloured by subfolder, beside PCA of the pixels."""
    from restore.latent.views import check_output, write_bytes, write_view

    check_output(flags.output, flags.overwrite, (".png", ".html", ".gif"))
    if flags.output.suffix.lower() == ".gif" and flags.epochs is None:
        raise UsageError("a GIF shows codes over the epochs: name the snapshots with --epochs FOLDER")
    files = [model.model] if flags.epochs is None else sorted(flags.epochs.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{flags.epochs}: no snapshots in this folder; `restore latent train --snapshots 8` makes some")

    import numpy as np

    from restore.latent.maps import map_gif, map_page_body, map_png, principal, project
    from restore.latent.model import load_latent

    models = [load_latent(file, model.device) for file in files]
    pictures = models[-1].read(folder.folder, say)
    if len(pictures) > flags.limit:
        chosen = np.random.default_rng(flags.seed).choice(len(pictures), flags.limit, replace=False)
        pictures = pictures.subset(np.sort(chosen))
    maps = []
    for latent in models:
        points, method = project(latent.encode(pictures.pixels), flags.dimensions, flags.method, flags.seed)
        title = f"{latent.config.kind}, code of {latent.config.code}" if flags.epochs is None else latent.name
        maps.append((title if method == "code" else f"{title}, by {method}", points))
    if flags.output.suffix.lower() == ".gif":
        write_bytes(flags.output, map_gif(maps, pictures))
    elif flags.epochs is not None:
        write_view(flags.output, map_png(maps, pictures, thumbs=False, columns=4), "Codes over the epochs")
    else:
        pixels = pictures.pixels.reshape(len(pictures), -1) / 255
        beside = [*maps, ("PCA of the pixels", principal(pixels, flags.dimensions))]
        body, script = map_page_body(maps[0][1], pictures, flags.seed)
        write_view(flags.output, map_png(beside, pictures), "Map of codes", body, script)
    say(f"{flags.output}: written")


def _mute(text: str) -> None:
    """What --quiet prints."""
