"""What tells a mark from a thing in the picture: fits the weights of `restore/tasks/dewatermark/confidence.py`.

    RESTORE_DATA=... OMP_NUM_THREADS=1 python benchmarks/confirmation.py

Pictures of `train/` and `val/` as they are, and others with the marks that training draws, exact and re-encoded. What
the finder sees twice in them is told apart by logistic regression (scikit-learn), fitted on those of `train/`. A
find is worth its while if undoing it gains 0.3 dB under the mark. Prints the weights, and a table of what they do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from restore import weights
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import find_images, read_image
from restore.metrics import masked_psnr
from restore.models.registry import Architecture
from restore.pixels import to_dtype, to_float
from restore.tasks.base import Whole, Window
from restore.tasks.dewatermark.confidence import Evidence
from restore.tasks.dewatermark.task import EDGE, DewatermarkHead, Marks, seen_twice

WORTH = 0.3  # dB
LEAST_PIXELS = 50  # of a mark that counts
WEIGHED = (0.2, 6.0), 3.0  # a find counts by the dB it gains or loses, within these, divided by that
THRESHOLDS = (0.0, 1.0, 2.0, 2.5, 3.0, 3.2, 3.5)
# Looked at one by one: these came with a watermark of their own, so what is found in them is no mistake.
MARKED_BEFORE = ("n02099601", "n02129604", "n02487347", "n02808440", "n07720875")


@dataclass(frozen=True)
class Case:
    """One picture. part: of `train` or `val`, and what is over it. gain: in dB under the mark, if it is undone."""

    part: str
    evidence: Evidence | None
    gain: float = 0.0


def cases(data: Path, network: Architecture) -> Iterator[Case]:
    """All that is looked at: everything clean, and a part of it marked."""
    for part, folder in (("train", "bsds"), ("train", "imagenet-1"), ("val", "bsds"), ("val", "imagenet")):
        paths = [path for path in find_images(data / part / folder) if not path.name.startswith(MARKED_BEFORE)]
        for path in tqdm(paths, desc=f"{part}/{folder}, clean"):
            found = _seen(_rgb(path), network)
            yield Case(f"{part}, clean", found and found[1])
    for part, folder, first, step in (
        ("train", "bsds", 1, 4),
        ("train", "imagenet-1", 1, 4),
        ("val", "bsds", 0, 1),
        ("val", "imagenet", 0, 1),
    ):
        paths = find_images(data / part / folder)[first::step]
        for number, path in enumerate(tqdm(paths, desc=f"{part}/{folder}, marked")):
            for kind, share in (("exact", 0.0), ("re-encoded", 1.0)):
                yield from _marked(_rgb(path), f"{part}, {kind}", share, (number, int(share)), network)


def _marked(clean: np.ndarray, part: str, share: float, seed: tuple[int, int], network: Architecture) -> Iterator[Case]:
    operator = Reencoded(WatermarkOverlay(), share)
    params = operator.sample(clean.shape, np.random.default_rng(seed))
    damaged, target = operator.apply(clean, params), to_float(operator.target(clean, params))
    assert damaged.mask is not None
    if np.count_nonzero(damaged.mask) < LEAST_PIXELS:
        return
    image = to_dtype(to_float(damaged.image), np.uint8)
    found = _seen(image, network)
    if found is None:
        yield Case(part, None)
        return
    marks = found[0].wider(EDGE)
    window, head = Window(0, 0, *image.shape[:2]), DewatermarkHead()
    painted = Whole(network, head).whole(head.planes(to_float(image), marks, window)).numpy().transpose(1, 2, 0)
    restored = np.where(marks.mask[..., None], painted, to_float(image))
    gain = masked_psnr(restored, target, damaged.mask) - masked_psnr(to_float(image), target, damaged.mask)
    yield Case(part, found[1], gain)


def _rgb(path: Path) -> np.ndarray:
    pixels = read_image(path).pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _seen(image: np.ndarray, network: Architecture) -> tuple[Marks, Evidence] | None:
    with torch.autocast("cpu", torch.bfloat16):
        return seen_twice(image, Whole(network, DewatermarkHead()))


def fitted(found: list[Case]) -> tuple[np.ndarray, float]:
    """The weights of the five figures, and what is added to their sum."""
    figures = np.array([astuple(case.evidence) for case in found if case.evidence])
    gains = np.array([case.gain for case in found])
    clean = np.array(["clean" in case.part for case in found])
    (least, most), unit = WEIGHED
    counted = np.where(clean, 1.0, np.clip(np.abs(gains), least, most) / unit)
    spread = figures.std(axis=0)  # so that the regression restrains all alike
    line = LogisticRegression().fit(figures / spread, gains > WORTH, counted)
    return line.coef_[0] / spread, float(line.intercept_[0])


def table(all_cases: list[Case], slopes: np.ndarray, start: float) -> str:
    """What each threshold of the log odds does to the pictures of each part."""
    parts = sorted({case.part for case in all_cases})
    lines = [f"| log odds | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for threshold in THRESHOLDS:
        cells = []
        for part in parts:
            here = [case for case in all_cases if case.part == part]
            taken = [c for c in here if c.evidence and start + slopes @ astuple(c.evidence) >= threshold]
            gain = sum(case.gain for case in taken) / len(here)
            cells.append(f"{len(taken)} of {len(here)}" + ("" if "clean" in part else f", {gain:+.2f} dB"))
        lines.append(f"| {threshold:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Looks at all pictures, fits and prints."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-m", "--model", metavar="FILE", help="these weights instead of the shipped")
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA does not say where the pictures are", file=sys.stderr)
        return 2
    _, network = weights.load(weights.find("dewatermark", flags.model))
    everything = list(cases(Path(data), network.eval().to(memory_format=torch.channels_last)))
    slopes, start = fitted([case for case in everything if case.evidence and case.part.startswith("train")])
    print(f"WEIGHTS = ({', '.join(f'{slope:.2f}' for slope in slopes)})\nSTART = {start:.2f}\n")
    print(table(everything, slopes, start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
