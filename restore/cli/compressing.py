"""`restore latent train-codec`, `compress` and `decompress`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from restore.cli.flags import argument
from restore.cli.reporting import mute, say
from restore.errors import RestoreError, UsageError
from restore.latent.options import CodecOptions
from restore.tasks.spec import Options, option


@dataclass(frozen=True)
class CodecFlags(Options):
    model: Path = option(
        Path("codec.safetensors"), "Weights made by `restore latent train-codec`.", flags=("-m",), metavar="FILE"
    )
    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")
    overwrite: bool = option(False, "Replace outputs that exist.")


@dataclass(frozen=True)
class CompressFlags(Options):
    folder: Path = argument("A folder of pictures, searched through and through, or one picture.", "FOLDER")
    output: Path | None = option(None, "File to write [default: FOLDER.pictures].", flags=("-o",), metavar="FILE")
    level: int = option(3, "From 1, small, to 5, good.", flags=("-l",), min=1)
    compare: bool = option(False, "Also print what JPEG and WebP make of as many bytes.")


@dataclass(frozen=True)
class DecompressFlags(Options):
    file: Path = argument("A file made by `restore latent compress`.", "FILE")
    output: Path | None = option(
        None, "Folder to write PNG files to [default: FILE without its suffix].", flags=("-o",), metavar="DIR"
    )


def train_codec(options: CodecOptions) -> None:
    """Train the network of `compress`: bits and squared error together."""
    from restore.latent.codec import CodecConfig
    from restore.latent.compression import CodecObjective
    from restore.training.settings import Settings
    from restore.training.train import train

    quiet = options.quiet
    objective = CodecObjective(CodecConfig(options.channels, options.code), options.patch)
    same = ("steps", "minutes", "batch_size", "lr", "val", "seed", "device", "precision", "stop_after", "resume")
    settings = Settings(
        options.folders,
        options.output,
        overwrite=options.overwrite,
        data_terms=options.data_terms,
        **{name: getattr(options, name) for name in same},
    )
    result = train(objective, settings, report=mute if quiet else say, bar=True if quiet else None)
    if result.status == "interrupted":
        raise typer.Exit(130)


def compress(flags: CompressFlags, model: CodecFlags) -> None:
    """Make one small file of a folder of pictures, as 8-bit RGB or gray, and print what it keeps of them."""
    from restore.evaluation.page import refuse_existing, write_bytes
    from restore.latent.compression import SUFFIX

    source = flags.folder if flags.folder.name else flags.folder.resolve()
    output = flags.output or source.with_name(f"{source.stem if source.is_file() else source.name}{SUFFIX}")
    refuse_existing(output, model.overwrite)

    from restore.latent.compression import Coder, beside, load_codec, names_of, read_pictures, to_bytes
    from restore.latent.data import root_of
    from restore.metrics import psnr
    from restore.training.data import list_pictures

    network, device = load_codec(model.model, model.device)
    coder = Coder(network, flags.level - 1, device)
    paths = list_pictures([source])
    names = names_of(paths, root_of(source))
    failed: list[RestoreError] = []
    packed, scores, area = [], [], 0
    for path, pixels in read_pictures(paths, failed.append, say):
        packed.append(coder.pack(names[path], pixels))
        scores.append(psnr(coder.unpack(packed[-1]), pixels))
        area += packed[-1].height * packed[-1].width
        print(f"{path}\t{len(packed[-1].data)} bytes\t{scores[-1]:.2f} dB")
    for error in failed:
        say(f"left out: {error}")
    if not packed:
        raise RestoreError(f"{source}: none of the pictures can be read")
    data = to_bytes(packed, coder.level, network.digest(coder.level))
    write_bytes(output, data)

    def row(what: str, size: int, scores: list[float]) -> None:
        print(f"{what}: {size} bytes, {8 * size / area:.3f} bit a pixel, PSNR {sum(scores) / len(scores):.2f} dB")

    row(f"{len(packed)} pictures in {output}", len(data), scores)
    for format in ("jpeg", "webp") if flags.compare else ():
        quality, size, theirs = beside(paths, len(data), format)
        row(f"{format} at quality {quality}", size, theirs)
    if failed:
        raise RestoreError(f"{output}: {len(failed)} of {len(paths)} pictures are missing, {failed[0]}")


def decompress(flags: DecompressFlags, model: CodecFlags) -> None:
    """Write the pictures of a compressed file as PNG."""
    from restore.evaluation.page import write_bytes
    from restore.latent.compression import Coder, from_bytes, load_codec
    from restore.latent.views import png, png_targets

    try:
        data = flags.file.read_bytes()
    except OSError as error:
        raise UsageError(f"{flags.file}: cannot be read ({error.strerror or error})") from error
    packed, level, digest = from_bytes(data, str(flags.file))
    folder = flags.output or flags.file.with_suffix("")
    targets = png_targets(folder, [one.name for one in packed], model.overwrite)
    network, device = load_codec(model.model, model.device)
    coder = Coder(network, level, device)
    if network.digest(level) != digest:
        raise UsageError(f"{flags.file}: was made with other weights than {model.model}; name those with -m")
    for one, target in zip(packed, targets, strict=True):
        write_bytes(target, png(coder.unpack(one)))
    say(f"{folder}: {len(packed)} pictures written")
