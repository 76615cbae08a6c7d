"""The rows of a group over all its units of packed shards (train/data/packed_shards.py).

Which row is how full is known for all units (from the manifest, or by packing once at the start); their
indices and memory maps are made on demand and the least recently used are let go, so a corpus may be far
larger than memory: an index is about 1 % of the size of the ids.
"""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ctllm_ray.base import resolve
from ctllm_ray.shards.packing import Fills
from ctllm_ray.train.data.packed_shards import Counts, Layout, PackedUnit, PackingUnit

OPEN_SHARDS = 16_384  # maximum number of memory maps (Linux allows 65,530); each also holds a file handle
INDEX_BYTES = 1 << 30  # of packings held at once: those of about 100 GB of ids
PACKING_THREADS = 4


class UnitCache:
    """An LRU cache of open units, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._open: OrderedDict[PackingUnit, PackedUnit] = OrderedDict()
        self._lock = threading.Lock()
        self._most = min(OPEN_SHARDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def __getitem__(self, unit: PackingUnit) -> PackedUnit:
        """The open unit."""
        with self._lock:
            if unit in self._open:
                self._open.move_to_end(unit)
                return self._open[unit]
        opened = PackedUnit(unit, self.layout)
        with self._lock:
            self._open[unit] = opened
            while len(self._open) > 1 and self._too_much():
                self._open.popitem(last=False)
        return opened

    def counts(self, all_units: Sequence[PackingUnit]) -> list[Counts]:
        """The row counts of each unit: from the manifest if texts are concatenated, else by packing."""
        packer = resolve.load_module(resolve.PACKERS, self.layout.packing)
        if hasattr(packer, "fills_of_total") and self.layout.per == "target":
            fills = [packer.fills_of_total(unit.targets, self.layout.width) for unit in all_units]
            return [Counts(filled, filled, filled) for filled in fills]
        with ThreadPoolExecutor(PACKING_THREADS) as pool:
            return list(pool.map(lambda unit: self[unit].counts, all_units))

    def _too_much(self) -> bool:
        shards = sum(len(opened.shards) for opened in self._open.values())
        return shards > self._most or sum(opened.nbytes for opened in self._open.values()) > INDEX_BYTES


class RowIndex:
    """The rows of a group: its units one after another."""

    def __init__(self) -> None:
        self._units: list[PackingUnit] = []
        self._starts = np.zeros(1, np.int64)  # first row of each unit, and the end
        self._filled, self._trained, self._divided = _Runs(), _Runs(), _Runs()

    def add(self, joined: Sequence[PackingUnit], counts: Sequence[Counts]) -> None:
        """Adds units after the existing ones."""
        self._units += joined
        starts = np.cumsum([len(self), *(count.filled.rows for count in counts)])
        self._starts = np.concatenate([self._starts, starts[1:]])
        for start, count in zip(starts[:-1].tolist(), counts, strict=True):
            self._filled.add(start, count.filled)
            self._trained.add(start, count.trained)
            self._divided.add(start, count.divided)

    def __len__(self) -> int:
        """The number of rows."""
        return int(self._starts[-1])

    @property
    def tokens(self) -> int:
        """The number of tokens in all units, including BOS and EOS."""
        return sum(shard.tokens for unit in self._units for _, shard in unit.shards)

    def count_filled(self, rows: np.ndarray) -> int:
        """The number of filled positions in these rows."""
        return self._filled.sum(rows)

    def targets(self, rows: np.ndarray) -> int:
        """The number of trained labels in these rows."""
        return self._trained.sum(rows)

    def loss_divisor(self, rows: np.ndarray) -> int:
        """The part of these rows in the loss divisor."""
        return self._divided.sum(rows)

    def locate(self, row: int) -> tuple[PackingUnit, int]:
        """The unit of a row, and the row's number in it."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._units[place], row - int(self._starts[place])


class _Runs:
    """A number per row, as runs of equal numbers: most rows are full."""

    def __init__(self) -> None:
        self._ends, self._values = [np.empty(0, np.int64)], [np.empty(0, np.int64)]

    def add(self, start: int, fills: Fills) -> None:
        """Adds the numbers of the rows from `start` on."""
        self._ends.append(fills.ends + start)
        self._values.append(fills.targets)

    def sum(self, rows: np.ndarray) -> int:
        """The sum over these rows."""
        if len(self._ends) > 1:
            self._ends, self._values = [np.concatenate(self._ends)], [np.concatenate(self._values)]
        return int(self._values[0][np.searchsorted(self._ends[0], rows, side="right")].sum())
