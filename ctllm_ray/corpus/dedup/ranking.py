"""Ranks duplicates: one row per document with the values that decide, found by its number.

The order is that of `text/dedup/survivors.py`: a complete page before a partial one, then the scores that the
recipe names under `prefer` (higher first; a stage that tells the original script from a conversion, or
quality, gives such a score), then the one with less around its text, the longer, the earlier, the smaller id.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.resolve import nearest
from ctllm_ray.corpus import documents
from ctllm_ray.shards import schema
from ctllm_ray.shards.tables import RowFile
from ctllm_ray.text.dedup import survivors
from ctllm_ray.text.kernels.codepoints import lengths

ROWS = "rows"  # the kind of file


def check(recipe: Recipe, use: str, before: str, prefer: Sequence[str]) -> None:
    """Raises `RecipeError` if documents have no score of that name when the pass begins."""
    scores = [field.name for field in documents.schema_of(recipe, before).field("scores").type]
    for name in prefer:
        if name not in scores:
            where = f"passes.{use}.prefer"
            raise RecipeError(
                f"the documents have no score {name!r}", where=where, remedy=nearest(name, scores)
            )


def columns(prefer: Sequence[str]) -> list[pa.Field]:
    """The columns that decide."""
    fields = {
        "id": pa.string(),
        "complete": pa.bool_(),
        "clutter": pa.int32(),
        "chars": pa.int32(),
        "date": pa.string(),
    }
    scores = {f"score.{name}": pa.float32() for name in prefer}
    return [pa.field(name, kind) for name, kind in (fields | scores).items()]


def compute_ranking_columns(table: pa.Table, prefer: Sequence[str]) -> list[pa.Array]:
    """Those columns, computed from a table of documents."""
    texts = table["text"].combine_chunks()
    return [
        table["id"].combine_chunks(),
        survivors.complete(texts),
        survivors.clutter(texts),
        pa.array(lengths(texts), pa.int32()),
        table["date"].combine_chunks(),
        *(schema.field(table, "scores", name) for name in prefer),
    ]


def ranks(rows: RowFile, numbers: np.ndarray, prefer: Sequence[str], snapshots: np.ndarray) -> np.ndarray:
    """int64: the ranks of documents (numbers, ascending) among each other; 0 is the best.
    Earlier snapshots come first."""
    return ranks_of(rows.take(numbers, [field.name for field in columns(prefer)]), snapshots)


def ranks_of(table: pa.Table, snapshots: np.ndarray) -> np.ndarray:
    """int64: the ranks of documents among each other, from a table of the deciding columns."""
    complete, *_, clutter, chars, date, identity = survivors.ORDER
    scores: list[survivors.Preference] = [
        (n, "descending") for n in table.column_names if n.startswith("score.")
    ]
    order = (("snapshot", "ascending"), complete, *scores, clutter, chars, date, identity)
    return survivors.ranks(table.append_column("snapshot", pa.array(snapshots)), order)
