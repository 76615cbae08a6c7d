"""Exact duplicates: finds documents with equal digests in partitions, and keeps the best of them.

`keys` works one shard: 24 bytes a document go to the shuffle, about 60 to the file of rows. `fates`
works one partition, which is a range of digests, so how many there are changes no result; only
documents that have copies are looked up. Cost: hashing runs at gigabytes a second, folding at 230 MB/s,
reading the shard is the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import decisions, ranking
from ctllm_ray.corpus.dedup.decisions import Decisions
from ctllm_ray.corpus.dedup.snapshot_index import KEYS, CorpusIndex, Snapshot
from ctllm_ray.corpus.engine.phase import Phase, total_rows
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tables import TableWriter, key_ranges, read_partition, write_partitions
from ctllm_ray.text.dedup import survivors
from ctllm_ray.text.dedup.digests import digests, first_rows, folded_digests
from ctllm_ray.text.dedup.signs import fold_with_signs

SCHEMA = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("number", pa.int64())])


@dataclass(frozen=True)
class DigestKeys(Phase):
    """Writes the digest of every document in partitions, and the rows for the choice of survivors."""

    of: Literal["raw", "folded"]
    prefer: tuple[str, ...]
    partition_rows: int

    PACKAGES: ClassVar[tuple[str, ...]] = ("numba", "opencc", "xxhash")

    def check(self, recipe: Recipe) -> None:
        """Raises `RecipeError` if `prefer` names a score that documents do not have."""
        ranking.check(recipe, self.use, self.before(recipe), self.prefer)

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernels."""
        fold_with_signs(pa.array(["天"]))

    def parts(self, recipe: Recipe) -> int:
        """The number of partitions that keeps each within `partition_rows`, up to chance."""
        return math.ceil(total_rows(self.kept_shards(recipe)) / self.partition_rows)

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard; writes its keys and its rows."""
        result, text_bytes = [], 0
        with TableWriter(
            folder, f"{ranking.ROWS}/{split.index:05d}.arrow", pa.schema(ranking.columns(self.prefer))
        ) as rows:
            for table in self.tables(recipe, split):
                texts = table["text"].combine_chunks()
                text_bytes += utf8_bytes(texts)
                result.append(
                    digests(texts) if self.of == "raw" else folded_digests(texts, fold_with_signs(texts))
                )
                rows.write(pa.table(ranking.compute_ranking_columns(table, self.prefer), schema=rows.schema))
        keys = np.concatenate(result)
        numbers = self.first_number(recipe, split) + np.arange(len(keys))
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        table = pa.table([keys[order, 0], keys[order, 1], numbers[order]], schema=SCHEMA)
        stops = [*np.searchsorted(keys[order, 0], key_ranges(self.parts(recipe))).tolist(), len(keys)]
        shard = write_partitions(folder, f"{KEYS}/{split.index:05d}.arrow", table, stops)
        return SplitWork({"in": len(keys), "kept": len(keys)}, text_bytes, [shard, rows.shard])


@dataclass(frozen=True)
class ExactSurvivors(Phase):
    """Chooses the survivor of every document with duplicates."""

    keys: DigestKeys

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each partition."""
        return self.list_parts(recipe, KEYS, KEYS, self.keys.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a partition; writes the decisions about its duplicates."""
        made, place = self.read_manifest(recipe, KEYS), recipe.folder(self.keys.name)
        table = read_partition(place, made.of_kind(KEYS), split.index, SCHEMA)
        labels = first_rows(np.stack([table[name].to_numpy() for name in ("high", "low")], axis=1))
        copied = np.bincount(labels, minlength=len(labels))[labels] > 1
        numbers = table["number"].to_numpy()[copied]
        order = np.argsort(numbers)
        numbers, labels = numbers[order], labels[copied][order]
        index = CorpusIndex([Snapshot(recipe.folder(self.use))])
        with index.rows() as rows:
            ranks = ranking.ranks(rows, numbers, self.keys.prefer, np.zeros(len(numbers), np.int64))
            stays = numbers[survivors.of_components(labels, ranks)]
            same = np.full(len(numbers), np.nan, np.float32)  # equal digests carry no similarity
            shard = decisions.write_decisions(
                folder, split.index, Decisions(numbers, stays, same), index, rows, self.kept_shards(recipe)
            )
        return SplitWork(
            {"in": len(copied), "kept": len(copied), "copies": int((stays != numbers).sum())}, 0, [shard]
        )
