"""No file takes more than a moment and a little memory, or is anything but a picture or an error of one line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import psutil
import pytest
import tifffile
from bombs import BOMBS, SMALL, exif, jp2, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore.images import FORMATS, Image, encode_image, read_image

MOST_SECONDS = 2.0  # of computing for a file, on a machine that does other work as well
MOST_MEMORY = 400.0  # MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds are set and measured as Linux does")


class Probe:
    """The process of probe.py; started anew after a file has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, data: bytes) -> dict:
        if self._process is None:
            command = [sys.executable, str(Path(__file__).with_name("probe.py"))]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process.stdin.write(len(data).to_bytes(4, "big") + data)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code, self._process = self._process.wait(), None
            pytest.fail(f"the process ended with {code}")
        return json.loads(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()


@pytest.fixture(scope="module")
def probe():
    probe = Probe()
    yield probe
    probe.close()


def check(found: dict) -> None:
    """A picture, or one line that says what to do; within the bounds."""
    assert found["kind"] == "", found
    assert "\n" not in found["outcome"] and len(found["outcome"]) < 400
    assert found["seconds"] < MOST_SECONDS and found["grown"] < MOST_MEMORY, found


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name, probe):
    check(probe(BOMBS[name]()))


@pytest.mark.parametrize("name", [name for name in BOMBS if "exif" in name and "tiff" not in name])
def test_too_much_metadata_is_left_out_and_told(name, probe):
    found = probe(BOMBS[name]())
    assert found["outcome"] == "read"
    assert "itself" in name or "EXIF" in found["notes"][0], found


def test_pixels_of_a_picture_with_too_much_metadata_are_kept():
    image = read_image(BOMBS["exif of png, shared"]())
    assert np.array_equal(image.pixels, SMALL) and image.exif is None
    assert read_image(saved("PNG", exif=exif(20, 50_000))).exif is not None  # a megabyte of them is kept


def test_memory_of_refused_files_is_given_back(denoise, tmp_path):
    """Of headers of 169 megapixels that are found to be damaged after memory for them was taken."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved("PNG"))
    process = psutil.Process()
    denoise(tmp_path / "in", tmp_path / "out")  # what is loaded once is loaded
    before = process.memory_info().rss
    for number in range(3):
        (tmp_path / "in" / f"{number}.jp2").write_bytes(jp2(13_000, 13_000))
    denoise(tmp_path / "in", tmp_path / "out", "--overwrite", code=1)
    assert process.memory_info().rss - before < 100 << 20


# --- damaged files of every format -----------------------------------------------------------------------------------

METADATA = {
    "exif": b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x0e\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
    "icc_profile": bytes(imagecodecs.cms_profile("srgb")),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def _tiff(array, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def _files() -> dict[str, bytes]:
    picture = Image(SMALL)
    deep = picture.with_array(SMALL.astype(np.uint16) * 257)
    files = {kind: encode_image(picture, kind) for kind, can in FORMATS.items() if can.dtypes}
    files |= {f"{kind} 16 bit": encode_image(deep, kind) for kind in ("png", "tiff", "jp2", "jxl", "pnm")}
    for kind in ("PNG", "JPEG", "WEBP", "AVIF"):
        files[f"{kind.lower()} with metadata"] = saved(
            kind, **METADATA, xmp=XMP, **({"speed": 10} if kind == "AVIF" else {})
        )
    files["jpeg progressive"] = saved("JPEG", progressive=True)
    files["png palette"] = saved("PNG", bits=4)
    gray = SMALL[..., 0].copy()
    for packing in ("lzw", "packbits", "zstd", "lzma", "jpeg", "webp", "ccittfax4", "deflate"):
        try:
            files[f"tiff {packing}"] = _tiff(gray, compression=packing)
        except (ValueError, KeyError, NotImplementedError):
            continue
    out = io.BytesIO()
    PIL.Image.fromarray(gray).convert("1").save(out, "TIFF", compression="group4")
    files["tiff fax"] = out.getvalue()
    files["tiff tiles"] = _tiff(SMALL, tile=(16, 32), photometric="rgb", compression="zlib")
    files["tiff planes"] = _tiff(np.moveaxis(SMALL, -1, 0).copy(), planarconfig="separate", photometric="rgb")
    files["tiff float, big"] = _tiff(SMALL.astype(np.float32), photometric="rgb", bigtiff=True, byteorder=">")
    files["tiff cmyk"] = _tiff(np.dstack([SMALL, gray]), photometric="separated")
    files["bmp palette"] = saved("BMP")
    files["ppm of text"] = b"P3 2 2 255\n" + b"7 " * 12
    return files


FILES = _files() if sys.platform == "linux" else {}

NUMBERS = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000])
CHANGES = st.one_of(
    st.tuples(st.just("byte"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("start"), st.integers(0, 200), st.integers(0, 255)),
    st.tuples(st.just("number"), st.floats(0, 1), NUMBERS),
    st.tuples(st.just("head"), st.integers(0, 300), NUMBERS),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
)


def changed(data: bytes, changes: list) -> bytes:
    """`data` after `changes`: (what, where, how)."""
    found = bytearray(data)
    for what, where, how in changes:
        at = min(where if isinstance(where, int) else int(where * len(found)), max(0, len(found) - 1))
        if what in ("byte", "start"):
            found[at : at + 1] = bytes([how])
        elif what in ("number", "head"):
            width = 4 if how > 0xFFFF else 2
            found[at : at + width] = how.to_bytes(width, "big" if at % 2 else "little")
        elif what == "drop":
            del found[at : at + how]
        elif what == "repeat":
            found[at:at] = found[at : at + how] * 3
        else:
            del found[at:]
    return bytes(found)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(FILES) or [""]), st.lists(CHANGES, min_size=1, max_size=5))
def test_damaged_files(probe, name, changes):
    check(probe(changed(FILES[name], changes)))
