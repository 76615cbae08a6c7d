"""Removes lines from documents, and records each removed line with the rule that removed it.

The stage `lines` and the pass `boilerplate` decide which; here stands what cutting is, so that the ledger of
both holds the same: `cuts` and the text together have every line of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.shards import schema


class LineCut(NamedTuple):
    """A document after cutting: its text, the removed lines as `schema.CUT` rows, and
    their share of characters."""

    text: str
    cuts: list[dict[str, str]]
    share: float


def cut_lines(text: str, taken: Mapping[int, str]) -> LineCut:
    """A text without the lines of these numbers; each has the name of the rule that removes it."""
    lines = text.split("\n")
    cuts = [{"rule": taken[i], "text": lines[i]} for i in sorted(taken)]
    share = sum(len(lines[i].strip()) for i in taken) / sum(len(line.strip()) for line in lines)
    return LineCut("\n".join(_close_gaps(lines, taken)), cuts, share)


def put_texts(table: pa.Table, done: Mapping[int, LineCut]) -> pa.Table:
    """The table with new texts in some rows, and with their cuts added."""
    texts = {row: document.text for row, document in done.items()}
    return add_cuts(table, texts, {row: document.cuts for row, document in done.items()})


def add_cuts(table: pa.Table, texts: Mapping[int, str], cuts: Mapping[int, list[dict[str, str]]]) -> pa.Table:
    """The table with new texts in some rows, and with cuts (`schema.CUT` rows) appended to earlier ones."""
    if not texts:
        return table
    before = table["cuts"].combine_chunks()
    ledgers = {row: [*(before[row].as_py() or []), *new] for row, new in cuts.items()}
    table = schema.put_column(table, "text", replace_rows(table["text"].combine_chunks(), texts))
    return schema.put_column(table, "cuts", replace_rows(before, ledgers))


def replace_rows(column: pa.Array, new: Mapping[int, Any]) -> pa.Array:
    """The column, of any type, with some rows replaced."""
    places = np.arange(len(column))
    places[list(new)] = len(column) + np.arange(len(new))
    return pa.concat_arrays([column, pa.array(list(new.values()), column.type)]).take(pa.array(places))


def _close_gaps(lines: list[str], taken: Mapping[int, str]) -> list[str]:
    """The remaining lines with gaps closed: no two blank lines in a row where a line was cut."""
    kept: list[str] = []
    gap = False
    for i, line in enumerate(lines):
        if i in taken:
            gap = True
        elif line.strip() or not gap or (kept and kept[-1].strip()):
            kept.append(line)
            gap = gap and not line.strip()
    while gap and kept and not kept[-1].strip():
        kept.pop()
    return kept
