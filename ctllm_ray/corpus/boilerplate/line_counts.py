"""Counts, for each host, the pages that contain each line. These counts are shuffled to find boilerplate.

A unit counts one shard. It writes one row per line and host, with the number of pages that contain the line
and the first of them; and one row per host, with its number of pages. Lines and hosts are partitioned by
their keys. Counts are exact: an over-counting sketch would delete real text.

A host is the host of the url (`text/blocklist.host`: lower case, no port, no `www.`), not the registered
domain: the blog, the forum and the shop of one domain have templates of their own. Pages without a url have
their source as host.

Cost: hashing runs at 190 MB/s; 28 bytes of each different line go to the shuffle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tables import key_ranges, write_partitions
from ctllm_ray.text import blocklist
from ctllm_ray.text.dedup.fold import Digits
from ctllm_ray.text.kernels.runs import starts_of
from ctllm_ray.text.lines.line_keys import LineKeys, line_keys

COUNTS = "counts"
LINES, HOSTS = "lines", "hosts"  # the kinds of files
LINE_SCHEMA = pa.schema(
    [("key", pa.uint64()), ("host", pa.uint64()), ("pages", pa.int32()), ("first", pa.int64())]
)
HOST_SCHEMA = pa.schema([("host", pa.uint64()), ("pages", pa.int32())])
LINE_BYTES = 64  # text per line; web_zh_raw has 140. It only sets the number of partitions


@dataclass(frozen=True)
class LineReading:
    """How to read a page: which lines have a key, and which lines count as equal."""

    digits: Digits
    min_chars: int

    def __call__(self, texts: pa.Array) -> LineKeys:
        """The lines of the texts that have a key."""
        return line_keys(texts, digits=self.digits)


@dataclass(frozen=True)
class CountLines(Phase):
    """Counts the lines and hosts of every shard, in partitions."""

    reading: LineReading
    partition_rows: int

    PACKAGES: ClassVar[tuple[str, ...]] = ("numba", "opencc", "xxhash")

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernel."""
        self.reading(pa.array(["天地玄黄"]))

    def parts(self, recipe: Recipe) -> int:
        """The number of partitions that keeps each within `partition_rows` for lines of usual length."""
        text_bytes = sum(shard.text_bytes for shard in self.kept_shards(recipe))
        return math.ceil(text_bytes / LINE_BYTES / self.partition_rows)

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard; writes its counts."""
        number, text_bytes = self.first_number(recipe, split), 0
        result, hosts = [np.empty((0, 3), np.uint64)], [np.empty(0, np.uint64)]
        for table in self.tables(recipe, split):
            texts = table["text"].combine_chunks()
            text_bytes += utf8_bytes(texts)
            hosts.append(host_keys(table))
            result.append(once(self.reading, texts, hosts[-1], number))
            number += table.num_rows
        parts, pages = self.parts(recipe), np.concatenate(hosts)
        lines = _write_shuffled(
            folder, f"{LINES}/{split.index:05d}.arrow", _lines(np.concatenate(result)), parts
        )
        counted = _write_shuffled(folder, f"{HOSTS}/{split.index:05d}.arrow", _hosts(pages), parts)
        return SplitWork(
            {"in": len(pages), "kept": len(pages), "lines": lines.rows}, text_bytes, [lines, counted]
        )


def host_keys(table: pa.Table) -> np.ndarray:
    """uint64: the hash of each document's host; of its source if it has no url."""
    columns = zip(table["url"].to_pylist(), table["source"].to_pylist(), strict=True)
    # no host contains a slash
    names = ((url and blocklist.host(url)) or f"/{source}" for url, source in columns)
    return np.array([xxh3_64_intdigest(name.encode()) for name in names], np.uint64)


def once(reading: LineReading, texts: pa.Array, hosts: np.ndarray, first: int) -> np.ndarray:
    """uint64[lines, 3]: key, host and document number; each line of a page once."""
    rows, _, keys, chars = reading(texts)
    long = chars >= reading.min_chars
    rows, keys = rows[long], keys[long]
    order = np.lexsort((keys, rows))
    rows, keys = rows[order], keys[order]
    starts = starts_of(rows, keys)
    rows = rows[starts]
    return np.stack([keys[starts], hosts[rows], (first + rows).astype(np.uint64)], axis=1)


def _lines(values: np.ndarray) -> pa.Table:
    """LINE_SCHEMA: the pages of each line and host, sorted by key."""
    keys, hosts, numbers = values[
        np.lexsort((values[:, 1], values[:, 0]))
    ].T  # stable: keeps documents in order
    starts = starts_of(keys, hosts)
    counted = np.diff([*starts, len(keys)])
    return pa.table([keys[starts], hosts[starts], counted, numbers[starts]], schema=LINE_SCHEMA)


def _hosts(pages: np.ndarray) -> pa.Table:
    """HOST_SCHEMA: the pages of each host, sorted by key."""
    hosts, counted = np.unique(pages, return_counts=True)
    return pa.table([hosts, counted], schema=HOST_SCHEMA)


def _write_shuffled(folder: str, path: str, table: pa.Table, parts: int) -> Shard:
    """Writes a table sorted by its first column, cut into ranges of that column."""
    stops = np.searchsorted(table.column(0).to_numpy(), key_ranges(parts)).tolist()
    return write_partitions(folder, path, table, [*stops, table.num_rows])
