"""TIFF files too large for memory: read, restored and written a few rows at a time, with the pixels of the whole."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from skimage import data as samples

from restore.errors import ImageError, UsageError
from restore.folders import pipeline
from restore.folders.compute_queue import PerPicture
from restore.folders.plan import Job
from restore.images import Image, encode_image, open_tiff, read_image, tiff
from restore.images.image import MAX_PIXELS
from restore.inference.restored import Change, Restored, Stream
from restore.utils.atomic_write import TEMPORARY_SUFFIX

PHOTO = samples.astronaut()[20:151, 150:297]  # 131 x 147: no side a multiple of a tile
DEEP = PHOTO.astype(np.uint16) * 257
GRAY = PHOTO[..., 1]
TILES = {"tile": (32, 48), "compression": "zlib", "predictor": True}


def planes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 0).copy()


# fmt: off
KINDS = {
    "tiles": (PHOTO, {"photometric": "rgb", **TILES}),
    "strips": (PHOTO, {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 7}),
    "one strip": (DEEP, {"photometric": "rgb", "byteorder": ">", "bigtiff": True}),
    "plain strips": (PHOTO, {"photometric": "rgb", "rowsperstrip": 9}),
    "plain tiles": (PHOTO, {"photometric": "rgb", "tile": (16, 16)}),
    "planes": (planes(DEEP), {"photometric": "rgb", "planarconfig": "separate", **TILES}),
    "plain planes": (planes(DEEP), {"photometric": "rgb", "planarconfig": "separate"}),
    "float": ((PHOTO / 255).astype(np.float32), {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 11}),
    "alpha": (np.dstack([PHOTO, GRAY]), {"photometric": "rgb", "extrasamples": ["unassalpha"], **TILES}),
    "white is zero": (GRAY, {"photometric": "miniswhite", "compression": "packbits"}),
    "jpeg": (PHOTO, {"photometric": "rgb", "compression": "jpeg", "tile": (32, 32)}),
    "cmyk": (np.dstack([PHOTO, GRAY]), {"photometric": "separated", "compression": "zlib", "rowsperstrip": 9}),
    "one bit": (GRAY > 99, {"photometric": "minisblack"}),
}
# fmt: on


def written(path: Path, name: str) -> Path:
    array, options = KINDS[name]
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_those_of_the_whole(name, tmp_path):
    with open_tiff(written(tmp_path / "a.tif", name)) as reader:
        pixels, alpha = reader.pixels()
        for top, bottom in ((0, 131), (0, 1), (31, 33), (40, 111), (130, 131)):
            some, transparent = reader.pixels(top, bottom)
            assert some.dtype == pixels.dtype and np.array_equal(some, pixels[top:bottom])
            assert (alpha is None) == (transparent is None)
            assert alpha is None or np.array_equal(transparent, alpha[top:bottom])


@pytest.fixture
def by_rows(monkeypatch):
    """Pictures of any size are restored by rows; one that is read as a whole is an error."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read as a whole")

    def force(tile: int = 32) -> None:
        monkeypatch.setattr(pipeline, "STREAMED_PIXELS", 1)
        monkeypatch.setattr(pipeline, "read_image", read)
        monkeypatch.setattr(tiff, "_TILE", tile)

    return force


EXIF = PIL.Image.Exif()
EXIF[0x010E] = "a long description"
EXIF.get_ifd(0x8769)[0x9003] = "2026:11:21 10:00:00"
IPTC = b"\x1c\x02\x05\0\6a town"
METADATA = {"exif": EXIF.tobytes()[6:], "xmp": b'<x tiff:Orientation="1"/>', "iptc": IPTC, "dpi": (300.0, 300.0)}


@pytest.mark.parametrize("flags", [[], ["--strength", "0.5"], ["--strip-metadata"]])
def test_a_file_restored_by_rows_is_that_restored_as_a_whole(flags, denoise, by_rows, tmp_path):
    """Tile by tile on one grid: every pixel, and all else that the file holds."""
    (tmp_path / "a.tif").write_bytes(encode_image(Image(DEEP, DEEP[..., 0], **METADATA), "tiff"))
    command = [tmp_path / "a.tif", "--tile", 32, *flags, "-o"]
    denoise(*command, tmp_path / "whole.tif")
    by_rows()
    denoise(*command, tmp_path / "rows.tif")
    whole, rows = (read_image(tmp_path / name) for name in ("whole.tif", "rows.tif"))
    assert np.array_equal(whole.array, rows.array) and not np.array_equal(rows.pixels, DEEP)
    assert (whole.exif, whole.xmp, whole.iptc, whole.dpi) == (rows.exif, rows.xmp, rows.iptc, rows.dpi)
    assert ("--strip-metadata" in flags) == (rows.exif is None)
    with tifffile.TiffFile(tmp_path / "rows.tif") as file:
        assert file.pages[0].is_tiled


def test_gray_in_colour_stays_gray_and_the_change_is_told(denoise, by_rows, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", np.repeat(GRAY[..., None], 3, 2), photometric="rgb", rowsperstrip=16)
    denoise(tmp_path / "a.tif", tmp_path / "whole.tif", "--tile", 32)
    told = capsys.readouterr().err.splitlines()[1]
    by_rows()
    denoise(tmp_path / "a.tif", tmp_path / "rows.tif", "--tile", 32)
    pixels = read_image(tmp_path / "rows.tif").pixels
    assert np.array_equal(pixels, read_image(tmp_path / "whole.tif").pixels)
    assert (pixels == pixels[..., :1]).all()
    assert told in capsys.readouterr().err and "of 255" in told


def test_beyond_4_gb_it_is_a_bigtiff(denoise, by_rows, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.tif").write_bytes(encode_image(Image(PHOTO, **METADATA), "tiff"))
    monkeypatch.setattr(tiff, "_CLASSIC", 1000)
    by_rows(64)
    denoise(tmp_path / "a.tif", tmp_path / "b.tif")
    assert "BigTIFF is written without EXIF" in capsys.readouterr().err
    image = read_image(tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff and file.pages[0].description == "a long description"
    assert b"a long description" in image.exif and image.xmp == METADATA["xmp"] and image.iptc == IPTC
    assert image.dpi == (300, 300) and image.size == (147, 131)


def test_exif_of_a_bigtiff_is_read_and_a_damaged_one_left_out(tmp_path):
    def big(pointer: int) -> bytes:
        """A BigTIFF with a title, an EXIF directory at the end, and `pointer` to that (0: the right one)."""
        tags = [(270, 2, 0, "a title", True), ("ExifTag", 16, 1, pointer or 0x1111111111111111, True)]
        out = io.BytesIO()
        tifffile.imwrite(out, PHOTO, photometric="rgb", bigtiff=True, byteorder="<", metadata=None, extratags=tags)
        data, at = out.getvalue() + bytes(out.tell() % 2), struct.pack("<Q", out.tell() + out.tell() % 2)
        directory = struct.pack("<QHHQQQ", 1, 0x9003, 2, 20, int.from_bytes(at, "little") + 36, 0)
        return data.replace(b"\x11" * 8, at) + directory + b"2026:11:21 10:00:00\0"

    assert b"2026:11:21" in read_image(big(0)).exif
    for pointer in (1, 1 << 30, (1 << 63) - 1, (1 << 64) - 1):
        image = read_image(big(pointer))
        assert np.array_equal(image.pixels, PHOTO) and image.exif is None


def test_damage_found_on_the_way_leaves_nothing(denoise, by_rows, tmp_path, capsys):
    path = written(tmp_path / "a.tif", "tiles")
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].dataoffsets[-1]
    data = bytearray(path.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    by_rows()
    denoise(path, tmp_path / "b.tif", code=1)
    assert "a.tif: is a damaged or incomplete TIFF file" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.tif"]


def test_stopping_leaves_no_temporary(by_rows, tmp_path, monkeypatch):
    path, goes_on = written(tmp_path / "a.tif", "tiles"), threading.Event()
    monkeypatch.setattr(pipeline, "COMMIT_TIMEOUT", 0.2)
    by_rows()

    class Endless(PerPicture):
        def stream(self, size, read):
            def parts():
                yield read(0, 64)
                assert any(TEMPORARY_SUFFIX in name for name in os.listdir(tmp_path))
                signal.raise_signal(signal.SIGINT)
                goes_on.wait(20)
                yield read(64, size[0])

            return Stream(parts(), Change(*size), str)

    with pytest.raises(KeyboardInterrupt), pipeline.FilePipeline(Endless(Restored), pipeline.WriteOptions()) as running:
        list(running.run([Job(path, tmp_path / "b.tif")]))
    assert os.listdir(tmp_path) == ["a.tif"]
    goes_on.set()
    time.sleep(0.2)
    assert os.listdir(tmp_path) == ["a.tif"]


def test_the_limit_of_pixels_is_raised_on_purpose(denoise, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(MAX_PIXELS, "5e8")  # and put back afterwards
    path = written(tmp_path / "a.tif", "strips")
    denoise(path, tmp_path / "b.tif", "--max-pixels", 19_000, code=1)
    assert "--max-pixels" in capsys.readouterr().err and not (tmp_path / "b.tif").exists()
    denoise(path, tmp_path / "b.tif", "--max-pixels", "2e4")
    monkeypatch.setenv(MAX_PIXELS, "100")
    with pytest.raises(ImageError, match="more than the 0.0001 allowed"):
        read_image(path)
    monkeypatch.setenv(MAX_PIXELS, "many")
    with pytest.raises(UsageError, match="RESTORE_MAX_PIXELS=many: is no number"):
        read_image(path)
