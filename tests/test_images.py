"""Image files in and out: every kind read as Pillow or tifffile reads it, nothing lost, nothing half."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageCms, ImageOps, PngImagePlugin
from skimage import data as samples

from restore.errors import ImageError
from restore.images import (
    FORMATS,
    Image,
    encode_image,
    find_images,
    image_size,
    read_image,
    writable_suffix,
    write_image,
)
from restore.images.metadata import photoshop_segment
from restore.images.profiles import colour_space, true_profile
from restore.images.tiff import append_page
from restore.utils import atomic_write
from restore.utils.atomic_write import TEMPORARY_SUFFIX

PHOTO = samples.astronaut()[20:117, 150:281]  # 131 x 97: odd, and no side a multiple of a JPEG block
PICTURE = PIL.Image.fromarray(PHOTO)
ALPHA = np.tile(np.linspace(0, 255, 131, dtype=np.uint8), (97, 1))
RGBA = PIL.Image.merge("RGBA", (*PICTURE.split(), PIL.Image.fromarray(ALPHA)))
GRAY = PICTURE.convert("L")
DEEP = np.dstack([PHOTO, ALPHA]).astype(np.uint16) * 256 + np.arange(131, dtype=np.uint16)[:, None]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(picture, kind, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def tiff(array, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(rows: list[bytes], width, depth, kind, extra=b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def one_line_error(call, *words) -> str:
    with pytest.raises(ImageError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    for word in words:
        assert word in text, text
    return text


# --- reading ----------------------------------------------------------------------

# fmt: off
MODES = {
    "L": GRAY, "LA": RGBA.convert("LA"), "RGB": PICTURE, "RGBA": RGBA, "1": PICTURE.convert("1"),
    "P": PICTURE.quantize(60), "PG": GRAY.convert("P"),
    "CMYK": PICTURE.convert("CMYK"), "YCbCr": PICTURE.convert("YCbCr"),
}
# fmt: on
SHALLOW = [
    *[("PNG", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "1", "P", "PG")],
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "P", {"transparency": bytes(range(0, 240, 4))}),
    *[("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")],
    *[("JPEG", "RGB", {"progressive": True, "subsampling": n}) for n in (0, 1, 2)],
    *[("WEBP", mode, {"lossless": flag}) for mode in ("RGB", "RGBA") for flag in (True, False)],
    *[("BMP", mode, {}) for mode in ("L", "RGB", "1", "P")],
    *[("AVIF", mode, {"speed": 9}) for mode in ("L", "RGB", "RGBA")],
    *[
        ("TIFF", mode, {"compression": packing})
        for mode in ("L", "LA", "RGB", "RGBA", "1", "P", "CMYK")
        for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
    ],
    ("TIFF", "YCbCr", {"compression": "jpeg"}),
    ("TIFF", "1", {"compression": "group4"}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), SHALLOW)
def test_reads_what_pillow_reads(kind, mode, options):
    data = saved(MODES[mode], kind, **options)
    opened = PIL.Image.open(io.BytesIO(data))
    if "transparency" in options:
        target = "RGBA"
    else:
        target = {"1": "L", "P": "RGB", "PG": "L", "CMYK": "RGB", "YCbCr": "RGB"}.get(mode, mode)
    expected = np.asarray(opened.convert(target)).reshape(97, 131, -1)
    image = read_image(data)
    assert image.format == kind.lower() and image.array.dtype == np.uint8
    assert np.array_equal(image.array, expected)
    assert image.lossless == (kind in ("PNG", "BMP", "TIFF") or options.get("lossless", False))
    assert image.pixels.flags.writeable and image.pixels.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png(channels, interlaced):
    array = DEEP[..., [0, 3] if channels == 2 else slice(channels)]
    if interlaced:
        if channels == 2:
            pytest.skip("no writer at hand")
        data = encode_image(Image(PHOTO).with_array(array))
        data = _interlaced(data, array)
    else:
        kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        data = png([row.astype(">u2").tobytes() for row in array], 131, 16, kind)
    image = read_image(data)
    assert image.pixels.dtype == np.uint16 and np.array_equal(image.array, array)


def _interlaced(data, array):
    """The same picture in Adam7 order."""
    rows = b""
    for x, y, dx, dy in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in array[y::dy, x::dx])
    header = bytearray(data[16:29])
    header[12] = 1
    return data[:8] + chunk(b"IHDR", bytes(header)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_gray_of_png(depth):
    most = (1 << depth) - 1
    values = np.arange(32) % (most + 1)
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    image = read_image(png([row], 32, depth, 0, chunk(b"tRNS", struct.pack(">H", 1))))
    scale = 65535 // most if depth == 16 else 255 // most
    assert np.array_equal(image.pixels[0, :, 0], values * scale)
    assert np.array_equal(image.alpha[0] == 0, values == 1)


def test_transparent_colour_of_deep_png():
    row = DEEP[:1, :, :3]
    extra = chunk(b"tRNS", struct.pack(">HHH", *row[0, 5].tolist()))
    image = read_image(png([row.astype(">u2").tobytes()], 131, 16, 2, extra))
    assert np.array_equal(image.pixels, row)
    assert np.array_equal(image.alpha[0] == 0, (row[0] == row[0, 5]).all(-1))


FLOATS = (DEEP[..., :3].astype(np.float32) / 30000 - 0.5).astype(np.float32)
DEEP_TIFFS = {
    "gray": (DEEP[..., 0], {}),
    "rgb": (DEEP[..., :3], {"photometric": "rgb"}),
    "rgb deflate predictor": (
        DEEP[..., :3],
        {"photometric": "rgb", "compression": "zlib", "predictor": True},
    ),
    "rgb tiles": (DEEP[..., :3], {"photometric": "rgb", "tile": (32, 48), "compression": "zlib"}),
    "rgb big-endian": (DEEP[..., :3], {"photometric": "rgb", "byteorder": ">"}),
    "rgb bigtiff": (DEEP[..., :3], {"photometric": "rgb", "bigtiff": True}),
    "rgba": (DEEP, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "float": (FLOATS, {"photometric": "rgb"}),
    "float deflate": (FLOATS[..., 0], {"compression": "zlib"}),
    "half": (FLOATS.astype(np.float16), {"photometric": "rgb"}),
    "double": (FLOATS.astype(np.float64), {"photometric": "rgb"}),
}


@pytest.mark.parametrize("name", DEEP_TIFFS)
def test_deep_tiff(name):
    array, options = DEEP_TIFFS[name]
    image = read_image(tiff(array, **options))
    expected = array if array.dtype == np.uint16 else array.astype(np.float32)
    assert image.array.dtype == expected.dtype
    assert np.array_equal(image.array, expected.reshape(97, 131, -1))
    assert image.dpi is None or image.dpi == (1, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source", [DEEP, np.dstack([FLOATS, FLOATS[..., :1]])], ids=["uint16", "float32"])
def test_lzw_of_deep_tiff(channels, source):
    array = np.ascontiguousarray(source[..., :channels])
    swapped = array[..., [2, 1, 0, 3][:channels]] if channels > 1 else array[..., 0]
    data = cv2.imencode(".tif", np.ascontiguousarray(swapped), [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    assert tifffile.TiffFile(io.BytesIO(data)).pages[0].compression == 5
    assert np.array_equal(read_image(data).array, array)


def test_kinds_of_deep_tiff():
    planar = read_image(tiff(np.moveaxis(DEEP[..., :3], -1, 0), photometric="rgb", planarconfig="separate"))
    assert np.array_equal(planar.pixels, DEEP[..., :3])
    white = read_image(tiff(DEEP[..., 0], photometric="miniswhite"))
    assert np.array_equal(white.pixels[..., 0], 65535 - DEEP[..., 0])
    shares = DEEP[..., 3:] / 65535
    multiplied = np.rint(DEEP[..., :3] * shares).astype(np.uint16)
    associated = tiff(np.dstack([multiplied, DEEP[..., 3]]), photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(associated)
    visible = DEEP[..., 3] > 40000
    assert np.abs(image.pixels.astype(int) - DEEP[..., :3])[visible].max() <= 1
    strange = np.array([[np.nan, -3.0], [np.inf, 7.5]], np.float32)
    assert np.array_equal(read_image(tiff(strange)).pixels[..., 0], strange, equal_nan=True)
    for array in (
        DEEP[..., 0].astype(np.uint32),
        DEEP[..., 0].astype(np.int16),
        PHOTO[..., 0].astype(np.int8),
    ):
        one_line_error(lambda array=array: read_image(tiff(array)), "not supported")


def test_deep_avif_keeps_its_depth():
    array = cv2.GaussianBlur(DEEP[..., :3] >> 6, (0, 0), 2)
    options = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_SPEED, 9]
    data = cv2.imencode(".avif", array[..., ::-1], options)[1].tobytes()
    image = read_image(data)
    assert image.pixels.dtype == np.uint16
    assert np.abs(image.pixels / 65535 - array / 1023).mean() < 0.002
    at = data.index(b"colrnclx") + 10
    one_line_error(lambda: read_image(data[:at] + b"\0\x10" + data[at + 2 :]), "high dynamic range")
    assert "primaries 12" in read_image(data[: at - 2] + b"\0\x0c" + data[at:]).notes[0] and image.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"speed": 9}}.get(kind, {})
    data = saved(PICTURE, kind, **options, **lossless)
    stored = PIL.Image.open(io.BytesIO(data))
    if kind == "TIFF":
        stored.load()  # Pillow turns TIFF by itself
    expected = np.asarray(ImageOps.exif_transpose(stored))
    image = read_image(data)
    assert np.array_equal(image.pixels, expected)
    assert np.array_equal(image.pixels.shape[:2], (97, 131) if orientation < 5 else (131, 97))
    again = encode_image(image)
    assert PIL.Image.open(io.BytesIO(again)).getexif().get(0x0112, 1) == 1
    assert read_image(again).size == image.size


def test_orientation_of_deep_tiff_and_png():
    for number in range(1, 9):
        data = tiff(DEEP[..., :3], photometric="rgb", extratags=[(274, "H", 1, number, True)])
        shallow = PIL.Image.fromarray(np.ascontiguousarray(DEEP[..., 0] >> 8).astype(np.uint8))
        exif = PIL.Image.Exif()
        exif[0x0112] = number
        shallow.info["exif"] = exif.tobytes()
        turned = np.asarray(ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(saved(shallow, "PNG", exif=exif)))))
        assert np.array_equal(read_image(data).pixels[..., 0] >> 8, turned)


@pytest.mark.parametrize("bits", [10, 12])
def test_gray_avif_of_limited_range(bits):
    """Most cameras store luma in 64 to 940 of 1023; black and white become black and white."""
    ramp = np.tile(np.linspace(64, 940, 128).astype(np.uint16), (64, 1)) << (bits - 10)
    data = bytearray(imagecodecs.avif_encode(ramp, level=100, pixelformat="400", bitspersample=bits))
    data[data.index(b"colrnclx") + 14] &= 0x7F  # the flag of full range
    pixels = read_image(bytes(data)).pixels[..., 0].astype(float)
    assert np.abs(pixels - ((ramp >> (bits - 10)) - 64.0) / 876 * 65535).max() < 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_that_stands_in_xmp_only(kind, orientation):
    """The picture is turned, and only then the tag is 1. EXIF (or TIFF), where it has the tag, comes first."""
    xmp = XMP.replace(b'Orientation="6"', b'Orientation="%d"' % orientation)
    packet = PngImagePlugin.PngInfo()
    packet.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {"PNG": {"pnginfo": packet}, "TIFF": {"tiffinfo": {700: xmp}}}.get(kind, {"xmp": xmp})
    data = saved(PICTURE, kind, **options)
    # Pillow turns TIFF by itself.
    image, stored = read_image(data), PHOTO if kind == "TIFF" else np.asarray(PIL.Image.open(io.BytesIO(data)))
    assert np.array_equal(image.pixels, np.rot90(stored, 2 if orientation == 3 else -1))
    assert image.size == ((97, 131) if orientation == 6 else (131, 97)) and b'tiff:Orientation="1"' in image.xmp
    exif = PIL.Image.Exif()
    exif[0x0112] = 1
    options = {"tiffinfo": {700: xmp, 0x0112: 1}} if kind == "TIFF" else {"exif": exif, **options}
    assert read_image(saved(PICTURE, kind, **options)).size == (131, 97)


# --- refusals ----------------------------------------------------------------------

# fmt: off
WHOLE = {
    "png": saved(PICTURE, "PNG"), "png palette": saved(MODES["P"], "PNG"),
    "png16": png([row.astype(">u2").tobytes() for row in DEEP[..., :3]], 131, 16, 2),
    "jpeg": saved(PICTURE, "JPEG"), "jpeg 4:4:4": saved(PICTURE, "JPEG", subsampling=0, quality=95),
    "jpeg gray": saved(GRAY, "JPEG"), "jpeg progressive": saved(PICTURE, "JPEG", progressive=True),
    "jpeg cmyk": saved(MODES["CMYK"], "JPEG"),
    "webp": saved(PICTURE, "WEBP"), "webp lossless": saved(RGBA, "WEBP", lossless=True),
    "bmp": saved(PICTURE, "BMP"), "bmp palette": saved(MODES["P"], "BMP"),
    "avif": saved(PICTURE, "AVIF", speed=9),
    **{f"tiff {how}": saved(PICTURE, "TIFF", compression=how) for how in ("raw", "tiff_lzw", "jpeg")},
    **{f"tiff {name}": tiff(array, **options) for name, (array, options) in DEEP_TIFFS.items()},
}
# fmt: on
LZW16 = cv2.imencode(".tif", DEEP[..., :3], [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
WHOLE["tiff lzw16"] = LZW16


@pytest.mark.parametrize("cut", [0.02, 0.2, 0.5, 0.8, 0.97, -40, -1])
@pytest.mark.parametrize("name", WHOLE)
def test_truncated_files_are_errors(name, cut):
    data = WHOLE[name]
    whole = read_image(data)
    length = len(data) + cut if cut < 0 else max(int(len(data) * cut), 40)
    if cut == -1 and name in (
        "bmp",
        "bmp palette",
        "jpeg cmyk",
    ):  # padding, half an end marker: no pixel is lost
        assert np.array_equal(read_image(data[:length]).pixels, whole.pixels)
    else:
        one_line_error(lambda: read_image(data[:length], name="half.img"), "half.img: ")


@pytest.mark.parametrize("name", ["jpeg", "jpeg 4:4:4", "jpeg gray", "jpeg cmyk"])
@pytest.mark.parametrize("cut", [0.4, 0.7, 0.9])
def test_jpeg_cut_and_closed_is_an_error(name, cut):
    data = WHOLE[name]
    start = data.index(b"\xff\xda")
    one_line_error(lambda: read_image(data[: start + int((len(data) - start) * cut)] + b"\xff\xd9"), "missing")


def test_gray_corner_of_a_whole_jpeg_is_fine():
    array = PHOTO.copy()
    array[60:, 80:] = 128
    for mode in ("RGB", "L"):
        data = saved(PIL.Image.fromarray(array).convert(mode), "JPEG", quality=95)
        assert abs(int(read_image(data).pixels[-1, -1, 0]) - 128) <= 1


@pytest.mark.parametrize(("depth", "size"), [(8, 131 * 3), (16, 131 * 6)])
def test_png_with_missing_rows_or_bad_checksums(depth, size):
    data = png([bytes(size)] * 40, 131, depth, 2)
    short = data[:16] + struct.pack(">II", 131, 97) + data[24:29]
    short += struct.pack(">I", zlib.crc32(short[12:29])) + data[33:]
    one_line_error(lambda: read_image(short), "damaged or incomplete PNG")
    at = data.index(b"IDAT") + 12
    one_line_error(lambda: read_image(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), "damaged or incomplete PNG")
    transparent = chunk(b"tRNS", bytes(6))[:-1] + b"?"  # a chunk that changes pixels may not
    one_line_error(lambda: read_image(data[:33] + transparent + data[33:]), "checksum")
    spoilt = chunk(b"tIME", bytes(7))[:-1] + b"?"  # an ancillary chunk may be broken
    assert read_image(data[:33] + spoilt + data[33:]).size == (131, 40)


def test_animations_and_pages_are_refused():
    second = ImageOps.mirror(PICTURE)
    for kind in ("PNG", "WEBP", "TIFF", "AVIF"):
        data = saved(PICTURE, kind, save_all=True, append_images=[second, PICTURE])
        one_line_error(lambda data=data: read_image(data, name="film"), "film: ", "3 ")
    one_line_error(lambda: read_image(tiff(np.zeros((5, 8, 8), np.uint16), imagej=True)), "5 pages")
    one_line_error(lambda: read_image(saved(PICTURE, "GIF")), "GIF", "not supported")
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(PHOTO[::4, ::4].copy(), photometric="rgb", subfiletype=1)
        file.write(PHOTO, photometric="rgb")
    assert np.array_equal(read_image(out.getvalue()).pixels, PHOTO)
    with tifffile.TiffWriter(out := io.BytesIO()) as file:
        file.write(PHOTO[::4, ::4].copy(), photometric="rgb", subfiletype=1)
    one_line_error(lambda: read_image(out.getvalue()), "previews only")
    loop = struct.pack("<2sHI", b"II", 42, 8) + (struct.pack("<H", 0) + struct.pack("<I", 8)) * 2
    one_line_error(lambda: read_image(loop), "damaged or incomplete TIFF")


def test_first_picture_of_an_mpo_is_the_photograph():
    data = saved(PICTURE, "MPO", save_all=True, append_images=[ImageOps.mirror(PICTURE)])
    image = read_image(data)
    expected = np.asarray(PIL.Image.open(io.BytesIO(saved(PICTURE, "JPEG"))))
    assert image.format == "jpeg" and np.array_equal(image.pixels, expected)


def test_too_large_is_refused_before_decoding(monkeypatch):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    one_line_error(lambda: read_image(bomb, name="bomb.png"), "bomb.png", "3600 megapixels", "500")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's limit is not ours
    for name, data in WHOLE.items():
        one_line_error(lambda data=data: read_image(data, max_megapixels=0.01), "megapixels, more than the 0.01")
        assert read_image(data).size == (131, 97), name
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_what_is_no_picture(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("BM is how this text starts, and it is no bitmap at all")
    one_line_error(lambda: read_image(tmp_path / "empty.png"), "empty.png", "is empty")
    one_line_error(lambda: read_image(tmp_path / "text.jpg"), "text.jpg", "no picture")
    one_line_error(lambda: read_image(str(tmp_path / "none.png")), "none.png", "no such file")
    one_line_error(lambda: read_image(tmp_path), "is a folder")
    one_line_error(lambda: read_image("a\0b"), "null byte")
    one_line_error(lambda: read_image(b"\n", name="two\nlines"), "two?lines")
    (tmp_path / "wrong.jpg").write_bytes(WHOLE["png"])
    assert read_image(tmp_path / "wrong.jpg").format == "png"


def test_heic_needs_its_extra_and_comes_upright(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(20)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    one_line_error(lambda: read_image(data, name="a.heic"), "a.heic", "pip install 'restore-toolkit[heic]'")
    opened = PICTURE.copy()  # the plugin hands pixels over upright, the tag reset
    opened.info = {"exif": b"Exif\0\0" + _exif()[6:], "icc_profile": SRGB}
    plugin = types.SimpleNamespace(HeifImageFile=lambda file: opened)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    image = read_image(data)
    assert image.format == "heic" and np.array_equal(image.pixels, PHOTO) and image.icc == SRGB
    assert writable_suffix(image, ".heic") == (
        ".jpg",
        "HEIC can be read but not written: written as JPEG instead",
    )
    one_line_error(lambda: encode_image(image), "HEIC can be read but not written")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_gives_a_picture_or_an_image_error(name, damage):
    data = bytearray(WHOLE[name])
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    try:
        image = read_image(bytes(data), max_megapixels=5)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert image.pixels.ndim == 3


# --- writing ----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lossless_round_trip(data):
    kind, dtype = data.draw(
        st.sampled_from(
            [(k, t) for k in ("png", "tiff") for t in ("u1", "u2")] + [("tiff", "f4"), ("webp", "u1"), ("bmp", "u1")]
        )
    )
    channels = data.draw(st.sampled_from({"webp": [3, 4], "bmp": [1, 3]}.get(kind, [1, 2, 3, 4])))
    shape = (*data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40))), channels)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = (
        rng.normal(size=shape).astype("f4") if dtype == "f4" else rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    )
    written = encode_image(Image(PHOTO).with_array(array), kind)
    again = read_image(written)
    assert again.array.dtype == array.dtype and np.array_equal(again.array, array)
    if kind == "tiff":
        assert np.array_equal(tifffile.imread(io.BytesIO(written)).reshape(shape), array)
    elif kind == "png" and dtype == "u1":
        assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(written))).reshape(shape), array)


def test_tiff_of_many_strips_is_what_others_read():
    array = np.random.default_rng(0).integers(0, 65536, (700, 900, 3)).astype(np.uint16)
    for pixels in (array, (array >> 8).astype(np.uint8)):
        written = encode_image(Image(pixels, exif=_exif(order="MM")[6:]), "tiff")
        assert len(tifffile.TiffFile(io.BytesIO(written)).pages[0].dataoffsets) > 1
        assert np.array_equal(tifffile.imread(io.BytesIO(written)), pixels)
        assert np.array_equal(cv2.imdecode(np.frombuffer(written, np.uint8), -1)[..., ::-1], pixels)
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(written))), pixels)


def test_a_further_page_follows_the_byte_order_of_the_first():
    image = Image(DEEP[..., :3], exif=_exif(order="MM")[6:], dpi=(300, 300))
    file = io.BytesIO(encode_image(image, "tiff"))
    append_page(file, image)
    for page in (read_image(file.getvalue(), page=number) for number in (0, 1)):
        assert np.array_equal(page.pixels, image.pixels) and page.dpi == (300, 300)


def test_resolution_that_stands_in_exif_only():
    exif = PIL.Image.Exif()
    exif[282], exif[283], exif[296] = 118.0, 59.0, 3  # a centimetre
    assert read_image(encode_image(Image(PHOTO, exif=exif.tobytes()[6:]), "tiff")).dpi == pytest.approx(
        (118 * 2.54, 59 * 2.54)
    )


def test_lossy_formats_stay_near_and_gray_stays_gray():
    for kind, limit in (("jpeg", 2.5), ("avif", 2.5)):
        for array in (PHOTO, np.asarray(GRAY)):
            image = read_image(encode_image(Image(PHOTO).with_array(array), kind))
            assert image.pixels.shape[2] == (3 if array.ndim == 3 else 1)
            assert np.abs(image.pixels.astype(int) - array.reshape(image.pixels.shape)).mean() < limit


@pytest.mark.parametrize("quality", [20, 50, 75, 92, 98])
def test_jpeg_follows_its_input(quality):
    for options in ({"subsampling": 2}, {"subsampling": 0, "progressive": True}, {"subsampling": 1}):
        data = saved(PICTURE, "JPEG", quality=quality, **options)
        image = read_image(data)
        assert image.quality == quality
        before, after = (PIL.Image.open(io.BytesIO(d)) for d in (data, encode_image(image)))
        assert before.quantization == after.quantization
        assert PIL.JpegImagePlugin.get_sampling(before) == PIL.JpegImagePlugin.get_sampling(after)
        assert ("progressive" in before.info) == ("progressive" in after.info)
        assert read_image(encode_image(image, quality=60)).quality == 60
    gray = read_image(saved(GRAY, "JPEG", quality=quality))
    assert read_image(encode_image(gray)).pixels.shape[2] == 1
    assert read_image(encode_image(gray.with_array(PHOTO))).quality == quality
    assert read_image(encode_image(Image(PHOTO), "jpeg")).quality == 95
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    hard = read_image(saved(PICTURE, "JPEG", quality=100, subsampling=0, progressive=True)).with_array(noise)
    assert read_image(encode_image(hard)).size == (400, 400)


def test_quality_and_lossless_webp():
    lossless, lossy = (read_image(WHOLE[name]) for name in ("webp lossless", "webp"))
    assert b"VP8L" in encode_image(lossless) and b"VP8 " in encode_image(lossy)
    assert b"VP8 " in encode_image(read_image(WHOLE["jpeg"]), "webp")
    for kind in ("webp", "avif", "jpeg"):
        assert len(encode_image(Image(PHOTO), kind, quality=20)) < len(encode_image(Image(PHOTO), kind, quality=90)) / 2
    one_line_error(lambda: encode_image(Image(PHOTO), "jpeg", quality=0), "1 to 100")


def test_writable_suffix():
    plain, clear = Image(PHOTO), Image(PHOTO, ALPHA)
    deep, real = plain.with_array(DEEP[..., :3]), plain.with_array(FLOATS)
    for suffix in (".png", ".JPG", ".webp", ".tif", ".bmp", ".avif"):
        assert writable_suffix(plain, suffix) == (suffix, None)
    assert writable_suffix(clear, ".jpg") == (
        ".png",
        "JPEG does not hold transparency: written as PNG instead",
    )
    assert writable_suffix(clear, ".webp") == (".webp", None) and writable_suffix(clear, ".bmp")[0] == ".png"
    assert writable_suffix(deep, ".jpg")[0] == writable_suffix(deep, ".avif")[0] == ".png"
    assert writable_suffix(deep, ".tiff") == (".tiff", None) and writable_suffix(real, ".png")[0] == ".tif"
    wide = plain.with_array(np.zeros((1, 17000, 3), np.uint8))
    assert writable_suffix(wide, ".webp")[0] == ".png" and writable_suffix(wide, ".jpg")[1] is None
    one_line_error(lambda: writable_suffix(plain, ".gif"), ".gif", ".png")
    for image, kind in ((clear, "jpeg"), (deep, "webp"), (real, "png"), (wide, "webp")):
        one_line_error(lambda image=image, kind=kind: encode_image(image, kind), "does not hold")


# --- metadata ----------------------------------------------------------------------

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    b'tiff:Orientation="6" exif:PixelXDimension="131" dc:title="K\xc3\xb6ln"><tiff:ImageWidth>131'
    b"</tiff:ImageWidth></rdf:Description></x:xmpmeta>"
)


def _exif(orientation=6, note=b"MAKER\0" + bytes(range(200)), order="MM") -> bytes:
    """A camera's EXIF: maker note, sizes, position, and a thumbnail in a second directory."""
    o = ">" if order == "MM" else "<"
    thumbnail = saved(PICTURE.resize((16, 12)), "JPEG")

    def directory(at, rows, following=0):
        body, values, after = struct.pack(o + "H", len(rows)), b"", at + 2 + 12 * len(rows) + 4
        for tag, kind, count, data in rows:
            body += struct.pack(o + "HHI", tag, kind, count)
            body += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(o + "I", after + len(values))
            values += data if len(data) > 4 else b""
        return body + struct.pack(o + "I", following) + values

    def long(value):
        return struct.pack(o + "I", value)

    def short(value):
        return struct.pack(o + "H", value)

    inner = [
        (0x9003, 2, 20, b"2024:05:06 07:08:09\0"),
        (0x927C, 7, len(note), note),
        (0xA002, 3, 1, short(131)),
        (0xA003, 4, 1, long(97)),
    ]
    place = [(1, 2, 2, b"N\0"), (2, 5, 3, struct.pack(o + "6I", 48, 1, 8, 1, 3, 1))]
    make = (0x010F, 2, 8, b"Shutter\0")
    first_size = len(directory(8, [make] * 4))
    exif_at = 8 + first_size
    gps_at = exif_at + len(directory(exif_at, inner))
    second_at = gps_at + len(directory(gps_at, place))
    second_size = 2 + 12 * 2 + 4
    rows = [
        make,
        (0x0112, 3, 1, short(orientation)),
        (0x8769, 4, 1, long(exif_at)),
        (0x8825, 4, 1, long(gps_at)),
    ]
    first = directory(8, rows, second_at).ljust(first_size, b"\0")
    second = directory(second_at, [(0x201, 4, 1, long(second_at + second_size)), (0x202, 4, 1, long(len(thumbnail)))])
    start = order.encode() + struct.pack(o + "HI", 42, 8)
    return b"Exif\0\0" + start + first + directory(exif_at, inner) + directory(gps_at, place) + second + thumbnail


@pytest.mark.parametrize("order", ["MM", "II"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "avif", "png 16 bit", "tiff float"])
def test_metadata_is_carried(kind, order, tmp_path):
    raw = _exif(order=order)
    source = saved(PICTURE, "JPEG", exif=raw, xmp=XMP, icc_profile=SRGB, dpi=(300, 300))
    image = read_image(source)
    assert image.size == (97, 131) and image.icc == SRGB and image.dpi == (300, 300)
    assert b"\xff\xd8" not in image.exif and len(image.exif) < len(raw) - 300  # no thumbnail
    assert b'tiff:Orientation="1"' in image.xmp and b'PixelXDimension="97"' in image.xmp
    larger = np.repeat(np.repeat(image.pixels, 2, 0), 2, 1)
    if " " in kind:
        larger = (larger.astype(np.uint16) * 257) if kind == "png 16 bit" else (larger / 255).astype(np.float32)
    image, kind = image.with_array(larger), kind.split()[0]
    path = write_image(image, tmp_path / f"out.{kind}")
    exif = PIL.Image.open(path).getexif() if image.pixels.dtype != np.float32 else None
    if exif is not None:
        assert exif[0x010F] == "Shutter" and exif.get(0x0112, 1) == 1 and not exif.get_ifd(1)
        inner = exif.get_ifd(0x8769)
        assert inner[0x9003] == "2024:05:06 07:08:09" and inner[0x927C] == b"MAKER\0" + bytes(range(200))
        assert (inner[0xA002], inner[0xA003]) == (194, 262)
        assert exif.get_ifd(0x8825)[2] == (48, 8, 3)
    if kind == "tiff":
        tags = [tag.code for tag in tifffile.TiffFile(path).pages[0].tags]
        assert len(tags) == len(set(tags)) and 0x010F in tags
    again = read_image(path)
    assert again.size == (194, 262) and again.icc == SRGB
    assert b'tiff:Orientation="1"' in again.xmp and b'PixelXDimension="194"' in again.xmp
    assert b"<tiff:ImageWidth>194<" in again.xmp and "Köln".encode() in again.xmp
    assert again.dpi is None or np.allclose(again.dpi, 300, atol=0.02)
    assert (again.dpi is None) == (kind in ("webp", "avif"))
    back = PIL.Image.open(io.BytesIO(encode_image(Image(PHOTO, exif=again.exif), "jpeg"))).getexif()
    assert back[0x010F] == "Shutter" and back.get_ifd(0x8769)[0x927C] == b"MAKER\0" + bytes(range(200))
    bare = read_image(encode_image(again, kind, metadata=False))
    assert bare.exif is None and bare.xmp is None and bare.dpi is None and bare.icc == SRGB


def test_oversized_metadata_does_not_stop_a_jpeg():
    image = Image(PHOTO, exif=_exif(note=bytes(70000))[6:], xmp=XMP + b" " * 70000, icc=SRGB + bytes(200000))
    again = read_image(encode_image(image, "png"))
    assert len(again.exif) > 70000 and len(again.xmp) > 70000
    written = PIL.Image.open(io.BytesIO(encode_image(image, "jpeg")))
    assert written.getexif()[0x010F] == "Shutter" and 0x927C not in written.getexif().get_ifd(0x8769)
    assert "xmp" not in written.info and written.info["icc_profile"] == SRGB + bytes(200000)


@pytest.mark.parametrize(
    "spoilt", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0II*\0\xff\xff\0\0", b"junk" * 9]
)
def test_broken_metadata_is_left_out(spoilt):
    image = read_image(saved(PICTURE, "JPEG", exif=spoilt or b"Exif\0\0", icc_profile=b"no profile"))
    assert image.exif is None and image.icc is None and image.size == (131, 97)
    for kind in ("png", "jpeg", "webp", "tiff", "avif"):
        read_image(encode_image(Image(PHOTO, exif=spoilt, icc=b"x" * 300, xmp=b"\xff"), kind))


def test_old_exif_and_colour_chunks_of_png():
    text = f"\nexif\n    {len(_exif())}\n{_exif().hex()}\n"
    old = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text.encode()))
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    image = read_image(WHOLE["png"][:33] + gamma + old + WHOLE["png"][33:])
    assert image.size == (97, 131) and b"Shutter" in image.exif
    assert PIL.Image.open(io.BytesIO(encode_image(image))).info["gamma"] == 1.0


def _lab(array, mode, icc):
    picture = PIL.Image.fromarray(array, mode) if mode == "L" else PIL.Image.fromarray(array)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return np.asarray(ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("LAB"), outputMode="LAB"))


def test_profiles_stay_true_when_channels_change():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    gray = true_profile(SRGB, 1)
    assert colour_space(gray) == "GRAY"
    difference = _lab(ramp, "L", gray).astype(int) - _lab(np.dstack([ramp] * 3), "RGB", SRGB)
    assert np.abs(difference[..., 0]).max() <= 1
    colour = true_profile(gray, 3)
    assert colour_space(colour) == "RGB"
    assert np.abs(_lab(PHOTO, "RGB", colour).astype(np.int8) - _lab(PHOTO, "RGB", SRGB).astype(np.int8)).max() <= 2
    scan = read_image(saved(GRAY, "JPEG", icc_profile=gray))
    for kind in ("png", "jpeg", "webp", "tiff", "avif"):
        assert colour_space(read_image(encode_image(scan.with_array(PHOTO), kind)).icc) == "RGB"
        written = encode_image(scan, kind)
        again = read_image(written)
        stored = PIL.Image.open(io.BytesIO(written))
        assert colour_space(stored.info["icc_profile"]) == ("GRAY" if stored.mode == "L" else "RGB")
        assert colour_space(again.icc) == ("GRAY" if again.pixels.shape[2] == 1 else "RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert true_profile(lab, 3) is None and true_profile(b"short", 3) is None
    tagged = read_image(saved(PICTURE, "PNG", icc_profile=SRGB))
    assert np.array_equal(tagged.pixels, PHOTO) and tagged.icc == SRGB


def _cmyk_profile() -> bytes:
    """A press whose every ink is neutral: L* falls by 25 for each full ink (ICC.1, 10.10)."""
    grid = [255 - round(63.75 * bin(i).count("1")) for i in range(16)]
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += ramp * 4 + b"".join(bytes([value, 128, 128]) for value in grid) + ramp * 3
    text = b"text\0\0\0\0made here\0\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags, rows, data = {b"cprt": text, b"wtpt": white, b"A2B0": table, b"A2B1": table}, b"", b""
    for name, value in tags.items():
        rows += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    total = 132 + len(rows) + len(data)
    header = struct.pack(">I4sI4s4s4s", total, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + rows + data


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(kind):
    inks = np.zeros((97, 131, 4), np.uint8)
    inks[:, 40:80, 0] = 255
    inks[:, 80:, :2] = 255
    picture = PIL.Image.fromarray(inks, "CMYK")
    options = {"quality": 100} if kind == "JPEG" else {}
    plain = read_image(saved(picture, kind, **options))
    assert np.abs(plain.pixels[40, [20, 60, 110]].astype(int) - [[255] * 3, [0, 255, 255], [0, 0, 255]]).max() <= 2
    image = read_image(saved(picture, kind, icc_profile=_cmyk_profile(), **options))
    assert image.icc is None and image.pixels.shape == (97, 131, 3)
    paper, one, two = image.pixels[40, [20, 60, 110]].astype(int)
    assert paper.min() >= 254 and np.ptp(one) <= 3 and np.ptp(two) <= 3 and 254 > one[0] > two[0] > 60
    broken = saved(picture, kind, icc_profile=_cmyk_profile()[:200], **options)
    assert np.array_equal(read_image(broken).pixels, plain.pixels)
    assert read_image(encode_image(image)).icc is None


def test_maker_notes_keep_their_place():
    """They refer to themselves by offset, so no byte of the block may move; Pillow moves them."""
    block = _exif(note=b"MAKER\0" + bytes(range(200)))[6:]
    at = block.index(b"MAKER\0")
    image = read_image(saved(PICTURE, "JPEG", exif=b"Exif\0\0" + block))
    for kind in ("jpeg", "png", "webp", "avif", "tiff"):
        written = encode_image(image, kind)
        start = 0 if kind == "tiff" else written.index(b"MM\0*")
        assert written[start + at : start + at + 206] == block[at : at + 206], kind
    exif = PIL.Image.Exif()
    exif.load(block)
    assert exif.tobytes()[6:].find(b"MAKER\0") not in (-1, at)  # else Pillow can do this part


def test_png_metadata_that_pillow_refuses():
    """A damaged or large text beside whole pixels costs the text, and is told; Pillow refuses the whole file."""
    large = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20)))
    spoilt = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
    for extra in (large, spoilt):
        data = WHOLE["png"][:33] + extra + WHOLE["png"][33:]
        with pytest.raises((OSError, ValueError, SyntaxError)):
            PIL.Image.open(io.BytesIO(data)).load()
        assert np.array_equal(read_image(data).pixels, PHOTO)
    assert "tEXt" in read_image(data).notes[0]
    colour = chunk(b"cICP", bytes([12, 13, 0, 1]))
    again = encode_image(read_image(WHOLE["png"][:33] + colour + WHOLE["png"][33:]))
    assert colour in again


def test_iptc_comments_and_texts_are_carried():
    iptc = b"\x1c\x02\x78\0\x05hello"
    data = saved(PICTURE, "JPEG", comment=b"a comment", extra=photoshop_segment(iptc))
    image = read_image(data)
    assert image.iptc == iptc and image.comment == b"a comment"
    again = read_image(encode_image(image))
    assert again.iptc == iptc and again.comment == b"a comment"
    assert PIL.Image.open(io.BytesIO(encode_image(image))).info["photoshop"][0x0404] == iptc
    assert read_image(encode_image(image, "tiff")).iptc == iptc
    assert tifffile.TiffFile(io.BytesIO(encode_image(image, "tiff"))).pages[0].tags[33723].value == iptc
    bare = read_image(encode_image(image, metadata=False))
    assert bare.iptc is None and bare.comment is None
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "Köln")
    texts.add_itxt("Title", "日本", zip=True)
    image = read_image(saved(PICTURE, "PNG", pnginfo=texts))
    assert PIL.Image.open(io.BytesIO(encode_image(image))).text == {"Author": "Köln", "Title": "日本"}
    assert PIL.Image.open(io.BytesIO(encode_image(image, metadata=False))).text == {}


GAIN_MAP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description hdrgm:Version="1.0" dc:title="kept">'
    b"<Container:Directory><rdf:Seq><rdf:li Item:Semantic='GainMap'/></rdf:Seq></Container:Directory>"
    b"</rdf:Description></x:xmpmeta>"
)


def test_a_second_picture_is_left_out_with_all_that_speaks_of_it():
    film = saved(PICTURE, "MPO", save_all=True, append_images=[ImageOps.mirror(PICTURE)])
    assert "second picture" in read_image(film).notes[0] and read_image(WHOLE["jpeg"]).notes == ()
    image = read_image(saved(PICTURE, "JPEG", xmp=GAIN_MAP))
    assert "gain map" in image.notes[0] and b'dc:title="kept"' in image.xmp
    assert b"hdrgm" not in image.xmp and b"GainMap" not in image.xmp


def test_what_is_not_kept_is_told():
    seven = np.dstack([PHOTO, PHOTO, PHOTO[..., 0]])
    image = read_image(tiff(seven, photometric="rgb", extrasamples=["unspecified"] * 4))
    assert np.array_equal(image.array, PHOTO) and "7 channels" in image.notes[0]
    inks = np.dstack([255 - PHOTO, np.zeros_like(PHOTO[..., 0])])
    for array in (inks, inks.astype(np.uint16) * 257):
        image = read_image(tiff(array, photometric="separated"))
        assert "CMYK" in image.notes[0] and image.pixels.dtype == array.dtype
        assert np.array_equal(image.pixels, PHOTO.astype(array.dtype) * (257 if array.dtype == np.uint16 else 1))
    assert "CMYK" in read_image(WHOLE["jpeg cmyk"]).notes[0]
    assert writable_suffix(Image(PHOTO, exif=b"x", icc=SRGB), ".bmp") == (
        ".bmp",
        "BMP is written without EXIF, its colour profile",
    )


def test_picture_beside_an_animation_is_a_frame():
    """An APNG whose default picture is no frame of it holds two pictures with one frame."""
    film = saved(PICTURE, "PNG", save_all=True, append_images=[ImageOps.mirror(PICTURE)], default_image=True)
    assert film.count(b"fcTL") == 1
    one_line_error(lambda: read_image(film), "animated PNG of 2 frames")
    control = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", struct.pack(">7I", 0, 131, 97, 0, 0, 1, 0)[:26])
    assert read_image(WHOLE["png"][:33] + control + WHOLE["png"][33:]).size == (131, 97)


FEW_BITS = [(np.uint8, 4), (np.uint8, 2), (np.uint16, 10), (np.uint16, 12), (np.uint16, 14)]


@pytest.mark.parametrize(("dtype", "bits"), FEW_BITS)
def test_tiff_of_few_bits_is_spread(dtype, bits):
    array = (np.arange(64 * 40) % (1 << bits)).astype(dtype).reshape(40, 64)
    packed = np.unpackbits(array.astype(">u2").view(np.uint8).reshape(40, 64, 2), axis=2)[..., 16 - bits :]
    rows = np.packbits(packed.reshape(40, -1), axis=1).tobytes()
    entries = [(256, 64), (257, 40), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4)]
    entries += [(277, 1), (278, 40), (279, len(rows))]
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    image = read_image(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + rows)
    most = np.iinfo(dtype).max
    assert image.pixels.dtype == dtype
    assert np.abs(image.pixels[..., 0] - array / ((1 << bits) - 1) * most).max() <= 0.51


@pytest.mark.parametrize(("kind", "channels"), [(k, c) for k in ("jp2", "jxl", "qoi", "pnm") for c in (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000_jpeg_xl_qoi_and_pnm_keep_every_pixel(kind, channels, dtype, tmp_path):
    array = DEEP[..., [0, 3] if channels == 2 else slice(channels)]
    image = Image(PHOTO).with_array(array if dtype == np.uint16 else (array >> 8).astype(np.uint8))
    suffix = FORMATS[kind].suffixes[0]
    if writable_suffix(image, suffix)[0] != suffix:
        assert dtype == np.uint16 if kind == "qoi" else channels in (2, 4)
        return
    path = write_image(image, tmp_path / f"a{suffix}")
    again = read_image(path)
    assert again.format == kind and again.array.dtype == dtype
    kept = again.array if kind != "qoi" or channels > 2 else again.array[..., [0, 3][:channels]]
    assert np.array_equal(kept, image.array) and image_size(path) == (97, 131)
    if kind != "jxl" and not (kind == "jp2" and dtype == np.uint16) and not (kind == "pnm" and dtype == np.uint16):
        assert np.array_equal(np.asarray(PIL.Image.open(path)).reshape(again.array.shape), again.array)
    data = path.read_bytes()
    one_line_error(lambda: read_image(data[: len(data) // 2]), "damaged or incomplete")


def test_pnm_of_every_kind():
    for text in (b"P3 2 1 # a comment\n255 1 2 3 4 5 6\n", b"P6 2 1 255\n\1\2\3\4\5\6"):
        assert read_image(text).pixels.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert read_image(b"P4 8 1\n\xf0").pixels.ravel().tolist() == [0] * 4 + [255] * 4
    assert read_image(b"P2 2 1 15\n0 15\n").pixels.ravel().tolist() == [0, 255]
    assert read_image(b"P5 2 1 1023\n\0\0\3\xff").pixels.ravel().tolist() == [0, 65535]
    deep = read_image(b"P6 1 1 65535\n\1\2\3\4\5\6")
    assert deep.pixels.ravel().tolist() == [0x102, 0x304, 0x506]
    pillow = np.asarray(PIL.Image.open(io.BytesIO(b"P6 1 1 65535\n\1\2\3\4\5\6")))
    assert pillow.dtype == np.uint8  # else Pillow can do this part


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GIF89a", ("GIF", "convert")),
        (b"8BPS\0\1", ("Photoshop", "flatten")),
        (b"%PDF-1.4", ("PDF", "export")),
        (b"\x76\x2f\x31\x01", ("OpenEXR", "floating point TIFF")),
        (b"<svg xmlns=", ("SVG", "export")),
    ],
)
def test_other_formats_are_named_with_what_to_do(start, words):
    one_line_error(lambda: read_image(start + bytes(40)), "not supported", *words)


@pytest.mark.parametrize("start", [b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx "])
def test_camera_raws_need_their_extra(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    one_line_error(lambda: read_image(start + bytes(40)), "camera raw", "restore-toolkit[raw]")


def test_errors_of_our_own_are_not_called_damage(monkeypatch):
    """A bug here raises as it is; the same error out of a library is a damaged file."""

    def wrong(*_):
        return None + 1

    monkeypatch.setattr("restore.images.png.struct.unpack", wrong)  # raised in this file: a library's
    one_line_error(lambda: read_image(WHOLE["png"]), "damaged or incomplete PNG")
    monkeypatch.undo()
    monkeypatch.setattr("restore.images.png.COLOUR_CHUNKS", None)  # raised in the package
    with pytest.raises(TypeError):
        read_image(WHOLE["png"])
    monkeypatch.undo()
    unsupported = bytearray(WHOLE["bmp"])
    unsupported[28:30] = b"\x03\0"  # three bits a pixel
    assert "damaged" not in one_line_error(lambda: read_image(bytes(unsupported)), "is not read", "convert")


def test_libraries_write_nothing_to_the_log(capfd):
    code = (
        "import logging, sys; logging.basicConfig(); from restore.images import read_image\n"
        "try: read_image(sys.stdin.buffer.read())\nexcept Exception as error: print(error)"
    )
    odd = WHOLE["tiff raw"].replace(struct.pack("<HHI", 284, 3, 1), struct.pack("<HHI", 60000, 99, 1))
    for data in (odd, WHOLE["png"][:33] + chunk(b"iCCP", b"x\0\0y") + WHOLE["png"][33:], WHOLE["tiff lzw16"][:-9]):
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        assert done.stderr == b""


# --- files ----------------------------------------------------------------------


@pytest.mark.parametrize("by_handle", [True, False])  # of the folder; Windows has no such calls
def test_write_never_replaces_without_being_told(by_handle, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_write, "_BY_HANDLE", by_handle and atomic_write._BY_HANDLE)
    image, path = Image(PHOTO), tmp_path / "a.png"
    assert write_image(image, path) == path
    before = path.read_bytes()
    one_line_error(lambda: write_image(Image(255 - PHOTO), path), "a.png", "exists already")
    assert path.read_bytes() == before
    write_image(Image(255 - PHOTO), path, overwrite=True)
    assert np.array_equal(read_image(path).pixels, 255 - PHOTO)
    late, link = tmp_path / "late.png", os.link

    def someone_was_faster(source, target, **folders):
        late.write_bytes(b"theirs")
        link(source, target, **folders)

    monkeypatch.setattr(os, "link", someone_was_faster)
    one_line_error(lambda: write_image(image, late), "late.png", "exists already")
    assert late.read_bytes() == b"theirs" and sorted(os.listdir(tmp_path)) == ["a.png", "late.png"]


def test_write_without_hard_links(tmp_path, monkeypatch):
    def no_links(source, target, **folders):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = write_image(Image(PHOTO), tmp_path / "a.png")
    assert np.array_equal(read_image(path).pixels, PHOTO) and os.listdir(tmp_path) == ["a.png"]
    (tmp_path / "b.png").write_bytes(b"theirs")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    one_line_error(lambda: write_image(Image(PHOTO), tmp_path / "b.png"), "exists already")
    assert (tmp_path / "b.png").read_bytes() == b"theirs"
    monkeypatch.setattr(os, "replace", no_links)
    one_line_error(lambda: write_image(Image(PHOTO), tmp_path / "c.png"), "not permitted")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.parametrize("step", ["fsync", "link", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_no_leftovers_on_failure(tmp_path, monkeypatch, step, failure):
    seen = []

    def fail(*args, **folders):
        seen.extend(os.listdir(tmp_path))
        raise failure

    monkeypatch.setattr(os, step, fail)
    path, overwrite = tmp_path / "a.png", step == "replace"
    if isinstance(failure, OSError):
        one_line_error(lambda: write_image(Image(PHOTO), path, overwrite=overwrite), "a.png", "the disk is full")
    else:
        with pytest.raises(KeyboardInterrupt):
            write_image(Image(PHOTO), path, overwrite=overwrite)
    assert os.listdir(tmp_path) == []
    assert len(seen) == 1 and seen[0].startswith(".a.png.") and seen[0].endswith(TEMPORARY_SUFFIX)


def test_a_disk_that_is_really_full(tmp_path):
    code = (
        "import resource, signal, sys, numpy as np\nfrom restore.images import Image, write_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)\n"
        "write_image(Image(noise), sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, text=True)
    assert "ImageError" in done.stderr.splitlines()[-1] and "too large for this disk" in done.stderr
    assert os.listdir(tmp_path) == []


def test_names_and_permissions(tmp_path):
    for name in ("été 日本 🎈.png", "文" * 80 + ".png", "a" * 251 + ".png", "-q.jpg"):
        path = write_image(Image(PHOTO), tmp_path / name)
        assert read_image(path).size == (131, 97)
    assert len(find_images(tmp_path)) == 4
    mask = os.umask(0o027)
    try:
        path = write_image(Image(PHOTO), tmp_path / "mode.png")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
    one_line_error(lambda: write_image(Image(PHOTO), tmp_path / ("b" * 300 + ".png")), "too long")
    one_line_error(lambda: write_image(Image(PHOTO), tmp_path / "none" / "a.png"), "no such file or folder")
    one_line_error(lambda: write_image(Image(PHOTO), tmp_path / "a.xyz"), "a.xyz", ".png")
    assert write_image(Image(PHOTO), tmp_path / "b.dat", format="png").read_bytes()[1:4] == b"PNG"


def test_find_images(tmp_path):
    for name in (
        "b.JPG",
        "a.png",
        "c.txt",
        ".hidden.png",
        ".a.png.12.restore-tmp",
        "sub/d.webp",
        "sub/e.gif",
        ".git/f.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "aa").symlink_to(tmp_path / "sub")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "g.tif").touch()
    (tmp_path / "link").symlink_to(outside)
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "link/g.tif", "sub/d.webp"]
    assert [path.name for path in find_images(tmp_path, recursive=False)] == ["a.png", "b.JPG"]
    one_line_error(lambda: find_images(tmp_path / "none"), "no such")
    one_line_error(lambda: find_images(tmp_path / "a.png"), "not a folder")


def test_image_checks_its_arrays():
    image = Image(PHOTO, ALPHA, exif=b"kept")
    assert image.array.shape == (97, 131, 4) and image.size == (131, 97) and image.megapixels == 131 * 97 / 1e6
    for array, channels in ((PHOTO[..., 0], 1), (PHOTO[..., :2], 2), (PHOTO, 3), (DEEP, 4)):
        changed = image.with_array(array)
        assert changed.array.shape == (97, 131, channels) and changed.exif == b"kept"
        assert (changed.alpha is None) == (channels % 2 == 1)
    for bad in (PHOTO.astype(float), PHOTO[None], PHOTO[:0], np.zeros((2, 2, 5), np.uint8)):
        one_line_error(lambda bad=bad: image.with_array(bad))
    one_line_error(lambda: Image(PHOTO, ALPHA[1:]), "alpha")


def test_import_is_light():
    heavy = ("torch", "albumentations", "skimage")
    code = f"import sys, restore.images; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout == "[]\n"


@pytest.mark.parametrize("kind", [kind for kind, can in FORMATS.items() if can.dtypes])
def test_encoding_leaves_the_picture_alone(kind):
    """An array that nobody may write to is encoded as well, from every memory layout."""
    pixels = np.asfortranarray(PHOTO)
    pixels.setflags(write=False)
    data = encode_image(Image(pixels), kind)
    assert data == encode_image(Image(PHOTO), kind)
