"""WebP, AVIF, HEIC and BMP, all but deep AVIF through Pillow."""

from __future__ import annotations

import struct
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
from PIL import AvifImagePlugin, BmpImagePlugin, WebPImagePlugin

from restore.errors import ImageError
from restore.images.metadata import exif_block, exif_orientation
from restore.images.picture import Array, Image, SizeCheck
from restore.images.pil import divide, picture_of, split, unlimited

WEBP_LARGEST_SIDE = 16383
_LOSSY_QUALITY = 90  # where the input was lossy and its quality is not known
_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273 table 3


def _checked(picture: PIL.Image.Image, check_size: SizeCheck) -> None:
    check_size(*picture.size)
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ImageError(f"holds {frames} pictures or frames; extract the one you want first")


def _wrapped(picture: PIL.Image.Image, kind: str, parts: tuple[Array, Array | None], lossless: bool) -> Image:
    info = picture.info
    return Image(
        *parts,
        kind,
        exif=exif_block(info.get("exif")),
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        lossless=lossless,
        dpi=info.get("dpi"),
    )


def read_bmp(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A BMP file; of metadata it has its resolution only."""
    picture = BmpImagePlugin.BmpImageFile(BytesIO(data))
    _checked(picture, check_size)
    return _wrapped(picture, "bmp", split(picture, None), True), 1


def read_webp(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A still WebP file (RFC 9649) and the orientation that is still to be applied."""
    picture = unlimited(lambda: WebPImagePlugin.WebPImageFile(BytesIO(data)))
    _checked(picture, check_size)
    image = _wrapped(picture, "webp", split(picture, None), _has_lossless_chunk(data))
    return image, exif_orientation(image.exif)


def _has_lossless_chunk(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8L")
        at += 8 + length + length % 2
    return False


def read_avif(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A still AVIF file and the orientation that is still to be applied; 10 and 12 bit become uint16.

    Pillow states the container's own rotation as an EXIF orientation. HDR files are refused: their values
    mean light on another scale, and no profile could say so in what is written.
    """
    picture = AvifImagePlugin.AvifImageFile(BytesIO(data))
    _checked(picture, check_size)
    colour = data.find(b"colrnclx")
    if colour >= 0 and struct.unpack_from(">H", data, colour + 10)[0] in (_PQ, _HLG):
        raise ImageError("is a high dynamic range picture, which is not supported; export it as SDR first")
    configuration = data.find(b"av1C")
    flags = data[configuration + 6] if configuration >= 0 else 0
    depth = 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    parts = split(picture, None) if depth == 8 else _deep_avif(data, depth, picture)
    image = _wrapped(picture, "avif", parts, False)
    return image, exif_orientation(image.exif)


def _deep_avif(data: bytes, depth: int, picture: PIL.Image.Image) -> tuple[Array, Array | None]:
    """10 or 12 bit, spread over 16, by OpenCV: Pillow cuts them to 8."""
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.shape[1::-1] != picture.size:
        raise ValueError("its pixels cannot be decoded")
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if picture.mode == "L" and array.ndim == 3:
        array = array[..., :1]
    spread = np.rint(array.astype(np.float32) * np.float32(65535 / ((1 << depth) - 1)))
    return divide(np.ascontiguousarray(spread.astype(np.uint16)))


def read_heic(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A HEIC file, where pillow-heif is installed; its pixels come upright and in 8 bit."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError("is a HEIC file; to read those: pip install 'restore-toolkit[heic]'") from None
    picture = HeifImageFile(BytesIO(data))
    _checked(picture, check_size)
    return _wrapped(picture, "heic", split(picture, None), False), 1


def encode_bmp(array: Array, dpi: tuple[float, float] | None) -> bytes:
    """A BMP of (H,W,1) or (H,W,3) uint8."""
    return _saved(picture_of(array), "BMP", {"dpi": dpi} if dpi else {})


def encode_webp(array: Array, image: Image, quality: int | None, metadata: dict[str, bytes]) -> bytes:
    """A WebP of (H,W,1..4) uint8: lossless where `image` was and no quality is given. Gray becomes RGB."""
    if quality is None and image.lossless:
        # `exact` keeps the colours under transparent pixels. Effort 2: a third faster than 4, 3 % larger.
        return _saved(
            picture_of(array),
            "WEBP",
            {"lossless": True, "quality": 30, "method": 2, "exact": True, **metadata},
        )
    chosen = quality or image.quality or _LOSSY_QUALITY
    return _saved(picture_of(array), "WEBP", {"quality": chosen, "exact": True, **metadata})


def encode_avif(array: Array, image: Image, quality: int | None, metadata: dict[str, bytes]) -> bytes:
    """An AVIF of (H,W,1..4) uint8 in 4:4:4, always lossy. With alpha, gray becomes RGB."""
    chosen = quality or (95 if image.lossless else image.quality or _LOSSY_QUALITY)
    options: dict[str, object] = {"quality": chosen, "speed": 8, **metadata}
    if array.shape[2] > 1:
        options["subsampling"] = "4:4:4"
    return _saved(picture_of(array), "AVIF", options)


def _saved(picture: PIL.Image.Image, kind: str, options: dict[str, object]) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
