"""Pictures that hold what looks like damage and is none: documents, charts, signs, railings, borders."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.corruptions.base import Corrupted
from restore.corruptions.drawing.text import draw_text, random_text
from restore.pixels import to_dtype, to_float

# Kinds of clean pictures, and how often each comes; "photo": the picture as it is.
KINDS = {"photo": 0.45, "document": 0.17, "chart": 0.08, "sign": 0.1, "railing": 0.1, "border": 0.1}
Drawing = np.ndarray  # (h,w,3) float32, white at 1


@dataclass(frozen=True)
class LookAlikesParams:
    """kind: one of `KINDS`. seed: of the drawing."""

    kind: str
    seed: int


@dataclass(frozen=True)
class LookAlikes:
    """Replaces a picture by a clean one that a finder of damage could err on; nothing of it is damaged."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> LookAlikesParams:
        shares = np.array(list(KINDS.values()))
        kind = tuple(KINDS)[int(rng.choice(len(KINDS), p=shares / shares.sum()))]
        return LookAlikesParams(kind, int(rng.integers(2**63)))

    def apply(self, image: np.ndarray, params: LookAlikesParams) -> Corrupted:
        """(H,W,3) -> the drawing in the same shape and dtype, and an empty mask."""
        return Corrupted(self.target(image, params), mask=np.zeros(image.shape[:2], bool))

    def target(self, image: np.ndarray, params: LookAlikesParams) -> np.ndarray:
        """The drawing: that is the clean picture here."""
        if params.kind == "photo":
            return image
        rng = np.random.Generator(np.random.SFC64(params.seed))
        drawing = _DRAWINGS[params.kind](to_float(image), rng)
        if rng.random() < 0.5:  # as a lens and a sensor give it
            drawing = cv2.GaussianBlur(drawing, (0, 0), rng.uniform(0.3, 1.2))
            noise = rng.standard_normal(drawing.shape[:2], np.float32)[..., None]
            drawing = drawing + np.float32(rng.uniform(0, 6 / 255)) * noise
        return to_dtype(np.clip(drawing, 0, 1).astype(np.float32), image.dtype)


def _ink(rng: np.random.Generator, dark: bool) -> np.ndarray:
    """A colour: mostly near black (or white), sometimes any that differs as clearly."""
    level = rng.uniform(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, 0.55, 3)
    return np.asarray(np.broadcast_to(level if dark else 1 - level, 3), np.float32)


def _paste(drawing: Drawing, cover: np.ndarray, top: int, left: int, colour: np.ndarray) -> None:
    """Blends `colour` over `drawing` where `cover` (h,w) uint8 says, cut at its sides."""
    cover = cover[max(0, -top) :, max(0, -left) :]
    area = drawing[max(0, top) :, max(0, left) :][: cover.shape[0], : cover.shape[1]]
    alpha = to_float(cover[: area.shape[0], : area.shape[1]])[..., None]
    area += alpha * (colour - area)


def _shading(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light (h,w,1) around 1, as large areas of the picture have it."""
    broad = cv2.GaussianBlur(image.mean(-1), (0, 0), 12)
    return np.asarray(1 + rng.uniform(0, 0.6) * (broad / max(float(broad.mean()), 0.05) - 1), np.float32)[..., None]


def _page(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Drawing, bool]:
    """A sheet of one colour, and whether the ink on it is dark."""
    dark = rng.random() < 0.8
    paper = rng.uniform(0.8, 1, 3) if rng.random() < 0.4 else rng.choice((1.0, 1.0, 0.97, 0.93))
    return np.full(shape, paper if dark else 1 - paper, np.float32), bool(dark)


def _document(image: np.ndarray, rng: np.random.Generator) -> Drawing:
    page, dark = _page(image.shape, rng)
    height, width = image.shape[:2]
    size, ink, top = int(rng.integers(5, 22)), _ink(rng, dark), int(rng.integers(-10, 20))
    left, weight = int(rng.integers(-60, 30)), int(rng.choice((300, 400, 600)))
    if rng.random() < 0.3:
        y, x = (int(rng.integers(0, side // 2 + 1)) for side in (height, width))
        page[y:, x:][: height // 3, : width // 2] = image[y:, x:][: height // 3, : width // 2]
    while top < height:
        heading = rng.random() < 0.1
        line = " ".join(random_text(rng)[1].replace("\n", " ") for _ in range(int(rng.integers(1, 5))))
        cover = draw_text(line, "uni", size * 2 if heading else size, 700 if heading else weight)
        colour = _ink(rng, dark) if rng.random() < 0.15 else ink
        _paste(page, cover, top, left + (int(rng.integers(0, 80)) if rng.random() < 0.2 else 0), colour)
        top += round((size * 2 if heading else size) * rng.uniform(1.5, 2.2))
        if rng.random() < 0.12:
            page[max(0, top) : max(0, top) + int(rng.integers(1, 4)), max(0, left) :] = colour
            top += size // 2
    return page * _shading(image, rng) if rng.random() < 0.4 else page


def _chart(image: np.ndarray, rng: np.random.Generator) -> Drawing:
    page, dark = _page(image.shape, rng)
    height, width = image.shape[:2]
    for lines, across in ((rng.integers(3, 9), True), (rng.integers(0, 9), False)):
        for place in np.linspace(0.05, 0.95, int(lines)):
            ends = ((0, place), (1, place)) if across else ((place, 0), (place, 1))
            start, end = ((int(x * width), int(y * height)) for x, y in ends)
            cv2.line(page, start, end, _ink(rng, dark).tolist(), int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(1, 5))):
        colour = rng.uniform(0, 1, 3).tolist()
        if rng.random() < 0.5:
            along = np.arange(0, width, 8)
            up = height * rng.uniform(0.2, 0.8) + np.cumsum(rng.normal(0, rng.uniform(1, 9), len(along)))
            points = np.stack([along, up], 1).astype(np.int32)
            cv2.polylines(page, [points], False, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        else:
            step = int(rng.integers(8, 40))
            for x in range(int(rng.integers(0, step)), width, step):
                top = int(height * rng.uniform(0.1, 0.95))
                cv2.rectangle(page, (x, top), (x + step // 2, height), colour, -1 if rng.random() < 0.9 else 1)
    for _ in range(int(rng.integers(1, 12))):
        cover = draw_text(random_text(rng)[1], "uni", int(rng.integers(5, 14)))
        _paste(page, cover, int(rng.integers(height)), int(rng.integers(-30, width)), _ink(rng, dark))
    return page


def _sign(image: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Letters that belong to the scene: on a plate, in its light, not sharper than what is around them."""
    drawing, (height, width) = image.copy(), image.shape[:2]
    font, text = random_text(rng)
    cover = draw_text(text, font, int(rng.integers(8, max(9, height // 4))), int(rng.choice((400, 700, 900))))
    margin = int(rng.integers(3, 20))
    plate = np.pad(cover, margin)
    dark = rng.random() < 0.5
    colour = 1 - _ink(rng, dark) if rng.random() < 0.7 else rng.uniform(0.2, 0.9, 3)
    face = np.full((*plate.shape, 3), 1, np.float32) * np.float32(colour)
    _paste(face, plate, 0, 0, _ink(rng, dark))
    if rng.random() < 0.4:
        cv2.rectangle(face, (1, 1), (face.shape[1] - 2, face.shape[0] - 2), _ink(rng, dark).tolist(), 1 + margin // 6)
    skew = np.array([[1, rng.normal(0, 0.12), 0], [rng.normal(0, 0.08), 1, 0]], np.float32)
    skew[:, 2] = rng.uniform(-0.2, 0.7, 2) * (width, height)
    whole = np.ones(plate.shape, np.float32)
    face = np.asarray(cv2.warpAffine(face, skew, (width, height), flags=cv2.INTER_LINEAR), np.float32)
    where = cv2.warpAffine(whole, skew, (width, height), flags=cv2.INTER_LINEAR)
    light = _shading(image, rng) * (0.5 + 0.5 * rng.random()) * (1 + (image - cv2.blur(image, (5, 5))) * rng.random())
    soft = cv2.GaussianBlur(where, (0, 0), rng.uniform(0.4, 1.2))[..., None]
    drawing += soft * (cv2.GaussianBlur(face * light, (0, 0), rng.uniform(0.4, 1.1)) - drawing)
    return drawing


def _railing(image: np.ndarray, rng: np.random.Generator) -> Drawing:
    """Bars at equal distances in the light of the scene: fences, window bars, blinds, patterned cloth."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn = rng.choice((0.0, np.pi / 2)) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    turn, period = turn + rng.normal(0, 0.05), rng.uniform(5, 60)
    bend = 1 + rng.normal(0, 3e-4) * (x - width / 2)
    wide, crossed = period * rng.uniform(0.1, 0.5), rng.random() < 0.35
    cover: np.ndarray = np.zeros((height, width), np.float32)
    for angle in (turn, turn + np.pi / 2) if crossed else (turn,):
        along = (x * np.cos(angle) + y * np.sin(angle)) * bend + rng.uniform(0, period)
        distance = np.abs(along % period - period / 2)
        cover = np.maximum(cover, np.clip((wide / 2 - distance) / rng.uniform(0.6, 2) + 0.5, 0, 1))
    if rng.random() < 0.5:  # only part of the picture
        top, left = int(rng.integers(height)), int(rng.integers(width))
        cover[:top], cover[:, :left] = 0, 0
    texture = 1 + rng.uniform(0, 0.2) * cv2.GaussianBlur(rng.standard_normal((height, width), np.float32), (0, 0), 1)
    ink = np.clip(_ink(rng, bool(rng.random() < 0.4)), 0.12, 0.9)  # not the black and white of what is drawn over
    colour = ink * _shading(image, rng) * texture[..., None] * rng.uniform(0.6, 1)
    return np.asarray(cv2.GaussianBlur(image + cover[..., None] * (colour - image), (0, 0), rng.uniform(0.4, 0.9)))


def _border(image: np.ndarray, rng: np.random.Generator) -> Drawing:
    """A plain border on two, three or all sides, as scans and prints have; perhaps with a rule, rough or uneven."""
    drawing, (height, width) = image.copy(), image.shape[:2]
    colour = _ink(rng, bool(rng.random() < 0.4))
    sides = rng.permutation(4)[: int(rng.integers(2, 5))] if rng.random() < 0.5 else range(4)
    depths = rng.integers(3, max(4, min(height, width) // 4), 4)
    if rng.random() < 0.7:
        depths[:] = depths[0]
    inside: np.ndarray = np.ones((height, width), np.float32)
    for side in sides:
        np.rot90(inside, int(side))[: int(depths[side])] = 0
    if rng.random() < 0.3:
        inside = np.asarray(cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.5, 2)))
    drawing = colour + inside[..., None] * (drawing - colour)
    if rng.random() < 0.3:
        rule = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[..., None]
        drawing = drawing + rule * (_ink(rng, True) - drawing)
    return np.asarray(drawing, np.float32)


_DRAWINGS = {"document": _document, "chart": _chart, "sign": _sign, "railing": _railing, "border": _border}
