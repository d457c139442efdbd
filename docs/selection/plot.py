#!/usr/bin/env python3
"""Draws selection.svg from the CSV of the swarm simulation. Standard library only.

usage: plot.py swarm.csv selection.svg
"""

import csv
import math
import statistics
import sys
from html import escape

SCENARIOS = {
    "even": "even: 14 ASes of one size in 3 ISDs",
    "skewed": "skewed: 60 ASes of 1/rank sizes in 6 ISDs",
}
VARIANTS = {
    "random": "random",
    "prefer": "prefer (default)",
    "cap": "cap",
    "no-reserve": "prefer, no reserve",
    "cap-no-reserve": "cap, no reserve",
    "as-only": "same AS only",
}
WIDTH = 940
LABELS = 160  # room for the names of the variants
PANEL = 340
GAP = 50
ROW = 44
BAR = 13
TOP = 92
HEAD = 46  # title of a scenario
SLOWEST = 1.6  # end of the axis of times
FOOT = 52  # ticks and axis title
AS_FILL, ISD_FILL = "#3b6fa8", "#e08a2e"
MEDIAN_FILL, P95_FILL = "#7aa874", "#3f6b4f"


def number(text):
    return math.inf if text == "never" else float(text)


def read(path):
    runs = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            runs.setdefault((row["scenario"], row["variant"]), {})[row["seed"]] = row
    return runs


def column(runs, name):
    return [number(row[name]) for row in runs.values()]


def relative(runs, base, name):
    return [number(row[name]) / number(base[seed][name]) for seed, row in runs.items()]


class Drawing:
    def __init__(self):
        self.parts = []

    def text(self, x, y, text, size=12, anchor="start", weight="normal", fill="#222"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
        )

    def rect(self, x, y, width, height, fill):
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
        )

    def line(self, x1, y1, x2, y2, stroke="#ddd", dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dash}/>'
        )

    def dot(self, x, y):
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="#111" fill-opacity="0.45"/>'
        )

    def axis(self, x, y, height, most, step, label, form):
        """Draws the gridlines, ticks and title of a panel. Returns its scale."""
        scale = PANEL / most
        tick = 0
        while tick <= most + 1e-9:
            at = x + tick * scale
            self.line(at, y, at, y + height)
            self.text(at, y + height + 15, form(tick), 11, "middle", fill="#555")
            tick += step
        self.text(x + PANEL / 2, y + height + 33, label, 12, "middle")
        return scale

    def bar(self, x, y, scale, most, values, fill, form):
        """Draws the median as a bar and each seed as a dot."""
        median = statistics.median_low(values)
        if math.isinf(median):
            self.text(x + 4, y + BAR - 3, "never finishes", 11, fill="#a33")
            return
        self.rect(x, y, min(median, most) * scale, BAR - 1, fill)
        for value in values:
            if value <= most:
                self.dot(x + value * scale, y + (BAR - 1) / 2)
        end = max([median] + [value for value in values if value <= most])
        self.text(x + min(end, most) * scale + 5, y + BAR - 3, form(median), 11)

    def svg(self, height):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="DejaVu Sans, Helvetica, sans-serif">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def main():
    source, target = sys.argv[1:]
    runs = read(source)
    draw = Drawing()
    seeds = len(runs["even", "random"])
    draw.text(20, 28, "Peers handed out by place: traffic kept near, at what price in time", 17, weight="bold")
    draw.text(
        20, 48,
        f"700 peers, simulated around the real tracker; bars are medians of {seeds} seeds, dots are the seeds",
        12, fill="#555",
    )
    left, right = LABELS, LABELS + PANEL + GAP
    legend = [
        (left, AS_FILL, "pieces that crossed ASes"),
        (left + 190, ISD_FILL, "pieces that crossed ISDs"),
        (right, MEDIAN_FILL, "median completion"),
        (right + 150, P95_FILL, "95th percentile"),
    ]
    for x, fill, label in legend:
        draw.rect(x, 64, 12, 12, fill)
        draw.text(x + 17, 74, label, 12)
    y = TOP
    for scenario, title in SCENARIOS.items():
        draw.text(20, y + 20, title, 14, weight="bold")
        y += HEAD - 14
        shown = {variant: label for variant, label in VARIANTS.items() if (scenario, variant) in runs}
        height = ROW * len(shown)
        share = draw.axis(left, y, height, 100, 20, "share of the volume, percent", "{:.0f}".format)
        time = draw.axis(right, y, height, SLOWEST, 0.2, "time to completion, relative to random", "{:.1f}".format)
        draw.line(right + time, y, right + time, y + height, "#888", "4 3")
        base = runs[scenario, "random"]
        for variant, label in shown.items():
            these = runs[scenario, variant]
            draw.text(left - 8, y + ROW / 2 + 2, label, 12, "end")
            lost = statistics.mean(column(these, "unfinished"))
            if lost:
                draw.text(left - 8, y + ROW / 2 + 16, f"{lost:.0f} peers never finish", 10, "end", fill="#a33")
            above, below = y + ROW / 2 - BAR, y + ROW / 2
            percent = "{:.0f} %".format
            draw.bar(left, above, share, 100, column(these, "cross_as_percent"), AS_FILL, percent)
            draw.bar(left, below, share, 100, column(these, "cross_isd_percent"), ISD_FILL, percent)
            for at, name, fill in [(above, "median_s", MEDIAN_FILL), (below, "p95_s", P95_FILL)]:
                draw.bar(right, at, time, SLOWEST, relative(these, base, name), fill, "{:.2f}".format)
            y += ROW
        y += FOOT
    with open(target, "w") as file:
        file.write(draw.svg(y + 6))


main()
