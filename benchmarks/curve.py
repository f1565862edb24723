"""Plots the validation curves of training runs as SVG, from their checkpoints.

    python benchmarks/curve.py first.checkpoint second.checkpoint -o curve-super-resolve.svg

Several checkpoints are joined: each run continued from the weights of the one before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from restore.errors import UsageError
from restore.training import checkpoint

WIDTH, HEIGHT, LEFT, BOTTOM, ROOM = 760, 360, 60, 40, 20
COLOURS = ("#1b6ca8", "#c0392b", "#27825a", "#8e5ea2")


def curves(folders: list[Path]) -> tuple[dict[str, list[tuple[float, float]]], list[float]]:
    """Points (thousands of patches, score in dB) by case, and the end of each run in thousands of patches."""
    found: dict[str, list[tuple[float, float]]] = {}
    ends, before = [], 0.0
    for folder in folders:
        past = checkpoint.load(folder)
        if past is None:
            raise UsageError(f"{folder}: no checkpoint here; give the checkpoint folder beside the trained weights")
        size = past.state["settings"]["batch_size"] / 1000
        for row in past.state["progress"]["history"]:
            for case, score in row.items():
                if case not in ("step", "seconds"):
                    found.setdefault(case, []).append((before + row["step"] * size, score))
        before += past.state["progress"]["step"] * size
        ends.append(before)
    return found, ends


def svg(found: dict[str, list[tuple[float, float]]], ends: list[float]) -> str:
    """Draws each curve over its own range, since cases differ in level, with its first and last score."""
    across = (WIDTH - LEFT - 150) / ends[-1]
    panel = (HEIGHT - BOTTOM - ROOM) / len(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for end in ends[:-1]:
        x = LEFT + end * across
        parts.append(f'<path d="M{x:.1f} {ROOM} V{HEIGHT - BOTTOM}" stroke="#999" stroke-dasharray="4 4"/>')
    for number, (case, points) in enumerate(found.items()):
        low, high = min(score for _, score in points), max(score for _, score in points)
        top, colour = ROOM + number * panel, COLOURS[number % len(COLOURS)]
        scale = (panel - 22) / max(high - low, 1e-9)
        line = " ".join(f"{LEFT + x * across:.1f},{top + 10 + (high - y) * scale:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        middle = top + panel / 2
        parts.append(f'<text x="8" y="{middle:.0f}" fill="{colour}">{case}</text>')
        x = LEFT + points[-1][0] * across + 8
        parts.append(
            f'<text x="{x:.0f}" y="{middle:.0f}" fill="{colour}">{points[0][1]:.2f} to {points[-1][1]:.2f} dB</text>'
        )
    y = HEIGHT - 12
    parts.append(f'<text x="{LEFT}" y="{y}">0</text>')
    parts.extend(f'<text x="{LEFT + end * across - 40:.0f}" y="{y}">{end:.0f},000 patches</text>' for end in ends)
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    flags = parser.parse_args()
    flags.out.write_text(svg(*curves(flags.checkpoints)), encoding="utf-8")


if __name__ == "__main__":
    main()
