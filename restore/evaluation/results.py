"""Means of scores, as a table for the terminal, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from statistics import median
from typing import Any

from restore.evaluation.evaluate import Row, Scored
from restore.evaluation.protocols import MEASURES
from restore.evaluation.trials import Method

SPEED = "seconds_a_megapixel"
EXACT = 100.0  # dB: about what a single value that is off by one costs a picture of 256x256


@dataclass
class Results:
    """The results of an evaluation: all scores, the command that reproduces them, and error messages by picture.

    notes: further lines for below the table.
    """

    task: str
    seed: int
    command: str
    methods: Sequence[Method]
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, scored: Scored) -> None:
        """Adds the outcome for a picture."""
        self.rows.extend(scored.rows)
        if scored.error is not None:
            self.failed[scored.name] = scored.error

    @property
    def cases(self) -> list[str]:
        """The labels of the cases, in order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def of(self, case: str, method: str) -> list[Row]:
        """The rows of one line of the table, one for each picture."""
        return [row for row in self.rows if row.case == case and row.method == method]

    def protocols(self, case: str) -> list[str]:
        """The protocols of a case; several if the pictures differ in kind."""
        return list(dict.fromkeys(row.protocol for row in self.rows if row.case == case))


@dataclass(frozen=True)
class Line:
    """Means over the pictures of a case for one method; NaN where no value is defined."""

    case: str
    method: str
    pictures: int
    scores: dict[str, float]


def lines(results: Results) -> list[Line]:
    """The lines of the table: means of the defined scores, and the median of the seconds a megapixel of output."""
    found = []
    for case in results.cases:
        for method in results.methods:
            rows = results.of(case, method.name)
            keys = dict.fromkeys(key for row in rows for key in row.scores)
            scores = {key: mean([row.scores.get(key, math.nan) for row in rows]) for key in keys}
            # Not the mean: the first call imports and warms up
            scores[SPEED] = median(row.seconds / row.megapixels for row in rows)
            found.append(Line(case, method.name, len(rows), scores))
    return found


def mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers; NaN if there are none.

    An infinite one, the PSNR of a picture that came back exactly, counts as `EXACT`: it would hide all the others.
    """
    known = [EXACT if value == math.inf else value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def columns(results: Results) -> list[tuple[str, str, str]]:
    """(key, title, form) of the columns of the table."""
    present = {key for row in results.rows for key in row.scores}
    known = [(m.key, m.title, m.form) for m in MEASURES if m.key in present]
    return [*known, (SPEED, "s/MP", ".3g")]


def show(value: float, form: str) -> str:
    """Formats a score; a dash for NaN."""
    return "-" if math.isnan(value) else format(value, form)


def cells(results: Results) -> list[list[str]]:
    """The table as text: the titles, then a row for each case and method."""
    shown = columns(results)
    rows = [["case", "method", *(title for _, title, _ in shown)]]
    for line in lines(results):
        rows.append([line.case, line.method, *(show(line.scores.get(key, math.nan), form) for key, _, form in shown)])
    return rows


def table(results: Results) -> str:
    """Formats the table for a terminal, with notes below."""
    if not results.rows:
        return "no picture could be scored"
    rows = cells(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = []
    for number, row in enumerate(rows):
        if number and row[0] != rows[number - 1][0]:
            text.append("")
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        text.append("  ".join([*left, *right]).rstrip())
    return "\n".join([*text, "", *notes(results)])


def notes(results: Results) -> list[str]:
    """The notes below the table: protocols, and the meaning of the columns."""
    by_protocol: dict[str, list[str]] = {}
    for case in results.cases:
        for protocol in results.protocols(case):
            by_protocol.setdefault(protocol, []).append(case)
    pictures = len({row.picture for row in results.rows})
    text = [f"{', '.join(cases)}: {protocol}." for protocol, cases in by_protocol.items()]
    shown = {key for key, _, _ in columns(results)}
    about = "; ".join(f"{m.title}: {m.about}" for m in MEASURES if m.key in shown)
    text.append(f"Means of per-picture values over {pictures} pictures, seed {results.seed}. {about}.")
    if any(math.inf in row.scores.values() for row in results.rows):
        text.append(f"A picture that came back exactly has an infinite PSNR; in a mean it counts as {EXACT:g} dB.")
    text.append("s/MP: seconds a megapixel of output (median), on this machine, with whatever else it was doing.")
    return text + results.notes


def to_json(results: Results) -> str:
    """Formats everything as JSON: means, scores and damage parameters of every picture, failures.

    NaN and infinity, which JSON does not have, become null.
    """
    return json.dumps(
        {
            "task": results.task,
            "command": results.command,
            "seed": results.seed,
            "protocol": {case: "; ".join(results.protocols(case)) for case in results.cases},
            "methods": [{"name": m.name, "kind": m.kind, "about": m.about} for m in results.methods],
            "summary": [
                {"case": line.case, "method": line.method, "pictures": line.pictures, **_finite(line.scores)}
                for line in lines(results)
            ],
            "pictures": [
                {
                    "picture": row.picture,
                    "case": row.case,
                    "method": row.method,
                    **_finite({**row.scores, "seconds": row.seconds}),
                    "params": _params(row),
                }
                for row in results.rows
            ],
            "failed": [{"picture": name, "reason": reason} for name, reason in results.failed.items()],
            "notes": results.notes,
        },
        indent=1,
        allow_nan=False,
    )


def to_csv(results: Results) -> str:
    """Formats a line for each picture, case and method as CSV (RFC 4180)."""
    keys = [key for key, _, _ in columns(results) if key != SPEED]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["picture", "case", "method", *keys, "seconds", "megapixels", "seed", "params", "protocol"])
    for row in results.rows:
        scores = [f"{row.scores.get(key, math.nan):.6g}" for key in keys]
        times = [f"{row.seconds:.6g}", f"{row.megapixels:.6g}"]
        params = json.dumps(_params(row))
        writer.writerow([row.picture, row.case, row.method, *scores, *times, results.seed, params, row.protocol])
    return file.getvalue()


def _params(row: Row) -> Any:
    return asdict(row.params) if is_dataclass(row.params) and not isinstance(row.params, type) else None


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in scores.items()}
