"""Histograms as inline SVG, with the thresholds drawn in.

Strings rather than a plotting library: a chart is two kilobytes, takes its colours from the page's
style sheet (so it follows light, dark and print) and needs no script to be seen. Only numbers and
escaped names get into it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

BINS = 44
#: Share of documents beyond each edge that is collected in one bar, so that outliers do not flatten the
#: chart.
TAIL_SHARE = 0.005
LOG_RATIO, LOG_TOP = (
    50,
    20,
)  # values that reach this high over a range this wide get a logarithmic axis; shares do not
REACH = 4  # the axis extends to a threshold within this many widths (decades / 2) of the data

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FLOOR = 360, 168, 24, 336, 34, 142  # of a histogram, in its own units
FATES = ("kept", "other", "charged")  # order of stacked bars, from the bottom
SIGNS = {"min": "≥", "max": "≤", "above": ">", "below": "<"}


@dataclass(frozen=True)
class Histogram:
    """Documents by value. The first and last counts of each row lie outside the edges."""

    edges: tuple[float, ...]
    kept: tuple[int, ...]
    charged: tuple[int, ...]  # dropped by this rule
    other: tuple[int, ...]  # dropped by another rule
    log: bool
    quantiles: tuple[float, ...]  # 5, 50 and 95 %
    # the threshold's key, its value, and where it separates the values
    cuts: tuple[tuple[str, float, float], ...]

    @property
    def documents(self) -> int:
        """The number of documents in it."""
        return sum(self.kept) + sum(self.charged) + sum(self.other)


def histogram(values: np.ndarray, fate: np.ndarray, bounds: Mapping[str, float]) -> Histogram:
    """A histogram of at least one finite value. `fate` is 0 kept, 1 dropped by this
    rule, 2 dropped by another."""
    values = values.astype(np.float64)
    low, high = np.quantile(values, [TAIL_SHARE, 1 - TAIL_SHARE], method="nearest")
    log = bool(low > 0 and high >= LOG_TOP and high / low >= LOG_RATIO)
    whole = bool(np.all(values == np.floor(values)) and np.abs(values).max() < 1e9)
    cuts = tuple((key, bound, _place_bound(key, bound, whole)) for key, bound in bounds.items())
    low, high = _axis_range(low, high, log, [at for _, _, at in cuts])
    edges = _edges(low, high, log, whole)
    for _, _, at in cuts:  # so that a bar never mixes passing and failing values
        if edges[0] < at < edges[-1]:
            edges[1 + np.argmin(np.abs(edges[1:-1] - at))] = at
    edges = np.unique(edges)
    bins = np.searchsorted(edges, values, side="right")
    bins[values == edges[-1]] -= 1
    kept, charged, other = (
        tuple(np.bincount(bins[fate == f], minlength=len(edges) + 1).tolist()) for f in range(3)
    )
    quantiles = tuple(np.quantile(values, [0.05, 0.5, 0.95]).tolist())
    return Histogram(tuple(edges.tolist()), kept, charged, other, log, quantiles, cuts)


def _place_bound(key: str, bound: float, whole: bool) -> float:
    """Where a threshold separates values: between two integers, or at the threshold itself."""
    if not whole:
        return bound
    return math.ceil(bound) - 0.5 if key in ("min", "below") else math.floor(bound) + 0.5


def _axis_range(low: float, high: float, log: bool, cuts: Sequence[float]) -> tuple[float, float]:
    """The range of the axis, extended to thresholds that are close enough."""
    reach = REACH * (high - low)
    for at in cuts:
        near = (
            low / 10 ** (REACH / 2) <= at <= high * 10 ** (REACH / 2)
            if log
            else low - reach <= at <= high + reach
        )
        if near and (at > 0 or not log):
            low, high = min(low, at), max(high, at)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _edges(low: float, high: float, log: bool, whole: bool) -> np.ndarray:
    """Up to BINS + 1 ascending edges; between integers if the values are integers."""
    if whole:
        low, high = math.floor(low), math.ceil(high) + 1
    raw = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
    if not whole:
        return raw
    if not log:
        raw = np.arange(low, high + 1, max(1, math.ceil((high - low) / BINS)))
        raw = np.append(raw, high) if raw[-1] < high else raw
    return np.unique(np.floor(raw)) - 0.5 if not log else np.unique(np.append(np.floor(raw[:-1]), high)) - 0.5


def short(value: float) -> str:
    """A number for an axis: 0.045, 1,500, 20k, 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Three to seven round values within a range."""
    if log:
        steps = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        results = [10.0**s for s in steps if low <= 10.0**s <= high]
        if len(results) >= 2:
            return results[:: math.ceil(len(results) / 6)]
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (5, 2, 1) if (high - low) / (step * m) >= 3 or m == 1)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram_svg(chart: Histogram, name: str) -> Markup:
    """A histogram as SVG: bars on a square-root scale, the failing side shaded,
    thresholds as labelled lines."""
    low, high = chart.edges[0], chart.edges[-1]
    span = math.log(high / low) if chart.log else high - low

    def x(value: float) -> float:
        share = math.log(max(value, low) / low) / span if chart.log else (value - low) / span
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, share))

    sides = [(4.0, LEFT - 8.0), *((x(a), x(b)) for a, b in zip(chart.edges, chart.edges[1:], strict=False))]
    sides.append((RIGHT + 8.0, WIDTH - 4.0))
    parts = [
        _fail_shade(chart, x),
        _grid(chart),
        _bars(chart, sides),
        _axis(chart, x),
        _bound_lines(chart, x),
    ]
    bins = list(
        zip([None, *chart.edges], [*chart.edges, None], chart.kept, chart.charged, chart.other, strict=True)
    )
    data = [[*(v if v is None else float(f"{v:.5g}") for v in row[:2]), *row[2:]] for row in bins]
    places = [[round(a, 1), round(b, 1)] for a, b in sides]
    return Markup(
        f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}" '
        f"data-bins='{json.dumps(data, separators=(',', ':'))}' "
        f"data-x='{json.dumps(places, separators=(',', ':'))}'>"
        f"{''.join(parts)}</svg>"
    )


def _bars(chart: Histogram, sides: Sequence[tuple[float, float]]) -> str:
    """Three stacked paths: kept at the bottom, dropped by this rule on top."""
    peak = _peak(chart)
    stacked = np.cumsum([chart.kept, chart.other, chart.charged], axis=0)
    levels = FLOOR - (FLOOR - TOP) * np.sqrt(np.vstack([np.zeros(stacked.shape[1]), stacked]) / peak)
    paths = []
    for row, fate in enumerate(FATES):
        boxes = [
            f"M{a + gap:.1f} {down:.1f}V{up:.1f}H{b - gap:.1f}V{down:.1f}Z"
            for (a, b), down, up in zip(sides, levels[row], levels[row + 1], strict=True)
            if down - up > 0.01
            for gap in [min(0.5, (b - a) / 8)]
        ]
        paths.append(f'<path class="{fate}" d="{"".join(boxes)}"/>')
    return "".join(paths)


def _peak(chart: Histogram) -> int:
    return max(map(sum, zip(chart.kept, chart.charged, chart.other, strict=True)))


def _grid(chart: Histogram) -> str:
    """Two level lines with counts: a round number near the top, and a tenth of it."""
    peak = _peak(chart)
    size = 10 ** math.floor(math.log10(peak))
    tops = {m * size for m in (1, 2, 5) if m * size <= peak}
    levels = sorted({max(tops), max(tops) // 10} - {0})
    full = np.add(np.add(chart.kept, chart.charged), chart.other)
    anchor, x = (
        ("end", WIDTH - 2) if full[-8:].max() < full[:8].max() else ("start", 2)
    )  # where the bars are lower
    lines = []
    for level in levels:
        y = FLOOR - (FLOOR - TOP) * math.sqrt(level / peak)
        lines.append(f'<path class="grid" d="M0 {y:.1f}H{WIDTH}"/>')
        lines.append(
            f'<text class="level" x="{x}" y="{y - 3:.1f}" text-anchor="{anchor}">{short(level)}</text>'
        )
    return "".join(lines)


def _axis(chart: Histogram, x: Callable[[float], float]) -> str:
    marks = ticks(chart.edges[0], chart.edges[-1], chart.log)
    labels = [
        f'<path class="axis" d="M{x(v):.1f} {FLOOR}v4"/>'
        f'<text class="tick" x="{x(v):.1f}" y="{FLOOR + 17}" text-anchor="middle">{short(v)}</text>'
        for v in marks
    ]
    ends = (
        [f'<text class="tick" x="9" y="{FLOOR + 17}" text-anchor="middle">‹</text>']
        if _outside(chart, 0)
        else []
    )
    if _outside(chart, -1):
        ends.append(f'<text class="tick" x="{WIDTH - 9}" y="{FLOOR + 17}" text-anchor="middle">›</text>')
    return f'<path class="axis" d="M0 {FLOOR}H{WIDTH}"/>{"".join(labels + ends)}'


def _outside(chart: Histogram, index: int) -> int:
    """Documents outside the edges: index 0 below them, -1 above."""
    return chart.kept[index] + chart.charged[index] + chart.other[index]


def _fail_shade(chart: Histogram, x: Callable[[float], float]) -> str:
    shades = []
    for key, _, at in chart.cuts:
        edge = _edge_place(chart, x, at)
        start, stop = (0.0, edge) if key in ("min", "above") else (edge, float(WIDTH))
        shades.append(
            f'<rect class="fails" x="{start:.1f}" y="{TOP}" width="{stop - start:.1f}" height="{FLOOR - TOP}"/>'
        )
    return "".join(shades)


def _edge_place(chart: Histogram, x: Callable[[float], float], at: float) -> float:
    """Where a threshold is drawn: at its position, or at the edge if it is outside the axis."""
    if at < chart.edges[0]:
        return 1.0
    return WIDTH - 1.0 if at > chart.edges[-1] else x(at)


def _bound_lines(chart: Histogram, x: Callable[[float], float]) -> str:
    """Each threshold as a line with a label above. Labels of upper thresholds are one row
    higher, so they never overlap."""
    parts = []
    for key, bound, at in chart.cuts:
        place = _edge_place(chart, x, at)
        y = 12 if key in ("max", "below") else 27
        arrow = "← " if at < chart.edges[0] else "→ " if at > chart.edges[-1] else ""
        anchor, shift = ("end", -5) if place > WIDTH / 2 else ("start", 5)
        parts.append(
            f'<path class="bound" d="M{place:.1f} {y - 9}V{FLOOR}"/>'
            f'<text class="bound-label" x="{place + shift:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{arrow}{SIGNS[key]} {bound:,g}</text>"
        )
    return "".join(parts)
