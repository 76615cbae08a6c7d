"""Seeded shuffle that is computed, not stored: gives the
row at position i, for any i, in under a microsecond.

A permutation of [0, n) is a Feistel network over a grid of about sqrt(n) x sqrt(n) cells: each round adds a
hash of one coordinate to the other, modulo its side, which is a bijection whatever the hash is. The grid has
at most 2 sqrt(n) cells more than n; a place that falls into one of them is sent through again (cycle walking:
Black and Rogaway 2002), which keeps the bijection. No table, no state: a run resumes anywhere, and any worker
can compute any place.

A `Stream` goes through the rows of one source epoch by epoch, and rows may join in the middle: what
was consumed stays as it was, the rest of the epoch becomes a new order of the rows not seen yet and
the new ones, and every later epoch is an order of them all. So each row is seen exactly once in
each epoch, whenever it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import xxhash

#: Pairs of rounds. Four rounds with a good hash are pseudorandom (Luby and Rackoff 1988) if few positions are
#: read. Small orders are read completely and need more: with six pairs all orders of 3 to 5 rows are equally
#: frequent.
PAIRS = 6


def key(*parts: object) -> int:
    """A 64-bit key from names and numbers. Different lists of parts cannot collide by concatenation."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


@numba.njit(cache=True, nogil=True)
def mix_bits(value: np.uint64) -> np.uint64:
    """A hash of 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _place_all(places: np.ndarray, rows: int, seed: np.uint64, out: np.ndarray) -> None:
    """Writes the image of each position in [0, rows) to `out`; all arithmetic in uint64, high
    halves scaled to the side."""
    high, golden, one = np.uint64(32), np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
    count = np.uint64(rows)
    across = np.uint64(np.ceil(np.sqrt(float(max(rows, 1)))))
    down = (count + across - one) // across
    keys = np.empty(2 * PAIRS, np.uint64)
    for i in range(2 * PAIRS):
        keys[i] = mix_bits(seed + golden * np.uint64(i + 1))
    for i in range(len(places)):
        cell = np.uint64(places[i])
        while True:
            x, y = cell % across, cell // across
            for pair in range(PAIRS):
                x = (x + (((mix_bits(y * golden + keys[2 * pair]) >> high) * across) >> high)) % across
                y = (y + (((mix_bits(x * golden + keys[2 * pair + 1]) >> high) * down) >> high)) % down
            cell = y * across + x
            if cell < count:
                break
        out[i] = cell


def permute(places: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """The rows at these positions (int64) of the permutation of [0, rows) that a 64-bit seed defines."""
    out = np.empty(len(places), np.int64)
    _place_all(np.ascontiguousarray(places, np.int64), rows, np.uint64(seed), out)
    return out


@dataclass(frozen=True)
class Joined:
    """From position `start` of a source's stream on, the source has `rows` rows, including earlier ones."""

    start: int
    rows: int


@dataclass(frozen=True)
class _Stretch:
    """From `start` on: `rest` positions that end the current epoch, then whole epochs of `rows`."""

    start: int
    rest: int
    rows: int
    rows_before: int
    begun_before: int  # epochs


class Stream:
    """The endless row order of a source. Position i depends only on the seed and on what joined when."""

    def __init__(self, seed: int, name: str, joined: Sequence[Joined]) -> None:
        self._parts = (seed, name)
        self._stretches: list[_Stretch] = []
        for part in joined:
            if not self._stretches or part.rows != self._stretches[-1].rows:
                self._stretches.append(self._stretch(part))
        self._starts = np.array([stretch.start for stretch in self._stretches], np.int64)

    def _stretch(self, part: Joined) -> _Stretch:
        if not self._stretches:
            return _Stretch(part.start, 0, part.rows, 0, 0)
        last = self._stretches[-1]
        consumed = part.start - last.start
        left = last.rest - consumed if consumed < last.rest else -(consumed - last.rest) % last.rows
        rest = left + part.rows - last.rows if left else 0
        return _Stretch(part.start, rest, part.rows, last.rows, self.epochs_begun(part.start))

    def epochs_begun(self, places: int) -> int:
        """The number of epochs begun after `places` positions were consumed."""
        stretch = next((s for s in reversed(self._stretches) if s.start < places), None)
        if stretch is None:
            return 0
        return stretch.begun_before + max(0, -(-(places - stretch.start - stretch.rest) // stretch.rows))

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The row at each position, int64."""
        places = np.asarray(places, np.int64)
        if len(self._stretches) == 1:
            return self._within(0, places - self._starts[0])
        which = np.searchsorted(self._starts, places, side="right") - 1
        out = np.empty(len(places), np.int64)
        for index in np.unique(which):
            here = which == index
            out[here] = self._within(int(index), places[here] - self._starts[index])
        return out

    def _within(self, index: int, places: np.ndarray) -> np.ndarray:
        """Rows at positions counted from the start of a stretch, as if no rows joined later."""
        stretch = self._stretches[index]
        epochs = np.where(places < stretch.rest, -1, (places - stretch.rest) // stretch.rows)
        out = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            if epoch < 0:
                out[here] = self._rest(index, places[here])
            else:
                seed = key(*self._parts, index, epoch)
                out[here] = permute((places[here] - stretch.rest) % stretch.rows, stretch.rows, seed)
        return out

    def _rest(self, index: int, places: np.ndarray) -> np.ndarray:
        """Rows in the rest of an epoch: those not yet consumed and the new ones, in a new order."""
        stretch = self._stretches[index]
        drawn = permute(places, stretch.rest, key(*self._parts, index, "rest"))
        older = stretch.rest - (stretch.rows - stretch.rows_before)
        out = stretch.rows_before + drawn - older
        old = drawn < older
        out[old] = self._within(index - 1, drawn[old] + stretch.start - self._starts[index - 1])
        return out
