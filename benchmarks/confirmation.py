"""Fits the logistic regression of `restore/tasks/dewatermark/confidence.py`: watermarks or objects of the scene.

    RESTORE_DATA=... OMP_NUM_THREADS=1 python benchmarks/confirmation.py

The samples are detections in clean pictures of `train/` and `val/`, in pictures with opaque bars, which are left to
`inpaint`, and in pictures with the marks that training draws, exact and re-encoded. Positive are marks whose removal
gains at least 0.3 dB inside the mask. Fits on `train/` by scikit-learn; prints the weights, and for some thresholds how
many pictures would be changed and what that gains.
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
from restore.corruptions.occlusion_bars import OcclusionBars
from restore.corruptions.reencoded import Reencoded
from restore.corruptions.watermark_overlay import WatermarkOverlay
from restore.images import find_images, read_image
from restore.metrics import masked_psnr
from restore.models.registry import Architecture
from restore.pixels import to_dtype, to_float
from restore.tasks.base import Picture, WholePredictor
from restore.tasks.dewatermark.confidence import Evidence
from restore.tasks.dewatermark.task import EDGE, Detection, DewatermarkHead, Marks, detect_marks
from restore.tasks.mask_detection import dilate

MIN_GAIN = 0.3  # dB, of a positive sample
MIN_PIXELS = 50  # of a mark
GAIN_RANGE, GAIN_UNIT = (0.2, 6.0), 3.0  # dB: marked samples are weighted by their absolute gain, clipped and scaled
BARS = 0.1  # weight of a sample with bars; at 1 many marks are left as well
THRESHOLDS = (0.0, 1.0, 1.25, 1.6, 2.0, 2.5, 3.0)
# Checked by eye: these have watermarks, so that detections in them are correct.
MARKED_BEFORE = ("n02099601", "n02129604", "n02487347", "n02808440", "n07720875")


@dataclass(frozen=True)
class Case:
    """The sample of one picture.

    Args:
        part: "train" or "val", and the kind of marks, "bars" or "clean".
        evidence: of the detection; None if there is none.
        gain: of PSNR inside the mask by the removal, in dB; None: there is nothing to remove.
    """

    part: str
    evidence: Evidence | None
    gain: float | None = None


def cases(data: Path, network: Architecture) -> Iterator[Case]:
    """The samples of all pictures without marks, and of some of them with marks or bars."""
    for part, folder in (("train", "bsds"), ("train", "imagenet-1"), ("val", "bsds"), ("val", "imagenet")):
        paths = [path for path in find_images(data / part / folder) if not path.name.startswith(MARKED_BEFORE)]
        for path in tqdm(paths, desc=f"{part}/{folder}, clean"):
            detected = _detect(_rgb(path), network)
            yield Case(f"{part}, clean", detected and detected.evidence)
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
        paths = find_images(data / part / folder)[(first + 1) % step :: step]
        for number, path in enumerate(tqdm(paths, desc=f"{part}/{folder}, bars")):
            clean = _rgb(path)
            for share in (0.0, 1.0):
                operator = Reencoded(OcclusionBars(), share)
                params = operator.sample(clean.shape, np.random.default_rng((number, int(share))))
                detected = _detect(operator.apply(clean, params).image, network)
                yield Case(f"{part}, bars", detected and detected.evidence)


def _marked(clean: np.ndarray, part: str, share: float, seed: tuple[int, int], network: Architecture) -> Iterator[Case]:
    operator = Reencoded(WatermarkOverlay(), share)
    params = operator.sample(clean.shape, np.random.default_rng(seed))
    damaged, target = operator.apply(clean, params), to_float(operator.target(clean, params))
    assert damaged.mask is not None
    if np.count_nonzero(damaged.mask) < MIN_PIXELS:
        return
    image = to_dtype(to_float(damaged.image), np.uint8)
    detected = _detect(image, network)
    if detected is None:
        yield Case(part, None, 0.0)
        return
    head, picture, mask = DewatermarkHead(), Picture.of(image), dilate(detected.mask, EDGE)
    marks = Marks.at(mask.astype(np.uint8), (detected.blend,), picture.device)
    context = head.context(marks, picture.window)
    assert context is not None
    planes = head.preprocess(picture.planes(), context[None])[0]
    output = WholePredictor(network, head).whole(planes).numpy().transpose(1, 2, 0)
    restored = np.where(mask[..., None], output, to_float(image))
    gain = masked_psnr(restored, target, damaged.mask) - masked_psnr(to_float(image), target, damaged.mask)
    yield Case(part, detected.evidence, gain)


def _rgb(path: Path) -> np.ndarray:
    pixels = read_image(path).pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _detect(image: np.ndarray, network: Architecture) -> Detection | None:
    head = DewatermarkHead()
    with torch.autocast("cpu", torch.bfloat16):
        return detect_marks(Picture.of(image), WholePredictor(network, head), head)


def fit(found: list[Case]) -> tuple[np.ndarray, float]:
    """Fits the weights of the features and the intercept."""
    features = np.array([astuple(case.evidence) for case in found if case.evidence])
    gained = [case.gain is not None and case.gain > MIN_GAIN for case in found]
    scale = features.std(axis=0)  # the L2 penalty assumes features of one scale
    regression = LogisticRegression().fit(features / scale, gained, [_weight(case) for case in found])
    return regression.coef_[0] / scale, float(regression.intercept_[0])


def _weight(case: Case) -> float:
    if case.gain is None:
        return BARS if case.part.endswith("bars") else 1.0
    return float(np.clip(abs(case.gain), *GAIN_RANGE)) / GAIN_UNIT


def table(all_cases: list[Case], slopes: np.ndarray, intercept: float) -> str:
    """The number of pictures over each threshold of the log odds, and the mean gain, for each part."""
    parts = sorted({case.part for case in all_cases})
    lines = [f"| log odds | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for threshold in THRESHOLDS:
        cells = []
        for part in parts:
            here = [case for case in all_cases if case.part == part]
            taken = [c for c in here if c.evidence and intercept + slopes @ astuple(c.evidence) >= threshold]
            gains = [case.gain for case in taken if case.gain is not None]
            cells.append(f"{len(taken)} of {len(here)}" + (f", {sum(gains) / len(here):+.2f} dB" if gains else ""))
        lines.append(f"| {threshold:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Collects the samples, fits and prints."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-m", "--model", metavar="FILE", help="these weights instead of the shipped")
    flags = parser.parse_args()
    data = os.environ.get("RESTORE_DATA")
    if not data:
        print("RESTORE_DATA is not set; set it to the folder of the data sets", file=sys.stderr)
        return 2
    _, network = weights.load(weights.find("dewatermark", flags.model))
    everything = list(cases(Path(data), network.eval().to(memory_format=torch.channels_last)))
    slopes, intercept = fit([case for case in everything if case.evidence and case.part.startswith("train")])
    print(f"WEIGHTS = ({', '.join(f'{slope:.2f}' for slope in slopes)})\nINTERCEPT = {intercept:.2f}\n")
    print(table(everything, slopes, intercept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
