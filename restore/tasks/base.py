"""What a task is made of: a head that fits a network to one damage, and what to train and score it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from restore.corruptions.base import Corruption
from restore.models.registry import Architecture
from restore.pixels import to_float
from restore.tasks.spec import Options, TaskSpec


@dataclass(frozen=True)
class Window:
    """A tile: where it lies in the corrupted picture, in pixels of it."""

    top: int
    left: int
    height: int
    width: int


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


class Head:
    """Fits an autoencoder to one damage; this one feeds RGB and takes RGB, as most damages want it.

    `analyse` sees the whole picture once, at whatever size it likes to work on; `planes` and `finish`
    see a tile. Pixels are float32 (h,w,3), white at 1, not clipped.
    """

    scale = 1  # how many times larger the restored picture is
    colours = False  # whether a gray picture may become a coloured one

    def analyse(self, image: np.ndarray, options: Options) -> Any:
        """What the tiles have to know of the whole picture (H,W,3), in its own dtype."""
        return None

    def planes(self, pixels: np.ndarray, context: Any, window: Window) -> torch.Tensor:
        """What the network sees of a tile: (h,w,3) -> (C,h,w)."""
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def run(self, network: Architecture, planes: torch.Tensor) -> torch.Tensor:
        """A batch through the network: (N,C,h,w) -> (N,C',h*scale,w*scale)."""
        result: torch.Tensor = network(planes, self.scale)
        return result

    def finish(self, output: torch.Tensor, pixels: np.ndarray, context: Any, window: Window) -> np.ndarray:
        """The network's output for a tile (C',h*scale,w*scale) as pixels (h*scale,w*scale,3)."""
        return output.numpy().transpose(1, 2, 0)

    def untouched(self, pixels: np.ndarray) -> np.ndarray:
        """What no restoration at all gives (`strength` 0), at the size of the restored tile."""
        return pixels

    def loss(self, prediction: torch.Tensor, sample: Sample) -> torch.Tensor:
        """What training minimises; here the mean absolute error (L1)."""
        return F.l1_loss(prediction, sample.clean)


@dataclass(frozen=True)
class Variant:
    """A corruption and the head that undoes it. A task that has several trains on all in turn."""

    corruption: Corruption[Any]
    head: Head


@dataclass(frozen=True)
class Case:
    """One line of a score table: a fixed damage, the head that undoes it, and how the result is scored.

    score: (restored, clean), both (H,W,3) -> a number where higher is better, in dB.
    """

    label: str
    variant: Variant
    score: Callable[[np.ndarray, np.ndarray], float]


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


def restore_whole(network: Architecture, head: Head, image: np.ndarray, options: Options) -> np.ndarray:
    """One picture through head and network in one piece: (H,W,3), any dtype -> float32 (H*scale,W*scale,3).

    The plain definition of what a restorer computes, without tiles; for pictures of moderate size.
    """
    window = Window(0, 0, *image.shape[:2])
    pixels = to_float(image)
    context = head.analyse(image, options)
    parameter = next(network.parameters())
    planes = head.planes(pixels, context, window)[None].to(parameter.device)
    with torch.inference_mode():
        output = head.run(network, planes.contiguous(memory_format=torch.channels_last))
    return head.finish(output[0].float().cpu(), pixels, context, window)
