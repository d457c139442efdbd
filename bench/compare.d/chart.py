"""Draws the results: for each rival, what this tracker costs in parts of it."""

import math
from html import escape

from rows import ROWS
from table import ratio

WIDTH = 940
LABELS = 330
PANEL = 540
ROW = 20
HEAD = 34
TOP = 84
FOOT = 46
# The axis is logarithmic, between these parts.
LEAST, MOST = 1 / 32, 4
TICKS = {1 / 32: "1/32", 1 / 16: "1/16", 1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2", 1: "1", 2: "2", 4: "4"}
FILL, MISSED, GOAL = "#3b6fa8", "#c0504d", "#e08a2e"


def at(value):
    """Where a ratio is on the axis."""
    value = min(max(value, LEAST), MOST)
    return LABELS + PANEL * math.log(value / LEAST) / math.log(MOST / LEAST)


def text(x, y, content, size=12, anchor="start", weight="normal", fill="#222"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{fill}">{escape(content)}</text>'
    )


def line(x1, y1, x2, y2, stroke="#ddd", width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"/>'


def bar(y, label, measured, limits):
    """The median as a bar from 1, the rounds' range as a thin line, goals as strokes."""
    centre, least, most = measured
    missed = any(centre > limit for limit in limits)
    left, right = sorted((at(centre), at(1)))
    yield text(LABELS - 8, y + 13, label, 12, "end")
    yield (
        f'<rect x="{left:.1f}" y="{y + 4}" width="{max(right - left, 1):.1f}" height="11" '
        f'fill="{MISSED if missed else FILL}"/>'
    )
    yield line(at(least), y + 9.5, at(most), y + 9.5, "#111")
    for limit in limits:
        yield line(at(limit), y + 1, at(limit), y + 18, GOAL, 3)
    edge = at(most) + 6 if centre > 1 else max(at(1), at(most), *(at(limit) for limit in limits), 0) + 6
    yield text(edge, y + 13, f"{centre:.2f}", 11)


def svg(results):
    parts, y = [], TOP
    for row in ROWS:
        result = results["rows"].get(row.key)
        if result is None:
            continue
        rivals = [label for label in list(result["entries"])[1:] if ratio(result, label)]
        if not rivals:
            continue
        parts.append(text(20, y + 22, result["title"], 13, weight="bold"))
        y += HEAD - 4
        for label in rivals:
            limits = [goal.at_most for goal in row.goals if goal.of == label]
            parts += bar(y, label, ratio(result, label), limits)
            y += ROW
    grid = []
    for value, label in TICKS.items():
        grid.append(line(at(value), TOP, at(value), y + 6, "#888" if value == 1 else "#ddd"))
        grid.append(text(at(value), y + 22, label, 11, "middle", fill="#555"))
    height = y + FOOT
    head = [
        text(20, 28, "What this tracker costs, in parts of what others cost", 17, weight="bold"),
        text(
            20,
            48,
            "server CPU per reply, memory per peer; medians of pairs in the same round, thin lines the range; "
            "left of 1 is less than the other",
            12,
            fill="#555",
        ),
        f'<rect x="20" y="60" width="12" height="12" fill="{GOAL}"/>',
        text(37, 70, "goal"),
        f'<rect x="90" y="60" width="12" height="12" fill="{MISSED}"/>',
        text(107, 70, "goal not met"),
    ]
    body = "\n".join(head + grid + parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="DejaVu Sans, Helvetica, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )
