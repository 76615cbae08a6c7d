"""Opens a unit of packed shards, and fills its rows by number.

Shards are packed in units: neighbouring shards of one group, one corpus and one generation, up to UNIT_TOKENS
tokens. A unit's packing depends on its own shards and the seed alone, so it does not move when other shards
join; and as small shards share a unit, a group of many of them is hardly padded.

Where an objective reads answers only, all other labels are IGNORED, and each row's answer targets are counted
when its unit is opened: the batches of a run know by what they are divided before any of them is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.order import key, permute
from ctllm_ray.shards.packing import Fills, Packing
from ctllm_ray.shards.paired_packing import Paired
from ctllm_ray.shards.tokens import TokenShard
from ctllm_ray.train.data.batch import IGNORED, Batch
from ctllm_ray.train.data.data_log import DataGeneration
from ctllm_ray.train.data.shard_cache import cache_shard
from ctllm_ray.train.objective import Per

UNIT_TOKENS = (
    1 << 25
)  # tokens at which a unit is closed: one shard of 128 MB with four bytes a token, half of one with two
UNIT_SHARDS = 64  # shards at which a unit is closed: opening a unit opens them all


#: The reference's log-probability of each document of a shard, float32 in nats
#: (train/data/reference_log_probs.py).
References = Callable[[Shard], np.ndarray]


@dataclass(frozen=True)
class Control:
    """Conditional pretraining: the BOS input of a document is replaced by a token for its quality.

    A score of at most `most` is good. A seeded `drop_share`
    of documents, and those without a score, keep BOS.
    """

    score: str
    most: float
    good: int
    bad: int
    drop_share: float


@dataclass(frozen=True, eq=False)
class PackingUnit:
    """Shards that are packed together: (folder, shard) in order. Units are compared by identity."""

    shards: tuple[tuple[str, Shard], ...]

    @property
    def targets(self) -> int:
        """The number of ids of all documents except their first ones."""
        return sum(shard.tokens - shard.rows for _, shard in self.shards)


def units(generation: DataGeneration, group: str) -> list[PackingUnit]:
    """The units of a group that joined with a generation, in order."""
    results = []
    for corpus in generation.corpora:
        part: list[tuple[str, Shard]] = []
        for shard in corpus.shards:
            if shard.group == group:
                part.append((corpus.folder, shard))
            if len(part) == UNIT_SHARDS or sum(s.tokens for _, s in part) >= UNIT_TOKENS:
                results.append(PackingUnit(tuple(part)))
                part = []
        if part:
            results.append(PackingUnit(tuple(part)))
    return results


@dataclass(frozen=True)
class Layout:
    """How rows are made; equal for all units of a run."""

    packing: str
    width: int
    seed: int
    per: Per = "target"
    control: Control | None = None
    references: References | None = None


@dataclass(frozen=True)
class Counts:
    """For each row of a unit: filled positions, trained labels, and its part of the loss divisor."""

    filled: Fills
    trained: Fills
    divided: Fills


class PackedUnit:
    """A unit with mapped shards and computed packing."""

    def __init__(self, unit: PackingUnit, layout: Layout) -> None:
        self.unit = unit
        near = [cache_shard(storage.join(folder, shard.path), shard.sha256) for folder, shard in unit.shards]
        self.shards = [TokenShard.open(path) for path in near]
        self.bases = np.cumsum(
            [0] + [len(shard) for shard in self.shards]
        )  # number of each shard's first document
        targets = np.concatenate([np.maximum(np.diff(shard.offsets) - 1, 0) for shard in self.shards])
        if targets.sum() != unit.targets:
            raise StorageError(
                f"the unit has {targets.sum()} targets, but its manifest says {unit.targets}",
                where=storage.join(*self._path(0)),
                remedy="delete the section's folder and run `ctllm prepare` again",
            )  # fmt: skip
        seed = key(layout.seed, "unit", *(shard.sha256 for _, shard in unit.shards))
        self._check_form(layout.per)
        self.packing: Packing = self._pack(targets, layout, seed)
        self.first_inputs = _first_inputs(self.shards, layout.control, seed) if layout.control else None
        self.answers = _Answers(self.shards) if layout.per != "target" else None
        self.nbytes = self.packing.nbytes + (self.first_inputs.nbytes if self.first_inputs is not None else 0)
        self.nbytes += self.answers.nbytes if self.answers else 0
        self.references = self._read_references(layout)
        self.counts = self._count(layout.per)

    def _read_references(self, layout: Layout) -> np.ndarray | None:
        """float32 [documents]: the reference's log-probabilities; 0 for pairs whose
        objective has no reference."""
        if layout.references:
            return np.concatenate([layout.references(shard) for _, shard in self.unit.shards])
        return np.zeros(int(self.bases[-1]), np.float32) if layout.per == "pair" else None

    def _check_form(self, per: Per) -> None:
        """Raises `InputError` if the shards hold pairs and the objective does not read
        them, or the other way round."""
        for place, shard in enumerate(self.shards):
            if (shard.form == "pairs") != (per == "pair"):
                group = self.unit.shards[place][1].group
                wanted = "preference pairs" if per == "pair" else "texts or conversations"
                raise InputError(
                    f"the group {group!r} holds {shard.form}, but the objective reads {wanted}",
                    where=storage.join(*self._path(place)),
                    remedy="use other groups in train.mixture, or another train.objective",
                )

    def _pack(self, targets: np.ndarray, layout: Layout, seed: int) -> Packing:
        packer = Paired if layout.per == "pair" else resolve.resolve(resolve.PACKERS, layout.packing)
        try:
            return packer(targets, layout.width, seed)
        except InputError as error:
            raise InputError(error.what, where=storage.join(*self._path(0)), remedy=error.remedy) from None

    def _count(self, per: Per) -> Counts:
        filled = self.packing.fills
        if self.answers is None:
            return Counts(filled, filled, filled)
        rows = [self.packing.pieces(row) for row in range(filled.rows)]
        trained = _runs([self.answers.count_trained(p.documents, p.begins, p.counts) for p in rows])
        return Counts(
            filled, trained, _runs([len(p.documents) // 2 for p in rows]) if per == "pair" else trained
        )

    def describe_row(self, row: int) -> Iterator[tuple[str, str, int, int]]:
        """(path of the shard, doc_id, first target, targets) for each piece of a row."""
        pieces = self.packing.pieces(row)
        for document, begin, count in zip(pieces.documents, pieces.begins, pieces.counts, strict=True):
            place = int(np.searchsorted(self.bases, document, side="right")) - 1
            doc_id = self.shards[place].doc_id(int(document - self.bases[place]))
            yield storage.join(*self._path(place)), doc_id, int(begin), int(count)

    def references_of(self, row: int) -> int:
        """The number of references of a row: one per piece, or none."""
        return len(self.packing.pieces(row).documents) if self.references is not None else 0

    def _path(self, place: int) -> tuple[str, str]:
        folder, shard = self.unit.shards[place]
        return folder, shard.path

    def fill(self, row: int, apart: bool, batch: Batch, at: int) -> None:
        """Writes a row to row `at` of a padding batch. `apart`
        numbers pieces and restarts their positions."""
        pieces = self.packing.pieces(row)
        places = np.searchsorted(self.bases, pieces.documents, side="right") - 1
        if self.references is not None:
            batch.references[at, : len(pieces.documents)] = self.references[pieces.documents]
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
            if self.answers is not None:
                _silence(labels[column : column + count], begin, self.answers.of(document))
            if begin == 1 and self.first_inputs is not None and self.first_inputs[document] >= 0:
                ids[column] = self.first_inputs[document]
            if apart:
                batch.positions[at, column : column + count] = np.arange(count)
                batch.documents[at, column : column + count] = number
            column += count
        if apart:
            batch.positions[at, column:] = np.arange(batch.positions.shape[1] - column)


class _Answers:
    """The answer ids of each document of a unit."""

    def __init__(self, shards: Sequence[TokenShard]) -> None:
        results = [shard.answers() for shard in shards]
        self.spans = np.concatenate(
            [spans for spans, _ in results]
        )  # int32: [start, stop, ...] within the document
        lengths = np.concatenate([np.diff(offsets) for _, offsets in results])
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self.nbytes = self.spans.nbytes + self.offsets.nbytes

    def of(self, document: int) -> np.ndarray:
        """The spans of a document."""
        return self.spans[self.offsets[document] : self.offsets[document + 1]]

    def count_trained(self, documents: np.ndarray, begins: np.ndarray, counts: np.ndarray) -> int:
        """Answer targets in these pieces."""
        return _count_trained(documents, begins, counts, self.offsets, self.spans)


def _runs(values: Sequence[int]) -> Fills:
    """A count per row, as runs of equal rows."""
    result = np.array(values, np.int64)
    ends = np.flatnonzero(np.diff(result, append=-1)) + 1
    return Fills(ends.astype(np.int64), result[ends - 1])


@numba.njit(cache=True, nogil=True)
def _count_trained(
    documents: np.ndarray, begins: np.ndarray, counts: np.ndarray, offsets: np.ndarray, spans: np.ndarray
) -> int:
    """Ids of pieces that lie within a span."""
    total = 0
    for piece in range(len(documents)):
        first, last = begins[piece], begins[piece] + counts[piece]
        for at in range(offsets[documents[piece]], offsets[documents[piece] + 1], 2):
            total += max(0, min(last, spans[at + 1]) - max(first, spans[at]))
    return total


@numba.njit(cache=True, nogil=True)
def _silence(labels: np.ndarray, begin: int, spans: np.ndarray) -> None:
    """Sets labels outside the spans to IGNORED, for a piece whose first label is
    id `begin` of its document."""
    at = 0
    for i in range(len(labels)):
        while at < len(spans) and spans[at + 1] <= begin + i:
            at += 2
        if at >= len(spans) or begin + i < spans[at]:
            labels[i] = IGNORED


def _first_inputs(shards: Sequence[TokenShard], control: Control, seed: int) -> np.ndarray:
    """The id that replaces each document's BOS, int32; -1 if BOS stays."""
    scores = np.concatenate([shard.score(control.score) for shard in shards])
    tokens = np.where(scores <= control.most, control.good, control.bad).astype(np.int32)
    drawn = permute(np.arange(len(scores)), len(scores), key(seed, "control"))
    tokens[np.isnan(scores) | (drawn < control.drop_share * len(scores))] = -1
    return tokens


@numba.njit(cache=True, nogil=True)
def _copy(
    values: np.ndarray, start: int, count: int, column: int, ids: np.ndarray, labels: np.ndarray
) -> None:
    """Copies inputs and labels of one piece, without the GIL: a mapped page may have to be read from disk."""
    for i in range(count):
        ids[column + i] = values[start + i - 1]
        labels[column + i] = values[start + i]
