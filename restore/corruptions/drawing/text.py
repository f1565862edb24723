"""Random text, rendered with the fonts that are built into OpenCV and Pillow.

No system fonts are read, so equal arguments give equal results on every machine. OpenCV 5 has three TrueType faces
built in (its Hershey names are aliases of them), Pillow has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.corruptions.base import pick
from restore.errors import UsageError


@dataclass(frozen=True)
class _Style:
    """face: name in OpenCV, or "pillow". stretch: factor of the width. slant: horizontal shear, width per height."""

    face: str
    stretch: float = 1.0
    slant: float = 0.0


_STYLES = {
    "sans": _Style("sans"),  # Rubik, with Latin and Cyrillic
    "italic": _Style("italic"),  # Rubik Italic
    "uni": _Style("uni"),  # WenQuanYi Micro Hei, with Greek, Han, kana and Hangul besides
    "aileron": _Style("pillow"),  # Aileron, with little more than ASCII
    "sans condensed": _Style("sans", stretch=0.72),
    "sans wide": _Style("sans", stretch=1.35),
    "uni oblique": _Style("uni", slant=0.22),
    "aileron oblique": _Style("pillow", slant=0.2),
    "aileron condensed": _Style("pillow", stretch=0.75),
}
FONTS: tuple[str, ...] = tuple(_STYLES)
_CYRILLIC = tuple(name for name, style in _STYLES.items() if style.face != "pillow")
_UNIVERSAL = ("uni", "uni oblique")

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwxyz", "aeiouy"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_HIRAGANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもらりるれろわん"
_KATAKANA = "アイウエオカキクケコサシスセソタチツテト"
_HAN = (0x4E00, 0x9FA5)  # CJK Unified Ideographs as of Unicode 1.1, all of them in "uni"
_HANGUL = (0xAC00, 0xD7A3)  # precomposed syllables
_COMMON = ("sample", "preview", "draft", "copy", "proof", "stock", "photo", "photography", "studio", "copyright")
_RIGHTS = ("all rights reserved", "do not copy", "image", "gallery", "watermark", "do not use", "press", "archive")
_SIGNS = ("www.", "http://", "https://", "@", "#", "")
_ENDINGS = (".com", ".org", ".net", ".de", ".fr", ".co.uk", ".io", ".photo")


@lru_cache(maxsize=8)
def _face(name: str) -> cv2.FontFace:
    return cv2.FontFace(name)


@lru_cache(maxsize=256)
def _pillow(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    # Every build of Pillow has the basic layout engine; the other one is optional and kerns differently.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def _line(text: str, face: str, em: int, weight: int) -> np.ndarray:
    """One line on a canvas (2.4 em, w), cropped horizontally only, so that lines share a baseline."""
    canvas = np.zeros((int(2.4 * em) + 4, int((1.4 * len(text) + 2) * em) + 4), np.uint8)
    origin = (em, int(1.6 * em))
    if face == "pillow":
        picture = Image.fromarray(canvas)
        bold = max(0.0, (weight - 500) / 400) * 0.035 * em
        ImageDraw.Draw(picture).text(
            origin, text, fill=255, font=_pillow(em), anchor="ls", stroke_width=bold, stroke_fill=255
        )
        canvas = np.array(picture)
    else:
        cv2.putText(canvas, text, origin, 255, _face(face), em, weight)
    left, _, width, _ = cv2.boundingRect(canvas)
    return canvas[:, left : left + width]


@lru_cache(maxsize=32)
def _em_per_height(face: str, letter: str) -> float:
    return 256 / float(np.count_nonzero(_line(letter, face, 256, 400).any(axis=1)))


def _restyle(ink: np.ndarray, style: _Style, scale: int) -> np.ndarray:
    """Shears, stretches and downsamples: (scale * h, scale * w) -> about (h, w * stretch + h * slant)."""
    height, width = ink.shape
    if style.slant:
        lean = style.slant * height
        affine = np.array([[1.0, -style.slant, lean], [0.0, 1.0, 0.0]])
        width += int(np.ceil(lean))
        ink = cv2.warpAffine(ink, affine, (width, height), flags=cv2.INTER_LINEAR)
    size = (max(1, round(width * style.stretch / scale)), -(-height // scale))
    return np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA))


def draw_text(text: str, font: str, size: int, weight: int = 400) -> np.ndarray:
    """Renders text.

    Args:
        text: lines are separated by newlines, and centred.
        font: one of `FONTS`.
        size: height of a capital letter (of an ideograph, in such text) in pixels, at least 1.
        weight: 100 (thin), 400 (regular) to 900 (black); "uni" has one weight only.

    Returns:
        Coverage (h,w) uint8, antialiased, cropped to the letters; (1,1) of zero for blank text.

    Raises:
        UsageError: unknown font, or a size below 1.
    """
    if font not in _STYLES:
        raise UsageError(f"unknown font {font!r}; known are {', '.join(FONTS)}")
    if size < 1:
        raise UsageError(f"letters must be at least 1 pixel high; got {size}")
    style = _STYLES[font]
    plain = style.stretch == 1.0 and style.slant == 0.0
    # Small letters that are resampled are drawn at twice the size, to keep them sharp.
    scale = 1 if plain or size > 20 else 2
    ideographs = any(ord(character) > 0x3000 for character in text)
    ratio = _em_per_height(style.face, "国" if ideographs else "H")
    em = max(2, round(size * ratio * scale))
    lines = [_line(line, style.face, em, weight) for line in text.split("\n")]
    width = max(line.shape[1] for line in lines)
    pitch = round(1.3 * em)
    page = np.zeros((lines[0].shape[0] + pitch * (len(lines) - 1), max(width, 1)), np.uint8)
    for row, line in enumerate(lines):
        left = (width - line.shape[1]) // 2
        area = page[row * pitch : row * pitch + line.shape[0], left : left + line.shape[1]]
        np.maximum(area, line, out=area)
    if not plain:
        page = _restyle(page, style, scale)
    left, top, width, height = cv2.boundingRect(page)
    if not width:
        return np.zeros((1, 1), np.uint8)
    return np.ascontiguousarray(page[top : top + height, left : left + width])


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _word(rng: np.random.Generator) -> str:
    """A pronounceable made-up word; one in four is a word common in watermarks."""
    if rng.random() < 0.25:
        return pick(_COMMON, rng)
    syllables = (pick(_CONSONANTS, rng) + pick(_VOWELS, rng) for _ in range(_between(rng, 1, 4)))
    return "".join(syllables) + (pick(_CONSONANTS, rng) if rng.random() < 0.5 else "")


def _words(rng: np.random.Generator) -> str:
    if rng.random() < 0.1:
        return pick(_RIGHTS, rng)
    return " ".join(_word(rng) for _ in range(_between(rng, 1, 3)))


def _date(rng: np.random.Generator) -> str:
    year, month, day = _between(rng, 1960, 2030), _between(rng, 1, 12), _between(rng, 1, 28)
    hour, minute = _between(rng, 0, 23), _between(rng, 0, 59)
    return (
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}.{month:02d}.{year}",
        f"{month}/{day}/{year % 100:02d}",
        f"'{year % 100:02d} {month} {day}",
        f"{year}/{month:02d}/{day:02d} {hour:02d}:{minute:02d}",
        f"{hour}:{minute:02d}:{day:02d}",
    )[_between(rng, 0, 5)]


def _digits(rng: np.random.Generator) -> str:
    number = str(_between(rng, 0, 10 ** _between(rng, 1, 10)))
    return pick(("", "No. ", "#", "ID ", "IMG_", "DSC"), rng) + number


def _owner(rng: np.random.Generator) -> str:
    year = f"{_between(rng, 1990, 2030)} " if rng.random() < 0.6 else ""
    return pick(("© ", "©", "(c) ", "Copyright ", "Photo: "), rng) + year + _words(rng).title()


def _letters(rng: np.random.Generator, alphabet: str) -> str:
    words = ("".join(pick(alphabet, rng) for _ in range(_between(rng, 2, 9))) for _ in range(_between(rng, 1, 2)))
    return " ".join(words)


def _cased(rng: np.random.Generator, text: str) -> str:
    return (text.upper(), text.lower(), text.title(), text.title(), text)[_between(rng, 0, 4)]


def _phrase(rng: np.random.Generator) -> tuple[tuple[str, ...], str]:
    """Fonts that have all letters of a line of text, and the text."""
    kind = rng.random()
    if kind < 0.40:
        return FONTS, _cased(rng, _words(rng))
    if kind < 0.50:
        return FONTS, _owner(rng)
    if kind < 0.58:
        return FONTS, _date(rng)
    if kind < 0.66:
        return FONTS, _digits(rng)
    if kind < 0.76:
        return FONTS, pick(_SIGNS, rng) + _word(rng) + _word(rng) + pick(_ENDINGS, rng)
    if kind < 0.84:
        return _CYRILLIC, _cased(rng, _letters(rng, _RUSSIAN))
    if kind < 0.89:
        return _UNIVERSAL, _cased(rng, _letters(rng, _GREEK))
    if kind < 0.92:
        return _UNIVERSAL, "".join(pick(_HIRAGANA + _KATAKANA, rng) for _ in range(_between(rng, 2, 7)))
    low, high = _HAN if kind < 0.97 else _HANGUL
    return _UNIVERSAL, "".join(chr(_between(rng, low, high)) for _ in range(_between(rng, 2, 6)))


def random_text(rng: np.random.Generator) -> tuple[str, str]:
    """Samples one of `FONTS` and a text of which it has all letters.

    Mostly words, names, digits, dates, addresses and copyright lines in Latin letters, otherwise Cyrillic, Greek,
    Han, kana or Hangul; one in twelve has two lines.
    """
    fonts, text = _phrase(rng)
    if rng.random() < 1 / 12:
        more, second = _phrase(rng)
        fonts, text = tuple(name for name in fonts if name in more), f"{text}\n{second}"
    return pick(fonts, rng), text
