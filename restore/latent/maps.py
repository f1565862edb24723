"""Codes in two or three dimensions: as a picture with thumbnails, as an interactive page, and over the epochs."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from restore.errors import UsageError
from restore.latent.data import Pictures, resized
from restore.latent.extras import need
from restore.latent.views import figure_png, inline, plotting, png

SHOWN = 120  # thumbnails on a map, at most
SPRITES = 2000  # pictures on an interactive page, at most
SPRITE_SIDE = 28
PERPLEXITY = 30.0


def project(codes: np.ndarray, dimensions: int, method: str = "auto", seed: int = 0) -> tuple[np.ndarray, str]:
    """Codes (N,D) in fewer dimensions, and by which method.

    Args:
        codes: At least two.
        dimensions: 2 or 3.
        method: code, pca, tsne, umap or auto, which is the code itself where it is small enough, else PCA.
        seed: Of t-SNE and UMAP.

    Returns:
        (N,dimensions), and the method.

    Raises:
        UsageError: There are too few codes, or they have other dimensions than asked for by method `code`.
    """
    if len(codes) < dimensions + 1:
        raise UsageError(f"a map in {dimensions} dimensions needs at least {dimensions + 1} pictures, not {len(codes)}")
    if method == "auto":
        method = "code" if codes.shape[1] <= dimensions else "pca"
    if method == "code":
        if codes.shape[1] > dimensions:
            raise UsageError(f"--method code: the code has {codes.shape[1]} numbers; use pca, tsne or umap")
        return _padded(codes, dimensions), method
    if method == "pca":
        return principal(codes, dimensions), method
    if method == "tsne":
        perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
        tsne = need("sklearn.manifold").TSNE(dimensions, perplexity=perplexity, random_state=seed, init="random")
        return np.asarray(tsne.fit_transform(codes)), method
    around = min(15, len(codes) - 1)
    reducer = need("umap").UMAP(n_components=dimensions, random_state=seed, n_neighbors=around, n_jobs=1)
    return np.asarray(reducer.fit_transform(codes)), method


def principal(values: np.ndarray, dimensions: int) -> np.ndarray:
    """(N,D) -> (N,dimensions): the first principal components, zeros where there are fewer."""
    pca = need("sklearn.decomposition").PCA(min(dimensions, *values.shape), random_state=0)
    return _padded(pca.fit_transform(values), dimensions)


def _padded(points: np.ndarray, dimensions: int) -> np.ndarray:
    return np.pad(points, ((0, 0), (0, dimensions - points.shape[1])))


def _scatter(axes: Any, points: np.ndarray, pictures: Pictures, title: str, thumbs: bool) -> None:
    colours = plotting().get_cmap("tab10" if len(pictures.classes) <= 10 else "tab20")
    labels = np.array(pictures.labels)
    for number, label in enumerate(pictures.classes):
        chosen = points[labels == label]
        axes.scatter(*chosen.T, s=5, color=colours(number % colours.N), label=label or None, alpha=0.7, linewidths=0)
    axes.set_title(title)
    if thumbs and points.shape[1] == 2:
        _thumbnails(axes, points, pictures)


def _thumbnails(axes: Any, points: np.ndarray, pictures: Pictures) -> None:
    """Pictures where they do not cover each other: the first found in each cell of a grid."""
    boxes = need("matplotlib.offsetbox")
    low, high = points.min(0), points.max(0)
    cells = np.floor((points - low) / np.maximum(high - low, 1e-12) * 0.999 * SHOWN**0.5).astype(int)
    _, first = np.unique(cells, axis=0, return_index=True)
    for number in first:
        picture = pictures.pixels[number]
        zoom = 15 / max(picture.shape[:2])
        shown = np.broadcast_to(picture, (*picture.shape[:2], 3))
        box = boxes.AnnotationBbox(boxes.OffsetImage(shown, zoom=zoom), points[number], frameon=False)
        axes.add_artist(box)


def map_png(
    maps: Sequence[tuple[str, np.ndarray]], pictures: Pictures, *, thumbs: bool = True, columns: int | None = None
) -> bytes:
    """Maps beside each other as a PNG.

    Args:
        maps: Title and points (N,2) or (N,3) of each.
        pictures: The N pictures; coloured by their subfolder.
        thumbs: Whether to show some of them.
        columns: Maps in a row; None: all.
    """
    columns = columns or len(maps)
    rows = -(-len(maps) // columns)
    flat = maps[0][1].shape[1] == 2
    figure, grid = plotting().subplots(
        rows, columns, figsize=(6 * columns, 6 * rows), squeeze=False, subplot_kw={} if flat else {"projection": "3d"}
    )
    for place, axes in enumerate(grid.flat):
        if place < len(maps):
            _scatter(axes, maps[place][1], pictures, maps[place][0], thumbs)
        else:
            axes.axis("off")
    if len(pictures.classes) > 1:
        grid.flat[0].legend(markerscale=3, fontsize="small")
    return figure_png(figure)


def map_gif(maps: Sequence[tuple[str, np.ndarray]], pictures: Pictures) -> bytes:
    """Maps one after the other as an animated GIF."""
    from PIL import Image as PilImage

    frames = [PilImage.open(io.BytesIO(map_png([one], pictures, thumbs=False))).convert("RGB") for one in maps]
    frames = [frame.resize(frames[0].size) for frame in frames]
    target = io.BytesIO()
    last = len(frames) - 1
    durations = [400 if number < last else 2000 for number in range(len(frames))]
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return target.getvalue()


def map_page_body(points: np.ndarray, pictures: Pictures, seed: int = 0) -> tuple[str, str]:
    """A map that the mouse turns: HTML and script. Of many pictures it shows some, drawn at random.

    Args:
        points: (N,2) or (N,3).
        pictures: The N pictures.
        seed: Of the draw.
    """
    chosen = np.arange(len(points))
    if len(chosen) > SPRITES:
        chosen = np.sort(np.random.default_rng(seed).choice(len(points), SPRITES, replace=False))
    points, some = points[chosen], pictures.subset(chosen)
    centred = points - (points.max(0) + points.min(0)) / 2
    scaled = centred / max(float(np.abs(centred).max()), 1e-12)
    scaled = _padded(scaled, 3)
    across = 50
    sprites = np.stack([resized(picture, SPRITE_SIDE) for picture in some.pixels])
    rows = -(-len(sprites) // across)
    channels = sprites.shape[3]
    canvas = np.zeros((rows * across, SPRITE_SIDE, SPRITE_SIDE, channels), np.uint8)
    canvas[: len(sprites)] = sprites
    tiled = canvas.reshape(rows, across, SPRITE_SIDE, SPRITE_SIDE, channels).swapaxes(1, 2)
    tiled = tiled.reshape(rows * SPRITE_SIDE, across * SPRITE_SIDE, channels)
    classes = some.classes
    # "</" would end the script, whatever a folder is called.
    data = json.dumps(
        {
            "points": np.round(scaled, 4).tolist(),
            "labels": [classes.index(label) for label in some.labels],
            "classes": classes,
            "names": [path.name for path in some.paths],
            "side": SPRITE_SIDE,
            "across": across,
            "flat": points.shape[1] == 2,
        }
    ).replace("</", "<\\/")
    body = (
        '<p id="said">Drag to turn or move, wheel to zoom, point at a picture to see its name.</p>'
        '<canvas id="map" width="900" height="700" style="touch-action: none; max-width: 100%"></canvas>'
        f"<div hidden>{inline(png(tiled), 'sprites')}</div>"
    )
    return body, f"const data = {data};\n{SCRIPT}"


SCRIPT = """
const canvas = document.getElementById('map'), context = canvas.getContext('2d');
const sprites = document.querySelector('div[hidden] img'), said = document.getElementById('said');
let turn = 0.4, tilt = 0.3, zoom = 300, moved = [0, 0], held = null, shown = [];
const hue = label => `hsl(${label * 360 / Math.max(1, data.classes.length)} 75% 50%)`;
function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  const [c, s, C, S] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  shown = data.points.map(([x, y, z], number) => {
    if (data.flat) return { number, x: 450 + moved[0] + zoom * x, y: 350 + moved[1] - zoom * y, depth: 0 };
    const a = c * x + s * z, b = c * z - s * x;
    return { number, x: 450 + moved[0] + zoom * a, y: 350 + moved[1] - zoom * (C * y - S * b), depth: C * b + S * y };
  }).sort((a, b) => a.depth - b.depth);
  const size = Math.max(10, zoom / 18), { side, across } = data;
  for (const point of shown) {
    const column = point.number % across, row = Math.floor(point.number / across);
    const [left, top] = [point.x - size / 2, point.y - size / 2];
    context.drawImage(sprites, column * side, row * side, side, side, left, top, size, size);
    context.strokeStyle = hue(data.labels[point.number]);
    context.strokeRect(left, top, size, size);
  }
  document.documentElement.dataset.ready = 'yes';
}
canvas.addEventListener('pointerdown', event => { held = [event.clientX, event.clientY]; });
addEventListener('pointerup', () => { held = null; });
canvas.addEventListener('pointermove', event => {
  if (held) {
    const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
    held = [event.clientX, event.clientY];
    if (data.flat) moved = [moved[0] + dx, moved[1] + dy]; else { turn += dx / 150; tilt += dy / 150; }
    draw();
    return;
  }
  const ratio = canvas.width / canvas.clientWidth, [x, y] = [event.offsetX * ratio, event.offsetY * ratio];
  const near = shown.findLast(point => Math.hypot(point.x - x, point.y - y) < 10);
  if (near) said.textContent = `${data.classes[data.labels[near.number]]} ${data.names[near.number]}`;
});
canvas.addEventListener('wheel', event => {
  event.preventDefault(); zoom *= Math.exp(-event.deltaY / 800); draw();
}, { passive: false });
sprites.decode().then(draw);
"""
