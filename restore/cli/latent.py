"""`restore latent ...`: the autoencoder family."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from restore.cli.compressing import compress, decompress, train_codec
from restore.cli.flags import OutputFlags, add_command, argument, group, output
from restore.cli.reporting import mute, say
from restore.cli.swapping import swap
from restore.errors import UsageError
from restore.latent.options import ModelOptions, TrainingOptions
from restore.tasks.spec import Options, option

if TYPE_CHECKING:
    from restore.latent.data import Pictures
    from restore.latent.model import Latent

CODES = 20  # drawn for each picture whose likelihood is estimated


@dataclass(frozen=True)
class FolderFlags(Options):
    folder: Path = argument("A folder of pictures, searched through and through, or one picture.", "FOLDER")


@dataclass(frozen=True)
class WeightsFlags(Options):
    model: Path = option(
        Path("latent.safetensors"), "Weights made by `restore latent train`.", flags=("-m",), metavar="FILE"
    )
    device: str = option("auto", "Where to compute.", metavar="auto|cpu|mps|cuda|cuda:N")

    def load(self) -> Latent:
        """The autoencoder, on the device."""
        from restore.latent.model import load_latent

        return load_latent(self.model, self.device)


@dataclass(frozen=True, kw_only=True)
class ReconstructFlags(OutputFlags):
    output: Path = output("reconstructed.png")
    n: int = option(12, "Pictures to show, spread over the folder.", flags=("-n",), min=1)


@dataclass(frozen=True, kw_only=True)
class MapFlags(OutputFlags):
    SUFFIXES = (".png", ".html", ".gif")

    output: Path = output("map.png", "A picture, a page to turn (.html), or over the epochs an animation (.gif).")
    method: str = option(
        "auto",
        "How codes become points; auto: the code itself, or PCA.",
        choices=("auto", "code", "pca", "tsne", "umap"),
    )
    dimensions: int = option(2, "Of the map.", choices=(2, 3))
    epochs: Path | None = option(
        None, "Snapshots (`train --snapshots N`): a map of each, as a strip or a GIF.", metavar="FOLDER"
    )
    limit: int = option(2000, "Pictures to show, drawn at random.", min=4)
    seed: int = option(0, "Of the draw, t-SNE and UMAP.", min=0)


@dataclass(frozen=True, kw_only=True)
class WalkFlags(OutputFlags):
    first: Path = argument("The picture to start at.", "A")
    last: Path = argument("The picture to end at.", "B")
    output: Path = output("walk.png")
    steps: int = option(10, "Pictures in a walk.", min=2)


@dataclass(frozen=True, kw_only=True)
class SampleFlags(OutputFlags):
    output: Path = output("samples.png")
    n: int = option(64, "How many.", flags=("-n",), min=1)
    grid: bool = option(False, "Of a code of two: its whole plane instead of draws.")
    seed: int = option(0, "Of the draws.", min=0)


@dataclass(frozen=True, kw_only=True)
class FeaturesFlags(OutputFlags):
    output: Path = output("features.png")
    n: int = option(64, "Filters and units to show, at most.", flags=("-n",), min=1)


@dataclass(frozen=True, kw_only=True)
class IndexFlags(OutputFlags):
    SUFFIXES = (".npz",)

    output: Path = output("index.npz", "File of codes, for `search`.")


@dataclass(frozen=True, kw_only=True)
class SearchFlags(OutputFlags):
    query: Path = argument("A picture.", "QUERY")
    gallery: Path = argument("A folder of pictures, or an index of one (.npz).", "FOLDER")
    k: int = option(10, "How many to find.", flags=("-k",), min=1)
    binary: int = option(0, "Compare this many bits instead of numbers, such as 64.", min=0)
    expand: int = option(
        1,
        "Query expansion: each code becomes the mean of so many codes of FOLDER nearest to it.",
        min=1,
    )


@dataclass(frozen=True, kw_only=True)
class DuplicatesFlags(OutputFlags):
    threshold: float = option(0.2, "How near: share of the median distance between neighbours.", min=0.0)


@dataclass(frozen=True, kw_only=True)
class AnomaliesFlags(OutputFlags):
    output: Path = output("anomalies.png")
    csv: Path | None = option(None, "Also write all scores to this file.", metavar="FILE.csv")
    odd: str | None = option(None, "Subfolders that hold the odd ones: prints the ROC AUC.", metavar="NAME[,NAME...]")
    score: str = option(
        "relative", "Squared error, or that divided by the contrast of the picture.", choices=("relative", "error")
    )
    n: int = option(12, "How many of the oddest to show.", flags=("-n",), min=1)


@dataclass(frozen=True)
class ProbeFlags(Options):
    test: Path | None = option(
        None, "Pictures to measure on, in the same subfolders; else a third of FOLDER.", metavar="FOLDER"
    )
    labels: int = option(10, "Labelled pictures a class.", min=2)
    seeds: int = option(5, "Draws of them to average over.", min=1)


def add(app: typer.Typer) -> None:
    """Adds `latent`, with its commands."""
    latent = group("Autoencoders of your own folder: map, search, generate, compress, find what is odd.")
    for name, body, *examples in (
        ("train", train, "pictures/ --code 32", "pictures/ --kind variational"),
        ("reconstruct", reconstruct, "pictures/", "pictures/ -o reconstructed.html -n 24"),
        ("map", map_codes, "pictures/", "pictures/ --method tsne -o map.html"),
        ("walk", walk, "a.jpg b.jpg", "a.jpg b.jpg -o walk.png"),
        ("sample", sample, "-o sampled.png", "-n 64 -o sampled.html"),
        ("features", features, "pictures/ -o features.png", "pictures/ -n 16"),
        ("index", index, "pictures/", "pictures/ -o index.npz --overwrite"),
        ("search", search, "photo.jpg pictures/ -k 10 -o found.png", "photo.jpg index.npz"),
        ("duplicates", find_duplicates, "pictures/", "pictures/ -o twins.html"),
        ("anomalies", anomalies, "pictures/ -n 20", "pictures/ --csv scores.csv"),
        ("probe", probe, "pictures/", "pictures/ --labels 20"),
        ("swap", swap, "a/ b/", "a/ b/ --pictures a-as-b/ -n 24"),
        ("train-codec", train_codec, "my-pictures/", "my-pictures/ --minutes 60"),
        ("compress", compress, "my-pictures/ -l 2", "my-pictures/ --compare"),
        ("decompress", decompress, "my-pictures.pictures", "a.pictures -o back/"),
    ):
        lines = [f"restore latent {name} {example}" for example in examples]
        add_command(latent, name, body, examples=lines, pictures=name != "sample")
    app.add_typer(latent, name="latent")


def train(folder: FolderFlags, model: ModelOptions, training: TrainingOptions) -> None:
    """Train an autoencoder on a folder of pictures."""
    from restore.latent.training import train_folder

    quiet = training.quiet
    result = train_folder(folder.folder, model, training, mute if quiet else say, True if quiet else None)
    if result.status == "interrupted":
        raise typer.Exit(130)


def reconstruct(folder: FolderFlags, model: WeightsFlags, flags: ReconstructFlags) -> None:
    """Show pictures, what is made of their codes, and the difference."""
    import numpy as np

    from restore.latent.views import write_sheet

    latent = model.load()
    pictures = latent.read(folder.folder, say)
    made = latent.reconstruct(pictures.pixels)
    error = float(((made - pictures.pixels.astype(np.float32) / 255) ** 2).mean())
    chosen = pictures.spread(flags.n)
    decoded = np.rint(made[chosen].clip(0, 1) * 255).astype(np.uint8)
    apart = np.abs(decoded.astype(int) - pictures.pixels[chosen]).astype(np.uint8)
    write_sheet(flags.output, [pictures.pixels[chosen], decoded, apart], "Reconstructions")
    print(f"mean squared error {error:.5f} over {len(pictures)} pictures (white is 1)")
    if latent.config.sigmoid_code:
        print(f"mean activation of the code {latent.encode(pictures.pixels).mean():.3f}")
    if latent.config.kind == "variational":
        likelihood = latent.log_likelihood(pictures.pixels, CODES).mean()
        print(f"log-likelihood {likelihood:.1f} nats a picture, importance-weighted by {CODES} codes each")
    say(f"{flags.output}: written")


def map_codes(folder: FolderFlags, model: WeightsFlags, flags: MapFlags) -> None:
    """Show where the codes of pictures lie, coloured by subfolder, beside PCA of the pixels."""
    animated = flags.output.suffix.lower() == ".gif"
    if animated and flags.epochs is None:
        raise UsageError("a GIF shows codes over the epochs: name the snapshots with --epochs FOLDER")
    files = [model.model] if flags.epochs is None else sorted(flags.epochs.glob("*.safetensors"))
    if not files:
        raise UsageError(
            f"{flags.epochs}: no snapshots in this folder; `restore latent train --snapshots 8` makes some"
        )

    import numpy as np

    from restore.evaluation.page import write_bytes
    from restore.latent.maps import map_gif, map_page_body, map_png, principal, project
    from restore.latent.views import write_view

    models = [replace(model, model=file).load() for file in files]
    pictures = models[-1].read(folder.folder, say)
    if len(pictures) > flags.limit:
        chosen = np.random.default_rng(flags.seed).choice(len(pictures), flags.limit, replace=False)
        pictures = pictures.subset(np.sort(chosen))
    maps = []
    for latent in models:
        points, method = project(latent.encode(pictures.pixels), flags.dimensions, flags.method, flags.seed)
        title = f"{latent.config.kind}, code of {latent.config.code}" if flags.epochs is None else latent.name
        maps.append((title if method == "code" else f"{title}, by {method}", points))
    if animated:
        write_bytes(flags.output, map_gif(maps, pictures))
    elif flags.epochs is not None:
        write_view(flags.output, map_png(maps, pictures, thumbs=False, columns=4), "Codes over the epochs")
    else:
        pixels = pictures.pixels.reshape(len(pictures), -1) / 255
        beside = [*maps, ("PCA of the pixels", principal(pixels, flags.dimensions))]
        body, script = map_page_body(maps[0][1], pictures, flags.seed)
        write_view(flags.output, map_png(beside, pictures), "Map of codes", body, script)
    say(f"{flags.output}: written")


def walk(flags: WalkFlags, model: WeightsFlags) -> None:
    """Show what lies between the codes of two pictures, along a line and along an arc."""
    import numpy as np

    from restore.latent import generating
    from restore.latent.views import write_sheet

    latent = model.load()
    ends = np.concatenate([_single(latent, path).pixels for path in (flags.first, flags.last)])
    first, last = latent.encode(ends)
    rows = [latent.decode(generating.walk(first, last, flags.steps, way)) for way in ("linear", "spherical")]
    rows = [np.concatenate([ends[:1], row, ends[1:]]) for row in rows]
    write_sheet(flags.output, rows, "From A to B: along a line, along an arc")
    say(f"{flags.output}: written")


def sample(flags: SampleFlags, model: WeightsFlags) -> None:
    """Show pictures of codes that were drawn by chance."""
    from restore.latent import generating
    from restore.latent.views import in_rows, write_sheet

    latent = model.load()
    if flags.grid:
        rows = generating.grid(latent, max(2, round(flags.n**0.5)))
    else:
        rows = in_rows(generating.sample(latent, flags.n, flags.seed))
    write_sheet(flags.output, rows, "Samples")
    say(f"{flags.output}: written")


def features(folder: FolderFlags, flags: FeaturesFlags, model: WeightsFlags) -> None:
    """Show the first filters, and what each unit of the code adds to a picture."""
    from restore.evaluation.page import check_output
    from restore.latent import generating
    from restore.latent.views import in_rows, inline, png, sheet, write_view

    one = flags.output.suffix.lower() == ".html"
    second = flags.output.with_name(f"{flags.output.stem}.units.png")
    if not one:
        check_output(second, flags.overwrite)
    latent = model.load()
    pictures = latent.read(folder.folder, say)
    filters = png(sheet(in_rows(generating.filters(latent, flags.n))))
    units = png(sheet(in_rows(generating.responses(latent, pictures.pixels, flags.n))))
    more = f"<h2>What each unit of the code adds</h2><p>{inline(units)}</p>"
    write_view(flags.output, filters, "First filters", more)
    if not one:
        write_view(second, units, "")
    say(f"{flags.output}{'' if one else f' and {second}'}: written")


def index(folder: FolderFlags, model: WeightsFlags, flags: IndexFlags) -> None:
    """Keep the codes of a folder in a file, for `search`."""
    from restore.latent.neighbours import index_of, write_index

    known = index_of(model.load(), folder.folder, say)
    write_index(flags.output, known)
    say(f"{flags.output}: codes of {len(known.paths)} pictures")


def search(flags: SearchFlags, model: WeightsFlags) -> None:
    """Find the pictures of a folder whose codes are nearest to a picture's, all at the same contrast."""
    if flags.binary % 8:
        raise UsageError(f"--binary {flags.binary}: bits come in eights, such as 64")

    from restore.latent.data import equal_contrast
    from restore.latent.neighbours import expanded, fit_hash, hamming, index_of, nearest, read_index
    from restore.latent.views import write_sheet

    latent = model.load()
    query = _single(latent, flags.query)
    if flags.gallery.suffix.lower() == ".npz" and flags.gallery.is_file():
        known = read_index(flags.gallery, latent)
    else:
        known = index_of(latent, flags.gallery, say)
    gallery, code = known.codes, latent.encode(equal_contrast(query.pixels))
    if flags.expand > 1:
        gallery, code = (expanded(known.codes, codes, flags.expand) for codes in (gallery, code))
    if flags.binary:
        to_bits = fit_hash(gallery, flags.binary)
        numbers, distances = hamming(to_bits(gallery), to_bits(code), flags.k)
    else:
        numbers, distances = nearest(gallery, code, flags.k)
    for number, distance in zip(numbers[0], distances[0], strict=True):
        print(f"{distance:g}\t{known.paths[number]}")
    if flags.output is not None:
        found = [_single(latent, Path(known.paths[number])).pixels[0] for number in numbers[0]]
        write_sheet(flags.output, [[query.pixels[0], *found]], f"Nearest to {flags.query.name}")
        say(f"{flags.output}: written")


def find_duplicates(folder: FolderFlags, flags: DuplicatesFlags, model: WeightsFlags) -> None:
    """List groups of pictures that look alike, one group a line, separated by tabs."""
    import numpy as np

    from restore.latent.neighbours import duplicates
    from restore.latent.views import BETWEEN, write_sheet

    latent = model.load()
    pictures = latent.read(folder.folder, say)
    groups = duplicates(latent.encode(pictures.pixels), flags.threshold)
    for alike in groups:
        print("\t".join(str(pictures.paths[number]) for number in alike))
    say(f"{len(groups)} groups among {len(pictures)} pictures")
    if flags.output is not None and groups:
        blank = np.full_like(pictures.pixels[0], BETWEEN)
        rows = [[*pictures.pixels[group[:8]], *[blank] * (8 - len(group))] for group in groups[:50]]
        write_sheet(flags.output, rows, "Pictures that look alike")
        say(f"{flags.output}: written")


def anomalies(folder: FolderFlags, flags: AnomaliesFlags, model: WeightsFlags) -> None:
    """List pictures by how badly they are reconstructed, and show where."""
    import numpy as np

    from restore.evaluation.page import check_output, write_text
    from restore.latent.anomalies import heat, scores, to_csv
    from restore.latent.extras import need
    from restore.latent.views import write_sheet
    from restore.pixels import to_rgb

    if flags.csv is not None:
        check_output(flags.csv, flags.overwrite, (".csv",))
    latent = model.load()
    pictures = latent.read(folder.folder, say)
    odd = None if flags.odd is None else [name.strip() for name in flags.odd.split(",")]
    unknown = [name for name in odd or [] if name not in pictures.classes]
    if unknown:
        raise UsageError(f"--odd {unknown[0]}: no such subfolder; there are {', '.join(pictures.classes)}")
    if odd is not None and set(odd) == set(pictures.classes):
        raise UsageError("--odd: these are all subfolders there are; one at least has to be usual")
    values, maps = scores(latent, pictures.pixels, flags.score == "relative")
    order = np.argsort(-values, kind="stable")[: flags.n]
    if flags.csv is not None:
        write_text(flags.csv, to_csv(pictures, values))
    worst = float(np.quantile(maps, 0.995))
    made = np.rint(latent.reconstruct(pictures.pixels[order]).clip(0, 1) * 255).astype(np.uint8)
    rows = [
        [to_rgb(pictures.pixels[number]) for number in order],
        [to_rgb(picture) for picture in made],
        [heat(pictures.pixels[number], maps[number], worst) for number in order],
    ]
    listed = "".join(f"<tr><td>{values[n]:.5f}</td><td>{html.escape(str(pictures.paths[n]))}</td></tr>" for n in order)
    table = f"<table><tr><th>score</th><th>file</th></tr>{listed}</table>"
    write_sheet(flags.output, rows, "The oddest: pictures, reconstructions, errors", table)
    for number in order:
        print(f"{values[number]:.5f}\t{pictures.paths[number]}")
    if odd is not None:
        area = need("sklearn.metrics").roc_auc_score([label in odd for label in pictures.labels], values)
        print(f"ROC AUC {area:.4f}")
    say(f"{flags.output}: written")


def probe(folder: FolderFlags, flags: ProbeFlags, model: WeightsFlags) -> None:
    """Measure what the code is worth to a classifier that has few labels; classes are subfolders."""
    import numpy as np

    from restore.latent import probing

    latent = model.load()
    learn = latent.read(folder.folder, say)
    if flags.test is None:
        mixed = np.random.default_rng(0).permutation(len(learn))
        test, learn = learn.subset(mixed[: len(mixed) // 3]), learn.subset(mixed[len(mixed) // 3 :])
    else:
        test = latent.read(flags.test, say)
        if not set(test.classes) <= set(learn.classes):
            raise UsageError(
                f"{flags.test}: the pictures have to be in subfolders as those of {folder.folder} are: "
                f"{', '.join(learn.classes)}"
            )
    fewest = min(learn.labels.count(name) for name in learn.classes)
    if len(learn.classes) < 2 or fewest < flags.labels:
        raise UsageError(
            f"{folder.folder}: a probe needs at least two subfolders of {flags.labels} pictures each beside those to "
            f"measure on; there are {len(learn.classes)}, and the smallest has {fewest}"
        )
    found = [probing.probe(latent, learn, test, flags.labels, seed) for seed in range(flags.seeds)]
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"{name:28} {100 * np.mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})")


def _single(latent: Latent, path: Path) -> Pictures:
    """One picture as the network takes it."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name one picture")
    return latent.read(path, mute)
