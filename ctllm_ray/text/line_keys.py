"""64-bit keys of lines, and which repeated lines stand at the edges of a page: the kernels of the pass boilerplate.

A key is a hash of the folded line (`fold.py`): the Traditional menu, the full-width one and the one with other
separators are one line. 64 bits, since lines are only ever compared with the few that repeat: of 10**12 different
lines and a million that repeat, an expected 0.05 are taken for one of them by chance. Lines that fold to nothing (rules
of dashes, bullets) have no key and are never spoken of.

What repeats is not yet boilerplate: 「第一章 总则」 stands in every statute. Menus and footers stand at the top and the
bottom of a page, one beside the other, so `at_edges` walks in from both ends and stops where more than `gap` lines in a
row do not repeat (the headline, a date between two menus).

Cost: measured in docs/results.md.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.text.codepoints import buffers, decode
from ctllm_ray.text.compiled import compiled
from ctllm_ray.text.fold import Digits, fold_points, table

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


def at_edges(rows: np.ndarray, repeated: np.ndarray, *, gap: int) -> np.ndarray:
    """True for each repeated line that is reached from the top or the bottom of its page over gaps of `gap` at most."""
    found: np.ndarray = _at_edges(rows, repeated, gap)
    return found


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
def _at_edges(rows, repeated, gap):
    found = np.zeros(len(rows), np.bool_)
    start = 0
    while start < len(rows):
        stop = start
        while stop < len(rows) and rows[stop] == rows[start]:
            stop += 1
        missed = 0
        for i in range(start, stop):
            missed = 0 if repeated[i] else missed + 1
            if missed > gap:
                break
            found[i] = repeated[i]
        missed = 0
        for i in range(stop - 1, start - 1, -1):
            missed = 0 if repeated[i] else missed + 1
            if missed > gap:
                break
            found[i] = repeated[i]
        start = stop
    return found
