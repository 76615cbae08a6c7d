"""Documents one after another in a seeded order, cut every `width` targets; only the last row is padded.

A cut document continues in the next row. So most documents longer than a fraction of the width are cut, and
the part after a cut lacks its beginning.
"""

from __future__ import annotations

import numpy as np

from ctllm_ray.shards.order import permute
from ctllm_ray.shards.packing import Fills, Packing, Pieces


def concatenate(targets: np.ndarray, width: int, seed: int) -> Packing:
    """The packing of documents with these numbers of targets."""
    return Concatenated(targets, width, seed)


def fills_of_total(targets: int, width: int) -> Fills:
    """The fills of `targets` cut at `width`. They do not depend on the documents."""
    runs = [(targets // width, width), (1, targets % width)]
    runs = [(rows, fill) for rows, fill in runs if rows and fill]
    ends = np.cumsum(np.array([rows for rows, _ in runs], np.int64))
    return Fills(ends.astype(np.int64), np.array([fill for _, fill in runs], np.int64))


class Concatenated:
    """Concatenates documents in a seeded order: `targets` int [documents], rows of `width`, a 64-bit seed."""

    def __init__(self, targets: np.ndarray, width: int, seed: int) -> None:
        self._width = width
        self._order = permute(np.arange(len(targets)), len(targets), seed).astype(np.int32)
        self._ends = np.cumsum(targets[self._order], dtype=np.int64)
        total = int(self._ends[-1]) if len(targets) else 0
        self.fills = fills_of_total(total, width)
        self.nbytes = self._order.nbytes + self._ends.nbytes

    def pieces(self, row: int) -> Pieces:
        """The pieces of a row, by two binary searches."""
        start = row * self._width
        stop = min(start + self._width, int(self._ends[-1]))
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop, side="left")) + 1
        bounds = np.empty(last - first + 1, np.int64)
        bounds[0], bounds[1:] = start, self._ends[first:last]
        bounds[-1] = stop
        counts = np.diff(bounds)
        begins = np.ones(last - first, np.int64)
        begins[0] += start - (int(self._ends[first - 1]) if first else 0)
        some = counts > 0  # a document with BOS only has no targets
        return Pieces(self._order[first:last][some], begins[some], counts[some])
