"""Counters and samples over a stream of any length with bounded memory, reproducible for the same stream.

A corpus has millions of hosts, and a report shows thirty. A `StreamCounter` that grows past its limit forgets its
rarest half: a frequent key then loses at most the little that was forgotten before it was seen again (lossy
counting, Manku and Motwani 2002), and `exact` says whether that ever happened.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

KEYS = 400_000  # about 60 MB of host names and rules


class StreamCounter(Generic[Key]):
    """Counts by key. `exact` is False once rare keys were dropped."""

    def __init__(self, keys: int = KEYS) -> None:
        self.counts: Counter[Key] = Counter()
        self.exact = True
        self._keys = keys

    def add(self, counts: Iterable[tuple[Key, int]]) -> None:
        """Adds counts; drops the rarer half of the keys if there are too many."""
        for key, count in counts:
            self.counts[key] += count
        if len(self.counts) > self._keys:
            self.exact = False
            self.counts = Counter(dict(self.counts.most_common(self._keys // 2)))


class Smallest(Generic[Item]):
    """For each name, the items with the smallest ranks. With a hash as rank,
    this is a reproducible sample."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._smallest: dict[str, list[tuple[tuple[int, ...], Item]]] = {}

    def worst(self, name: str) -> tuple[int, ...]:
        """A new item's rank must be below this; infinite (a tuple above all) while there is room."""
        result = self._smallest.get(name, [])
        return result[-1][0] if len(result) == self._items else (2,)

    def add(self, name: str, offered: Iterable[tuple[tuple[int, ...], Item]]) -> None:
        """Keeps the best of the present and the offered items."""
        both = [*self._smallest.get(name, []), *offered]
        self._smallest[name] = heapq.nsmallest(self._items, both, key=lambda pair: pair[0])

    def items(self) -> dict[str, tuple[Item, ...]]:
        """The items of each name, smallest rank first."""
        return {name: tuple(item for _, item in each) for name, each in self._smallest.items()}
