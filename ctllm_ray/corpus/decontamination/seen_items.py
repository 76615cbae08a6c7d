"""Records how much of every evaluation item the corpus contained before decontamination: `seen.parquet`.

A row for each item, in the order of the sets and their files: set, item, ngrams (0: too short or too common,
it cannot be found), overlap (the greatest share of its n-grams that one page held, 0 where none held any) and
that page's id. The pass's folder keeps this file. The report counts it by benchmark, and an evaluation looks
its items up here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctllm_ray.base import storage
from ctllm_ray.corpus.decontamination.item_search import best
from ctllm_ray.corpus.documents import Part

FILE = "seen.parquet"
USE = "decontaminate"


@dataclass(frozen=True)
class BenchmarkFacts:
    """How much of an evaluation set the corpus contained."""

    name: str
    items: int
    cannot_be_found: int
    found: int  # items that a page contains enough of to count
    touched: int  # items of which pages contain less
    cut_pages: int
    dropped_pages: int

    @property
    def pages(self) -> int:
        """The number of pages that contain its items."""
        return self.cut_pages + self.dropped_pages


def write_seen_items(folder: str, names: pa.Table, bests: pa.Table) -> None:
    """Writes the file: items by number, and the best pages of all units in order."""
    merged = bests.combine_chunks()
    top = best(merged["item"].to_numpy(), merged["overlap"].to_numpy(), merged["page"].combine_chunks())
    overlap = np.zeros(len(names), np.float32)
    at = np.full(len(names), -1)
    overlap[top["item"].to_numpy()] = top["overlap"].to_numpy()
    at[top["item"].to_numpy()] = np.arange(len(top))
    pages = top["page"].combine_chunks().take(pa.array(at, mask=at < 0))
    table = names.append_column("overlap", pa.array(overlap)).append_column("page", pages)
    with storage.writing(storage.join(folder, FILE)) as local:
        pq.write_table(table, local, compression="zstd")


def read_seen_items(folder: str) -> pa.Table:
    """The table in the folder of a finished pass. Raises `InputError` if it is missing."""
    with storage.reading(storage.join(folder, FILE)) as stream:
        return pq.read_table(stream)


def benchmarks(parts: Sequence[Part]) -> tuple[BenchmarkFacts, ...]:
    """The contamination of each set, in the order of the recipe; empty if no section belongs to this pass."""
    return tuple(each for part in parts if part.finished.section == USE for each in _benchmarks(part))


def _benchmarks(part: Part) -> Iterator[BenchmarkFacts]:
    finished, table = part.finished, read_seen_items(part.folder)
    options = next(one for one in finished.recipe["passes"] if one["use"] == USE)
    for named in options["sets"]:
        yield _benchmark(named["name"], table, options["min_overlap"], finished.counts)


def _benchmark(name: str, table: pa.Table, min_overlap: float, counts: Mapping[str, Any]) -> BenchmarkFacts:
    mine = table.filter(pc.equal(table["set"], name))
    overlap = mine["overlap"].to_numpy()
    counted = (overlap >= np.float32(min_overlap)) & (overlap > 0)
    return BenchmarkFacts(
        name,
        items=len(mine),
        cannot_be_found=int((mine["ngrams"].to_numpy() == 0).sum()),
        found=int(counted.sum()),
        touched=int(((overlap > 0) & ~counted).sum()),
        cut_pages=counts.get(f"cut:{name}", 0),
        dropped_pages=counts.get(f"dropped:{name}", 0),
    )
