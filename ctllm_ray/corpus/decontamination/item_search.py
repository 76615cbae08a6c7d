"""Searches pages for evaluation items: the only phase that compares pages with the index. A unit is a shard.

An item counts in a page that contains at least `min_overlap` of its n-grams; its spans there go to the last
phase. The best page of every item is recorded in any case, so the overlap is known for items that do not
count, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.decontamination import item_index
from ctllm_ray.corpus.decontamination.evaluation_sets import EvaluationSetPhase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tables import TableWriter
from ctllm_ray.text.contamination import Hits, hits
from ctllm_ray.text.kernels.runs import starts_of

FOUND, BEST = "hits", "best"
#: A span of a page (by number) that matches an item: code points `start` to `end` of its text.
STRETCHES = pa.schema(
    [
        ("number", pa.int64()),
        ("item", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("overlap", pa.float32()),
    ]
)
#: The page of the unit with the largest overlap with an item; the first on ties.
BESTS = pa.schema([("item", pa.int32()), ("overlap", pa.float32()), ("page", pa.string())])


@dataclass(frozen=True)
class FindItems(EvaluationSetPhase):
    """Finds the spans of items in every page, and the best page of every item."""

    min_overlap: float

    PACKAGES: ClassVar[tuple[str, ...]] = ("numba", "opencc")
    READS_WHAT_IS_SAID: ClassVar[bool] = True

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernels."""
        item_index.warm()

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard; writes its spans and the best pages."""
        place = recipe.folder(f"{self.use}/{item_index.INDEX}")
        index = item_index.open_index(place, self.read_manifest(recipe, item_index.INDEX))
        number, text_bytes, stretches, bests = self.first_number(recipe, split), 0, [], []
        first = number
        for table in self.readable(recipe, split):
            texts = table["text"].combine_chunks()
            text_bytes += utf8_bytes(texts)
            page_hits = hits(texts, index)
            stretches.append(_find_stretches(page_hits, number, np.float32(self.min_overlap)))
            bests.append(
                best(
                    page_hits.items,
                    page_hits.overlap,
                    pc.take(table["id"].combine_chunks(), pa.array(page_hits.rows)),
                )
            )
            number += table.num_rows
        counted = pa.concat_tables([STRETCHES.empty_table(), *stretches])
        every = pa.concat_tables([BESTS.empty_table(), *bests]).combine_chunks()
        every = best(every["item"].to_numpy(), every["overlap"].to_numpy(), every["page"].combine_chunks())
        shards = [
            _write_table(folder, kind, split, table) for kind, table in ((FOUND, counted), (BEST, every))
        ]
        pages = len(pc.unique(counted["number"]))
        return SplitWork(
            {"in": number - first, "kept": number - first, "pages_hit": pages}, text_bytes, shards
        )


def _find_stretches(page_hits: Hits, number: int, least: np.float32) -> pa.Table:
    """The spans of items that count; `number` is the number of the first page."""
    rows = page_hits.overlap >= least
    columns = [number + page_hits.rows, page_hits.items, page_hits.start, page_hits.end, page_hits.overlap]
    return pa.table(
        [pa.array(c[rows], f.type) for c, f in zip(columns, STRETCHES, strict=True)], schema=STRETCHES
    )


def best(items: np.ndarray, overlap: np.ndarray, pages: pa.Array) -> pa.Table:
    """For each item, the row with the largest overlap; the first on ties."""
    order = np.lexsort((np.arange(len(items)), -overlap, items))
    rows = order[starts_of(items[order])]
    columns = [
        pa.array(items[rows], pa.int32()),
        pa.array(overlap[rows], pa.float32()),
        pages.take(pa.array(rows)),
    ]
    return pa.table(columns, schema=BESTS)


def _write_table(folder: str, kind: str, split: Split, table: pa.Table) -> Shard:
    with TableWriter(folder, f"{kind}/{split.index:05d}.arrow", table.schema) as writer:
        writer.write(table.combine_chunks())
    return writer.shard
