"""Decides which lines repeat often enough to be boilerplate.
A unit is a partition of the counted lines and hosts.

The results of a unit are partitioned by shard: the lines of that shard that may be cut, and the page totals
of its hosts. So the last phase, which has both, computes the share of a host's pages. No worker ever holds
all lines or all hosts.

Cost: a sort of the partition, 0.6 million rows a second; about 140 bytes for each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.boilerplate.line_counts import (
    COUNTS,
    HOST_SCHEMA,
    HOSTS,
    LINE_SCHEMA,
    LINES,
    CountLines,
)
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tables import read_partition, write_partitions
from ctllm_ray.text.kernels.runs import starts_of

BOUNDS = "bounds"
#: `pages` of the host; `hosts` that have the line; `first` document with it, on the host and overall.
FOUND_SCHEMA = pa.schema([*LINE_SCHEMA, ("hosts", pa.int32()), ("first_of_all", pa.int64())])


@dataclass(frozen=True)
class SelectRepeatedLines(Phase):
    """Selects the lines that pass the thresholds on pages or on hosts."""

    UNIT: ClassVar[str] = "lines"

    counting: CountLines
    min_pages: int
    min_hosts: int | None  # None: lines are not compared across hosts

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each partition."""
        return self.list_parts(recipe, COUNTS, LINES, self.counting.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a partition; writes the results for each shard."""
        made, place = self.read_manifest(recipe, COUNTS), recipe.folder(self.counting.name)
        lines, line_shards = _gather_rows(place, made, LINES, split.index, LINE_SCHEMA)
        hosts, host_shards = _gather_rows(place, made, HOSTS, split.index, HOST_SCHEMA)
        totals = _totals(lines)
        often = totals["pages"].to_numpy() >= self.min_pages
        if self.min_hosts is not None:
            often |= totals["hosts"].to_numpy() >= self.min_hosts
        every, shards = np.ones(hosts.num_rows, bool), len(self.kept_shards(recipe))
        written = [
            _write_scattered(folder, f"{LINES}/{split.index:05d}.arrow", totals, line_shards, often, shards),
            _write_scattered(
                folder, f"{HOSTS}/{split.index:05d}.arrow", _pages(hosts), host_shards, every, shards
            ),
        ]
        pairs = starts_of(totals["key"].to_numpy(), totals["host"].to_numpy())
        counts = {"in": lines.num_rows, "kept": lines.num_rows, "repeated": int(often[pairs].sum())}
        return SplitWork(counts, 0, written)


def _gather_rows(
    place: str, made: Manifest, kind: str, part: int, schema: pa.Schema
) -> tuple[pa.Table, np.ndarray]:
    """The rows of a partition by their first two columns, and the shard of each row."""
    tables = [read_partition(place, [shard], part, schema) for shard in made.of_kind(kind)]
    shards = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    table = pa.concat_tables(tables).combine_chunks()
    order = np.lexsort([column.to_numpy() for column in table.columns[1::-1]])
    return table.take(order), shards[order]


def _totals(lines: pa.Table) -> pa.Table:
    """FOUND_SCHEMA: each row with the counts over all shards."""
    keys, hosts, pages, first = (column.to_numpy() for column in lines.columns)
    pairs, singles = starts_of(keys, hosts), starts_of(keys)
    in_pair, in_key = np.diff([*pairs, len(keys)]), np.diff([*singles, len(keys)])
    hosts_of = np.diff([*np.searchsorted(pairs, singles), len(pairs)])
    columns = [
        keys,
        hosts,
        np.repeat(_reduce_runs(np.add, pages, pairs), in_pair),
        np.repeat(_reduce_runs(np.minimum, first, pairs), in_pair),
        np.repeat(hosts_of, in_key),
        np.repeat(_reduce_runs(np.minimum, first, singles), in_key),
    ]
    return pa.table(columns, schema=FOUND_SCHEMA)


def _pages(hosts: pa.Table) -> pa.Table:
    """HOST_SCHEMA: each row with the pages of its host in all shards."""
    keys, pages = (column.to_numpy() for column in hosts.columns)
    starts = starts_of(keys)
    return pa.table(
        [keys, np.repeat(_reduce_runs(np.add, pages, starts), np.diff([*starts, len(keys)]))], HOST_SCHEMA
    )


def _reduce_runs(function: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Reduces the values of each run. `reduceat` does not support empty arrays."""
    return function.reduceat(values, starts) if len(starts) else values


def _write_scattered(
    folder: str, path: str, table: pa.Table, shards: np.ndarray, chosen: np.ndarray, count: int
) -> Shard:
    """Writes the file of the chosen rows, with one partition per shard."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(shards[rows], kind="stable")]
    stops = np.searchsorted(shards[rows], np.arange(count), side="right").tolist()
    return write_partitions(folder, path, table.take(rows), stops)
