"""The file formats: their suffixes, how their content begins, and what each can hold when it is written."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from restore.errors import ImageError

_U1, _U2, _F4 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)


@dataclass(frozen=True)
class Format:
    """What a format is called and what can be written in it.

    dtypes: of the pixels; none where the format is read only. alpha: whether it holds transparency.
    metadata: whether EXIF, XMP and ICC are written. lossy: whether a quality applies.
    largest_side: in pixels. instead: the suffix of the format to write where this one is read only.
    """

    title: str
    suffixes: tuple[str, ...]
    dtypes: tuple[np.dtype, ...] = (_U1,)
    alpha: bool = True
    metadata: bool = True
    lossy: bool = False
    largest_side: int = 1 << 30
    instead: str = ".png"


# What cameras write without developing it; read where `rawpy` is installed (the extra `raw`).
RAW_SUFFIXES = (
    *(".3fr", ".ari", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)

FORMATS: dict[str, Format] = {
    "png": Format("PNG", (".png",), (_U1, _U2)),
    "jpeg": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), alpha=False, lossy=True, largest_side=65500),
    "webp": Format("WebP", (".webp",), lossy=True, largest_side=16383),
    "tiff": Format("TIFF", (".tif", ".tiff"), (_U1, _U2, _F4)),
    "bmp": Format("BMP", (".bmp",), alpha=False, metadata=False),
    "avif": Format("AVIF", (".avif",), lossy=True),
    "jp2": Format("JPEG 2000", (".jp2", ".j2k", ".jpx"), (_U1, _U2), metadata=False),
    "jxl": Format("JPEG XL", (".jxl",), (_U1, _U2), metadata=False, lossy=True),
    "qoi": Format("QOI", (".qoi",), metadata=False),
    "pnm": Format("PNM", (".pnm", ".ppm", ".pgm", ".pbm"), (_U1, _U2), alpha=False, metadata=False),
    "heic": Format("HEIC", (".heic", ".heif"), (), instead=".jpg"),
    "raw": Format("camera raw", RAW_SUFFIXES if find_spec("rawpy") else (), (), instead=".tif"),
}
SUFFIXES: dict[str, str] = {suffix: name for name, one in FORMATS.items() for suffix in one.suffixes}
WRITABLE = tuple(suffix for suffix, name in SUFFIXES.items() if FORMATS[name].dtypes)

# Pictures that are not read: they are named where a folder holds some, so that none is lost unnoticed.
UNREAD_SUFFIXES = frozenset(
    (
        *(".gif", ".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps", ".exr", ".hdr", ".dds"),
        *(".ico", ".cur", ".icns", ".tga", ".pcx", ".pict", ".sgi", ".ras", ".xbm", ".xpm", ".wmf", ".emf"),
        *(".jxr", ".wdp", ".hdp", ".jpf", ".jpm", ".djvu", ".djv", ".fits", ".fts", ".dcm", ".apng", ".flif"),
        *(".pam", ".pfm", ".dpx", ".cin", ".bpg", ".heics", ".heifs", ".avifs", *RAW_SUFFIXES),
    )
) - set(SUFFIXES)

_KNOWN = ", ".join(one.title for one in FORMATS.values())
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    *((start, "tiff") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((start, "jp2") for start in (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    *((start, "jxl") for start in (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    (b"qoif", "qoi"),
    *((start, "raw") for start in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")),
    *((b"P%d%c" % (n, space), "pnm") for n in range(1, 7) for space in b" \t\r\n#"),
)
_CONVERT = "convert it to PNG, JPEG or TIFF first"
_NOT_READ = (
    (b"GIF8", "a GIF file, of one picture or an animation", f"extract the frames you want, and {_CONVERT}"),
    (b"8BPS", "a Photoshop file", f"flatten it and {_CONVERT.replace('convert', 'save')}"),
    (b"8BPB", "a Photoshop file", f"flatten it and {_CONVERT.replace('convert', 'save')}"),
    (b"%PDF", "a PDF file", "export its pages as PNG first"),
    (b"%!PS", "a PostScript file", "export its pages as PNG first"),
    (b"<svg", "an SVG drawing", "export it as PNG first"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file", "convert it to floating point TIFF first"),
    (b"#?RADIANCE", "a Radiance HDR file", "convert it to floating point TIFF first"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def detect(data: bytes) -> str:
    """The name of the format in `FORMATS` by the first bytes of a file.

    Raises ImageError, with what to do, for every other kind of file.
    """
    if not data:
        raise ImageError("the file is empty; get a whole copy of it")
    for start, name in _BEGINNINGS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and len(data) > 18 and data[14] in _BMP_HEADERS:
        return "bmp"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(max(int.from_bytes(data[:4], "big"), 16), 512)]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        if data[8:12] in _HEIC_BRANDS:
            return "heic"
        if data[8:12] == b"crx ":
            return "raw"
    for start, what, remedy in _NOT_READ:
        if data.startswith(start):
            raise ImageError(f"is {what}, which is not supported; {remedy}")
    raise ImageError(f"is no picture this program reads ({_KNOWN})")
