"""Near duplicates, phase 2: pairs of documents that share a band key. A unit is a range of keys.

Each document is paired with the best documents under the same key, in the order that chooses survivors. Pairs
with any others would be useless: those would be dropped for the best one, and no survivor would be compared.

A pair is the better document and the other one. Pairs are partitioned by the number of the other one, so that
all bands' results for one pair, and all candidates of one document, come together. Keys are processed a few
at a time: if all documents are similar, there are `reach` times as many pairs as keys, equal in every band,
and only distinct pairs are held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import ranking, signatures
from ctllm_ray.corpus.dedup.signatures import SignaturePhase
from ctllm_ray.corpus.dedup.snapshot_index import KEYS, CorpusIndex
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.tables import read_partition, write_partitions
from ctllm_ray.text.dedup.bands import Pairs, find_candidates
from ctllm_ray.text.kernels.runs import places_in, starts_of

BANDS = "bands"  # the phase
CANDIDATES = "met"  # the kind of its files
KEYS_AT_ONCE = 500_000  # plus the rest of the last key's documents
WAITING = 4_000_000  # codes to gather before duplicates are removed: 32 MB
SCHEMA = pa.schema([("left", pa.int64()), ("right", pa.int64())])


@dataclass(frozen=True)
class CandidatePairs(Phase):
    """Pairs each document with the best `reach` documents under each of its keys."""

    UNIT: ClassVar[str] = "keys"

    signatures: SignaturePhase
    reach: int

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernel."""
        find_candidates(np.zeros(2, np.uint64), reach=self.reach)

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each range of keys."""
        return self.list_parts(recipe, KEYS, KEYS, self.signatures.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a range of keys; writes its candidate pairs, each once."""
        shards, folder_of_keys = (
            self.read_manifest(recipe, KEYS).of_kind(KEYS),
            recipe.folder(self.signatures.name),
        )
        table = read_partition(folder_of_keys, shards, split.index, signatures.SCHEMA)
        index = self.signatures.index(recipe)
        keys, numbers = self._with_older(
            index, table["key"].to_numpy(), table["number"].to_numpy() + index.settled
        )
        keys, numbers = self._best_first(index, keys, numbers)
        candidates = unpack_pairs(
            self._find_pairs(keys, numbers, index.settled, index.total), index.settled, index.total
        )
        stops = np.searchsorted(candidates.right, ranges(index, self.signatures.parts(recipe))[1:]).tolist()
        shard = write_partitions(
            folder, f"{CANDIDATES}/{split.index:05d}.arrow", pa.table(list(candidates), schema=SCHEMA), stops
        )
        return SplitWork(
            {"in": table.num_rows, "kept": table.num_rows, "met": len(candidates.left)}, 0, [shard]
        )

    def _with_older(
        self, index: CorpusIndex, keys: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The keys and numbers, unordered, including indexed documents with such a key."""
        if not (index.settled and len(keys)):
            return keys, numbers
        older = index.older_keys(signatures.SCHEMA, np.unique(keys), self.reach)
        return np.concatenate([older[0], keys]), np.concatenate([older[1], numbers])

    def _best_first(
        self, index: CorpusIndex, keys: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keys of several documents, ascending, best document first; of indexed
        documents those within `reach`."""
        keys, numbers = _keep_shared_keys(keys, numbers)
        if not len(keys):
            return keys, numbers
        known, place = np.unique(numbers, return_inverse=True)
        with index.rows() as rows:
            ranks = ranking.ranks(rows, known, self.signatures.prefer, index.snapshot(known))
        order = np.lexsort((ranks[place], keys))
        keys, numbers = keys[order], numbers[order]
        meets = (places_in(keys) < self.reach) | (numbers >= index.settled)
        return keys[meets], numbers[meets]

    def _find_pairs(self, keys: np.ndarray, numbers: np.ndarray, settled: int, total: int) -> np.ndarray:
        """The pairs, packed, of documents with these keys (ascending); the worse one is not
        indexed. Each once, sorted."""
        distinct = Distinct()
        ends = np.flatnonzero(np.append(keys[1:] != keys[:-1], True)) + 1
        start = 0
        while start < len(keys):
            stop = int(ends[np.searchsorted(ends, min(start + KEYS_AT_ONCE, len(keys)))])
            left, right = find_candidates(keys[start:stop], reach=self.reach)
            pairs = Pairs(numbers[start:stop][left], numbers[start:stop][right])
            distinct.add(pack_pairs(pairs.take(pairs.right >= settled), settled, total))
            start = stop
        return distinct.codes()


def _keep_shared_keys(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys that more than one document has."""
    order = np.argsort(keys, kind="stable")
    starts = starts_of(keys[order])
    sizes = np.diff(starts, append=len(keys))
    shared = order[np.repeat(sizes > 1, sizes)]
    return keys[shared], numbers[shared]


class Distinct:
    """Collects codes (uint64) with many duplicates, and holds each once."""

    def __init__(self) -> None:
        self._codes, self._waiting = np.empty(0, np.uint64), [np.empty(0, np.uint64)]

    def add(self, codes: np.ndarray) -> None:
        """Adds codes."""
        self._waiting.append(codes)
        if sum(map(len, self._waiting)) > WAITING:
            self._codes, self._waiting = self.codes(), []

    def codes(self) -> np.ndarray:
        """All codes so far, each once, sorted."""
        return np.unique(np.concatenate([self._codes, *self._waiting]))


def ranges(index: CorpusIndex, parts: int) -> np.ndarray:
    """int64[parts + 1]: the documents that are not indexed, by number, cut into ranges of equal width."""
    width = index.total - index.settled
    return np.array([index.settled + width * part // parts for part in range(parts + 1)], np.int64)


def pack_pairs(pairs: Pairs, base: int, total: int) -> np.ndarray:
    """uint64[pairs]: packs two numbers below `total` into one.
    Sorts by right, then left; each right is at least `base`."""
    return (pairs.right - base).astype(np.uint64) * np.uint64(total) + pairs.left.astype(np.uint64)


def unpack_pairs(codes: np.ndarray, base: int, total: int) -> Pairs:
    """Unpacks the result of `pack_pairs`."""
    right, left = np.divmod(codes, np.uint64(max(total, 1)))
    return Pairs(left.astype(np.int64), right.astype(np.int64) + base)
