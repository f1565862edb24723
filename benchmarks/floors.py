"""Says whether weights hold their floors on the frozen sets: the defaults of every task, or those named.

    RESTORE_DATA=... python benchmarks/floors.py [-m FILE ...] [--only WORD] [--peers] [--sheets FOLDER]

Pairs are scored as in `restore evaluate`; the baselines of inpaint and dewatermark get the true mask. "The better" of
two is the one with the higher mean over the set, and a gain over it is the mean of per-picture differences. `--peers`
(denoise only, slow) has wavelets, total variation and CBM3D of other libraries take part as well, each at four
strengths. Exit code 0: every minimum is reached, 1: one is not, 2: nothing could be measured.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from tqdm import tqdm

from restore import weights
from restore.devices import pick_device, pick_precision
from restore.evaluation.baselines import Baseline, choose
from restore.evaluation.evaluate import Model, all_methods, evaluate
from restore.evaluation.protocols import eight_bit
from restore.evaluation.report import worst_window
from restore.evaluation.results import Results, mean
from restore.evaluation.trials import Entry, Method, Prediction, Trial, find_entries, trials
from restore.images import Image, write_image
from restore.tasks import TASKS
from restore.tasks.base import load_task

CELL, GAP = 240, 8  # pixels, of a contact sheet
TRIPLES = 2  # side by side on it
STRENGTHS = (3, 6, 10, 15)  # h of non-local means: what is hard to choose for a picture is chosen for a whole set
SIGMAS = (5, 10, 17, 25)  # told to other denoisers: those strengths divided by 0.6
SCRATCHES, CLEAN_PICTURES = "damaged/scratches", 126
UNCHANGED = 99.0  # dB, for pictures that come back as they were: infinity has no mean


@dataclass(frozen=True)
class Line:
    """A measurement and its minimum (`floor`); without one it is only printed."""

    what: str
    value: float
    unit: str = "dB"
    floor: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value reaches the floor; NaN does not."""
        return self.floor is None or self.value >= self.floor

    def __str__(self) -> str:
        text = f"  {self.what}: {self.value:.3f} {self.unit}".rstrip()
        return text if self.floor is None else f"{text}, floor {self.floor:g}: {'holds' if self.holds else 'MISSED'}"


Judge = Callable[[Results], Iterator[Line]]


@dataclass(frozen=True)
class Bench:
    """A set of the benchmark, and what is asked of it. judge: results -> lines.

    rivals: who takes part beside the model; None: the baselines of the task. more: further folders of clean pictures,
    each taken as it is.
    """

    title: str
    judge: Judge
    clean: str
    corrupted: str | None = None
    masks: str | None = None
    rivals: tuple[Method, ...] | None = None
    more: tuple[str, ...] = ()

    def entries(self, bench: Path, limit: int | None) -> list[Entry]:
        """Its pictures, below the folder `bench`."""
        corrupted, masks = (None if name is None else bench / name for name in (self.corrupted, self.masks))
        found = find_entries(bench / self.clean, corrupted, masks, limit)
        for folder in self.more:
            found += find_entries(bench / folder, bench / folder, None, limit)
        return found


def _values(results: Results, case: str, method: str, key: str) -> list[float]:
    return [row.scores.get(key, math.nan) for row in results.of(case, method)]


def _over(results: Results, case: str, method: str, baselines: Sequence[str], key: str) -> tuple[str, float]:
    """The best baseline by its mean over the set, and the mean of the per-picture differences to it."""
    means = {name: mean(_values(results, case, name, key)) for name in baselines}
    best = max(means, key=lambda name: means[name])
    pairs = zip(_values(results, case, method, key), _values(results, case, best, key), strict=True)
    listed = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
    return listed if len(means) == 1 else f"{best}, the better of {listed}", mean(
        [ours - theirs for ours, theirs in pairs]
    )


def _inpaint(blind: float, given: float, iou: float | None) -> Judge:
    def judge(results: Results) -> Iterator[Line]:
        model = results.methods[-1].name
        for case, floor in (("pairs", blind), ("pairs, mask given", given)):
            baseline, gain = _over(results, case, model, ("telea", "navier-stokes"), "psnr_inside")
            yield Line(f"{case}: PSNR inside the mask", mean(_values(results, case, model, "psnr_inside")))
            yield Line(f"{case}: over {baseline}", gain, floor=floor)
            baseline, gain = _over(results, case, model, ("biharmonic",), "psnr_inside")
            yield Line(f"{case}: over {baseline}", gain)
        yield Line("mask found: mean IoU", mean(_values(results, "pairs", model, "mask_iou")), "", iou)

    return judge


def _dewatermark(least: float) -> Judge:
    def judge(results: Results) -> Iterator[Line]:
        model = results.methods[-1].name
        yield Line(
            "inside the mask, over the marked picture", mean(_values(results, "pairs", model, "gain")), floor=least
        )
        yield Line("the same of telea with the true mask", mean(_values(results, "pairs", "telea", "gain")))
        yield Line("mask found: mean IoU", mean(_values(results, "pairs", model, "mask_iou")), "")

    return judge


def _scratches(blind: float, given: float) -> Judge:
    def judge(results: Results) -> Iterator[Line]:
        model = results.methods[-1].name
        yield Line("found unaided, gain inside the mask", mean(_values(results, "pairs", model, "gain")), floor=blind)
        yield Line("the same of telea with the true mask", mean(_values(results, "pairs", "telea", "gain")))
        rivals = ("telea", "navier-stokes", "biharmonic")
        baseline, gain = _over(results, "pairs, mask given", model, rivals, "psnr_inside")
        yield Line(f"mask given: over {baseline}", gain, floor=given)
        yield Line("mask found: mean IoU", mean(_values(results, "pairs", model, "mask_iou")), "")

    return judge


def _untouched(least: int) -> Judge:
    """Clean pictures as input: only an unchanged 8-bit picture has infinite PSNR."""

    def judge(results: Results) -> Iterator[Line]:
        rows = results.of("pairs", results.methods[-1].name)
        changed = {row.picture: row.scores["psnr"] for row in rows if math.isfinite(row.scores["psnr"])}
        share = least / CLEAN_PICTURES  # with --limit there are fewer
        floor = least if len(rows) == CLEAN_PICTURES else math.floor(share * len(rows))
        yield Line(f"pictures of {len(rows)} left byte for byte", len(rows) - len(changed), "", floor)
        yield Line("lowest PSNR of the others", min(changed.values(), default=math.inf))
        yield Line(f"changed: {', '.join(sorted(changed)) or 'none'}", len(changed), "")

    return judge


def _colorize(results: Results) -> Iterator[Line]:
    (case, hinted), model = results.cases, results.methods[-1].name
    for baseline, floor in (("gray", 0.3), ("table", 0.3)):
        listed, gain = _over(results, case, model, (baseline,), "psnr")
        yield Line(f"RGB PSNR over {listed}", gain, floor=floor)
    _, difference = _over(results, case, model, ("gray",), "ciede2000")
    yield Line("CIEDE2000 below gray's", -difference, "", 0.5)
    yield Line("coloured pixels in the right hue", 100 * mean(_values(results, case, model, "hue_hits")), "%", 32)
    for method in ("table", model):
        share = mean(_values(results, case, method, "colorfulness")) / mean(
            _values(results, case, method, "true_colours")
        )
        yield Line(f"colourfulness of {method}, of the clean pictures'", 100 * share, "%")
    yield Line("correlation of ab", mean(_values(results, case, model, "ab_correlation")), "")
    for baseline, floor in (("gray", 3.0), ("levin", 1.0)):
        listed, gain = _over(results, hinted, model, (baseline,), "psnr")
        yield Line(f"{hinted}: RGB PSNR over {listed}", gain, floor=floor)


def _non_local_means(strength: int) -> Method:
    def restore(trial: Trial) -> Prediction:
        image = np.ascontiguousarray(eight_bit(trial.damage.image)[..., ::-1])  # OpenCV takes BGR
        return Prediction(
            np.asarray(cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 7, 21))[..., ::-1]
        )

    about = f"OpenCV fastNlMeansDenoisingColored, h = hColor = {strength}, patch 7, search 21"
    return Method(f"nl-means {strength}", "baseline", about, restore)


NON_LOCAL_MEANS = tuple(_non_local_means(strength) for strength in STRENGTHS)


def _peers() -> Iterator[Method]:
    """Denoisers of other libraries, which are told the level of the noise: each of several for a whole set."""
    chosen, missing = choose("denoise")
    for message in missing:
        print(message, file=sys.stderr)

    def restore(baseline: Baseline, sigma: int, trial: Trial) -> Prediction:
        return baseline.method().restore(replace(trial, params=SimpleNamespace(sigma=sigma)))

    for baseline in (one for one in chosen if one.name != "nl-means"):
        for sigma in SIGMAS:
            yield Method(f"{baseline.name} {sigma}", "baseline", baseline.about, partial(restore, baseline, sigma))


def _over_rivals(floor: float | None, absolute: float | None = None) -> Judge:
    """PSNR, and what it is over the best of all others, the damaged picture as it is among them."""

    def judge(results: Results) -> Iterator[Line]:
        (case,), model = results.cases, results.methods[-1].name
        values = _values(results, case, model, "psnr")
        yield Line(f"{case}: PSNR", mean(values), floor=absolute)
        rival, gain = _over(results, case, model, [method.name for method in results.methods[:-1]], "psnr")
        yield Line(f"{case}: over {rival}", gain, floor=floor)
        before = _values(results, case, results.methods[0].name, "psnr")
        least = min(range(len(values)), key=lambda number: values[number] - before[number])
        picture = results.of(case, model)[least].picture
        yield Line(f"{case}: least gain over the picture as it is ({picture})", values[least] - before[least])

    return judge


def _undamaged(least: float) -> Judge:
    def judge(results: Results) -> Iterator[Line]:
        values = [min(v, UNCHANGED) for v in _values(results, "pairs", results.methods[-1].name, "psnr")]
        yield Line("PSNR of pictures without damage", mean(values), floor=least)
        yield Line("lowest of them", min(values))

    return judge


def _denoise(kind: str, floor: float, rivals: tuple[Method, ...] = NON_LOCAL_MEANS) -> Bench:
    where = "damaged/denoise"
    return Bench(f"denoise-{kind}", _over_rivals(floor), f"{where}/clean", f"{where}/{kind}", rivals=rivals)


def _enlarge(scale: int, floor: float) -> Bench:
    where = f"damaged/super-resolve/x{scale}"
    return Bench(f"super-resolve-x{scale}", _over_rivals(floor), f"{where}/clean", f"{where}/corrupted")


def _clean(task: str) -> Bench:
    """Photographs, documents, charts and textures that are not damaged."""
    more = ("color24", "Set14", "damaged/untouched/clean")
    return Bench(f"{task}-clean", _untouched(124), "CBSD68", "CBSD68", rivals=(), more=more)


def _damaged(task: str, kind: str, judge: Judge) -> Bench:
    where = f"damaged/{task}/{kind}"
    return Bench(f"{task}-{kind}", judge, f"{where}/clean", f"{where}/corrupted", f"{where}/mask")


SETS: dict[str, tuple[Bench, ...]] = {
    "inpaint": (
        _damaged("inpaint", "png", _inpaint(0.3, 0.5, 0.9)),
        _damaged("inpaint", "jpg", _inpaint(-0.5, 0.5, None)),
        Bench(
            "inpaint-scratches",
            _scratches(7.0, 0.7),
            *(f"{SCRATCHES}/{part}" for part in ("clean", "corrupted", "mask")),
        ),
        _clean("inpaint"),
    ),
    "dewatermark": (
        _damaged("dewatermark", "png", _dewatermark(8.5)),
        _damaged("dewatermark", "jpg", _dewatermark(8.5)),
        _clean("dewatermark"),
    ),
    "denoise": (
        _denoise("jpeg-noise", 1.0),
        _denoise("grain", 1.0),
        _denoise("camera", 1.0),
        _denoise("blocks", 0.6, ()),
        Bench("denoise-real", _over_rivals(None, 37.4), "real/clean", "real/noisy", rivals=NON_LOCAL_MEANS),
        Bench("denoise-clean", _undamaged(42.0), "damaged/denoise/clean", "damaged/denoise/clean", rivals=()),
    ),
    "super-resolve": (_enlarge(2, 0.5), _enlarge(4, 0.5)),
    "colorize": (Bench("colorize-color24", _colorize, "color24"),),
}


def main() -> int:
    """Measures and prints."""
    flags = _flags()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    device = pick_device(flags.device)
    dtype = pick_precision(flags.precision, device)
    measured, sound = False, True
    for path in [Path(name) for name in flags.model or weights.shipped()]:
        name = weights.read_header(path).task
        if name not in SETS or name not in TASKS or not (flags.model or path.stem == name):
            continue  # variants are for other pictures than these
        model = Model(path, load_task(name), device, dtype)
        print(f"{path.name}: {model.about}, {dtype}")
        for known in SETS[name]:
            if flags.only and flags.only not in known.title:
                continue
            measured = True
            sound = _measure(known, model, Path(data) / "bench", flags) and sound
    if not measured:
        print(f"no weights for {', '.join(SETS)}; name files with -m", file=sys.stderr)
        return 2
    return int(not sound)


def _measure(known: Bench, model: Model, bench: Path, flags: argparse.Namespace) -> bool:
    """Measures one set, prints its lines and writes its contact sheet; whether every floor is reached."""
    spec = TASKS[model.header.task]
    task, damage = load_task(spec.name), spec.trial_options()
    chosen, _ = choose(spec.name, masks=known.corrupted is None or known.masks is not None)
    rivals = [baseline.method() for baseline in chosen] if known.rivals is None else known.rivals
    if flags.peers and spec.name == "denoise" and known.corrupted != known.clean:
        rivals = [*NON_LOCAL_MEANS, *_peers()]
    methods = all_methods([model], rivals)
    results = Results(spec.name, 0, "", methods)
    entries = known.entries(bench, flags.limit)
    for scored in tqdm(evaluate(entries, task, damage, methods), total=len(entries), desc=known.title, disable=None):
        results.add(scored)
    print(f"{known.title}, {len(entries) - len(results.failed)} pictures")
    for reason in results.failed.values():
        print(f"  failed: {reason}")
    if not results.rows:
        return False
    lines = list(known.judge(results))
    print("\n".join(map(str, lines)), flush=True)
    if flags.sheets:
        flags.sheets.mkdir(parents=True, exist_ok=True)
        target = flags.sheets / f"{model.path.stem}-{known.title}.png"
        shown = (next(trials(entry, task, damage, 0)) for entry in entries if entry.name not in results.failed)
        write_image(Image(contact_sheet(shown, methods[-1])), target, overwrite=True)
        print(f"  {target}")
    return not results.failed and all(line.holds for line in lines)


def contact_sheet(shown: Iterator[Trial], method: Method) -> np.ndarray:
    """Makes a contact sheet (H,W,3) uint8 of corrupted, restored and clean pictures.

    Pictures of colorize are shown whole, others as 1:1 crops with the largest error.
    """
    cells = []
    for trial in shown:
        three = [eight_bit(image) for image in (trial.identity, method.restore(trial).pixels, trial.clean)]
        if not trial.head.colours:
            top, left = worst_window(((three[1].astype(float) - three[2]) ** 2).sum(axis=-1), CELL)
            three = [image[top : top + CELL, left : left + CELL] for image in three]
        cells.append(np.concatenate([_cell(image) for image in three], axis=1))
    rows = [cells[start : start + TRIPLES] for start in range(0, len(cells), TRIPLES)]
    blank = np.full_like(cells[0], 255)
    return np.concatenate([np.concatenate([*row, *[blank] * (TRIPLES - len(row))], axis=1) for row in rows])


def _cell(image: np.ndarray) -> np.ndarray:
    """`image` on a white square, shrunk to fit."""
    scale = CELL / max(*image.shape[:2], CELL)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cell = np.full((CELL + GAP, CELL + GAP, 3), 255, np.uint8)
    cell[: size[1], : size[0]] = small
    return cell


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Says whether weights hold their floors on the frozen sets.")
    parser.add_argument("-m", "--model", action="append", metavar="FILE", help="these weights instead of the shipped")
    parser.add_argument("--only", metavar="WORD", help="only sets with this in their name, such as inpaint-png")
    parser.add_argument("--limit", type=int, help="only the first pictures of each set")
    parser.add_argument("--peers", action="store_true", help="compare denoise with other libraries as well, slowly")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="also write a contact sheet for each set")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
