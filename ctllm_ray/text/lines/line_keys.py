"""Kernels of the pass `boilerplate`: 64-bit keys of lines, and the repeated lines at the edges of a page.

A key is a hash of the folded line (`fold.py`): the Traditional menu, the full-width one and the one with
other separators are one line. 64 bits, since lines are only ever compared with the few that repeat: of 10**12
different lines and a million that repeat, an expected 0.05 are taken for one of them by chance. Lines that
fold to nothing (rules of dashes, bullets) have no key and are never spoken of.

Repetition alone is not boilerplate: 「第一章 总则」 is in every statute. Menus and footers are at the top and bottom
of a page, in consecutive lines. So `at_edges` takes from each end the stretch in which repeated lines
outweigh others most: each repeated line counts 1, each other line (a headline, a date, a neighbour's title)
counts -`cost`. A heading that many pages have after two lines of their own is not reached; a menu of ten
lines with two such lines is. A fixed maximum gap, which was tried first, cuts ten times as much of clean
pages at the same share of menus found.

Cost: measured in docs/results.md.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.dedup.fold import Digits, fold_points, table
from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

START = 0x9E3779B97F4A7C15  # any odd numbers do; these are 2**64 divided by the golden ratio, and
FACTOR = 0xD6E8FEB86659FD93  # the multiplier of Chris Wellons' prospected 64-bit mixer


class LineKeys(NamedTuple):
    """The lines of a batch that say something, in order."""

    rows: np.ndarray  # int32: of the batch
    lines: np.ndarray  # int32: the number of the line in its text
    keys: np.ndarray  # uint64
    chars: np.ndarray  # int32: letters and digits, folded


def line_keys(texts: pa.Array, *, digits: Digits) -> LineKeys:
    """The keys of all lines of the texts (a string array without nulls)."""
    return LineKeys(*_line_keys(*buffers(texts), *table(), digits == "mask"))


def at_edges(rows: np.ndarray, repeated: np.ndarray, *, cost: float) -> np.ndarray:
    """True for each repeated line in the best stretch from the top or bottom of its page; `rows` ascend."""
    values: np.ndarray = _at_edges(rows, repeated, float(cost))
    return values


@compiled
def _line_keys(data, offsets, one, sequences, mask):
    most = len(offsets) - 1
    for i in range(offsets[0], offsets[-1]):
        most += data[i] == 0x0A
    rows, lines, chars = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    keys = np.empty(most, np.uint64)
    n = 0
    for row in range(len(offsets) - 1):
        points = decode(data, offsets[row], offsets[row + 1])
        start, line = 0, 0
        for i in range(len(points) + 1):
            if i < len(points) and points[i] != 0x0A:
                continue
            folded, _ = fold_points(points[start:i], one, sequences, mask)
            if len(folded):
                key = np.uint64(START)
                for c in folded:
                    key = (key ^ np.uint64(c)) * np.uint64(FACTOR)
                    key ^= key >> np.uint64(32)
                rows[n], lines[n], keys[n], chars[n] = row, line, key, len(folded)
                n += 1
            start, line = i + 1, line + 1
    return rows[:n], lines[:n], keys[:n], chars[:n]


@compiled
def _at_edges(rows, repeated, cost):
    values = np.zeros(len(rows), np.bool_)
    start = 0
    while start < len(rows):
        stop = start
        while stop < len(rows) and rows[stop] == rows[start]:
            stop += 1
        page, out = repeated[start:stop], values[start:stop]
        _take_head(page, out, cost)
        _take_head(page[::-1], out[::-1], cost)
        start = stop
    return values


@register_jitable
def _take_head(repeated, result, cost):
    """Marks the repeated lines of the head with the largest sum; on ties the shortest stretch."""
    total, best, end = 0.0, 0.0, 0
    for i in range(len(repeated)):
        total += 1.0 if repeated[i] else -cost
        if total > best:
            best, end = total, i + 1
    for i in range(end):
        result[i] |= repeated[i]
