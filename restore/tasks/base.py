"""What a task is made of: a head that fits a network to one damage, and what to train and score it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from restore.corruptions.base import Corrupted, Corruption
from restore.metrics import masked_psnr
from restore.models.registry import Architecture
from restore.pixels import to_float
from restore.tasks.distances import Distance
from restore.tasks.spec import Options, TaskSpec


@dataclass(frozen=True)
class Window:
    """A tile: where it lies in the corrupted picture, in pixels of it."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index (H,W,...) with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Sample:
    """A training batch in float32, white at 1; what the damage does not have is None.

    corrupted (N,C,h,w), clean (N,C,H,W), mask and opacity (N,1,h,w), colour (N,C,h,w), hints (N,K,h,w).
    """

    corrupted: torch.Tensor
    clean: torch.Tensor
    mask: torch.Tensor | None = None
    opacity: torch.Tensor | None = None
    colour: torch.Tensor | None = None
    hints: torch.Tensor | None = None


@dataclass(frozen=True)
class Finding:
    """What a head knows of a whole picture before its tiles are restored; heads add fields of their own.

    mask: (H,W) bool, the pixels that may change; every other one stays as it is, and tiles without any are not
    computed. None: all may. note: why nothing is to be done, where that is so.
    """

    mask: np.ndarray | None = field(default=None, repr=False)
    note: str = ""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to restore."""
        return self.mask is not None and not self.mask.any()


class Look(Protocol):
    """The network, for a head that has to see the whole picture first. stage: what `Head.run` is told."""

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """Planes of a picture of bounded size in one piece: (C,h,w) -> (C',h',w'), float32, on the CPU."""
        ...

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """A picture of `size` (height, width), whatever that is, tile by tile.

        planes: what the network is to see of a tile, (C,h,w). Gives windows that cover the picture once, with
        the output for each, (C',h,w).
        """
        ...


class Head:
    """Fits an autoencoder to one damage; this one feeds RGB and takes RGB, as most damages want it.

    `analyse` sees the whole picture once; `planes` and `finish` see a tile. Pixels are float32 (h,w,3),
    white at 1, not clipped.
    """

    scale = 1  # how many times larger the restored picture is
    colours = False  # whether a gray picture may become a coloured one
    hinted = False  # whether a person can tell it colours: `analyse` is then given hints (H,W,4), and no mask
    upright = False  # whether a picture on its head is another one: `tta` then mirrors only
    tiles = True  # whether tiles go through the network; else `analyse` has done that, and `finish` gets no output
    training_stage = ""  # what `run` is told in training

    def analyse(self, image: np.ndarray, options: Any, look: Look, mask: np.ndarray | None = None) -> Any:
        """What there is to do, and what the tiles have to know of the whole picture (H,W,3), in its own dtype.

        mask: (H,W) bool, where a person says that the damage is; of use to heads that look for one. A `Finding`.
        """
        return Finding()

    def planes(self, pixels: np.ndarray, context: Any, window: Window) -> torch.Tensor:
        """What the network sees of a tile: (h,w,3) -> (C,h,w)."""
        return as_planes(pixels)

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """A batch through the network: (N,C,h,w) -> (N,C',h*scale,w*scale).

        stage: "" to restore, `training_stage` to train, or one of the head's own, that its `analyse` asks for.
        """
        result: torch.Tensor = network(planes, self.scale)
        return result

    def finish(self, output: torch.Tensor, pixels: np.ndarray, context: Any, window: Window) -> np.ndarray:
        """The network's output for a tile (C',h*scale,w*scale) as pixels (h*scale,w*scale,3)."""
        return output.numpy().transpose(1, 2, 0)

    def untouched(self, pixels: np.ndarray) -> np.ndarray:
        """What no restoration at all gives (`strength` 0), at the size of the restored tile."""
        return pixels

    def initial(self, config: Any) -> dict[str, torch.Tensor]:
        """Weights trained elsewhere that training a network of `config` starts from, by name; the rest starts fresh."""
        return {}

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """What training makes of a damaged patch beforehand, besides its planes: (h,w,K) float32."""
        return None

    def seen(self, sample: Sample) -> torch.Tensor:
        """What the network sees of a training batch."""
        return sample.corrupted

    def loss(self, prediction: torch.Tensor, sample: Sample, distance: Distance) -> torch.Tensor:
        """What training minimises: here the mean `distance` of all values."""
        return distance(prediction, sample.clean).mean()


@dataclass(frozen=True)
class Variant:
    """A corruption and the head that undoes it. A task that has several trains on all in turn.

    slack: how many times larger the clean patch is than what is left of it, where the damage shrinks some.
    coverage: share of the short side that a clean patch covers, lowest and highest; None: pixels as they are.
    """

    corruption: Corruption[Any]
    head: Head
    slack: int = 1
    coverage: tuple[float, float] | None = None


@dataclass(frozen=True)
class Case:
    """One line of a score table: a fixed damage, the head that undoes it, and how the result is scored.

    score: (restored, clean), both (H,W,3) -> a number where higher is better, in dB. inside: PSNR inside the
    mask of the damage is the score instead. given: the head is told where the damage is.
    """

    label: str
    variant: Variant
    score: Callable[[np.ndarray, np.ndarray], float]
    inside: bool = False
    given: bool = False

    def value(self, restored: np.ndarray, clean: np.ndarray, damage: Corrupted) -> float:
        """The score of a picture restored from `damage`; NaN where its mask is empty and that is what counts."""
        if self.inside and damage.mask is not None:
            return masked_psnr(restored, clean, damage.mask)
        return self.score(restored, clean)


class Task(Protocol):
    """A corruption and its matching head, under one name.

    arch, config: the architecture and config that `restore train` builds unless told otherwise.
    patch: side of a training patch as the network sees it, in pixels.
    """

    spec: TaskSpec
    arch: str
    config: Any
    patch: int

    def head(self, options: Any) -> Head:
        """The head for what a person asked for (an instance of `spec.options`)."""
        ...

    def operator(self, damage: Any) -> Corruption[Any]:
        """The corruption as `restore corrupt` applies it to files (an instance of `spec.damage`)."""
        ...

    def variants(self, damage: Any) -> list[Variant]:
        """What to train on (an instance of `spec.training_options`)."""
        ...

    def cases(self, damage: Any) -> list[Case]:
        """What to choose weights by, and to report (an instance of `training_options` or `trial_options`)."""
        ...

    def prepare(self, clean: np.ndarray, damage: Any, rng: np.random.Generator) -> np.ndarray:
        """A clean training patch before it is damaged: a task may turn some of them gray, say."""
        ...

    def config_for(self, config: Any, damage: Any) -> Any:
        """`config` fitted to the damage: a head for each scale, say."""
        ...


def as_planes(pixels: np.ndarray) -> torch.Tensor:
    """(H,W,C), any dtype -> (C,H,W) float32, white at 1."""
    return torch.from_numpy(np.ascontiguousarray(to_float(pixels).transpose(2, 0, 1)))


def restore_whole(
    network: Architecture, head: Head, image: np.ndarray, options: Options, mask: np.ndarray | None = None
) -> np.ndarray:
    """One picture through head and network in one piece: (H,W,1 or 3), any dtype -> float32 (H*scale,W*scale,3).

    The plain definition of what a restorer computes, without tiles; for pictures of moderate size.
    """
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    window = Window(0, 0, *image.shape[:2])
    pixels = to_float(image)
    context = head.analyse(image, options, Whole(network, head), mask)
    output = Whole(network, head).whole(head.planes(pixels, context, window)) if head.tiles else torch.empty(0)
    restored = head.finish(output, pixels, context, window)
    return restored if context.mask is None else np.where(context.mask[..., None], restored, pixels)


class Whole:
    """`Look` without tiles."""

    def __init__(self, network: Architecture, head: Head) -> None:
        self._network, self._head = network, head

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        batch = planes[None].to(next(self._network.parameters()).device)
        with torch.inference_mode():
            output = self._head.run(self._network, batch.contiguous(memory_format=torch.channels_last), stage)
        return output[0].float().cpu()

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        window = Window(0, 0, *size)
        yield window, self.whole(planes(window), stage)
