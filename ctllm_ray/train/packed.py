"""Packed shards: the rows of a group, each found and filled by its number.

Shards are packed in units: neighbouring shards of one group, one corpus and one generation, up to UNIT_TOKENS tokens.
A unit's packing depends on its own shards and the seed alone, so it does not move when other shards join; and as small
shards share a unit, a group of many of them is hardly padded. Which row is how full is known for all units (from the
manifest, or by packing once at the start); their indices and memory maps are made on demand and the least recently
used are let go, so a corpus may be far larger than memory: an index is about 1 % of the size of the ids.
"""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.order import key, permuted
from ctllm_ray.shards.packing import PACKERS, Fills, Packing, concatenated_fills
from ctllm_ray.shards.tokens import TokenShard
from ctllm_ray.train.batch import IGNORED, Batch
from ctllm_ray.train.generations import Generation
from ctllm_ray.train.nearby import nearby

UNIT_TOKENS = 1 << 25  # a unit is closed when it has so many: one shard of 128 MB in four bytes, half of one in two
UNIT_SHARDS = 64  # or so many shards: opening a unit opens them all
OPEN_SHARDS = 16_384  # memory maps held at a time (Linux allows 65,530); each also holds a file handle
INDEX_BYTES = 1 << 30  # of the packings held at a time: those of about 100 GB of ids
PACKING_THREADS = 4


@dataclass(frozen=True)
class Control:
    """Conditional pretraining: the BOS input of a document becomes a token that tells how good the document is.

    A score of at most `most` is good. A seeded `drop_share` of documents, and those without a score, keep BOS.
    """

    score: str
    most: float
    good: int
    bad: int
    drop_share: float


@dataclass(frozen=True, eq=False)
class Unit:
    """Shards that are packed together: (folder, shard) in order. Two units are equal only if they are one."""

    shards: tuple[tuple[str, Shard], ...]

    @property
    def targets(self) -> int:
        """Ids of all documents but their first ones."""
        return sum(shard.tokens - shard.rows for _, shard in self.shards)


def units(generation: Generation, group: str) -> list[Unit]:
    """The units of a group that joined with a generation, in order."""
    found = []
    for corpus in generation.corpora:
        part: list[tuple[str, Shard]] = []
        for shard in corpus.shards:
            if shard.group == group:
                part.append((corpus.folder, shard))
            if len(part) == UNIT_SHARDS or sum(s.tokens for _, s in part) >= UNIT_TOKENS:
                found.append(Unit(tuple(part)))
                part = []
        if part:
            found.append(Unit(tuple(part)))
    return found


@dataclass(frozen=True)
class Layout:
    """How rows are made: the same for all units of a run."""

    packing: str
    width: int
    seed: int
    control: Control | None = None


class OpenUnit:
    """A unit with its shards mapped and its packing made."""

    def __init__(self, unit: Unit, layout: Layout) -> None:
        self.unit = unit
        near = [nearby(storage.join(folder, shard.path), shard.sha256) for folder, shard in unit.shards]
        self.shards = [TokenShard.open(path) for path in near]
        self.bases = np.cumsum([0] + [len(shard) for shard in self.shards])  # number of each shard's first document
        targets = np.concatenate([np.maximum(np.diff(shard.offsets) - 1, 0) for shard in self.shards])
        if targets.sum() != unit.targets:
            raise StorageError(
                f"{targets.sum()} targets, where its manifest has {unit.targets}", where=storage.join(*self._path(0)),
                remedy="write the section again with `ctllm prepare`",
            )  # fmt: skip
        seed = key(layout.seed, "unit", *(shard.sha256 for _, shard in unit.shards))
        self.packing: Packing = PACKERS[layout.packing](targets, layout.width, seed)
        self.first_inputs = _first_inputs(self.shards, layout.control, seed) if layout.control else None
        self.nbytes = self.packing.nbytes + (self.first_inputs.nbytes if self.first_inputs is not None else 0)

    def described(self, row: int) -> Iterator[tuple[str, str, int, int]]:
        """(path of the shard, doc_id, first target, targets) of each piece of a row."""
        pieces = self.packing.pieces(row)
        for document, begin, count in zip(pieces.documents, pieces.begins, pieces.counts, strict=True):
            place = int(np.searchsorted(self.bases, document, side="right")) - 1
            doc_id = self.shards[place].doc_id(int(document - self.bases[place]))
            yield storage.join(*self._path(place)), doc_id, int(begin), int(count)

    def _path(self, place: int) -> tuple[str, str]:
        folder, shard = self.unit.shards[place]
        return folder, shard.path

    def fill(self, row: int, apart: bool, batch: Batch, at: int) -> None:
        """Writes a row into row `at` of a batch that is all padding; `apart` numbers pieces and their positions."""
        pieces = self.packing.pieces(row)
        places = np.searchsorted(self.bases, pieces.documents, side="right") - 1
        column = 0
        for number in range(len(pieces.documents)):
            document, begin, count = (
                int(pieces.documents[number]),
                int(pieces.begins[number]),
                int(pieces.counts[number]),
            )
            shard = self.shards[places[number]]
            start = int(shard.offsets[document - self.bases[places[number]]]) + begin
            ids, labels = batch.input_ids[at], batch.labels[at]
            _copy(shard.values, start, count, column, ids, labels)
            if begin == 1 and self.first_inputs is not None and self.first_inputs[document] >= 0:
                ids[column] = self.first_inputs[document]
            if apart:
                batch.positions[at, column : column + count] = np.arange(count)
                batch.documents[at, column : column + count] = number
            column += count
        if apart:
            batch.positions[at, column:] = np.arange(batch.positions.shape[1] - column)


def _first_inputs(shards: Sequence[TokenShard], control: Control, seed: int) -> np.ndarray:
    """The id that stands in the place of each document's BOS, int32; -1 where BOS stays."""
    scores = np.concatenate([shard.score(control.score) for shard in shards])
    tokens = np.where(scores <= control.most, control.good, control.bad).astype(np.int32)
    drawn = permuted(np.arange(len(scores)), len(scores), key(seed, "control"))
    tokens[np.isnan(scores) | (drawn < control.drop_share * len(scores))] = -1
    return tokens


@numba.njit(cache=True, nogil=True)
def _copy(values: np.ndarray, start: int, count: int, column: int, ids: np.ndarray, labels: np.ndarray) -> None:
    """Inputs and labels of one piece. Without the GIL: reading a mapped page may wait for the disk."""
    for i in range(count):
        ids[column + i] = values[start + i - 1]
        labels[column + i] = values[start + i]


class Units:
    """Open units, the least recently used let go. Safe to use from several threads."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._open: OrderedDict[Unit, OpenUnit] = OrderedDict()
        self._lock = threading.Lock()
        self._most = min(OPEN_SHARDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def __getitem__(self, unit: Unit) -> OpenUnit:
        """The unit, opened."""
        with self._lock:
            if unit in self._open:
                self._open.move_to_end(unit)
                return self._open[unit]
        opened = OpenUnit(unit, self.layout)
        with self._lock:
            self._open[unit] = opened
            while len(self._open) > 1 and self._too_much():
                self._open.popitem(last=False)
        return opened

    def fills(self, all_units: Sequence[Unit]) -> list[Fills]:
        """How full the rows of each unit are: from the manifest where they are concatenated, else by packing."""
        if self.layout.packing == "concatenate":
            return [concatenated_fills(unit.targets, self.layout.width) for unit in all_units]
        with ThreadPoolExecutor(PACKING_THREADS) as pool:
            return list(pool.map(lambda unit: self[unit].packing.fills, all_units))

    def _too_much(self) -> bool:
        shards = sum(len(opened.shards) for opened in self._open.values())
        return shards > self._most or sum(opened.nbytes for opened in self._open.values()) > INDEX_BYTES


class Rows:
    """The rows of a group: those of its units, one after another."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._starts = np.zeros(1, np.int64)  # row of each unit's first, and after the last
        self._ends = np.empty(0, np.int64)  # of runs of rows that are equally full
        self._targets = np.empty(0, np.int64)

    def add(self, joined: Sequence[Unit], fills: Sequence[Fills]) -> None:
        """More units, after those before."""
        self._units += joined
        starts = np.cumsum([len(self), *(fill.rows for fill in fills)])
        ends = [fill.ends + start for fill, start in zip(fills, starts[:-1], strict=True)]
        self._starts = np.concatenate([self._starts, starts[1:]])
        self._ends = np.concatenate([self._ends, *ends])
        self._targets = np.concatenate([self._targets, *(fill.targets for fill in fills)])

    def __len__(self) -> int:
        """Rows."""
        return int(self._starts[-1])

    @property
    def tokens(self) -> int:
        """Tokens of all units, BOS and EOS included."""
        return sum(shard.tokens for unit in self._units for _, shard in unit.shards)

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """How many targets each of these rows has, int64."""
        return self._targets[np.searchsorted(self._ends, rows, side="right")]

    def located(self, row: int) -> tuple[Unit, int]:
        """The unit of a row and the row's number within it."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._units[place], row - int(self._starts[place])


def blank(rows: int, width: int, pad: int, apart: bool) -> Batch:
    """A batch that is all padding. Where documents are kept apart, padding is a piece of its own with number -1."""
    return Batch(
        np.full((rows, width), pad, np.int64),
        np.full((rows, width), IGNORED, np.int64),
        np.tile(np.arange(width, dtype=np.int64), (rows, 1)),
        np.full((rows, width), -1 if apart else 0, np.int32),
    )
