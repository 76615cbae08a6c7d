"""CT-LLM's document rules with the formulas of its released code, for comparison with our own measures.

Every function is one rule of Chinese-Tiny-LLM `filter/filter.py` at 392f0e3 as it really computes, so that
`map_cc_as_released` agrees with that program record for record; where the formula misses what the rule was
meant for, the docstring says so and names what to use instead. All but `bracket_share` are meant for text
that the stage `ct_llm_released` has cleaned; most read its NFKC form, which neighbouring calls on the same
text share. Cost: 5 MB/s of UTF-8 on one core for the twelve rules, 1.5 for the nine n-gram measures, which
count in Python.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from ctllm_ray.text.segmentation import mean_length_chars, segment

_BRACKETED = re.compile(
    r"【([^】\n]*+)(】?)"
)  # an unclosed one runs to the end of its line and does not count
_SENTENCE_END = re.compile(r'[.!…?;"]+')
_NOT_WORD_OR_SPACE = re.compile(r"[^\w\s]+")
_HASHTAGS = re.compile(r"#+")
_ELLIPSES = re.compile(r"…+|\.{2,}")
_UNDERSCORES = re.compile(r"(_+)")
_READMORE = ("readmore", "展开", "更多", "。。。")
_BULLETS = tuple("•●○■□▪▫※·➢‣▶◀◦–")
_PUNCTUATION = frozenset(string.punctuation + "…")


@lru_cache(maxsize=8)
def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=8)
def _without_punctuation(text: str) -> str:
    return _NOT_WORD_OR_SPACE.sub("", _nfkc(text))


@lru_cache(maxsize=8)
def _char_counts(text: str) -> Counter[str]:
    return Counter(_nfkc(text))


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def bracket_share(text: str) -> float:
    """Share of NFKC characters that stand inside 【】 pairs closed on the same line; 0 for the empty text.

    The one rule measured before cleaning.
    """
    inside = sum(len(content) for content, closed in _BRACKETED.findall(_nfkc(text)) if closed)
    return _share(inside, len(_nfkc(text)))


def sentence_count(text: str) -> float:
    """Number of non-blank pieces between runs of . ! … ? ; and the ASCII double quote.

    Decimals and version numbers count as sentence ends, and `”` does since cleaning made it ASCII.
    """
    return float(sum(1 for piece in _SENTENCE_END.split(text) if piece.strip()))


def char_count(text: str) -> float:
    """Number of NFKC characters, whitespace included (the released code calls them words)."""
    return float(len(_nfkc(text)))


def mean_word_length(text: str) -> float:
    """Mean characters per word of the NFKC text from which all punctuation was taken out; 0 without words.

    Words of neighbouring clauses touch before they are segmented; `words.mean_length` keeps them apart. jieba
    0.42.1, which the released code calls, makes each run of underscores a word where rjieba makes
    `snake_case` one: so it is split here too (12 decisions of 43,876 web pages hang on it, none with it).
    """
    words = segment(_without_punctuation(text))
    return mean_length_chars([part for word in words for part in _UNDERSCORES.split(word) if part])


def hashtag_run_share(text: str) -> float:
    """Runs of # per character: at most 0.5, and small however long each run is."""
    return _share(len(_HASHTAGS.findall(text)), len(text))


def ellipsis_run_share(text: str) -> float:
    """Runs of … and of two or more full stops per character."""
    return _share(len(_ELLIPSES.findall(text)), len(text))


def digit_share(text: str) -> float:
    """Share of digits among NFKC word characters and whitespace; digits of every script count."""
    return _share(sum(map(str.isdigit, _nfkc(text))), len(_without_punctuation(text)))


def readmore_line_share(text: str) -> float:
    """Share of NFKC lines that end in readmore, 展开, 更多 or 。。。; the last never does, cleaning took it away."""
    lines = _nfkc(text).splitlines()
    return _share(sum(line.endswith(_READMORE) for line in lines), len(lines))


def bullet_line_share(text: str) -> float:
    """Share of NFKC lines whose first character is one of 15
    bullet glyphs (en dash among them, hyphen and * not)."""
    lines = _nfkc(text).splitlines()
    return _share(sum(line.startswith(_BULLETS) for line in lines), len(lines))


def punctuation_share(text: str) -> float:
    """Share of ASCII punctuation among NFKC characters;
    、《》「」 do not count, nor does … (NFKC makes it three)."""
    counts = _char_counts(text)
    return _share(sum(counts[c] for c in _PUNCTUATION), len(_nfkc(text)))


def distinct_char_share(text: str) -> float:
    """Distinct NFKC characters per NFKC character: falls with length, so that long clean texts fail too."""
    return _share(len(_char_counts(text)), len(_nfkc(text)))


def unigram_entropy_nats(text: str) -> float:
    """Shannon entropy of the NFKC characters in nats; grows with length, 0 for the empty text."""
    total = len(_nfkc(text))
    return -math.fsum(count / total * math.log(count / total) for count in _char_counts(text).values())


def top_ngram_share(text: str, *, n: Annotated[int, Field(ge=1)]) -> float:
    """Characters in the repeats of the most frequent n-gram over all characters; overlaps count every time.

    The released program computes this for n = 2, 3, 4 and ignores it (docs/reference/ct-llm.md, bug 1). The first
    occurrence is not counted. 0 for texts shorter than n.
    """
    return _share((max(_ngrams(text, n).values(), default=1) - 1) * n, len(text))


def distinct_ngram_char_share(text: str, *, n: Annotated[int, Field(ge=1)]) -> float:
    """DISTINCT characters of repeated n-grams over all characters: shrinks as a repeated text grows.

    The released program computes this for n = 5 to 10 and ignores it (bugs 1 and 2).
    `repetition.covered_share` counts positions, as was meant.
    """
    repeated = [ngram for ngram, count in _ngrams(text, n).items() if count > 1]
    return _share(len(set().union(*repeated)), len(text))


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter([text[i : i + n] for i in range(len(text) - n + 1)])
