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
# Chosen by `benchmarks/auto.py --thresholds`, on 40 clean pictures of the validation set, and as many of each damage by
# our own operators: one clean picture is above, of camera noise, grain, noisy JPEG and blocks 40, 37, 40 and 40.
LEAST_NOISE = 1.5
LEAST_BLOCKS = 1.3
FAINT_STEP = 0.5  # of 255: added to all, since in drawings most steps are 0


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
        """Discards the result of denoising a healthy picture."""
        if spec.name != "denoise":
            return after
        noise = measure_noise(before.pixels, after.image.pixels)
        if not noise.found:
            after = Restored(before, nothing=True, change=after.change)
        return replace(after, note=noise.describe(), measured=asdict(noise))


@dataclass(frozen=True)
class Noise:
    """How noisy a picture is, and how visible the blocks of JPEG.

    Denoising takes detail off a healthy picture too, but only here and there, while noise is everywhere.

    Args:
        level: root mean square of what denoising changed, 0-255 scale: the median of the smoother half of the blocks of
            8x8 pixels.
        blocks: how much larger steps are across the borders of a grid of 8x8 pixels than within; 1 without blocks.
    """

    level: float
    blocks: float

    @property
    def found(self) -> bool:
        """Whether the picture is to be denoised."""
        return self.level >= LEAST_NOISE or self.blocks >= LEAST_BLOCKS

    def describe(self) -> str:
        """For people."""
        kind = "JPEG blocks, " if self.blocks >= LEAST_BLOCKS else ""
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
    return Noise(level, min(_grid(luma(noisy)), _grid(luma(noisy).T)))


def _middle(size: tuple[int, ...]) -> tuple[slice, ...]:
    """Rows and columns of the middle of a picture of `size` (H,W)."""
    return tuple(slice(max(0, side - JUDGED_SIDE) // 2, max(0, side - JUDGED_SIDE) // 2 + JUDGED_SIDE) for side in size)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """(H,W) as (h,8,w,8), without the rest at the right and bottom; smaller planes as one block."""
    height, width = (min(side, BLOCK) for side in plane.shape)
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    return plane[: rows * height, : columns * width].reshape(rows, height, columns, width)


def _grid(plane: np.ndarray) -> float:
    """How much larger third differences (H,W-3) are in every eighth column, the first of which may be any.

    They are high where a border of blocks separates the middle two of four pixels, and 0 on ramps. The median over the
    columns ignores single edges of the scene.
    """
    if plane.shape[1] < 4 * BLOCK:
        return 1.0
    steps = np.abs(plane[:, 3:] - 3 * plane[:, 2:-1] + 3 * plane[:, 1:-2] - plane[:, :-3])
    means = steps.mean(axis=0) + FAINT_STEP
    phases = [np.median(means[phase::BLOCK]) for phase in range(BLOCK)]
    return float(max(phases) / np.median(phases))
