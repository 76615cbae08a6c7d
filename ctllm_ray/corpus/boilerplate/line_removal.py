"""The last phase of the pass `boilerplate`: cuts lines that repeat and stand at the edges of a page.

A line is cut from the pages of a host if enough of them contain it (`boilerplate.host`), or from all pages if
enough hosts contain it (`boilerplate.hosts`). The first copy is cut too, unless `keep_first` is set: a menu
is a menu on every page, also on the one that was crawled first. A page that lost lines and has almost nothing
left is rejected as `boilerplate.nothing_left`.

Cost: the lines are hashed once more, at 190 MB/s; only pages that lose lines are split in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.boilerplate.line_bounds import BOUNDS, FOUND_SCHEMA, SelectRepeatedLines
from ctllm_ray.corpus.boilerplate.line_counts import HOST_SCHEMA, HOSTS, LINES, LineReading, host_keys
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.line_cuts import LineCut, cut_lines, put_texts
from ctllm_ray.shards import schema
from ctllm_ray.shards.tables import read_partition
from ctllm_ray.text.lines.line_keys import LineKeys, at_edges

RULES = ("", "boilerplate.host", "boilerplate.hosts")
NONE, OF_HOST, OF_HOSTS = range(3)
NOTHING_LEFT = "boilerplate.nothing_left"
ODD = np.uint64(0x9E3779B97F4A7C15)  # separates hosts that share lines; 2**64 divided by the golden ratio


class LineVerdicts(NamedTuple):
    """The lines of a shard that may be cut: line and host as
    one number (ascending), rule, first page with the line."""

    pairs: np.ndarray  # uint64
    rules: np.ndarray  # uint8
    first: np.ndarray  # int64

    def of(self, keys: np.ndarray, hosts: np.ndarray, numbers: np.ndarray, keep_first: bool) -> np.ndarray:
        """uint8: the rule that allows each line to be cut; NONE for most."""
        if not len(self.pairs):
            return np.zeros(len(keys), np.uint8)
        sought = _pairs(keys, hosts)
        at = np.searchsorted(self.pairs, sought)
        at[at == len(self.pairs)] = 0
        known = self.pairs[at] == sought
        if keep_first:
            known &= self.first[at] != numbers
        return np.where(known, self.rules[at], NONE)


@dataclass(frozen=True)
class RemoveLines(Phase):
    """Removes boilerplate from the documents."""

    reading: LineReading
    bounding: SelectRepeatedLines
    min_share: float
    own_line_cost: float | None  # None: lines are cut anywhere on a page
    min_left_chars: int
    keep_first: bool

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernel that counting did not need."""
        at_edges(np.zeros(1, np.int32), np.ones(1, bool), cost=1)

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard and the repeated lines in it."""
        made, place = self.read_manifest(recipe, BOUNDS), recipe.folder(self.bounding.name)
        lines = read_partition(place, made.of_kind(LINES), split.index, FOUND_SCHEMA)
        hosts = read_partition(place, made.of_kind(HOSTS), split.index, HOST_SCHEMA)
        verdicts = self._verdicts(lines, hosts)
        return self.judge_shard(
            recipe, folder, split, lambda table, first: self._remove_lines(table, first, verdicts)
        )

    def _verdicts(self, lines: pa.Table, hosts: pa.Table) -> LineVerdicts:
        key, host, pages, first, on_hosts, first_of_all = (column.to_numpy() for column in lines.columns)
        known, totals = (column.to_numpy() for column in hosts.sort_by("host").columns)
        share = pages / totals[np.searchsorted(known, host)]
        of_host = (pages >= self.bounding.min_pages) & (share >= self.min_share)
        of_hosts = np.zeros(len(key), bool)
        if self.bounding.min_hosts is not None:
            of_hosts = on_hosts >= self.bounding.min_hosts
        chosen = of_host | of_hosts
        pairs = _pairs(key, host)[chosen]
        order = np.argsort(pairs)
        rules = np.where(of_host, OF_HOST, OF_HOSTS).astype(np.uint8)[chosen]
        spared = np.where(of_hosts, first_of_all, first)[chosen]
        return LineVerdicts(pairs[order], rules[order], spared[order])

    def _remove_lines(self, table: pa.Table, first: int, verdicts: LineVerdicts) -> pa.Table:
        texts = table["text"].combine_chunks()
        lines = self.reading(texts)
        rules = verdicts.of(lines.keys, host_keys(table)[lines.rows], first + lines.rows, self.keep_first)
        long = lines.chars >= self.reading.min_chars
        rules[~long] = NONE
        if self.own_line_cost is not None:
            rules[long] *= at_edges(lines.rows[long], rules[long] > NONE, cost=self.own_line_cost)
        done = _cut_lines(texts, lines, rules)
        share = np.zeros(table.num_rows, np.float32)
        share[list(done)] = [document.share for document in done.values()]
        left = np.bincount(lines.rows, lines.chars * (rules == NONE), table.num_rows).astype(np.float32)
        table = schema.put_column(put_texts(table, done), "score.boilerplate.cut_share", pa.array(share))
        return schema.reject(
            table, (share > 0) & (left < self.min_left_chars), NOTHING_LEFT, left, self.min_left_chars
        )


def _cut_lines(texts: pa.Array, lines: LineKeys, rules: np.ndarray) -> dict[int, LineCut]:
    """The documents that lose lines, by row."""
    taken: dict[int, dict[int, str]] = {}
    for at in np.flatnonzero(rules).tolist():
        taken.setdefault(int(lines.rows[at]), {})[int(lines.lines[at])] = RULES[rules[at]]
    return {row: cut_lines(texts[row].as_py(), of_row) for row, of_row in taken.items()}


def _pairs(keys: np.ndarray, hosts: np.ndarray) -> np.ndarray:
    """uint64: line and host as one number."""
    return keys ^ (hosts * ODD)
