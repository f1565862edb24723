"""WebP, BMP, AVIF, HEIC, camera raws, JPEG 2000, JPEG XL, QOI, PNM: Pillow for 8 bit and metadata, imagecodecs else."""

from __future__ import annotations

import re
import struct
import warnings
from io import BytesIO

import imagecodecs
import numpy as np
import PIL.Image
from PIL import AvifImagePlugin, BmpImagePlugin, Jpeg2KImagePlugin, PpmImagePlugin, WebPImagePlugin

from restore.errors import ImageError, install_hint
from restore.images.image import Array, Image, SizeCheck
from restore.images.metadata import exif_block, stored_orientation, without_orientation
from restore.images.pixels import (
    check_decoded_size,
    encode_picture,
    scale_to_full_range,
    split_alpha,
    split_picture,
    squeeze_gray,
    without_pil_limit,
)
from restore.images.profiles import true_profile

_LOSSY_QUALITY = 90  # where the input was lossy and its quality is not known
_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273 table 3
_SRGB_PRIMARIES = (1, 2)  # those of BT.709, or unspecified


def _check(picture: PIL.Image.Image, check_size: SizeCheck) -> None:
    check_size(*picture.size)
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ImageError(f"is an animated {picture.format} of {frames} frames; extract the one you want first")


def _image(
    picture: PIL.Image.Image, kind: str, array: Array | None = None, *, lossless: bool = False, note: str = ""
) -> Image:
    """A picture with what Pillow knows of it; `array` is its pixels where others decoded them."""
    info = picture.info
    return Image(
        *(split_picture(picture, info.get("icc_profile")) if array is None else split_alpha(array)),
        kind,
        exif=exif_block(info.get("exif")),
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        lossless=lossless,
        dpi=info.get("dpi"),
        notes=(note,) if note else (),
    )


def read_bmp(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A BMP file; of metadata it has its resolution only."""
    picture = BmpImagePlugin.BmpImageFile(BytesIO(data))
    _check(picture, check_size)
    check_decoded_size(picture.width * picture.height, len(data), 256)  # of run lengths; a bit a pixel is 8
    return _image(picture, "bmp", lossless=True), 1


def read_webp(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A still WebP file (RFC 9649) and the orientation that is still to be applied."""
    with without_pil_limit():
        picture = WebPImagePlugin.WebPImageFile(BytesIO(data))
    _check(picture, check_size)
    coded = re.search(rb"VP8[ L]", data)  # the chunk of pixels; the one of an extended header is VP8X
    image = _image(picture, "webp", lossless=coded is not None and coded[0] == b"VP8L")
    return image, stored_orientation(image.exif, image.xmp)


def read_avif(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A still AVIF file and the orientation that is still to be applied; 10 and 12 bit become uint16.

    Pillow states the container's own rotation as an EXIF orientation. HDR files are refused: their values
    mean light on another scale, and no profile could say so in what is written.
    """
    picture = AvifImagePlugin.AvifImageFile(BytesIO(data))
    _check(picture, check_size)
    array, note, padded = None, "", data + bytes(16)
    if (colour := data.find(b"colrnclx")) >= 0:
        primaries, transfer = struct.unpack_from(">HH", padded, colour + 8)
        if transfer in (_PQ, _HLG):
            raise ImageError("is a high dynamic range picture, which is not supported; export it as SDR first")
        if primaries not in _SRGB_PRIMARIES and not picture.info.get("icc_profile"):
            note = f"its wide colours (primaries {primaries} of ITU-T H.273) are written as sRGB would be"
    flags = padded[data.find(b"av1C") + 6] if b"av1C" in data else 0
    if flags & 0x60:  # of 10 or 12 bits, which Pillow cuts to 8
        array = imagecodecs.avif_decode(data)
        if array.dtype != np.uint16 or array.shape[1::-1] != picture.size:
            raise ValueError("its pixels cannot be decoded")
        array = scale_to_full_range(array, 12 if flags & 0x20 else 10)
    image = _image(picture, "avif", array, note=note)
    return image, stored_orientation(image.exif)


def read_heic(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A HEIC file, where pillow-heif is installed; its pixels come upright and in 8 bit."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(f"is a HEIC file; to read those: {install_hint('heic')}") from None
    picture = HeifImageFile(BytesIO(data))
    _check(picture, check_size)
    bits = picture.info.get("bit_depth", 8)
    return _image(picture, "heic", note=f"its {bits} bits are read as 8" if bits > 8 else ""), 1


def read_raw(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A camera raw, developed by LibRaw to 16-bit sRGB with the camera's white balance, upright.

    Raises ImageError where `rawpy` is not installed, or the file cannot be developed.
    """
    try:
        import rawpy
    except ImportError:
        raise ImageError(f"is a camera raw file; to read those: {install_hint('raw')}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rawpy.imread(BytesIO(data)) as raw:
                check_size(raw.sizes.iwidth, raw.sizes.iheight)
                pixels = raw.postprocess(use_camera_wb=True, output_bps=16, output_color=rawpy.ColorSpace.sRGB)
    except rawpy.LibRawError as error:
        text = error.args[0] if error.args else error
        text = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
        raise ImageError(
            f"is a camera raw file that LibRaw cannot develop ({text}); develop it to TIFF first"
        ) from error
    notes = ("developed from the camera raw as it was shot; its EXIF is left out",)
    return Image(np.ascontiguousarray(pixels), None, "raw", notes=notes), 1


_UNREAD = "EXIF, XMP and a colour profile, where it has them, are not read"
_CONVERT = "convert it to PNG or TIFF first"


def read_jp2(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A JPEG 2000 file (JP2) or codestream, 8 or 16 bit; Pillow would cut colour to 8."""
    picture = Jpeg2KImagePlugin.Jpeg2KImageFile(BytesIO(data))
    check_size(*picture.size)
    size = data.find(b"\xff\x4f\xff\x51")  # the SIZ marker (ISO/IEC 15444-1, A.5.1)
    if not 0 <= size <= len(data) - 43:
        raise ValueError("its codestream is missing")
    width, height, x, y, across, down, _, _, components, depth = struct.unpack_from(">8IHB", data, size + 8)
    # A header of a hundred bytes may ask the decoder for billions of tiles.
    if not across or not down or (-(-width // across)) * (-(-height // down)) > 65535 or x >= width or y >= height:
        raise ValueError("its tiles do not fit its size")
    bits = (depth & 0x7F) + 1
    if depth & 0x80 or bits > 16 or components > 4:
        raise ImageError(f"has {components} channels of {bits} bits, which are not supported; {_CONVERT}")
    array = scale_to_full_range(imagecodecs.jpeg2k_decode(data), bits) if bits > 8 else None
    note = _UNREAD if any(name in data[:size] for name in (b"uuid", b"xml ")) else ""
    image = _image(picture, "jp2", array, lossless=True, note=note)
    if image.size != picture.size:
        raise ValueError("its pixels do not fit its header")
    return image, 1


def read_jxl(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A still JPEG XL file (ISO/IEC 18181), 8 or 16 bit; libjxl applies its orientation."""
    check_size(*_jxl_size(data))
    array = imagecodecs.jpegxl_decode(data)
    if array.ndim > 3 or (array.ndim == 3 and array.shape[2] > 4):
        raise ImageError("holds several frames or more than four channels; extract the picture you want first")
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"pixels of type {array.dtype} are not supported in JPEG XL; {_CONVERT}")
    return Image(*split_alpha(array), "jxl", lossless=False, notes=(_UNREAD,)), 1


def _jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the SizeHeader (ISO/IEC 18181-1, D.2): imagecodecs tells it only after decoding."""
    start = 0
    if data[:2] != b"\xff\x0a":  # in a container: box jxlc, or the first of several jxlp
        whole, part = data.find(b"jxlc"), data.find(b"jxlp")
        start = whole + 4 if whole >= 0 else part + 8
        if max(whole, part) < 0 or data[start : start + 2] != b"\xff\x0a":
            raise ValueError("its codestream is missing")
    bits = int.from_bytes(data[start + 2 : start + 18].ljust(16, b"\0"), "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    across, down = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return (height * across // down if across else side(small)), height


def read_qoi(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A QOI file; the format has no metadata."""
    if len(data) < 22 or not data.endswith(bytes(7) + b"\1"):  # the decoder would repeat the last pixel
        raise ValueError("its end is missing")
    width, height, channels = struct.unpack_from(">IIB", data, 4)
    check_size(width, height)
    check_decoded_size(width * height, len(data), 62)  # the longest run
    array = imagecodecs.qoi_decode(data)
    if array.shape != (height, width, channels):
        raise ValueError("its pixels do not fit its header")
    return Image(*split_alpha(array), "qoi"), 1


_PNM_HEADER = re.compile(rb"P([56])((?:\s|#[^\n]*\n)+\d{1,9}){3}\s")


def read_pnm(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A PBM, PGM or PPM file. Binary PGM and PPM are read here: Pillow cuts 16-bit colour to 8."""
    found = _PNM_HEADER.match(data[:65536])
    if not found:
        picture = PpmImagePlugin.PpmImageFile(BytesIO(data))
        check_size(*picture.size)
        check_decoded_size(picture.width * picture.height, len(data), 8)
        return Image(*split_picture(picture, None), "pnm"), 1
    text = re.sub(rb"#[^\n]*\n", b" ", found[0][2:])
    width, height, most = (int(number) for number in text.split())
    check_size(width, height)
    if not 1 <= most <= 65535:
        raise ValueError(f"a largest value of {most}")
    channels = 3 if found[1] == b"6" else 1
    stored = np.dtype(np.uint8 if most < 256 else ">u2")
    count = width * height * channels
    if missing := max(0, count * stored.itemsize + found.end() - len(data)):
        raise ValueError(f"{missing} bytes of pixels are missing")
    array = np.frombuffer(data, stored, count, found.end()).reshape(height, width, channels)
    array = array.astype(stored.newbyteorder("="))
    if most not in (255, 65535):
        whole = 255 if most < 256 else 65535
        array = np.rint(np.minimum(array, most) * np.float32(whole / most)).astype(array.dtype)
    return Image(array, None, "pnm"), 1


def encode_bmp(image: Image, _: int | None) -> bytes:
    """A BMP of uint8 without alpha."""
    return encode_picture(image.pixels, "BMP", dpi=image.dpi)


def encode_webp(image: Image, quality: int | None) -> bytes:
    """A WebP of uint8: lossless where `image` was and no quality is given. Gray becomes RGB."""
    metadata = {"exif": image.exif, "xmp": image.xmp, "icc_profile": true_profile(image.icc, 3)}
    if quality is None and image.lossless:
        # `exact` keeps the colours under transparent pixels. Effort 2: a third faster than 4, 3 % larger.
        return encode_picture(image.array, "WEBP", lossless=True, quality=30, method=2, exact=True, **metadata)
    return encode_picture(
        image.array, "WEBP", quality=quality or image.quality or _LOSSY_QUALITY, exact=True, **metadata
    )


def encode_avif(image: Image, quality: int | None) -> bytes:
    """An AVIF of uint8 in 4:4:4, always lossy. With alpha, gray becomes RGB."""
    array, exif = image.array, image.exif or b""
    gray = array.shape[2] == 1
    # Pillow writes EXIF that has an orientation anew, which moves maker notes; so it is shown some that has none.
    shown = without_orientation(exif) if exif else b""
    return encode_picture(
        array,
        "AVIF",
        quality=quality or (95 if image.lossless else image.quality or _LOSSY_QUALITY),
        speed=8,
        exif=shown,
        xmp=image.xmp,
        icc_profile=image.icc if gray else true_profile(image.icc, 3),
        subsampling=None if gray else "4:4:4",
    ).replace(shown or b"\0", exif or b"\0", 1)


def encode_jp2(image: Image, _: int | None) -> bytes:
    """A lossless JPEG 2000 file of uint8 or uint16."""
    return bytes(imagecodecs.jpeg2k_encode(squeeze_gray(image.array), codecformat="jp2", reversible=True))


def encode_jxl(image: Image, quality: int | None) -> bytes:
    """A JPEG XL of uint8 or uint16: lossless where `image` was and no quality is given."""
    array = squeeze_gray(image.array)
    if quality is None and image.lossless:
        return bytes(imagecodecs.jpegxl_encode(array, lossless=True, effort=3))
    return bytes(imagecodecs.jpegxl_encode(array, level=quality or image.quality or _LOSSY_QUALITY))


def encode_qoi(image: Image, _: int | None) -> bytes:
    """A QOI of uint8; gray becomes RGB."""
    array = image.array
    if array.shape[2] < 3:
        array = array[..., [0, 0, 0, 1][: array.shape[2] + 2]]
    return bytes(imagecodecs.qoi_encode(np.ascontiguousarray(array)))


def encode_pnm(image: Image, _: int | None) -> bytes:
    """A binary PGM or PPM of uint8 or uint16 without alpha."""
    height, width, channels = image.pixels.shape
    stored = image.pixels.astype(image.pixels.dtype.newbyteorder(">"), copy=False)
    return b"P%d\n%d %d\n%d\n" % (4 + (channels + 1) // 2, width, height, np.iinfo(stored.dtype).max) + stored.tobytes()
