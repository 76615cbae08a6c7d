"""Lines taken out of documents: the text that is left, and every line that went, with the rule that took it.

The stage `lines` and the pass `boilerplate` decide which; here stands what cutting is, so that the ledger of both holds
the same: `cuts` and the text together have every line of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.shards import schema


class Cut(NamedTuple):
    """A document after cutting: its text, what was cut from it as `schema.CUT` rows, and the share of characters."""

    text: str
    cuts: list[dict[str, str]]
    share: float


def without(text: str, taken: Mapping[int, str]) -> Cut:
    """A text without the lines whose numbers are given with the name of the rule that took them."""
    lines = text.split("\n")
    cuts = [{"rule": taken[i], "text": lines[i]} for i in sorted(taken)]
    share = sum(len(lines[i].strip()) for i in taken) / sum(len(line.strip()) for line in lines)
    return Cut("\n".join(_closed(lines, taken)), cuts, share)


def put(table: pa.Table, done: Mapping[int, Cut]) -> pa.Table:
    """The table with new texts of some rows (given in rising order), and with cuts added to those made before."""
    if not done:
        return table
    texts = replaced(table["text"].combine_chunks(), {row: document.text for row, document in done.items()})
    before = table["cuts"].to_pylist()
    for row, document in done.items():
        before[row] = (before[row] or []) + document.cuts
    return schema.put(schema.put(table, "text", texts), "cuts", pa.array(before, pa.list_(schema.CUT)))


def replaced(texts: pa.Array, new: Mapping[int, str]) -> pa.Array:
    """The texts with some rows, given in rising order, replaced."""
    if not new:
        return texts
    mask = np.zeros(len(texts), bool)
    mask[list(new)] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(list(new.values()), texts.type))


def _closed(lines: list[str], taken: Mapping[int, str]) -> list[str]:
    """The lines that are left, with the gaps closed: no blank line beside another where a line was cut."""
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
