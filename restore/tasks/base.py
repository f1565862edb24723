"""The interfaces of tasks: heads, which fit a network to one damage, training pairs and evaluation cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch

from restore.corruptions.base import Corrupted, Corruption
from restore.errors import UsageError
from restore.metrics import masked_psnr, psnr
from restore.models.registry import Architecture
from restore.tasks.functional import as_tensor, to_pixels, to_planes
from restore.tasks.losses import PixelLoss
from restore.tasks.spec import Options, TaskSpec, task_spec


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture.

    Args:
        top, left, height, width: in pixels of the corrupted picture.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index (H,W,...) with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def lower(self, rows: int) -> Window:
        """The same window of a picture that begins so many rows further down."""
        return Window(self.top - rows, self.left, self.height, self.width)


@dataclass(frozen=True)
class Sample:
    """A training batch in float32, white at 1; what the damage does not have is None."""

    corrupted: torch.Tensor  # (N,C,h,w)
    clean: torch.Tensor  # (N,C,h*scale,w*scale)
    mask: torch.Tensor | None = None  # (N,1,h,w), 1 where pixels are damaged
    opacity: torch.Tensor | None = None  # (N,1,h,w) of an overlay
    colour: torch.Tensor | None = None  # (N,C,h,w) of an overlay
    hints: torch.Tensor | None = None  # (N,K,h,w), what `Head.hints` gave


@dataclass(frozen=True)
class Picture:
    """The picture that a head analyses: as an array on the host, and in windows on the computing device."""

    array: np.ndarray  # (H,W,1 or 3) uint8, uint16 or floating point
    # The same as a tensor (H,W,1 or 3), on the computing device or, if it is too large for that, on the host
    pixels: torch.Tensor = field(repr=False)
    device: torch.device  # where `planes` are wanted

    @classmethod
    def of(cls, array: np.ndarray, device: torch.device | None = None) -> Picture:
        """The picture in `array`, moved to `device` (the CPU, if None)."""
        device = device or torch.device("cpu")
        return cls(array, as_tensor(array).to(device), device)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def window(self) -> Window:
        """The window that covers the whole picture."""
        return Window(0, 0, *self.size)

    @property
    def rgb(self) -> np.ndarray:
        """The array as (H,W,3); a read-only view for gray pictures."""
        return np.broadcast_to(self.array, (*self.size, 3))

    def planes(self, window: Window | None = None) -> torch.Tensor:
        """RGB planes of a window (None: of the whole picture): (1,3,h,w) float32 on the computing device."""
        pixels = self.pixels if window is None else self.pixels[window.slices]
        return to_planes(pixels[None].to(self.device)).expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Analysis:
    """The result of analysing a whole picture before its tiles are restored; heads add fields of their own."""

    # (H,W) bool on the host: the pixels that may change. All others stay bit-identical, and tiles without any are not
    # computed. None: all pixels may change
    mask: np.ndarray | None = field(default=None, repr=False)
    note: str = ""  # a message for the user, such as why nothing is restored
    # How likely what was detected is damage, 0 to 1, also where it is left unchanged for being uncertain; None where
    # nothing was detected
    confidence: float | None = None

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to restore."""
        return self.mask is not None and not self.mask.any()


class Predictor(Protocol):
    """The network, as heads use it in `Head.analyse`."""

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """Runs a `stage` of the network on (C,h,w) of bounded size, from any device, without tiles.

        Returns:
            (C',h',w') float32 on the computing device.
        """
        ...

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """Runs the network on a picture of any size, tile by tile.

        Args:
            size: height and width of the picture.
            planes: makes the network input (C,h,w) of a window, on the computing device.
            stage: as in `Head.run`.

        Yields:
            Disjoint windows that cover the picture, with the network output (C',h,w) float32 of each.
        """
        ...


OptionsT = TypeVar("OptionsT", bound=Options)
AnalysisT = TypeVar("AnalysisT", bound=Analysis)


class Head(Generic[OptionsT, AnalysisT]):
    """Fits an autoencoder to one damage.

    `analyse`, and `complete` where it is restored, are called once for the whole picture. `context`, `preprocess` and
    `postprocess` work on tiles in torch, on the device of the picture; tiles of one shape are processed as one batch.
    """

    scale = 1  # upscaling factor of the restored picture
    colours = False  # whether a gray picture may become a coloured one
    masked = False  # whether it detects damage, or takes a mask of it
    hinted = False  # whether a person may tell it colours: `analyse` is then given hints (H,W,4), and no mask
    fills = False  # whether what a given mask marks is made up, and thus opaque even where the picture is transparent
    upright = False  # whether turning a picture changes what it shows: self-ensemble then only mirrors
    # Self-ensemble where pixels are restored: the quarter turns of the views, each of which is mirrored too; (): none
    turns: tuple[int, ...] = ()
    reach = 0  # pixels around each one that `postprocess` looks at
    runs_network = True  # whether tiles go through the network; else `analyse` has done that
    training_stage = ""  # what `run` is told in training
    max_strength = 1.0  # beyond 1: what `stronger` gives

    def check(self, network: Architecture) -> None:
        """Checks that a network can do what this head needs, before any picture is restored.

        Raises:
            UsageError: it cannot.
        """

    def stronger(self, strength: float) -> Head[OptionsT, AnalysisT]:
        """This head for a strength above 1, up to `max_strength`."""
        return self

    def describe_change(self, change: float) -> str:
        """What a person is told of a picture that changed by `change` (root mean square, 0-255 scale); may be empty."""
        return ""

    def analyse(
        self, picture: Picture, options: OptionsT, predict: Predictor, mask: np.ndarray | None = None
    ) -> AnalysisT:
        """Analyses the whole picture once, before its tiles are restored.

        Args:
            picture: the corrupted picture.
            options: of the task.
            predict: the network.
            mask: (H,W) bool, the damaged pixels as given by the user; None: the head detects them. Of a `hinted` head:
                (H,W,4) RGB and alpha in any dtype, known colours where alpha is opaque.
        """
        analysis = self.static_analysis()
        if analysis is None:
            raise NotImplementedError
        return analysis

    def complete(self, picture: Picture, analysis: AnalysisT, predict: Predictor) -> AnalysisT:
        """Adds to the analysis of a picture that is restored what only this needs, and not what was found in it."""
        return analysis

    def static_analysis(self) -> AnalysisT | None:
        """The analysis where it depends on no picture; None where the picture has to be seen."""
        return None

    def context(self, analysis: AnalysisT, window: Window) -> torch.Tensor | None:
        """The part of the analysis that a tile needs, (K,h,w) float32; None if it needs none."""
        return None

    def preprocess(self, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        """Makes the network input of a batch of tiles: RGB (N,3,h,w), context (N,K,h,w) -> (N,C,h,w)."""
        return planes

    def run(self, network: Architecture, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """Runs the network on a batch: (N,C,h,w) -> (N,C',h*scale,w*scale).

        stage: "" to restore, `training_stage` to train, or another one that `analyse` needs.
        """
        return network(planes, self.scale, stage)

    def postprocess(self, output: torch.Tensor, planes: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        """Makes the restored RGB planes of a batch of tiles.

        Args:
            output: of the network, (N,C',h*scale,w*scale) float32; empty unless `runs_network`.
            planes: the corrupted RGB, (N,3,h,w).
            context: as in `preprocess`.

        Returns:
            (N,3,h*scale,w*scale) float32.
        """
        return output

    def identity(self, planes: torch.Tensor) -> torch.Tensor:
        """The corrupted planes at the size of the restored ones: the result for a `strength` of 0."""
        return planes

    def initial(self, config: Any) -> dict[str, torch.Tensor]:
        """Weights trained elsewhere that training a network of `config` starts from, by name; the rest starts fresh."""
        return {}

    def hints(self, damaged: Corrupted, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Additional inputs of the loss and the network for a training patch, (h,w,K) float32."""
        return None

    def network_input(self, sample: Sample) -> torch.Tensor:
        """Makes the network input (N,C,h,w) of a training batch: the corrupted planes, then the hints."""
        return sample.corrupted if sample.hints is None else torch.cat([sample.corrupted, sample.hints], dim=1)

    def loss(self, prediction: torch.Tensor, sample: Sample, pixel_loss: PixelLoss) -> torch.Tensor:
        """The scalar that training minimises: by default the mean `pixel_loss` of all values."""
        return pixel_loss(prediction, sample.clean).mean()


@dataclass(frozen=True)
class TrainingPair:
    """A corruption and the head that restores from it. A task with several trains on all in turn."""

    corruption: Corruption[Any]
    head: Head[Any, Any]
    # Ratio of the side of the clean patch to that of the sample, for corruptions that may shrink patches
    slack: float = 1
    # Range of the share of the short side that a clean patch covers before it is resized; None: patches are not resized
    coverage: tuple[float, float] | None = None


@dataclass(frozen=True)
class Case:
    """One row of a score table: a fixed damage, the head that restores from it, and the score."""

    label: str  # its name in tables
    pair: TrainingPair  # the damage and the head
    # (restored, clean), both (H,W,3) -> a number in dB, higher is better
    score: Callable[[np.ndarray, np.ndarray], float] = psnr
    inside: bool = False  # the score is the PSNR inside the mask of the damage instead
    given: bool = False  # the head gets the true mask

    def value(self, restored: np.ndarray, clean: np.ndarray, damage: Corrupted) -> float:
        """The score of `restored` and `clean`, (H,W,3) each; NaN if `inside` and the mask of `damage` is empty."""
        if self.inside and damage.mask is not None:
            return masked_psnr(restored, clean, damage.mask)
        return self.score(restored, clean)


class Task(Protocol):
    """A corruption and its matching head, under one name.

    Args:
        spec: name, help and options.
        arch, config: the default architecture of `restore train`, and its config.
        patch: side of the network input in training, in pixels.
    """

    spec: TaskSpec
    arch: str
    config: Any
    patch: int

    def head(self, options: Any) -> Head[Any, Any]:
        """The head for the options of restoring (an instance of `spec.options`)."""
        ...

    def operator(self, damage: Any) -> Corruption[Any]:
        """The corruption as `restore corrupt` applies it to files (an instance of `spec.damage`)."""
        ...

    def training_pairs(self, damage: Any) -> list[TrainingPair]:
        """The pairs to train on (`damage` is an instance of `spec.training_options`)."""
        ...

    def cases(self, damage: Any) -> list[Case]:
        """The cases to validate and evaluate on (`damage` is an instance of `training_options` or `trial_options`)."""
        ...

    def prepare(self, clean: np.ndarray, damage: Any, rng: np.random.Generator) -> np.ndarray:
        """Transforms a clean training patch (H,W,3) before it is damaged; some tasks make some of them gray."""
        return clean

    def config_for(self, config: Any, damage: Any) -> Any:
        """`config` with what follows from the damage filled in, such as the scales of super-resolution."""
        return replace(config, scales=(1,))


def load_task(name: str) -> Task:
    """Loads the task called `name`.

    Raises:
        UsageError: unknown name; the message lists the known ones.
    """
    return cast("Task", import_module(task_spec(name).module).TASK)


def load_head(name: str, options: Options, network: Architecture) -> Head[Any, Any]:
    """The head of a task for a network.

    Args:
        name: of the task.
        options: an instance of the task's.
        network: what its weights are of.

    Raises:
        UsageError: unknown name; the network does not enlarge by what the options say.
    """
    head = load_task(name).head(options)
    if head.scale not in network.scales:
        known = ", ".join(map(str, network.scales))
        raise UsageError(f"these weights enlarge by {known}, not by {head.scale}; choose another scale or model")
    return head


def identity(head: Head[Any, Any], image: np.ndarray) -> np.ndarray:
    """`Head.identity` for an array: (H,W,1 or 3) -> (H*scale,W*scale,1 or 3), same dtype."""
    pixels = as_tensor(image)[None]
    return np.asarray(to_pixels(head.identity(to_planes(pixels)), pixels.dtype)[0].numpy())


def restore_whole(
    network: Architecture, head: Head[Any, Any], image: np.ndarray, options: Options, mask: np.ndarray | None = None
) -> np.ndarray:
    """Restores an image without tiles: the reference for `Restorer`, which computes the same in tiles.

    In one pass only, without the self-ensemble of `head.turns`: this is what scores weights in training.

    Args:
        network: on any device, in evaluation mode.
        head, options: of the task.
        image: (H,W,1 or 3), any supported dtype, of moderate size.
        mask: as in `Head.analyse`.

    Returns:
        (H*scale,W*scale,3) float32, white at 1.
    """
    predict = WholePredictor(network, head)
    picture = Picture.of(image, predict.device)
    with torch.inference_mode():
        analysis = head.complete(picture, head.analyse(picture, options, predict, mask), predict)
        planes, context = picture.planes(), head.context(analysis, picture.window)
        context = None if context is None else context[None]
        output = torch.empty(0, device=predict.device)
        if head.runs_network:
            output = predict.whole(head.preprocess(planes, context)[0])[None]
        restored = head.postprocess(output, planes, context)
        if analysis.mask is not None:
            restored = torch.where(torch.from_numpy(analysis.mask).to(predict.device), restored, planes)
    return np.ascontiguousarray(restored[0].permute(1, 2, 0).cpu().numpy())


class WholePredictor:
    """`Predictor` without tiles."""

    def __init__(self, network: Architecture, head: Head[Any, Any]) -> None:
        self._network, self._head = network, head
        self.device = next(network.parameters()).device

    def whole(self, planes: torch.Tensor, stage: str = "") -> torch.Tensor:
        """As `Predictor.whole`."""
        with torch.inference_mode():
            batch = planes[None].to(self.device).contiguous(memory_format=torch.channels_last)
            return self._head.run(self._network, batch, stage)[0].float()

    def tiles(
        self, size: tuple[int, int], planes: Callable[[Window], torch.Tensor], stage: str = ""
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """As `Predictor.tiles`, in one tile."""
        window = Window(0, 0, *size)
        yield window, self.whole(planes(window), stage)
