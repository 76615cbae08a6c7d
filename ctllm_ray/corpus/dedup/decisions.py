"""Decides which duplicates are dropped, and applies the decisions.

A fate is a row for each document of a cluster: the id of the one that stays in its place (null for itself),
how alike the two are, how many documents the cluster has. The files of fates have a partition for each shard
of the section before, so that the last phase reads, beside its shard, what concerns it and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup.decision_rows import DECISIONS, SCHEMA
from ctllm_ray.corpus.dedup.snapshot_index import CorpusIndex
from ctllm_ray.corpus.engine.phase import Phase, ends
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import schema
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tables import RowFile, read_partition, write_partitions


class Decisions(NamedTuple):
    """Documents (numbers, ascending), the survivor of each, and their similarity (NaN if unknown)."""

    numbers: np.ndarray
    stays: np.ndarray
    similarity: np.ndarray


def write_decisions(
    folder: str, unit: int, decisions: Decisions, index: CorpusIndex, rows: RowFile, kept: list[Shard]
) -> Shard:
    """Writes the decisions of a unit. Decisions about indexed documents are stored by their own sections."""
    staying, place, sizes = np.unique(decisions.stays, return_inverse=True, return_counts=True)
    goes = decisions.stays != decisions.numbers
    stays_in, stays = index.locate_documents(decisions.stays)
    columns = [
        pa.array(decisions.numbers - index.settled),
        pc.take(index.ids(rows, staying), pa.array(place, mask=~goes)),
        pa.array(decisions.similarity, pa.float32(), mask=~goes | np.isnan(decisions.similarity)),
        pa.array(sizes[place], pa.float32()),
        stays,
        stays_in,
    ]
    first = int(np.searchsorted(decisions.numbers, index.settled))
    table = pa.table(columns, schema=SCHEMA).slice(first).combine_chunks()
    stops = np.searchsorted(table["number"].to_numpy(), ends(kept)).tolist()
    return write_partitions(folder, f"{DECISIONS}/{unit:05d}.arrow", table, stops)


@dataclass(frozen=True)
class Removal(Phase):
    """The last phase: rejects dropped duplicates, and writes the size of every cluster."""

    phase: str = DECISIONS  # phase that wrote the decisions
    bound: float = math.nan  # threshold of similarity, stored with each reject

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard and the decisions about its documents."""
        made, place = self.read_manifest(recipe, self.phase), recipe.folder(f"{self.use}/{self.phase}")
        decisions = (
            read_partition(place, made.of_kind(DECISIONS), split.index, SCHEMA)
            .sort_by("number")
            .combine_chunks()
        )
        return self.judge_shard(
            recipe, folder, split, lambda table, first: self._mark_copies(table, first, decisions)
        )

    def _mark_copies(self, table: pa.Table, first: int, decisions: pa.Table) -> pa.Table:
        numbers = np.arange(first, first + table.num_rows)
        known = decisions["number"].to_numpy()
        at = np.searchsorted(known, numbers)
        at[at == len(known)] = 0
        has_row = known[at] == numbers if len(known) else np.zeros(len(numbers), bool)
        rows = decisions.take(pa.array(at, mask=~has_row))
        table = schema.put_column(table, f"label.{self.use}.survivor", rows["survivor"])
        table = schema.put_column(table, f"score.{self.use}.similarity", rows["similarity"])
        table = schema.put_column(
            table, f"score.{self.use}.cluster_size", pc.fill_null(rows["cluster_size"], 1.0)
        )
        similarity = rows["similarity"].to_numpy().astype(np.float32)
        goes = pc.is_valid(rows["survivor"]).to_numpy()
        return schema.reject(table, goes, f"{self.use}.duplicate", similarity, self.bound)
