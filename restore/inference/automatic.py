"""What a picture needs, judged by what the restorers themselves find in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from restore.images import Image
from restore.inference.pipeline import Pipeline
from restore.inference.restored import Restored
from restore.inference.restorer import Restorer
from restore.pixels import luma, to_float
from restore.tasks import TaskSpec

BLOCK = 8  # pixels: side of the blocks of JPEG
JUDGED_SIDE = 1024  # pixels of the middle of a picture that is judged
WORTHWHILE = 3  # times as many pixels as that, from which on the middle is denoised first
# Chosen by `benchmarks/auto.py --thresholds`: 2 of 220 clean pictures reach `LEAST_NOISE`, and 161 of 180 noisy ones of
# three kinds. `LEAST_STEP`, which JPEG of quality 60 has, is reached by no clean one and 59 of 60 of lower quality.
LEAST_NOISE = 3.5
LEAST_STEP = 10.0
# What both `dewatermark` and `inpaint` find is opaque, and left to the latter, if its odds are so many times as high:
# so are 22 of 46 bars that `dewatermark` took for marks, and 4 of 203 marks (`benchmarks/auto.py --thresholds`).
LEAST_ODDS_RATIO = 6.0
STEPS = range(3, 60)
# Horizontal plus vertical frequency, of the coefficients that are looked at; how many are needed; and how well they are
# multiples of a step, as the mean cosine of their phase.
LOW_FREQUENCIES, LEAST_COEFFICIENTS, LEAST_AGREEMENT = (1, 2, 3), 12, 0.5


class AutoPipeline(Pipeline):
    """A pipeline that denoises only pictures with noise or JPEG blocks.

    The steps that look for damage leave healthy pictures by themselves.
    """

    def skip_step(self, spec: TaskSpec, step: Restorer, image: Image) -> Restored | None:
        """Denoises the middle of a large picture first, since that is what is judged."""
        height, width = image.pixels.shape[:2]
        if spec.name != "denoise" or height * width < WORTHWHILE * JUDGED_SIDE**2:
            return None
        middle = np.ascontiguousarray(image.pixels[_middle((height, width))])
        before = Image(middle)
        after = self.accept(spec, before, step.restore(before))
        return replace(after, image=image) if after.nothing else None

    def accept(self, spec: TaskSpec, before: Image, after: Restored) -> Restored:
        """Discards the result of denoising a healthy picture, and of removing an opaque bar as if it were a mark."""
        if spec.name == "dewatermark" and not after.nothing and self._is_opaque(before, after):
            unmarked = np.zeros(before.pixels.shape[:2], bool)
            return Restored(before, unmarked, True, "what covers the picture is opaque, left to inpaint", 0.0)
        if spec.name != "denoise":
            return after
        noise = measure_noise(before.pixels, after.image.pixels)
        if not noise.found:
            after = Restored(before, nothing=True, change=after.change)
        return replace(after, note=noise.describe(), measured=asdict(noise))

    def _is_opaque(self, image: Image, mark: Restored) -> bool:
        inpainters = [step for spec, step in zip(self.specs, self.steps, strict=True) if spec.name == "inpaint"]
        return any(odds_ratio(mark, inpaint.examine(image)) >= LEAST_ODDS_RATIO for inpaint in inpainters)


@dataclass(frozen=True)
class Noise:
    """How noisy a picture is, and how strongly JPEG has compressed it.

    Denoising takes detail off a healthy picture too, but only here and there, while noise is everywhere.

    Args:
        level: root mean square of what denoising changed, 0-255 scale: the median of the smoother half of the blocks of
            8x8 pixels.
        jpeg_step: quantization step of JPEG, 0-255 scale: the median of those of low frequencies; 1 without JPEG, or
            where it is too fine to be seen.
    """

    level: float
    jpeg_step: float

    @property
    def found(self) -> bool:
        """Whether the picture is to be denoised."""
        return self.level >= LEAST_NOISE or self.jpeg_step >= LEAST_STEP

    def describe(self) -> str:
        """For people."""
        kind = "JPEG blocks, " if self.jpeg_step >= LEAST_STEP else ""
        return f"{kind}noise {self.level:.1f} of 255, {'denoised' if self.found else 'left as it is'}"


def measure_noise(before: np.ndarray, after: np.ndarray) -> Noise:
    """Measures the noise in the middle of a picture by what denoising changed.

    Args:
        before, after: the picture and its denoised version, (H,W,1 or 3), any supported dtype.
    """
    middle = _middle(before.shape[:2])
    noisy, clean = (255 * to_float(image[middle]) for image in (before, after))
    change = np.sqrt(_blocks(np.square(noisy - clean).mean(axis=-1)).mean(axis=(1, 3)))
    smoothness = _blocks(luma(clean)).std(axis=(1, 3))
    level = float(np.median(change[smoothness <= np.median(smoothness)]))
    return Noise(level, _jpeg_step(luma(noisy)))


def odds_ratio(mark: Restored, hole: Restored) -> float:
    """How many times as high the odds of a hole are as those of a mark; 0 where they do not overlap or are unknown."""
    if mark.mask is None or hole.mask is None or not (mark.mask & hole.mask).any():
        return 0.0
    if mark.confidence is None or hole.confidence is None:
        return 0.0
    found, doubted = hole.confidence * (1 - mark.confidence), mark.confidence * (1 - hole.confidence)
    return found / doubted if doubted else np.inf


def _middle(size: tuple[int, ...]) -> tuple[slice, ...]:
    """Rows and columns of the middle of a picture of `size` (H,W)."""
    return tuple(slice(max(0, side - JUDGED_SIDE) // 2, max(0, side - JUDGED_SIDE) // 2 + JUDGED_SIDE) for side in size)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """(H,W) as (h,8,w,8), without the rest at the right and bottom; smaller planes as one block."""
    height, width = (min(side, BLOCK) for side in plane.shape)
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    return plane[: rows * height, : columns * width].reshape(rows, height, columns, width)


def _jpeg_step(plane: np.ndarray) -> float:
    """The quantization step of JPEG, 0-255 scale, in luma (H,W) of the same scale; 1 if none is found.

    Coefficients of a decoded JPEG are near multiples of a step for each frequency, in blocks of one grid only (Fan and
    de Queiroz 2003, "Identification of bitmap compression history").
    """
    if min(plane.shape) < 2 * BLOCK:
        return 1.0
    sizes = np.abs(_coefficients(plane[_grid_start(plane.T) :, _grid_start(plane) :]))
    rows, columns = np.divmod(np.arange(BLOCK**2), BLOCK)
    low = sizes[:, np.isin(rows + columns, LOW_FREQUENCIES)].T
    differing = [np.unique(column.round(3)) for column in low]  # a drawing repeats a few blocks, which tell nothing
    found = [_step(column) for column in differing if np.sum(column > STEPS[0]) >= LEAST_COEFFICIENTS]
    return float(np.median(found)) if found else 1.0


def _grid_start(plane: np.ndarray) -> int:
    """The column of (H,W) at which blocks begin, 0 to 7.

    Third differences are high where a border separates the middle two of four pixels, and 0 on ramps. The median over
    the columns ignores single edges of the scene.
    """
    steps = np.abs(plane[:, 3:] - 3 * plane[:, 2:-1] + 3 * plane[:, 1:-2] - plane[:, :-3]).mean(axis=0)
    return (int(np.argmax([np.median(steps[phase::BLOCK]) for phase in range(BLOCK)])) + 2) % BLOCK


def _coefficients(plane: np.ndarray) -> np.ndarray:
    """The discrete cosine transform of the blocks of (H,W): (number of blocks, 64), the mean first."""
    index = np.arange(BLOCK)
    basis = np.cos(np.pi * (2 * index + 1) * index[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    blocks = _blocks(plane).transpose(0, 2, 1, 3).reshape(-1, BLOCK**2)
    coefficients: np.ndarray = blocks @ np.kron(basis, basis).T.astype(np.float32)
    return coefficients


def _step(sizes: np.ndarray) -> float:
    """The largest step of which the coefficients of a frequency are multiples; 1 if there is none. sizes: (N,), >= 0"""
    best = 1.0
    for step in STEPS:
        multiples = sizes[sizes > 0.4 * step]  # the others are 0, but those of half a step count against it
        if len(multiples) < LEAST_COEFFICIENTS:
            break
        if np.cos(2 * np.pi / step * multiples).mean() > LEAST_AGREEMENT:
            best = float(step)
    return best
