"""The stage that removes single lines: page furniture, adverts, links and repeated lines.

Nothing is removed silently: `cuts` records each removed line with its rule, and `lines.cut_share` lets a
recipe reject pages that were mostly furniture. A document that loses every line is rejected as
`lines.nothing_left`. A blank line is removed only if a cut would leave two of them in a row or one at an end.
All other lines keep their characters.

Cost: two kernels over the batch, one for the cues of rules, one for hashes of lines; only documents that
either finds are split into lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa

from ctllm_ray.base import storage
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.corpus.line_cuts import LineCut, cut_lines, put_texts, replace_rows
from ctllm_ray.shards import schema
from ctllm_ray.text.lines import line_rules, similar_lines
from ctllm_ray.text.lines.line_rules import Rules

#: Share of a document's characters (without line ends) that were removed.
SCORES = ("lines.cut_share",)
Similar = Literal["keep", "adjacent", "anywhere"]
NOTHING_LEFT = "lines.nothing_left"


def lines(
    table: pa.Table,
    *,
    cut: tuple[str, ...] = tuple(line_rules.DEFAULT),
    similar: Similar = "adjacent",
    similar_min_han: int = 12,
    bad_words: str = "",
) -> pa.Table:
    """The table without the lines that the rules in `cut` and the reach of `similar` remove."""
    rules = _rules(tuple(cut), bad_words)
    live = schema.live(table)
    texts = table["text"].combine_chunks()
    row_of = np.flatnonzero(live)
    done = {
        int(row_of[row]): document
        for row, document in _cut_texts(texts.filter(pa.array(live)), rules, similar, similar_min_han)
    }
    share = np.where(live, 0, np.nan).astype(np.float32)
    share[list(done)] = [document.share for document in done.values()]
    empty = np.zeros(table.num_rows, bool)
    empty[list(done)] = [not document.text for document in done.values()]
    table = schema.put_column(table, "score.lines.cut_share", pa.array(share, from_pandas=True))
    return schema.reject(put_texts(table, done), empty, NOTHING_LEFT, share, 1.0)


def _cut_texts(
    texts: pa.Array, rules: Rules, similar: Similar, min_han: int
) -> Iterator[tuple[int, LineCut]]:
    """The texts that lose lines, by row."""
    taken = line_rules.cuts(texts, rules)
    left = {row: _blank_out(texts[row].as_py(), by_rule) for row, by_rule in taken.items()}
    if similar != "keep":  # searched after the rules: furniture may stand between copies
        result = similar_lines.candidates(replace_rows(texts, left), reach=similar, min_han=min_han)
        for row in np.flatnonzero(result).tolist():
            lines = left.get(row, texts[row].as_py()).split("\n")
            copies = similar_lines.similar(lines, reach=similar, min_han=min_han)
            if copies:
                taken.setdefault(row, {}).update(dict.fromkeys(copies, "similar"))
    for row in sorted(taken):
        yield row, cut_lines(texts[row].as_py(), {i: f"lines.{rule}" for i, rule in taken[row].items()})


def _blank_out(text: str, taken: dict[int, str]) -> str:
    """The text with these lines emptied."""
    return "\n".join("" if i in taken else line for i, line in enumerate(text.split("\n")))


@cache
def _rules(names: tuple[str, ...], bad_words: str) -> Rules:
    """The rules of a recipe; the word list is read once per process."""
    if "bad_word" in names and not bad_words:
        remedy = "set bad_words to a file with one word per line"
        raise RecipeError(
            "the line rule 'bad_word' needs a word list", where="lines.bad_words", remedy=remedy
        )
    listed = storage.read_bytes(bad_words).decode("utf-8").splitlines() if bad_words else []
    return line_rules.select(names, (word.strip() for word in listed if word.strip()))
