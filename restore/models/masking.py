"""Two-branch networks for damage of unknown position: one branch segments it, the other reconstructs the image.

Two architectures. `hole-autoencoder`: the damaged pixels hold no information (bars, strokes), as in context encoders
(Pathak et al. 2016). `overlay-autoencoder`: they are an alpha blend of the image (watermarks), and both branches also
get the image with an estimate of that blend inverted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from restore.errors import UsageError
from restore.models.autoencoder import ConvAutoencoder, ConvAutoencoderConfig
from restore.models.blocks import crop, folded, max_filter
from restore.models.registry import Architecture, register

FIND, JUDGE, TRAIN = "find", "judge", "train"
# Logits that make a part of the picture a candidate, which is judged: a connected component of pixels of at least
# the first, one of which has the second.
PART_LOW, PART_HIGH = -1.0, 0.5
JUDGE_WIDTH = 48
PART_STATISTICS, PICTURE_STATISTICS = 3, 1
_JUDGE = ("evidence", "part_judge", "picture_judge")
TRAINED: dict[str, tuple[str, ...]] = {  # modules of a `HoleAutoencoder`; (): all
    "all": (),
    "prints": ("print_finder", *_JUDGE),
    "judge": _JUDGE,
    "painter": ("painter",),
}
MAX_LOGIT = 8.0  # of the first segmentation branch, where a second one raises it
FLATNESS_SIDE = 5  # pixels: length of the neighbourhoods of `flatness`
MIN_CONTRAST = 1 / 512  # half a level of 255
COVERAGE_BIAS = 2.0  # initial logit of the coverage of a pixel by a mark
MAX_OPACITY = 0.95  # of a blend that can be inverted


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """Configuration of either architecture.

    Args:
        widths, blocks, fold: of the reconstruction branch (`painter`), as in `ConvAutoencoderConfig`.
        finder_widths, finder_blocks, finder_fold: of the segmentation branch (`finder`), likewise.
        scales: always (1,), the image keeps its size.
    """

    widths: tuple[int, ...] = (64, 128, 160)
    blocks: tuple[int, ...] = (1, 2, 3)
    fold: int = 2
    finder_widths: tuple[int, ...] = (32, 64, 96, 128)
    finder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    finder_fold: int = 2
    scales: tuple[int, ...] = (1,)

    def finder(self, inputs: int, outputs: int) -> ConvAutoencoder:
        """Builds the segmentation branch with `inputs` and `outputs` channels."""
        sizes = self.finder_widths, self.finder_blocks, self.finder_fold
        return ConvAutoencoder(ConvAutoencoderConfig(inputs, outputs, *sizes, residual=False))

    def painter(self, inputs: int, outputs: int = 3, residual: bool = True) -> ConvAutoencoder:
        """Builds the reconstruction branch; if `residual`, its output is added to the first input channels."""
        sizes = self.widths, self.blocks, self.fold
        return ConvAutoencoder(ConvAutoencoderConfig(inputs, outputs, *sizes, residual=residual))


class MaskedAutoencoder(Architecture):
    """Base of both architectures: a segmentation branch `finder` and a reconstruction branch `painter`.

    `forward` runs the branch that its argument `stage` names. "": reconstruction. FIND: segmentation. TRAIN: both; the
    input channels are those of FIND, then those of "", and so are the output channels. In TRAIN only the first of every
    `RECONSTRUCTION_INTERVAL` samples of the batch is reconstructed, the others pass unchanged: segmentation needs more
    samples to learn, and is cheaper.
    """

    FINDER_CHANNELS = 3  # of the input of FIND
    UNCHANGED: tuple[int, ...] = (0, 1, 2)  # channels of the input of "" that pass where nothing is reconstructed
    RECONSTRUCTION_INTERVAL = 4

    def __init__(self, config: MaskedAutoencoderConfig, finder: ConvAutoencoder, painter: ConvAutoencoder) -> None:
        super().__init__()
        self.config = config
        self.finder, self.painter = finder, painter
        self.scales = config.scales
        self.stride = max(self.finder.stride, self.painter.stride)
        self.radius = max(self.finder.radius + FLATNESS_SIDE // 2 + 1, self.painter.radius)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        if stage == FIND:
            return self.find(planes)
        if stage == TRAIN:
            finder_input, painter_input = planes.tensor_split((self.FINDER_CHANNELS,), dim=1)
            count = -(-len(planes) // self.RECONSTRUCTION_INTERVAL)
            unchanged = painter_input[count:, self.UNCHANGED].float()
            reconstructed = torch.cat([self.reconstruct(painter_input[:count]), unchanged])
            return torch.cat([self.find(finder_input), reconstructed], dim=1)
        return self.reconstruct(planes)[:, :3]

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        """Segments the damage: (N,`FINDER_CHANNELS`,H,W) -> logits (N,1,H,W)."""
        raise NotImplementedError

    def reconstruct(self, planes: torch.Tensor) -> torch.Tensor:
        """Restores the input of stage "": RGB (N,3,H,W), followed by channels that only the loss needs."""
        raise NotImplementedError

    def values_a_pixel(self, scale: int) -> float:
        """The branch that needs more, as they run one after the other, and the planes in between."""
        return max(self.finder.values_a_pixel(1), self.painter.values_a_pixel(1)) + 16


@dataclass(frozen=True)
class HoleAutoencoderConfig(MaskedAutoencoderConfig):
    """Configuration of `HoleAutoencoder`.

    Args:
        print_widths, print_blocks: of a second segmentation branch (`print_finder`), for what old prints suffer, which
            also gets the features of the first; (): none.
        evidence: channels that are pooled under each part to judge it; 0: parts are not judged.
        painter_channels: of the input of the reconstruction branch: 4, or 7 to see what covers a hole as well.
        trained: what training changes: "all", "prints" (the second segmentation branch and the judge), "judge" or
            "painter" (the reconstruction branch).

    Raises:
        UsageError: the values make no network.
    """

    print_widths: tuple[int, ...] = ()
    print_blocks: tuple[int, ...] = ()
    evidence: int = 0
    painter_channels: int = 4
    trained: str = "all"

    def __post_init__(self) -> None:
        if self.painter_channels not in (4, 7):
            raise UsageError(f"painter_channels must be 4 or 7; got {self.painter_channels}")
        if self.trained not in TRAINED:
            raise UsageError(f"trained must be one of {', '.join(TRAINED)}; got {self.trained}")

    def print_finder(self, inputs: int, outputs: int) -> ConvAutoencoder:
        """Builds the second segmentation branch with `inputs` and `outputs` channels, of the folded image."""
        sizes = self.print_widths, self.print_blocks, 1
        return ConvAutoencoder(ConvAutoencoderConfig(inputs, outputs, *sizes, residual=False))


@register("hole-autoencoder", HoleAutoencoderConfig)
class HoleAutoencoder(MaskedAutoencoder):
    """Segments holes, judges the parts that it finds, and refines a rough filling of them.

    Two branches may segment, one for solid shapes and a second for what old prints suffer, which raises the logits of
    the first.

    A part is judged by the evidence under it, under all parts and in the whole picture (each averaged), and by its size
    and logits: a single object of the scene is told from damage by what else there is.

    Shape:
        Stage "": (N,7,H,W), RGB with roughly filled holes, the mask (1 in holes), and what is seen in holes less the
        rough filling (0 elsewhere) -> RGB (N,3,H,W).
        FIND: RGB (N,3,H,W) -> logits of the mask and evidence in [-1, 1], equal in squares of `finder_fold` pixels:
        (N,1+evidence,H,W).
        JUDGE: (N,C,P,1) of `pool_evidence` -> log odds that a part is damage, and that the picture has any, (N,2,P,1).
        TRAIN: (N,10,H,W) -> (N,4,H,W); where parts are judged, (N,6,H,W): the logits are followed by both log odds, for
        each pixel of a part.
    """

    config: HoleAutoencoderConfig

    def __init__(self, config: HoleAutoencoderConfig) -> None:
        super().__init__(config, config.finder(6, 1), config.painter(config.painter_channels))
        features = config.finder_widths[0]
        self.print_finder = None
        if config.print_widths:
            fold = config.finder_fold
            self.print_finder = config.print_finder(features + 6 * fold**2, fold**2)
            features += config.print_widths[0]
            self.stride = max(self.stride, fold * self.print_finder.stride)
            self.radius += fold * self.print_finder.radius
        if config.evidence:
            whole = 2 * config.evidence + PICTURE_STATISTICS
            self.evidence = nn.Conv2d(features, config.evidence, 1)
            self.part_judge = _judge(config.evidence + PART_STATISTICS + whole)
            self.picture_judge = _judge(whole)
        if config.trained == "painter":
            self.RECONSTRUCTION_INTERVAL = 1
        for name, module in self.named_children():
            module.requires_grad_(not TRAINED[config.trained] or name in TRAINED[config.trained])

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        if stage == JUDGE:
            return self.judge(planes)
        output = super().forward(planes, scale, stage)
        if stage != TRAIN or not self.config.evidence:
            return output
        logits, evidence, restored = output.split((1, self.config.evidence, 3), dim=1)
        fold = self.config.finder_fold
        labels = torch.from_numpy(np.stack([part_labels(one) for one in logits[:, 0].detach().cpu().numpy()]))
        verdicts = [
            self._verdict(one, values[:, ::fold, ::fold], places.to(planes.device))
            for one, values, places in zip(logits[:, 0], evidence, labels, strict=True)
        ]
        return torch.cat([logits, torch.stack(verdicts), restored], dim=1)

    def _verdict(self, logits: torch.Tensor, evidence: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Both log odds for each pixel (2,H,W), 0 outside of parts."""
        pooled = pool_evidence(logits.detach(), evidence, labels.long())
        found = F.pad(self.judge(pooled[None])[0, :, :, 0], (1, 0))
        return found[:, labels]

    def judge(self, planes: torch.Tensor) -> torch.Tensor:
        """Judges pooled evidence: (N,C,P,1) -> (N,2,P,1)."""
        own = self.config.evidence + PART_STATISTICS
        dtype = self.evidence.weight.dtype
        return torch.cat([self.part_judge(planes.to(dtype)), self.picture_judge(planes[:, own:].to(dtype))], 1).float()

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        size = planes.shape[-2:]
        if self.training and self.config.trained == "painter":  # no part is judged
            nothing = planes.new_full((len(planes), 1, *size), -MAX_LOGIT, dtype=torch.float32)
            return torch.cat([nothing, nothing.expand(-1, self.config.evidence, -1, -1)], dim=1)
        seen = torch.cat([planes.float(), flatness(planes.float())], dim=1)
        fold = self.config.finder_fold
        # Memory formats as those that they are joined with: on a CPU other ones take ten times as long.
        cells = folded(seen.to(self.finder.stem.weight.dtype), self.finder.stride, fold)
        cells = cells.contiguous(memory_format=torch.channels_last)
        features = self.finder.features_of(cells)
        logits: torch.Tensor = self.finder.heads(features, seen, 1)
        if self.print_finder is not None:
            both = torch.cat([cells.to(features.dtype), features], dim=1)
            of_prints = self.print_finder.features(both)
            raised = crop(F.pixel_shuffle(self.print_finder.heads(of_prints, both, 1), fold), *size)
            if not self.training or self.config.trained == "judge":  # else there is a gradient in every pixel
                raised = raised.clamp(min=0)
            logits = logits.clamp(-MAX_LOGIT, MAX_LOGIT) + raised
            features = torch.cat([features, of_prints], dim=1)
        if not self.config.evidence:
            return logits
        evidence = torch.tanh(self.evidence(features).float().contiguous())
        enlarged = F.interpolate(evidence, scale_factor=float(fold), mode="nearest")
        return torch.cat([logits, crop(enlarged, *size)], dim=1)

    def reconstruct(self, planes: torch.Tensor) -> torch.Tensor:
        if self.training and self.config.trained in ("prints", "judge"):
            return planes[:, self.UNCHANGED].float()
        restored: torch.Tensor = self.painter(planes[:, : self.config.painter_channels])
        return restored

    def values_a_pixel(self, scale: int) -> float:
        return super().values_a_pixel(scale) + 2 * self.config.evidence


def _judge(inputs: int) -> nn.Sequential:
    """Two hidden layers, as convolutions of one pixel: (N,inputs,P,1) -> (N,1,P,1)."""
    first, second = nn.Conv2d(inputs, JUDGE_WIDTH, 1), nn.Conv2d(JUDGE_WIDTH, JUDGE_WIDTH, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(JUDGE_WIDTH, 1, 1))


def part_labels(logits: np.ndarray, low: float = PART_LOW, high: float = PART_HIGH) -> np.ndarray:
    """Labels the candidates for damage.

    Args:
        logits: (H,W) of the mask.
        low, high: see `PART_LOW`, in the unit of `logits`.

    Returns:
        (H,W) int32: 0 for the background, and 1 to P.
    """
    certain = logits >= high
    if not certain.any():  # quick: most pictures are whole
        return np.zeros(logits.shape, np.int32)
    count, labels = cv2.connectedComponents((logits >= low).astype(np.uint8), connectivity=8)
    kept = np.zeros(count, bool)
    kept[labels[certain]] = True
    return keep_labels(labels, kept)


def keep_labels(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Numbers the labels that are kept anew.

    Args:
        labels: (H,W) integers from 0, the background, to P.
        kept: (P + 1,) bool; False for the background.

    Returns:
        (H,W) int32: 0 for the background and what is not kept, and from 1 on without gaps.
    """
    numbers: np.ndarray = np.where(kept, kept.cumsum(), 0).astype(np.int32)[labels]
    return numbers


def pool_evidence(logits: torch.Tensor, evidence: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Averages evidence under each part, under all of them and over the picture.

    Args:
        logits: (H,W) of the mask.
        evidence: (E,h,w), smaller by the fold of the finder.
        labels: (H,W) of `part_labels`.

    Returns:
        (C,P,1): what the stage JUDGE takes, for each part, in float32; for a made-up one if there is none.
    """
    height, width = evidence.shape[-2:]
    rows, columns = labels.nonzero(as_tuple=True)
    numbers = labels[rows, columns].long() - 1
    count = int(numbers.max()) + 1 if len(numbers) else 1
    fold = -(-labels.shape[0] // height)
    values = evidence[:, (rows // fold).clamp(max=height - 1), (columns // fold).clamp(max=width - 1)].float()
    inside = logits[rows, columns].float().clamp(-8, 8) / 8
    size = torch.zeros(count, device=values.device).index_add(0, numbers, torch.ones_like(inside)).clamp(min=1)
    part = torch.zeros(len(values), count, device=values.device, dtype=values.dtype).index_add(1, numbers, values)
    mean = torch.zeros(count, device=values.device).index_add(0, numbers, inside) / size
    highest = torch.full((count,), -1.0, device=values.device).scatter_reduce(0, numbers, inside, "amax")
    own = torch.cat([part / size, mean[None], highest[None], size.log()[None] / 8])
    whole = torch.cat(
        [part.sum(1) / size.sum(), evidence.float().mean((1, 2)), size.sum()[None].div(labels.numel()).log() / 8]
    )
    return torch.cat([own, whole[:, None].expand(-1, count)])[..., None]


@register("overlay-autoencoder", MaskedAutoencoderConfig)
class OverlayAutoencoder(MaskedAutoencoder):
    """Segments and inverts blends `clean * (1 - opacity) + colour * opacity`.

    A mark has one opacity and one colour, which are estimated from the whole image, outside of the network. The network
    gets the image with that blend inverted everywhere, and predicts the coverage of each pixel by the mark, by which
    the blend is inverted, and a residual that is added.

    Shape:
        Stage "": (N,7,H,W), inverted RGB, RGB, and the opacity inside of the mask (0 outside; 1 if it is unknown,
        with RGB as the inverted RGB) -> RGB (N,3,H,W).
        FIND: (N,7,H,W), RGB, inverted RGB, and the opacity (0 if it is unknown, likewise) -> logits of the mask
        (N,1,H,W).
        TRAIN: (N,14,H,W) -> (N,5,H,W), logit, RGB, and the opacity of each pixel.
    """

    FINDER_CHANNELS = 7
    UNCHANGED = (0, 1, 2, 6)
    RECONSTRUCTION_INTERVAL = 2

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config, config.finder(10, 1), config.painter(7, 4, residual=False))

    def find(self, planes: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.finder(torch.cat([planes.float(), flatness(planes[:, :3].float())], dim=1))
        return logits

    def reconstruct(self, planes: torch.Tensor) -> torch.Tensor:
        output = self.painter(planes)
        inverted, picture, opacity = planes.float().split((3, 3, 1), dim=1)
        opacity = opacity.clamp(max=MAX_OPACITY)
        overlay = picture - (1 - opacity) * inverted  # colour * opacity
        coverage = torch.sigmoid(output[:, 3:] + COVERAGE_BIAS)
        clean = (picture - coverage * overlay) / (1 - coverage * opacity)
        return torch.cat([clean + output[:, :3], coverage * opacity], dim=1)


def flatness(planes: torch.Tensor) -> torch.Tensor:
    """Local flatness along rows, along columns, and in both directions.

    A feature of solid shapes of any colour; with it as an input the segmentation branch trains several times faster.

    Args:
        planes: (N,C,H,W), white at 1.

    Returns:
        (N,3,H,W): 1 where neighbouring pixels are equal, 0 where black is next to white, on a logarithmic scale.
    """
    across = F.pad((planes[..., 1:] - planes[..., :-1]).abs().amax(1, keepdim=True), (0, 1))
    down = F.pad((planes[..., 1:, :] - planes[..., :-1, :]).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    reach = FLATNESS_SIDE // 2
    contrasts = (
        max_filter(across, (0, 0), (reach, reach)),
        max_filter(down, (reach, reach), (0, 0)),
        max_filter(torch.maximum(across, down), (1, 1), (1, 1)),
    )
    levels = torch.cat(contrasts, dim=1).clamp(0, 1)
    return -torch.log2(levels + MIN_CONTRAST) / -math.log2(MIN_CONTRAST)
