"""Measures a tokenizer on held-out documents: characters per token, by group and by character class.

A group is whatever the caller names (source, genre, script). By character, each piece counts for the kind of
the first character in it that is no space, so one table tells what Han, Latin letters and indentation cost in
tokens. Cost: one encoding of the documents, and one decoding of each piece.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from rich.table import Table

from ctllm_ray.tokenizer.tokenizer import Tokenizer

#: Kinds of pieces. A byte is part of a character without its own piece. Whole one-byte characters, such as
#: the newline, have their own kind.
KINDS = ("Han", "kana", "hangul", "Latin", "digit", "space", "mark", "letter", "other", "byte", "special")
BYTE = KINDS.index("byte")
_TITLES = {"source": "by source", "genre": "by genre", "script": "by script of the document"}
_MARKS = {"P": "mark", "S": "mark", "N": "digit", "Z": "space", "L": "letter"}


@dataclass(frozen=True)
class Row:
    """Totals over the documents of a group. `byte_tokens` are parts of characters without their own piece."""

    documents: int
    chars: int
    bytes: int
    tokens: int
    byte_tokens: int

    def plain(self) -> dict[str, Any]:
        """The totals and their ratios. A ratio with denominator 0 is left out."""
        totals = asdict(self)
        if not self.tokens:
            return totals
        return totals | {
            "chars_per_token": round(self.chars / self.tokens, 4),
            "bytes_per_token": round(self.bytes / self.tokens, 4),
            "byte_token_share": round(self.byte_tokens / self.tokens, 4),
        }


def by_group(
    tokenizer: Tokenizer, texts: Sequence[str], contents: Sequence[np.ndarray], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The totals of each group by name. `contents` are the ids of the texts, `names` their groups."""
    is_byte = kinds(tokenizer) == BYTE
    results: dict[str, list[int]] = {}
    for text, ids, name in zip(texts, contents, names, strict=True):
        values = (1, len(text), len(text.encode()), len(ids), int(is_byte[ids].sum()))
        results[name] = [a + b for a, b in zip(results.get(name, [0] * 5), values, strict=True)]
    return {name: Row(*totals).plain() for name, totals in sorted(results.items())}


def by_character(tokenizer: Tokenizer, contents: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    """For each kind of piece that occurs: tokens, their share, and characters per token."""
    lengths = np.array([len(text) for text in decode_pieces(tokenizer)])
    every = np.concatenate([np.empty(0, np.int32), *contents])
    uses = np.bincount(every, minlength=tokenizer.vocab_size)
    kind = kinds(tokenizer)
    rows = {}
    for i, name in enumerate(KINDS):
        tokens, chars = int(uses[kind == i].sum()), int((uses * lengths)[kind == i].sum())
        if tokens:
            rows[name] = {"tokens": tokens, "token_share": round(tokens / int(uses.sum()), 4)}
            rows[name] |= {} if i == BYTE else {"chars": chars, "chars_per_token": round(chars / tokens, 4)}
    return rows


def vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """Counts the pieces of each kind."""
    counts = np.bincount(kinds(tokenizer), minlength=len(KINDS)).tolist()
    return {name: count for name, count in zip(KINDS, counts, strict=True) if count}


@lru_cache(maxsize=1)
def decode_pieces(tokenizer: Tokenizer) -> list[str]:
    """The text of each piece alone; U+FFFD if it is part of a character."""
    return [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]


@lru_cache(maxsize=1)
def kinds(tokenizer: Tokenizer) -> np.ndarray:
    """The kind of each piece (uint8, an index into KINDS)."""
    special = set(tokenizer.specials.values())
    results = ["special" if i in special else _kind(text) for i, text in enumerate(decode_pieces(tokenizer))]
    return np.array([KINDS.index(name) for name in results], np.uint8)


def _kind(text: str) -> str:
    if "\ufffd" in text:
        return "byte"
    first = next((character for character in text if not character.isspace()), "")
    if not first:
        return "space" if text else "other"
    name = unicodedata.name(first, "")
    for script, start in (
        ("Han", "CJK UNIFIED"),
        ("Han", "CJK COMPAT"),
        ("Latin", "LATIN"),
        ("hangul", "HANGUL"),
    ):
        if name.startswith(start):
            return script
    if "HIRAGANA" in name or "KATAKANA" in name:
        return "kana"
    return _MARKS.get(unicodedata.category(first)[0], "other")


def tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """The report as terminal tables: one for each grouping, and one by character class."""
    for way, title in _TITLES.items():
        rows = report["groups"][way]
        if [*rows] == ["none"]:
            continue
        table = _table(title, "", "documents", "characters", "chars/token", "bytes/token", "bytes, share")
        for name, row in rows.items():
            ratios = [row.get(key) for key in ("chars_per_token", "bytes_per_token")]
            shown = ["" if ratio is None else f"{ratio:.3f}" for ratio in ratios]
            share = f"{row.get('byte_token_share', 0):.2%}"
            table.add_row(name, f"{row['documents']:,}", f"{row['chars']:,}", *shown, share)
        yield table
    table = _table("by character", "", "pieces", "tokens", "share", "chars/token")
    for name, row in report["characters"].items():
        ratio = f"{row['chars_per_token']:.3f}" if "chars_per_token" in row else ""
        pieces = report["vocabulary"].get(name, 0)
        table.add_row(name, f"{pieces:,}", f"{row['tokens']:,}", f"{row['token_share']:.1%}", ratio)
    yield table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
