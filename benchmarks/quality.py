"""Measures the shipped weights on the field's standard sets and writes RESULTS.md beside this file.

    RESTORE_DATA=... python benchmarks/quality.py

Sets are scored as in `restore evaluate`; published values are listed beside, and marked as such.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from restore import __version__, weights
from restore.devices import describe, pick_device, pick_precision
from restore.evaluation.baselines import choose
from restore.evaluation.evaluate import Model, all_methods, evaluate
from restore.evaluation.page import write_text
from restore.evaluation.results import SPEED, Results, columns, lines, mean, notes, show
from restore.evaluation.trials import Entry, find_entries
from restore.images import read_image
from restore.inference.restorer import Restorer
from restore.tasks import TASKS
from restore.tasks.base import Case, Task, load_task
from restore.tasks.spec import Options

MEGAPIXEL_SIDE = 1008  # 1.016 megapixels; a multiple of 2, 3, 4 and of the strides


@dataclass(frozen=True)
class TestSet:
    """A test set.

    Args:
        folder: below $RESTORE_DATA/bench.
        published: PSNR in dB by method and case, from papers.
        frozen: the folder holds pairs, in `clean`, `corrupted` and `mask`.
    """

    folder: str
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    frozen: bool = False

    def entries(self, bench: Path, limit: int | None) -> list[Entry]:
        """Its pictures, below the folder `bench`."""
        place = bench / self.folder
        if not self.frozen:
            return find_entries(place, limit=limit)
        return find_entries(place / "clean", place / "corrupted", place / "mask", limit)


def _noise(*values: float) -> dict[str, float]:
    return dict(zip(("sigma 15", "sigma 25", "sigma 50"), values, strict=True))


def _scales(double: float, fourfold: float) -> dict[str, float]:
    return {"x2": double, "x4": fourfold}


SETS: dict[str, tuple[TestSet, ...]] = {
    "denoise": (
        TestSet(
            "CBSD68",
            {
                "CBM3D": _noise(33.52, 30.71, 27.38),
                "CDnCNN (0.67 M parameters)": _noise(33.90, 31.24, 27.95),
                "FFDNet (0.85 M)": _noise(33.87, 31.21, 27.96),
                "DRUNet (32.6 M)": _noise(34.30, 31.69, 28.51),
                "Restormer (26 M)": _noise(34.40, 31.79, 28.60),
            },
        ),
    ),
    "super-resolve": (
        TestSet(
            "Set5",
            {
                "bicubic": _scales(33.66, 28.42),
                "SRCNN": _scales(36.66, 30.48),
                "VDSR": _scales(37.53, 31.35),
                "CARN-M (0.41 M parameters)": _scales(37.53, 31.92),
                "CARN (1.6 M)": _scales(37.76, 32.13),
                "SwinIR-light (0.9 M)": _scales(38.14, 32.44),
            },
        ),
        TestSet(
            "Set14",
            {
                "bicubic": _scales(30.24, 26.00),
                "SRCNN": _scales(32.45, 27.50),
                "VDSR": _scales(33.03, 28.01),
                "CARN-M (0.41 M parameters)": _scales(33.26, 28.42),
                "CARN (1.6 M)": _scales(33.52, 28.60),
                "SwinIR-light (0.9 M)": _scales(33.86, 28.77),
            },
        ),
    ),
    "inpaint": (TestSet("damaged/inpaint/png", frozen=True), TestSet("damaged/inpaint/jpg", frozen=True)),
    "dewatermark": (
        TestSet("damaged/dewatermark/png", frozen=True),
        TestSet("damaged/dewatermark/jpg", frozen=True),
        TestSet("CBSD68"),
    ),
    "colorize": (TestSet("color24"),),
}


def main() -> int:
    """Measures and writes; exit code 1 if a picture could not be scored, 2 if there is nothing to measure."""
    flags = _flags()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    device = pick_device(flags.device)
    dtype = pick_precision(flags.precision, device)
    found = [Path(name) for name in flags.model or weights.shipped()]
    by_task: dict[str, list[Model]] = {}
    for path in found:
        name = weights.read_header(path).task
        if name in SETS:
            by_task.setdefault(name, []).append(Model(path, load_task(name), device, dtype))
    if not by_task:
        print("no weights for any of the test sets; name files with -m", file=sys.stderr)
        return 2
    parts, failed = [_opening(device, dtype, flags.limit)], False
    for name, models in by_task.items():
        task, damage = load_task(name), TASKS[name].trial_options()
        parts.append(f"## {name}\n")
        for known in SETS[name]:
            results = _measure(task, damage, models, known, Path(data) / "bench", flags)
            failed = failed or bool(results.failed)
            parts.append(_section(known, results))
        photo = _photo(SETS[name][0].entries(Path(data) / "bench", 1)[0].clean)
        parts.append(_costs(task, damage, models, photo, flags.repeat))
    write_text(flags.out, "\n".join(parts))
    print(f"{flags.out.name}: written", file=sys.stderr)
    return int(failed)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the shipped weights and writes RESULTS.md.")
    parser.add_argument("-m", "--model", action="append", metavar="FILE", help="these weights instead of the shipped")
    parser.add_argument("--limit", type=int, help="only the first pictures of each set")
    parser.add_argument("--slow-limit", type=int, default=8, help="pictures for slow baselines such as cbm3d; 0: none")
    parser.add_argument("--repeat", type=int, default=5, help="timings of which the median counts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    return parser.parse_args()


def _measure(
    task: Task, damage: Options, models: Sequence[Model], known: TestSet, bench: Path, flags: argparse.Namespace
) -> Results:
    """Scores all methods on a set, the slow ones on its first pictures only."""
    baselines, missing = choose(task.spec.name)
    quick = all_methods(models, [baseline.method() for baseline in baselines if not baseline.slow])
    results = Results(task.spec.name, 0, "", quick, notes=missing)
    entries = known.entries(bench, flags.limit)
    for scored in tqdm(evaluate(entries, task, damage, quick), total=len(entries), desc=known.folder):
        results.add(scored)
    slow = [baseline.method() for baseline in baselines if baseline.slow]
    few = entries[: flags.slow_limit]
    if not slow or not few:
        return results
    for scored in tqdm(evaluate(few, task, damage, slow), total=len(few), desc=f"{known.folder}, slow"):
        results.add(scored)
    results.methods = [*quick, *slow]
    return results


def _section(known: TestSet, results: Results) -> str:
    """The table of a set: measured means, means on the subset of slow methods, published values."""
    shown = columns(results)
    titles = ["case", "method", "pictures", *(title for _, title, _ in shown)]
    text = [f"### {known.folder}\n", f"| {' | '.join(titles)} |", f"|---|---|{'---:|' * (len(titles) - 2)}"]
    table = lines(results)
    for case in results.cases:
        of_case = [line for line in table if line.case == case]
        full = max(line.pictures for line in of_case)
        for line in of_case:
            cells = [show(line.scores.get(key, float("nan")), form) for key, _, form in shown]
            name = f"**{line.method}**" if _kind(results, line.method) == "model" else line.method
            text.append(f"| {case} | {name} | {line.pictures} | {' | '.join(cells)} |")
            if line.pictures < full:
                text += _same_pictures(results, case, line.method)
        for method, values in known.published.items():
            if case in values:
                blank = " |" * (len(shown) - 1)
                text.append(f"| {case} | {method}, *published, not measured* | | {values[case]:.2f} |{blank}")
    text += ["", *(f"{note}\n" for note in notes(results))]
    text += [f"- {method.name}: {method.about}" for method in results.methods]
    text += [f"- failed: {reason}" for reason in results.failed.values()]
    return "\n".join([*text, ""])


def _same_pictures(results: Results, case: str, method: str) -> list[str]:
    """Rows of the models on the subset of pictures on which a slow method was scored."""
    pictures = {row.picture for row in results.of(case, method)}
    text = []
    for model in (one for one in results.methods if one.kind == "model"):
        rows = [row for row in results.of(case, model.name) if row.picture in pictures]
        values = [
            show(mean([row.scores[key] for row in rows]), form) if key != SPEED else ""
            for key, _, form in columns(results)
        ]
        text.append(f"| {case} | **{model.name}** on the pictures of {method} | {len(rows)} | {' | '.join(values)} |")
    return text


def _kind(results: Results, name: str) -> str:
    return next(method.kind for method in results.methods if method.name == name)


def _photo(path: Path) -> np.ndarray:
    """A photograph tiled to `MEGAPIXEL_SIDE` pixels a side; not noise, since some heads depend on the content."""
    image = read_image(path).pixels
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    for axis in (0, 1):
        times = -(-MEGAPIXEL_SIDE // image.shape[axis])
        copies = [np.flip(image, axis) if number % 2 else image for number in range(times)]
        image = np.concatenate(copies, axis).take(range(MEGAPIXEL_SIDE), axis)
    return image


def _costs(task: Task, damage: Options, models: Sequence[Model], photo: np.ndarray, repeat: int) -> str:
    """Parameters, FLOPs and seconds of each model, a line for each scale."""
    by_scale: dict[int, Case] = {case.pair.head.scale: case for case in task.cases(damage)}
    text = ["### Cost\n", "| weights | scale | parameters | FLOPs a pixel of output | seconds a megapixel |"]
    text.append("|---|---:|---:|---:|---:|")
    for model in models:
        millions = sum(p.numel() for p in model.network.parameters()) / 1e6
        for scale, case in by_scale.items():
            flops, seconds = _cost(model, case, task, photo, repeat)
            text.append(f"| {model.path.stem} | {scale} | {millions:.2f} M | {flops / 1e3:.0f} k | {seconds:.2f} |")
    about = (
        "FLOPs: torch's FlopCounterMode, two for a multiplication with addition, convolutions only, in one tile. "
        f"Parameters: of the whole file. Seconds: through the restorer, the median of {repeat} after one to warm up. "
        f"Both on a photograph of {MEGAPIXEL_SIDE}x{MEGAPIXEL_SIDE} pixels of output, damaged as in the first case of "
        "each scale."
    )
    return "\n".join([*text, "", about, ""])


def _cost(model: Model, case: Case, task: Task, photo: np.ndarray, repeat: int) -> tuple[float, float]:
    """FLOPs a pixel of output, and seconds a megapixel."""
    corruption = case.pair.corruption
    damaged = corruption.apply(photo, corruption.sample(photo.shape, np.random.default_rng(0))).image

    def restorer(tile: int) -> Restorer:
        return Restorer(case.pair.head, model.network, task.spec.options(), model.device, model.dtype, tile)

    with FlopCounterMode(display=False) as counter:
        restorer(MEGAPIXEL_SIDE)(damaged)
    restore, times = restorer(0), []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        restore(damaged)  # the result is on the host: nothing is left running on the device
        times.append(time.perf_counter() - start)
    return counter.get_total_flops() / MEGAPIXEL_SIDE**2, statistics.median(times[1:]) / (MEGAPIXEL_SIDE**2 / 1e6)


def _opening(device: torch.device, dtype: torch.dtype, limit: int | None) -> str:
    limited = f"**Only the first {limit} pictures of each set: a trial, not a result.**\n" if limit else ""
    return (
        "# Measured quality\n\n"
        "Written by `python benchmarks/quality.py`; bold rows are the weights of the package."
        f" Rows marked *published* are quoted from the literature and were not measured here.\n\n{limited}\n"
        f"restore {__version__}, torch {torch.__version__}, {describe(device, dtype)}; {_processor()}, "
        f"{os.cpu_count()} logical cores, Python {platform.python_version()}.\n"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names: Iterable[str] = (
        line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")
    )
    return next(iter(names), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
