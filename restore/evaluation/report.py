"""`--report`: a self-contained page with the table, a scatter plot, and the best, median and worst pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from restore import __version__
from restore.evaluation.evaluate import Row
from restore.evaluation.page import page, picture, slider
from restore.evaluation.protocols import eight_bit
from restore.evaluation.results import Results, cells, columns, mean, notes, show
from restore.evaluation.trials import Entry, Method, Trial, trials
from restore.images import Image
from restore.tasks.base import Task
from restore.tasks.spec import Options

CROP = 288  # pixels a side
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#9333ea", "#0891b2", "#b91c1c")


def report(results: Results, entries: Sequence[Entry], task: Task, damage: Options) -> str:
    """Makes the page. The pictures that it shows are damaged and restored again, as in the evaluation."""
    body = [
        f"<h1>{escape(results.task)}: measured</h1>",
        f'<p class="note">restore {escape(__version__)}</p><pre>{escape(results.command)}</pre>',
        _table(results),
        "".join(f'<p class="note">{escape(note)}</p>' for note in notes(results)),
        f'<ul class="note">{_items(f"<b>{escape(m.name)}</b>: {escape(m.about)}" for m in results.methods)}</ul>',
    ]
    if results.failed:
        body.append(f"<h2>Not scored</h2><ul>{_items(map(escape, results.failed.values()))}</ul>")
    shown = next((method for method in results.methods if method.kind == "model"), results.methods[-1])
    by_name = {entry.name: entry for entry in entries}
    for case in results.cases:
        body.append(f"<section><h2>{escape(case)}</h2>{_scatter(results, case, shown)}")
        body.append(f"<h3>Best, median and worst of {escape(shown.name)}, crops with the largest error at 1:1</h3>")
        for title, row in _ranked(results.of(case, shown.name)):
            trial = next(t for t in trials(by_name[row.picture], task, damage, results.seed) if t.case.label == case)
            body.append(_picture(title, row, trial, shown, results))
        body.append("</section>")
    return page(f"{results.task}: measured", "\n".join(body))


def _table(results: Results) -> str:
    kinds = {method.name: method.kind for method in results.methods}
    titles, *body = cells(results)
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows, last = [], None
    for row in body:
        css = f"{kinds[row[1]]}{' first' if row[0] != last else ''}"
        rows.append(f'<tr class="{css}">{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>')
        last = row[0]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{line}</li>" for line in lines)


def _ranked(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    order = sorted((row for row in rows if not math.isnan(row.score)), key=lambda row: row.score, reverse=True)
    if not order:
        return []
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    names: dict[str, str] = {}
    for title, row in chosen.items():
        names[row.picture] = f"{names[row.picture]} and {title}" if row.picture in names else title
    return [(title, next(row for row in order if row.picture == name)) for name, title in names.items()]


def worst_window(error: np.ndarray, side: int) -> tuple[int, int]:
    """(top, left) of the window of `side` with the largest sum of `error` (H,W), on a grid of 16 pixels."""
    height, width = error.shape
    h, w = min(side, height), min(side, width)
    total = np.pad(error, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    coarse = sums[::16, ::16]
    top, left = np.unravel_index(int(coarse.argmax()), coarse.shape)
    return int(top) * 16, int(left) * 16


def _picture(title: str, row: Row, trial: Trial, method: Method, results: Results) -> str:
    """The window of a picture with the largest error of the restored one."""
    clean, restored = eight_bit(trial.clean), eight_bit(method.restore(trial).pixels)
    top, left = worst_window(((clean.astype(np.float64) - restored) ** 2).sum(axis=-1), CROP)
    window = slice(top, top + CROP), slice(left, left + CROP)
    known = sorted(columns(results), key=lambda column: column[0] != row.primary)[:3]
    scores = ", ".join(f"{name} {show(row.scores.get(key, math.nan), form)}" for key, name, form in known)
    pair = slider(Image(eight_bit(trial.identity)[window]), Image(restored[window]), "corrupted", "restored")
    truth = picture(Image(clean[window]), "clean")
    return (
        f"<h4>{escape(title)}: {escape(row.picture)} <span class=note>({escape(scores)})</span></h4>"
        f'<div class="row"><figure>{pair}<figcaption>corrupted | restored: drag, or arrow keys</figcaption></figure>'
        f"<figure>{truth}<figcaption>clean</figcaption></figure></div>"
    )


def _scatter(results: Results, case: str, shown: Method) -> str:
    """A dot for each picture and model: score of the best baseline (x), score of the model (y)."""
    baselines = [method for method in results.methods if method.kind != "model" and method is not shown]
    if not baselines:
        return ""
    score = {m.name: {row.picture: row.score for row in results.of(case, m.name)} for m in results.methods}
    baseline = max(baselines, key=lambda method: mean(list(score[method.name].values())))
    models = [method for method in results.methods if method.kind == "model"] or [shown]
    points = [
        (number, method.name, name, score[baseline.name][name], value)
        for number, method in enumerate(models)
        for name, value in score[method.name].items()
        if math.isfinite(value) and math.isfinite(score[baseline.name][name])
    ]
    if not points:
        return ""
    values = [value for point in points for value in point[3:]]
    low, high = math.floor(min(values)), max(math.ceil(max(values)), math.floor(min(values)) + 1)
    inside = any(row.primary == "psnr_inside" for row in results.of(case, baseline.name))
    return _plot(points, low, high, baseline.name, models, "PSNR inside the mask" if inside else "PSNR")


def _plot(
    points: list[tuple[int, str, str, float, float]],
    low: int,
    high: int,
    baseline: str,
    models: Sequence[Method],
    what: str,
) -> str:
    side, edge = 380, 44

    def place(value: float) -> float:
        return round((value - low) / (high - low) * (side - 2 * edge), 1)

    def x(value: float) -> float:
        return edge + place(value)

    def y(value: float) -> float:
        return side - edge - place(value)

    step = max(1, math.ceil((high - low) / 8))
    parts = [f'<line x1="{x(low)}" y1="{y(low)}" x2="{x(high)}" y2="{y(high)}" stroke="#888" stroke-dasharray="4 4"/>']
    for tick in range(low, high + 1, step):
        parts.append(f'<text x="{x(tick)}" y="{side - edge + 16}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{edge - 8}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
        parts.append(f'<path d="M{x(tick)} {edge}V{side - edge}M{edge} {y(tick)}H{side - edge}" stroke="#8883"/>')
    for number, method, name, across, up in points:
        label = escape(f"{name}: {method} {up:.2f} dB, {baseline} {across:.2f} dB")
        dot = f'<circle cx="{x(across)}" cy="{y(up)}" r="4" fill="{COLOURS[number % len(COLOURS)]}" fill-opacity=".7">'
        parts.append(f"{dot}<title>{label}</title></circle>")
    for number, model in enumerate(models):
        parts.append(
            f'<text x="{edge}" y="{16 + 14 * number}" style="fill:{COLOURS[number % len(COLOURS)]}">'
            f"{escape(model.name)}, {what} in dB (up)</text>"
        )
    parts.append(f'<text x="{side / 2}" y="{side - 8}" text-anchor="middle">{escape(baseline)}, {what} in dB</text>')
    return (
        f'<svg class="scatter" width="{side}" height="{side}" viewBox="0 0 {side} {side}" font-size="12" role="img" '
        f'aria-label="{what} of each picture">{"".join(parts)}</svg>'
        '<p class="note">A dot is a picture; above the dashed line the model is better.</p>'
    )
