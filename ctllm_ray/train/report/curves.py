"""Curves of a run as inline SVG, which needs no script and scales to any width.

A drawing is a box of 1000 x 1000 units stretched over its frame, with strokes that keep their width; ticks,
marks and the cross-hair are HTML placed by percent, so type is as large on a telephone as on a wall. A run of
a million steps is thinned to a few hundred places: each keeps the least and the most of what it stands for,
so no spike is lost. Only numbers get into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

PLACES = 400  # positions along the axis
SMOOTH_SHARE = 0.01  # half-life of the smoothed curve, on each side
SIZE = 1000  # of the box, in its own units
LOG_RATIO = 2.0  # ratio of a range from which the axis is logarithmic, if the values allow it
HEADROOM = 0.06  # free space beyond the values, as a share of the axis


@dataclass(frozen=True)
class Axis:
    """Maps a value to its position: 0 at the low end, 1 at the high end."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """The position of a value, 0 to 1, limited to this range."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Two to six round values within the range."""
        for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,)) if self.log else ():
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            results = [s * 10.0**e for e in range(first, last + 1) for s in steps]
            results = [round(value, 12) for value in results if self.low <= value <= self.high]
            if 2 <= len(results) <= 6:
                return results
        return _round_values(self.low, self.high)


def _round_values(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next(m for m in (5, 2, 1) if (high - low) / (step * m) >= 2 or m == 1)
    values = [
        round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
    return values[:: math.ceil(len(values) / 6)]


def axis(values: Sequence[float] | np.ndarray, *, from_zero: bool = False, log: bool = False) -> Axis:
    """An axis that contains all finite values; starts at zero or is logarithmic if requested and useful."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if log and low > 0 and high / low >= LOG_RATIO:
        room = (high / low) ** HEADROOM
        return Axis(low / room, high * room, log=True)
    if from_zero:
        return Axis(0.0, max(high * (1 + HEADROOM), 1e-12))
    room = HEADROOM * (high - low) or abs(high) * HEADROOM or 1.0
    return Axis(low - room, high + room)


def smooth(values: np.ndarray, share: float = SMOOTH_SHARE) -> np.ndarray:
    """An average with exponential weights on both sides, so it does not lag. Skips
    values that are not finite."""
    keep = 0.5 ** (1 / max(1.0, share * len(values)))
    finite = np.isfinite(values)
    known = np.where(finite, values, 0.0)
    sums = _decaying(known, keep) + _decaying(known[::-1], keep)[::-1] - known
    weights = _decaying(finite, keep) + _decaying(finite[::-1], keep)[::-1] - finite
    return np.divide(sums, weights, out=np.full(len(values), np.nan), where=weights > 0)


def _decaying(values: np.ndarray, keep: float) -> np.ndarray:
    """Sums of all values up to each one, with decaying weights."""
    result, total = np.empty(len(values)), 0.0
    for index, value in enumerate(values.tolist()):
        total = keep * total + value
        result[index] = total
    return result


@dataclass(frozen=True)
class Thinned:
    """Positions along the axis; `last` is the index of each position's last value."""

    last: np.ndarray
    least: np.ndarray
    most: np.ndarray


def thin(values: np.ndarray, places: int = PLACES) -> Thinned:
    """Minimum and maximum of up to `places` ranges of equal length."""
    edges = np.unique(np.linspace(0, len(values), min(len(values), places) + 1).astype(np.int64))
    parts = [values[a:b] for a, b in pairwise(edges)]
    finite = [part[np.isfinite(part)] for part in parts]
    least = np.array([part.min() if len(part) else math.nan for part in finite])
    most = np.array([part.max() if len(part) else math.nan for part in finite])
    return Thinned(edges[1:] - 1, least, most)


def path(x: Axis, y: Axis, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> str:
    """SVG path data through the points, with a gap at values that are not finite."""
    parts, pen = [], "M"
    for at, value in zip(xs, ys, strict=True):
        if not math.isfinite(value):
            pen = "M"
            continue
        parts.append(f"{pen}{SIZE * x.place(at):.1f} {SIZE * (1 - y.place(value)):.1f}")
        pen = "L"
    return "".join(parts)


def raw_path(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> str:
    """SVG path data of a thinned curve: from minimum to maximum at each position."""
    if len(ys) <= PLACES:
        return path(x, y, xs, ys)
    result = thin(ys)
    both = np.column_stack([result.least, result.most]).ravel()
    return path(x, y, np.repeat(xs[result.last], 2), both)


def grid(y: Axis) -> str:
    """SVG path data of a line across the box at each tick."""
    return "".join(f"M0 {SIZE * (1 - y.place(value)):.1f}H{SIZE}" for value in y.ticks())


def drawing(paths: Sequence[tuple[str, str]], label: str) -> Markup:
    """An SVG of (class, path data) that fills its frame."""
    drawn = Markup("").join(
        Markup('<path class="{}" d="{}" vector-effect="non-scaling-stroke"/>').format(name, data)
        for name, data in paths
        if data
    )
    head = Markup('<svg viewBox="0 0 {0} {0}" preserveAspectRatio="none" role="img" aria-label="{1}">')
    return head.format(SIZE, label) + drawn + Markup("</svg>")


def short(value: float) -> str:
    """Formats a number for an axis: 0.045, 1,500, 20k, 3.4M, 2.5e-4."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
