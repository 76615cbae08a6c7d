"""Indexes of documents from finished versions, and the index of this pass.

With `keep_index`, a pass keeps the keys, rows and decisions of all its documents. A later version lists such
passes under `against`. Their documents get the first numbers, in the order of the list, so a new document is
paired as if all had been read at once. Indexed documents come before new ones in the order of survivors. So
crawl after crawl gives the result of one run in which earlier crawls come first. This holds for survivors
among neighbours. One page per component cannot be computed incrementally: a new page may join two old
components.

Old keys are read once (16 bytes a key), and only those that a new document has are looked at further: the
rest of the cost grows with what is new. An index is dropped by deleting it, and made again by deleting the
pass's folder and running its recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import changes
from ctllm_ray.base.errors import InputError
from ctllm_ray.corpus.dedup import ranking
from ctllm_ray.corpus.dedup.decision_rows import DECISIONS, SCHEMA
from ctllm_ray.corpus.engine.phase import ends, total_rows
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tables import RowFile, read_keys, read_partition
from ctllm_ray.text.kernels.runs import places_in

KEYS = "keys"  # the phase that writes the whole index, and a kind of its files
TEXTS = "texts"  # the kind of file for comparison; ranking.ROWS is the one for ranking
READ = (
    "of",
    "shingle_chars",
    "permutations",
    "bands",
    "rows",
    "min_chars",
    "prefer",
)  # options that an index depends on


@dataclass(frozen=True)
class Snapshot:
    """The index of one pass. `name` is the prefix of its documents' ids; empty for the current pass."""

    folder: str
    name: str = ""

    @cached_property
    def rows(self) -> list[Shard]:
        """The files for ranking."""
        return manifest.read_manifest(storage.join(self.folder, KEYS)).of_kind(ranking.ROWS)

    @cached_property
    def texts(self) -> list[Shard]:
        """The files of signatures and texts."""
        return manifest.read_manifest(storage.join(self.folder, KEYS)).of_kind(TEXTS)

    @cached_property
    def decision_shards(self) -> list[Shard]:
        """The files of survivors."""
        place = storage.join(self.folder, DECISIONS)
        finished = manifest.is_finished(place)
        return manifest.read_manifest(place).of_kind(DECISIONS) if finished else []

    @property
    def complete(self) -> bool:
        """True if all files exist; an index by an earlier version of this package has no texts."""
        places = [
            (KEYS, ranking.ROWS, self.rows),
            (KEYS, TEXTS, self.texts),
            (DECISIONS, DECISIONS, self.decision_shards),
        ]
        return len(self.rows) == len(self.texts) and all(
            {shard.path.rpartition("/")[2] for shard in shards}
            <= set(storage.list_names(storage.join(self.folder, phase, kind)))
            for phase, kind, shards in places
        )

    @cached_property
    def digest(self) -> str:
        """One hash that identifies the index."""
        kept = manifest.read_manifest(storage.join(self.folder, KEYS))
        decisions_digest = manifest.read_manifest(storage.join(self.folder, DECISIONS)).digest(DECISIONS)
        return "".join(kept.digest(kind)[:16] for kind in (KEYS, ranking.ROWS, TEXTS)) + decisions_digest[:16]

    def keys(self, schema: pa.Schema, low: int, high: int) -> pa.Table:
        """The keys in a range, with the document numbers in this snapshot."""
        place = storage.join(self.folder, KEYS)
        return read_keys(place, manifest.read_manifest(place).of_kind(KEYS), schema, low, high)

    def read_removed(self, numbers: np.ndarray) -> pa.Table:
        """The decisions about those documents (numbers, ascending) that were dropped."""
        place, stops = storage.join(self.folder, DECISIONS), ends(self.rows)
        shards = manifest.read_manifest(place).of_kind(DECISIONS)
        tables = [SCHEMA.empty_table()]
        for part in np.unique(np.searchsorted(stops, numbers, side="right")).tolist():
            table = read_partition(place, shards, part, SCHEMA)
            wanted = np.isin(table["number"].to_numpy(), numbers)
            tables.append(table.filter(pc.and_(pa.array(wanted), pc.is_valid(table["survivor"]))))
        return pa.concat_tables(tables)


class CorpusIndex:
    """The documents of several snapshots with consecutive numbers. The last snapshot is the current pass."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots
        sizes = [total_rows(snapshot.rows) for snapshot in snapshots]
        self._starts = np.cumsum([0, *sizes])
        self.settled, self.total = int(self._starts[-2]), int(self._starts[-1])

    def rows(self) -> RowFile:
        """The ranking columns of all documents."""
        return RowFile(
            [(storage.join(one.folder, KEYS), shard) for one in self._snapshots for shard in one.rows]
        )

    def texts(self) -> RowFile:
        """The comparison columns of all documents."""
        return RowFile(
            [(storage.join(one.folder, KEYS), shard) for one in self._snapshots for shard in one.texts]
        )

    def snapshot(self, numbers: np.ndarray) -> np.ndarray:
        """int64: the snapshot of each document; earlier ones come first in the order."""
        return np.searchsorted(self._starts, numbers, side="right") - 1

    def ids(self, rows: RowFile, numbers: np.ndarray) -> pa.Array:
        """The ids of documents (numbers, ascending); those of indexed
        documents have the name of their version as prefix."""
        result = rows.ids(numbers)
        names = np.array([one.name and f"{one.name}:" for one in self._snapshots], object)[
            self.snapshot(numbers)
        ]
        return pc.binary_join_element_wise(pa.array(names, pa.string()), result, "")

    def stays(self, numbers: np.ndarray) -> np.ndarray:
        """int64: the survivors of indexed documents (numbers,
        ascending); -1 if the survivor is in no index. Others survive."""
        which, stays = self.snapshot(numbers), numbers.copy()
        starts = {one.name: start for one, start in zip(self._snapshots, self._starts.tolist(), strict=False)}
        for place in np.unique(which[numbers < self.settled]).tolist():
            here, start = self._snapshots[place].name, self._starts[place]
            lost = self._snapshots[place].read_removed(numbers[which == place] - start)
            among = np.searchsorted(numbers, lost["number"].to_numpy() + start)
            of = [starts.get(name or here, -1) for name in lost["stays_in"].to_pylist()]
            stays[among] = np.where(np.array(of) < 0, -1, lost["stays"].to_numpy() + of)
        return stays

    def locate_documents(self, numbers: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """The snapshot names of documents, empty for this pass, and their numbers in them."""
        which = self.snapshot(numbers)
        names = np.array([one.name for one in self._snapshots], object)
        return pa.array(names[which], pa.string()), numbers - self._starts[which]

    def older_keys(self, schema: pa.Schema, wanted: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys (uint64) and numbers under the wanted keys (ascending): the best
        indexed documents of each file."""
        keys, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for place, snapshot in enumerate(self._snapshots[:-1]):
            for batch in snapshot.keys(schema, int(wanted[0]), int(wanted[-1]) + 1).to_batches():
                file_keys = batch["key"].to_numpy()
                at = np.minimum(np.searchsorted(wanted, file_keys), len(wanted) - 1)
                meets = np.flatnonzero(wanted[at] == file_keys)
                best = meets[places_in(file_keys[meets]) < reach]
                keys.append(file_keys[best])
                numbers.append(batch["number"].to_numpy()[best] + self._starts[place])
        return np.concatenate(keys), np.concatenate(numbers)


def _verification_kind(options: dict[str, Any]) -> tuple[bool, bool]:
    """Whether an index holds texts to compare, and whether these hold signs."""
    verify = options["verify"] or {}
    return bool(verify), bool(verify.get("same_meaning"))


def open_snapshot(folder: str, options: dict[str, Any]) -> Snapshot:
    """Opens the index of a finished pass with these options.
    Raises `InputError` if they differ, or there is none."""
    made = manifest.read_manifest(folder)
    if made.section != "near":
        remedy = "give the folder of a near pass: <root>/<name>/<version>/near"
        raise InputError(
            f"the folder holds a section {made.section!r}, not a near pass", where=folder, remedy=remedy
        )
    [old] = [part for part in made.recipe["passes"] if part["use"] == "near"]
    option_names = [*READ, *(["verify"] if _verification_kind(old) != _verification_kind(options) else [])]
    differences = changes(
        {key: old[key] for key in option_names}, {key: options[key] for key in option_names}
    )
    if differences:
        raise InputError(
            "the index was made with other options:\n    " + "\n    ".join(differences),
            where=folder,
            remedy="use the same options in both versions, or remove this one from `against`",
        )
    index = Snapshot(folder, f"{made.name}/{made.version}")
    if not old.get("keep_index") or not storage.exists(storage.join(folder, KEYS)) or not index.complete:
        raise InputError(
            "this version has no index, or an index of an earlier ctllm_ray",
            where=folder,
            remedy="set keep_index: true in its recipe, delete this folder, and run `ctllm prepare` again",
        )
    return index
