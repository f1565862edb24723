"""Networks of other projects, through spandrel: ESRGAN, SwinIR, SCUNet, DnCNN, NAFNet, LaMa and some forty more."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from restore.errors import UsageError, WeightsError
from restore.models.masking import FIND
from restore.models.registry import Architecture

SUFFIXES = (".pth", ".pt", ".ckpt")  # files of torch; of safetensors the header tells
INSTALL = "pip install 'restore-toolkit[spandrel]' loads networks of other projects"


class ForeignNetwork(Architecture):
    """A network as spandrel describes it, with what tiling has to know of it.

    Args:
        descriptor: A spandrel `ImageModelDescriptor` or `MaskedImageModelDescriptor`.
    """

    stride = 64  # pixels: windows of attention and strides of these networks then lie alike in all tiles
    radius = 64  # pixels; how far these networks really see is not known

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        from spandrel import MaskedImageModelDescriptor, ModelTiling

        self.model = descriptor.model  # the same network: moves and casts with this module
        self.descriptor = descriptor
        self.name, self.purpose = descriptor.architecture.name, descriptor.purpose
        self.scales = (descriptor.scale,)
        self.masked = isinstance(descriptor, MaskedImageModelDescriptor)
        self.whole = descriptor.tiling != ModelTiling.SUPPORTED
        halves = {torch.bfloat16: descriptor.supports_bfloat16, torch.float16: descriptor.supports_half}
        self.precisions = (torch.float32, *(dtype for dtype, known in halves.items() if known))

    def forward(self, planes: torch.Tensor, scale: int | None = None, stage: str = "") -> torch.Tensor:
        """RGB (N,3,H,W), with a mask behind it for those that paint (N,4 or more,H,W) -> (N,3,H*scale,W*scale).

        A network for gray pictures gets each colour as one.

        Raises:
            UsageError: It is asked to find damage.
        """
        if stage == FIND:
            raise UsageError(f"{self.name} finds no damage; name what to paint with --mask")
        planes = planes.to(self.descriptor.dtype).contiguous()  # these networks do not expect channels_last
        if self.masked:
            pairs = zip(planes[:, :3].split(1), (planes[:, 3:4] > 0).to(planes).split(1), strict=True)
            return torch.cat([self.descriptor(image, mask) for image, mask in pairs])
        planes = planes[:, :3].clamp(0, 1)
        if self.descriptor.input_channels == 1:
            planes = planes.reshape(-1, 1, *planes.shape[-2:])
        restored: torch.Tensor = self.descriptor(planes)
        return restored.view(-1, 3, *restored.shape[-2:])

    def values_a_pixel(self, scale: int) -> float:
        """What transformers of about 180 channels, the hungriest of these networks, keep at once for a pixel."""
        return 1500.0 + 128.0 * scale**2

    def to(self, *args: Any, **keywords: Any) -> ForeignNetwork:
        """As of any module, but for the memory format, which stays."""
        keywords.pop("memory_format", None)
        return super().to(*args, **keywords) if args or keywords else self


def is_foreign(path: Path) -> bool:
    """Whether a file of weights is none of this package's, as far as its name and its header say."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return "restore.format" not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load(path: Path) -> ForeignNetwork:
    """A network of another project, in float32 on the CPU, in evaluation mode.

    Of the .pth, .pt, .ckpt or .safetensors file only tensors are read: nothing in it is executed.

    Raises:
        WeightsError: It cannot be read, is of no known architecture or not for colours or gray; or spandrel is missing.
    """
    try:
        import spandrel
    except ImportError as error:
        raise WeightsError(f"{path}: these weights were not made by `restore train`; {INSTALL}") from error
    try:
        if path.suffix.lower() in SUFFIXES:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        else:
            tensors = load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how these networks are written
            descriptor = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(tensors))
    except spandrel.UnsupportedModelError as error:
        raise WeightsError(
            f"{path}: these weights were not made by `restore train`, and spandrel knows no network that they fit"
        ) from error
    except (pickle.UnpicklingError, SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: cannot be read as weights alone, without code ({_gist(error)})") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, AssertionError) as error:
        raise WeightsError(f"{path}: holds no weights that spandrel understands ({_gist(error)})") from error
    if (descriptor.input_channels, descriptor.output_channels) not in ((3, 3), (1, 1)):
        raise WeightsError(f"{path}: {descriptor.architecture.name} of other planes than gray or RGB is not supported")
    return ForeignNetwork(descriptor.eval().float())


def _gist(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:150]
