"""A folder of pictures to one small file and back, and the training of the network that does it."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import PIL.Image
import torch

from restore.errors import ImageError, RestoreError, UsageError
from restore.images import read_image
from restore.images.pixels import encode_picture
from restore.latent.codec import ARCH, BOUND, STRIDE, TRADES, Codec, CodecConfig
from restore.latent.data import silent, to_pixels, to_planes
from restore.latent.extras import need
from restore.latent.model import load_network
from restore.metrics import psnr
from restore.models.blocks import without_autocast
from restore.pixels import to_uint8
from restore.tasks.losses import PixelLoss
from restore.training.objective import Objective

TASK = "compress"  # in the headers of weights
PATCH = 128
JUDGED = 256  # side of what validation looks at
SUFFIX = ".pictures"
MAGIC = b"RLC1"
PREFIX = struct.Struct("<4sII")  # magic, CRC-32 of all that follows it, bytes of the packed header
LARGEST_HEADER = 1 << 26
MOST_PIXELS = 1 << 27  # of a picture
PEAK = 255.0**2


class CodecObjective(Objective):
    """The rate-distortion loss, bits a pixel plus the weighted squared error; each patch has a random level.

    In training the rate is that of the code with uniform noise instead of rounding (Ballé et al. 2017), and the
    distortion that of the rounded code, with a straight-through gradient (Minnen and Singh 2020).
    """

    name = TASK
    arch = ARCH

    def __init__(self, config: CodecConfig, patch: int = PATCH) -> None:
        self.config, self.patch = config, patch

    @property
    def options(self) -> Mapping[str, Any]:
        """Lambda of each level."""
        return {"trades": list(TRADES[: self.config.levels])}

    def example(self, clean: np.ndarray, variant: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """One patch (S,S,3) in uint8, the level it is trained at, and the seed of its noise."""
        level, seed = int(rng.integers(self.config.levels)), int(rng.integers(2**62))
        return {"clean": to_planes(clean[None])[0], "chance": torch.tensor([level, seed])[:, None, None]}

    def loss(
        self, network: Any, batch: Mapping[str, torch.Tensor], variant: int, pixel_loss: PixelLoss
    ) -> torch.Tensor:
        """The mean rate-distortion cost, each divided by the root of its lambda so that levels weigh alike."""
        clean, chance = batch["clean"], batch["chance"][:, :, 0, 0]
        level = chance[:, 0]
        code = network.encode(clean, level)
        draw = torch.Generator().manual_seed(int(chance[0, 1]))
        noise = torch.rand(code.shape, generator=draw).to(code.device) - 0.5
        costs = _costs(network, clean, level, code + noise, code + (code.round() - code).detach())
        trades = torch.tensor(TRADES, device=level.device)[level]
        mean: torch.Tensor = (costs / trades.sqrt()).mean() * TRADES[0] ** 0.5
        return mean

    @torch.no_grad()
    def score(self, network: Codec | None, picture: np.ndarray, number: int) -> dict[str, float]:
        """-10 log10 of rate and weighted distortion of the picture's centre; every picture has a level of its own."""
        if network is None:
            return {}
        top, left = (max(0, (length - JUDGED) // 2) for length in picture.shape[:2])
        clean = to_planes(picture[None, top : top + JUDGED, left : left + JUDGED]).to(network.stretch.device)
        level = torch.tensor([number % self.config.levels], device=clean.device)
        code = network.encode(clean, level).round()
        cost = float(_costs(network, clean, level, code, code))
        return {f"level {int(level) + 1}": -10 * math.log10(cost)}

    @torch.no_grad()
    def preview(self, network: Codec, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The picture, what is decoded at the highest level, and the picture."""
        decoded = network(to_planes(picture[None]).to(network.stretch.device))
        return picture, to_pixels(decoded)[0], picture


def _costs(
    network: Codec, clean: torch.Tensor, level: torch.Tensor, counted: torch.Tensor, decoded: torch.Tensor
) -> torch.Tensor:
    """(N,): bits a pixel of `counted`, plus the weighted squared error of what `decoded` gives."""
    height, width = clean.shape[-2:]
    with without_autocast(clean.device):
        rate = network.bits(counted, level) / (height * width)
    errors = (network.decode(decoded, level, height, width) - clean).square().mean((1, 2, 3))
    return rate + torch.tensor(TRADES, device=level.device)[level] * PEAK * errors


@dataclass(frozen=True)
class Packed:
    """A picture in a file of many.

    Attributes:
        name: Path relative to the folder, parts separated by slashes, without a suffix.
        height: In pixels.
        width: In pixels.
        channels: 1 or 3.
        data: Its code.
    """

    name: str
    height: int
    width: int
    channels: int
    data: bytes


class Coder:
    """A codec at one level, on a device.

    Args:
        network: With its weights.
        level: From 0.
        device: Where to compute.

    Raises:
        UsageError: The network has no such level, or constriction is not installed.
    """

    def __init__(self, network: Codec, level: int, device: torch.device | str = "cpu") -> None:
        if not 0 <= level < network.config.levels:
            raise UsageError(f"--level must be from 1 to {network.config.levels}; got {level + 1}")
        self.stream = need("constriction").stream
        self.network, self.device, self.level = network.eval().to(device), torch.device(device), level
        categorical = self.stream.model.Categorical
        self.models = [categorical(table.astype(np.float64), perfect=False) for table in network.tables(level)]

    @torch.no_grad()
    def pack(self, name: str, pixels: np.ndarray) -> Packed:
        """(H,W,1 or 3) uint8, made small. Raises RestoreError for more than `MOST_PIXELS`."""
        height, width, channels = pixels.shape
        if height * width > MOST_PIXELS:
            raise RestoreError(f"{name}: more than {MOST_PIXELS / 1e6:.0f} megapixels; make it smaller first")
        planes = to_planes(np.broadcast_to(pixels, (height, width, 3))[None]).to(self.device)
        code = self.network.encode(planes, self._level)[0].round().clamp(-BOUND, BOUND)
        symbols = code.flatten(1).cpu().numpy().astype(np.int32) + BOUND
        encoder = self.stream.queue.RangeEncoder()
        for row, model in zip(symbols, self.models, strict=True):
            encoder.encode(row, model)
        return Packed(name, height, width, channels, encoder.get_compressed().astype("<u4").tobytes())

    @torch.no_grad()
    def unpack(self, packed: Packed) -> np.ndarray:
        """The picture (H,W,1 or 3) uint8.

        Raises:
            RestoreError: Its code is damaged.
        """
        height, width = (-(-side // STRIDE) for side in (packed.height, packed.width))
        decoder = self.stream.queue.RangeDecoder(np.frombuffer(packed.data, "<u4").astype(np.uint32))
        try:
            rows = [decoder.decode(model, height * width) for model in self.models]
        except AssertionError as error:
            raise RestoreError(f"{packed.name}: its code is damaged") from error
        code = torch.from_numpy(np.stack(rows)).float().sub_(BOUND).view(1, -1, height, width).to(self.device)
        decoded = self.network.decode(code, self._level, packed.height, packed.width)
        pixels: np.ndarray = to_pixels(decoded if packed.channels == 3 else decoded.mean(1, keepdim=True))[0]
        return pixels

    @property
    def _level(self) -> torch.Tensor:
        return torch.tensor([self.level], device=self.device)


def load_codec(path: Path, device: str = "auto") -> tuple[Codec, torch.device]:
    """The codec in a weights file, on a device; see `load_network`."""
    return load_network(Codec, path, TASK, device, "train-codec FOLDER -o")


def to_bytes(pictures: Sequence[Packed], level: int, digest: str) -> bytes:
    """One file of many pictures.

    Args:
        pictures: In the order they are to have.
        level: From 0.
        digest: Of the codec.
    """
    entries = [[one.name, one.height, one.width, one.channels, len(one.data)] for one in pictures]
    described = {"codec": digest, "level": level, "pictures": entries}
    header = zlib.compress(json.dumps(described, separators=(",", ":")).encode(), 9)
    body = header + b"".join(one.data for one in pictures)
    length = struct.pack("<I", len(header))
    return PREFIX.pack(MAGIC, zlib.crc32(length + body), len(header)) + body


def from_bytes(data: bytes, name: str) -> tuple[list[Packed], int, str]:
    """The pictures, the level and the digest in a file.

    Args:
        data: Of the file.
        name: What to call it in errors.

    Raises:
        RestoreError: It is no such file, damaged or incomplete.
    """
    if len(data) < PREFIX.size or not data.startswith(MAGIC):
        raise RestoreError(f"{name}: not a file of `restore latent compress`")
    _, crc, length = PREFIX.unpack_from(data)
    if zlib.crc32(data[8:]) != crc:
        raise RestoreError(f"{name}: damaged or incomplete; compress the pictures again")
    try:
        unpacker = zlib.decompressobj()
        described = json.loads(unpacker.decompress(data[PREFIX.size :][:length], LARGEST_HEADER))
        level, digest, at = int(described["level"]), str(described["codec"]), PREFIX.size + length
        pictures = []
        for path, height, width, channels, size in described["pictures"]:
            parts = PurePosixPath(path).parts
            sides = all(isinstance(side, int) and side > 0 for side in (height, width))
            if not parts or ".." in parts or "\\" in path or ":" in path or path.startswith("/") or "\0" in path:
                raise ValueError(f"the name {path!r} leads out of the folder")
            if not sides or height * width > MOST_PIXELS or channels not in (1, 3) or size < 0 or size % 4:
                raise ValueError(f"{path}: no picture is of that size")
            pictures.append(Packed(path, height, width, channels, data[at : at + size]))
            at += size
        if at != len(data):
            raise ValueError("the codes are not as long as the header says")
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise RestoreError(f"{name}: damaged header ({error})") from error
    return pictures, level, digest


def names_of(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Names without suffixes, but with them where two pictures would be called alike."""
    inner = [path.relative_to(root) for path in paths]
    bare = [path.with_suffix("").as_posix() for path in inner]
    times = Counter([*bare, *(path.as_posix() for path in inner)])  # `x.jpg.webp` beside `x.jpg` and `x.png`
    named = zip(paths, inner, bare, strict=True)
    return {path: whole.as_posix() if times[short] > 1 else short for path, whole, short in named}


def read_pictures(
    paths: Sequence[Path], failed: Callable[[ImageError], None], report: Callable[[str], None]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Paths and pictures (H,W,1 or 3) in uint8, one at a time.

    Args:
        paths: The files.
        failed: Takes the error of each that cannot be read, which is left out.
        report: Takes lines about what is not kept of a picture.
    """
    for path in paths:
        try:
            image = read_image(path)
        except ImageError as error:
            failed(error)
            continue
        pixels = image.pixels
        if pixels.dtype != np.uint8:
            report(f"{path}: kept in 8 bits")
            pixels = to_uint8(pixels)
        if image.alpha is not None:
            report(f"{path}: transparency is not kept")
        yield path, pixels


def beside(paths: Sequence[Path], size: int, format: str) -> tuple[int, int, list[float]]:
    """What JPEG or WebP make of pictures when they may have `size` bytes together, or a little more.

    Args:
        paths: The files, which are read as `read_pictures` does.
        size: In bytes.
        format: jpeg or webp.

    Returns:
        The lowest quality that needs no less (or 100), the bytes, and the PSNR of each.
    """

    def pictures() -> Iterator[np.ndarray]:
        return (pixels for _, pixels in read_pictures(paths, silent, silent))

    low, high = 0, 100
    while low < high:
        quality = (low + high) // 2
        if sum(len(_encoded(pixels, format, quality)) for pixels in pictures()) >= size:
            high = quality
        else:
            low = quality + 1
    total, scores = 0, []
    for pixels in pictures():
        data = _encoded(pixels, format, high)
        total += len(data)
        scores.append(psnr(_decoded(data, pixels.shape), pixels))
    return high, total, scores


def _encoded(pixels: np.ndarray, format: str, quality: int) -> bytes:
    return encode_picture(pixels, format, quality=quality, optimize=True, progressive=True)


def _decoded(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    image = PIL.Image.open(BytesIO(data)).convert("L" if shape[2] == 1 else "RGB")
    pixels: np.ndarray = np.asarray(image).reshape(shape)
    return pixels
