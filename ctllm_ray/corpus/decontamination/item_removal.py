"""The last phase of the pass `decontaminate`: cuts the spans of items from pages, or drops the pages.

A page's label `decontaminate.hits` lists every item that counts, with its overlap and its spans in the text
before the cut: `exam exam.jsonl.zst#12 0.981 340-398`. A cut span is recorded in `cuts` under the set of the
item with the largest overlap. A span inside a line is replaced by a line break, so that the text before and
after it does not become one sentence. A page with fewer than `min_left_chars` letters and digits left is
dropped. So is every conversation with an item: without the span, a turn would mean something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import line_cuts
from ctllm_ray.corpus.decontamination import item_index, seen_items
from ctllm_ray.corpus.decontamination.evaluation_sets import EvaluationSetPhase
from ctllm_ray.corpus.decontamination.item_search import BEST, BESTS, FOUND, STRETCHES
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import input_forms
from ctllm_ray.shards import schema
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.shards.tables import read_partition
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.kernels.codepoints import lengths

Action = Literal["cut", "drop"]


class Stretch(NamedTuple):
    """A span of a page's text (code points), and the item that matches it."""

    start: int
    end: int
    overlap: float
    set: str
    item: str


@dataclass(frozen=True)
class MarkItems(EvaluationSetPhase):
    """Removes items, or the pages that contain them; writes the table of contamination per item."""

    min_overlap: float
    action: Action
    min_left_chars: int

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard and its spans. Counts `cut:<set>` and `dropped:<set>`:
        pages with items of the set."""
        stretches, outcomes = self._stretches(recipe, split), Counter[str]()
        drops = self.action == "drop" or input_forms.inputs(recipe)[split.input] != "texts"

        def mark(table: pa.Table, first: int) -> pa.Table:
            return self._mark_table(table, first, stretches, outcomes, drops)

        worked = self.judge_shard(recipe, folder, split, mark)
        return replace(worked, counts=worked.counts | outcomes)

    def finish(self, recipe: Recipe, folder: str, finished: Manifest) -> None:
        """Writes the contamination of each item. The phases' files are deleted when the pass is finished."""
        made = self.read_manifest(recipe, FOUND)
        bests = read_partition(recipe.folder(f"{self.use}/{FOUND}"), made.of_kind(BEST), 0, BESTS)
        seen_items.write_seen_items(folder, self._names(recipe), bests)

    def _names(self, recipe: Recipe) -> pa.Table:
        return item_index.names(
            recipe.folder(f"{self.use}/{item_index.INDEX}"), self.read_manifest(recipe, item_index.INDEX)
        )

    def _stretches(self, recipe: Recipe, split: Split) -> dict[int, list[Stretch]]:
        """The spans by page number."""
        made, place = self.read_manifest(recipe, FOUND), recipe.folder(f"{self.use}/{FOUND}")
        table = read_partition(place, made.of_kind(FOUND)[split.index : split.index + 1], 0, STRETCHES)
        named = self._names(recipe).take(table["item"])
        plain = [
            column.to_pylist()
            for column in (table["start"], table["end"], table["overlap"], *named.columns[:2])
        ]
        stretches = zip(table["number"].to_pylist(), map(Stretch, *plain), strict=True)
        return {
            number: [stretch for _, stretch in each]
            for number, each in groupby(stretches, lambda pair: pair[0])
        }

    def _mark_table(
        self,
        table: pa.Table,
        first: int,
        result: dict[int, list[Stretch]],
        outcomes: Counter[str],
        drops: bool,
    ) -> pa.Table:
        rows = [row for row in range(table.num_rows) if first + row in result]
        if not rows:
            return table
        hits = [result[first + row] for row in rows]
        texts = table["text"].combine_chunks().take(pa.array(rows)).to_pylist()
        places = [merge_stretches(stretches) for stretches in hits]
        rests = [cut_stretches(text, each) for text, each in zip(texts, places, strict=True)]
        dropped = np.full(len(rows), drops) | (lengths(fold(pa.array(rests))) < self.min_left_chars)
        for stretches, goes in zip(hits, dropped.tolist(), strict=True):
            outcomes.update(
                f"{'dropped' if goes else 'cut'}:{name}" for name in {stretch.set for stretch in stretches}
            )
        stays = np.flatnonzero(~dropped).tolist()
        table = _with_cuts(table, {rows[i]: (texts[i], rests[i], places[i]) for i in stays})
        return self._judge_pages(table, rows, [max(each, key=_most) for each in hits], hits, dropped)

    def _judge_pages(
        self,
        table: pa.Table,
        rows: list[int],
        tops: list[Stretch],
        hits: list[list[Stretch]],
        dropped: np.ndarray,
    ) -> pa.Table:
        """The table with scores, labels and rejects of pages with
        items; `tops` are the items with the largest overlap."""
        overlap = np.array([top.overlap for top in tops], np.float32)
        counts = [len({(stretch.set, stretch.item) for stretch in each}) for each in hits]
        table = _add_column(table, "score.decontaminate.overlap", rows, overlap.tolist(), pa.float32())
        table = _add_column(table, "score.decontaminate.items", rows, counts, pa.float32())
        table = _add_column(table, "label.decontaminate.set", rows, [top.set for top in tops], pa.string())
        table = _add_column(
            table, "label.decontaminate.hits", rows, [describe_items(each) for each in hits], pa.string()
        )
        value = np.full(table.num_rows, np.nan, np.float32)
        value[rows] = overlap
        for name in sorted({top.set for top in tops}):
            goes = np.zeros(table.num_rows, bool)
            goes[
                [row for row, top, out in zip(rows, tops, dropped, strict=True) if out and top.set == name]
            ] = True
            table = schema.reject(table, goes, f"decontaminate.{name}", value, self.min_overlap)
        return table


def _most(stretch: Stretch) -> float:
    return stretch.overlap


def describe_items(stretches: Sequence[Stretch]) -> str:
    """The items as text: set, item, overlap and spans of each, in order."""
    descriptions = []
    for (name, item), each in groupby(stretches, lambda stretch: (stretch.set, stretch.item)):
        places = list(each)
        descriptions.append(
            f"{name} {item} {places[0].overlap:.3f} {','.join(f'{s.start}-{s.end}' for s in places)}"
        )
    return "; ".join(descriptions)


def merge_stretches(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The union of the spans, in order, each with the item of largest overlap among those that share it."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches):
        if merged and stretch.start <= merged[-1].end:
            top = max(merged[-1], stretch, key=_most)
            merged[-1] = top._replace(start=merged[-1].start, end=max(merged[-1].end, stretch.end))
        else:
            merged.append(stretch)
    return merged


def cut_stretches(text: str, places: Sequence[Stretch]) -> str:
    """The text without these (merged) spans; a line break replaces a span inside a line."""
    rest, at = "", 0
    for place in places:
        rest, at = _join_around(rest, text[at : place.start]), place.end
    return _join_around(rest, text[at:])


def _join_around(before: str, behind: str) -> str:
    fused = before and behind and not before.endswith("\n") and not behind.startswith("\n")
    return f"{before}\n{behind}" if fused else before + behind


def _with_cuts(table: pa.Table, pages: dict[int, tuple[str, str, list[Stretch]]]) -> pa.Table:
    """The table with the remaining texts of pages, and their cuts."""
    cuts = {
        row: [
            {"rule": f"decontaminate.{place.set}", "text": text[place.start : place.end]} for place in places
        ]
        for row, (text, _, places) in pages.items()
    }
    return line_cuts.add_cuts(table, {row: rest for row, (_, rest, _) in pages.items()}, cuts)


def _add_column(
    table: pa.Table, name: str, rows: list[int], values: list[Any], kind: pa.DataType
) -> pa.Table:
    """The table with a column that has values in some rows and is null in the others."""
    nulls = pa.nulls(table.num_rows, kind)
    return schema.put_column(table, name, line_cuts.replace_rows(nulls, dict(zip(rows, values, strict=True))))
