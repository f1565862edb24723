"""What `restore auto` finds in damaged and in clean pictures, and what it makes of two damages at once.

    RESTORE_DATA=... python benchmarks/auto.py [--limit N] [--only WORD] [--thresholds]

The first table counts, for each frozen set, the pictures in which each task found something; a picture is recognised
if the task of its set did, and a clean one if none did. The second table is of pictures of CBSD68 with two damages of
our own operators: PSNR of RGB against the clean picture, by each step alone, by both in a row, and by `restore auto`;
and in how many it came back better than by either step alone, of all and of those in which auto found both damages.
`--thresholds` shows instead what the thresholds were chosen by: pictures of the validation set, and of the training
set.
Exit code 0: nine of ten damaged pictures and 19 of 20 clean ones are recognised; 1: not; 2: nothing could be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from restore.corruptions.base import Corruption
from restore.corruptions.gaussian_noise import GaussianNoise
from restore.corruptions.jpeg_compression import JpegCompression
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.corruptions.print_damage import PrintDamage
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import Image, find_images, read_image
from restore.inference.automatic import LEAST_STEP, Noise, measure_noise, odds_ratio
from restore.inference.loading import load
from restore.inference.pipeline import Pipeline
from restore.inference.restored import Restored
from restore.inference.restorer import Restorer
from restore.metrics import psnr
from restore.pixels import luma, to_dtype, to_float
from restore.tasks.base import load_task
from restore.tasks.spec import NoiseTrial

DAMAGED, CLEAN = 0.9, 0.95  # least shares that are recognised
NOISE_THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0)  # to choose from, 0-255 scale
RATIOS = (3, 6, 12, 24)  # of odds, to choose from
LARGEST = 640  # pixels of a side of the pictures that thresholds are chosen by
EVERY = 8  # clean picture of the training set is among them
TASKS = ("denoise", "dewatermark", "inpaint")


@dataclass(frozen=True)
class Set:
    """Pictures of one damage.

    Args:
        folder: below the folder `bench`.
        task: which restores them; None for clean pictures.
        clean: folder of the clean versions; None: these are clean, or they are not at hand.
    """

    folder: str
    task: str | None = None
    clean: str | None = None


SETS = (
    *(Set(f"damaged/denoise/{kind}", "denoise", "damaged/denoise/clean") for kind in ("jpeg-noise", "grain")),
    *(Set(f"damaged/denoise/{kind}", "denoise", "damaged/denoise/clean") for kind in ("camera", "blocks")),
    *(
        Set(f"damaged/{task}/{kind}/corrupted", task, f"damaged/{task}/{kind}/clean")
        for task in ("inpaint", "dewatermark")
        for kind in ("png", "jpg")
    ),
    Set("damaged/scratches/corrupted", "inpaint", "damaged/scratches/clean"),
    Set("damaged/untouched/clean"),
    Set("CBSD68"),
    Set("Set14"),
    Set("color24"),
)


@dataclass(frozen=True)
class Pair:
    """Two damages at once: the operators in their order, and the tasks that restore from them in theirs."""

    title: str
    operators: tuple[Corruption[Any], Corruption[Any]]
    tasks: tuple[str, str]
    gray: bool = False  # of pictures that were made gray


NEGLIGIBLE = 0.01  # dB: what intermediate pictures of more than 8 bits make
NOISE = GaussianNoise((8.0, 25.0), clip=1.0)
PAIRS = (
    Pair("bars, then noise", (OcclusionBars(), NOISE), ("denoise", "inpaint")),
    Pair("scratches in gray, then noise", (PrintDamage("scratches"), NOISE), ("denoise", "inpaint"), gray=True),
    Pair(
        "watermark, then JPEG 25-60",
        (WatermarkOverlay(), JpegCompression((25, 60), twice=0.0)),
        ("denoise", "dewatermark"),
    ),
)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What `restore auto` finds in damaged and in clean pictures.")
    parser.add_argument("--limit", type=int, help="only the first pictures of each set")
    parser.add_argument("--only", metavar="WORD", help="only sets with this in their folder or title")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--thresholds", action="store_true", help="what thresholds were chosen by instead")
    flags = parser.parse_args()
    if not (data := os.environ.get("RESTORE_DATA")):
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    if flags.thresholds:
        _noise_thresholds(Path(data), flags.limit, flags.device)
        _odds_ratios(Path(data), flags.limit, flags.device)
        return 0
    bench = Path(data) / "bench"
    auto = load("auto", device=flags.device)
    assert isinstance(auto, Pipeline)
    sets = [known for known in SETS if not flags.only or flags.only in known.folder]
    recognised: dict[bool, list[bool]] = {True: [], False: []}
    if sets:
        print("| set | pictures | recognised | " + " | ".join(TASKS) + " | none | PSNR before | after |")
        print("|---|" + "---:|" * (len(TASKS) + 5))
    for known in sets:
        right = _measure(known, auto, bench, flags.limit)
        recognised[known.task is not None] += right
    for damaged, right in recognised.items():
        if right:
            print(f"\n{'damaged' if damaged else 'clean'}: {100 * np.mean(right):.1f} % of {len(right)} recognised")
    for pair in PAIRS:
        if not flags.only or flags.only in pair.title:
            _measure_pair(pair, auto, bench / "CBSD68", flags.limit or 20)
    if not sets:
        return 0
    good = {damaged: np.mean(right) if right else 1.0 for damaged, right in recognised.items()}
    return int(good[True] < DAMAGED or good[False] < CLEAN)


def _noise_thresholds(data: Path, limit: int | None, device: str) -> None:
    """Prints quantiles of what `measure_noise` says of clean pictures, and of some damaged by our own operators."""
    cases = load_task("denoise").cases(NoiseTrial(noise="photo"))
    operators = {case.label: case.pair.corruption for case in cases if not case.label.startswith("sigma")}
    denoise = load("denoise", device=device)
    measured: dict[str, list[Noise]] = {}
    for path, clean in _clean_pictures(data, limit):
        for label, operator in {"clean": None, **(operators if path.is_relative_to(data / "val") else {})}.items():
            rng = np.random.default_rng(zlib.crc32(f"{label} {path.stem}".encode()))
            pixels = clean if operator is None else operator.apply(clean, operator.sample(clean.shape, rng)).image
            pixels = to_dtype(to_float(pixels), np.uint8)
            measured.setdefault(label, []).append(measure_noise(pixels, denoise(pixels)))
    found_at = " / ".join(f"{threshold:g}" for threshold in NOISE_THRESHOLDS)
    quantiles = "noise 2 / 10 / 50 / 90 / 98 / 99 % | JPEG step 1 / 10 / 50 / 90 / 100 %"
    print(f"| to choose by | pictures | {quantiles} | found at {found_at} |")
    print("|---|---:|---:|---:|---:|")
    for label, values in measured.items():
        levels = np.quantile([one.level for one in values], (0.02, 0.1, 0.5, 0.9, 0.98, 0.99))
        steps = np.quantile([one.jpeg_step for one in values], (0.01, 0.1, 0.5, 0.9, 1))
        texts = (" / ".join(f"{value:.{digits}f}" for value in row) for digits, row in ((2, levels), (0, steps)))
        counts = [
            sum(one.jpeg_step >= LEAST_STEP or one.level >= least for one in values) for least in NOISE_THRESHOLDS
        ]
        print(f"| {label} | {len(values)} | {' | '.join(texts)} | {' / '.join(map(str, counts))} |", flush=True)


def _odds_ratios(data: Path, limit: int | None, device: str) -> None:
    """Prints how often `dewatermark` takes marks and bars for marks, and then `odds_ratio` reaches each threshold."""
    dewatermark, inpaint = load("dewatermark", device=device), load("inpaint", device=device)
    assert isinstance(dewatermark, Restorer)
    assert isinstance(inpaint, Restorer)
    ratios: dict[str, list[float]] = {}
    for path, clean in _clean_pictures(data, limit):
        for label, operator in {"marks": WatermarkOverlay(), "bars": OcclusionBars()}.items():
            for share in (0.0, 1.0):
                rng = np.random.default_rng(zlib.crc32(f"{label} {share} {path.stem}".encode()))
                damage = Reencoded(operator, share)
                pixels = damage.apply(clean, damage.sample(clean.shape, rng)).image
                damaged = Image(to_dtype(to_float(pixels), np.uint8))
                mark = dewatermark.examine(damaged)
                if not mark.nothing:
                    ratios.setdefault(label, []).append(odds_ratio(mark, inpaint.examine(damaged)))
    print(f"\n| taken for marks | pictures | odds of inpaint {' / '.join(map(str, RATIOS))} times as high |")
    print("|---|---:|---:|")
    for label, values in ratios.items():
        print(
            f"| {label} | {len(values)} | {' / '.join(str(sum(one >= least for one in values)) for least in RATIOS)} |"
        )


def _clean_pictures(data: Path, limit: int | None) -> Iterator[tuple[Path, np.ndarray]]:
    """Pictures of the validation set, and then of the training set, (H,W,C) with sides of at most `LARGEST`."""
    paths = [*find_images(data / "val", recursive=True), *find_images(data / "train", recursive=True)[::EVERY]]
    for path in tqdm(paths[:limit], disable=None):
        yield path, _at_most(read_image(path).pixels, LARGEST)


def _at_most(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture (H,W,C) shrunk until no side is longer."""
    factor = side / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    return np.ascontiguousarray(small.reshape(*small.shape[:2], pixels.shape[-1]))


def _measure(known: Set, auto: Pipeline, bench: Path, limit: int | None) -> list[bool]:
    """Prints the line of a set; whether each picture was recognised."""
    found: Counter[str] = Counter()
    right, scores = [], []
    clean = {} if known.clean is None else {path.stem: path for path in find_images(bench / known.clean)}
    for path in tqdm(find_images(bench / known.folder)[:limit], desc=known.folder, disable=None):
        image = read_image(path)
        result = auto.restore(image)
        done = {step.task for step in result.steps if step.done}
        found.update(done or {"none"})
        right.append(known.task in done if known.task else result.nothing)
        if path.stem in clean:
            target = read_image(clean[path.stem]).pixels
            scores.append([psnr(pixels, target) for pixels in (image.pixels, result.image.pixels)])
    before_after = [f"{value:.2f}" for value in np.mean(scores, axis=0)] if scores else ["", ""]
    counts = [str(found[name]) for name in (*TASKS, "none")]
    print(
        f"| {known.folder} | {len(right)} | {sum(right)} | " + " | ".join([*counts, *before_after]) + " |", flush=True
    )
    return right


def _measure_pair(pair: Pair, auto: Pipeline, folder: Path, limit: int) -> None:
    """Prints the table of two damages."""
    alone = [load(task) for task in pair.tasks]
    assert all(isinstance(step, Restorer) for step in alone)
    both = Pipeline([step for step in alone if isinstance(step, Restorer)])
    methods = {**dict(zip(pair.tasks, alone, strict=True)), "+".join(pair.tasks): both, "auto": auto}
    rows, found = [], []
    for clean, damaged in tqdm(_damaged(pair, folder, limit), total=limit, desc=pair.title, disable=None):
        results: list[Restored] = [method.restore(damaged) for method in methods.values()]
        rows.append([psnr(image.pixels, clean) for image in (damaged, *(result.image for result in results))])
        found.append(set(pair.tasks) <= {step.task for step in results[-1].steps if step.done})
    better, both = np.array(rows)[:, 4] > np.max(np.array(rows)[:, 1:3], axis=1) + NEGLIGIBLE, np.array(found)
    print(
        f"\n| {pair.title} | as it is | " + " | ".join(methods) + " | auto over the better step | where it found both |"
    )
    print("|---|" + "---:|" * (len(methods) + 3))
    means = " | ".join(f"{value:.2f}" for value in np.mean(rows, axis=0))
    wins = f"{better.sum()} of {len(rows)} | {(better & both).sum()} of {both.sum()}"
    print(f"| PSNR (dB), {len(rows)} pictures | {means} | {wins} |", flush=True)


def _damaged(pair: Pair, folder: Path, limit: int) -> Iterator[tuple[np.ndarray, Image]]:
    """Clean pixels, and the picture with both damages."""
    for path in find_images(folder)[:limit]:
        image = read_image(path)
        if pair.gray:
            image = replace(image, pixels=to_dtype(luma(to_float(image.pixels))[..., None], image.pixels.dtype))
        pixels = image.pixels
        rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
        for operator in pair.operators:
            pixels = operator.apply(pixels, operator.sample(pixels.shape, rng)).image
        yield image.pixels, replace(image, pixels=pixels)


if __name__ == "__main__":
    sys.exit(main())
