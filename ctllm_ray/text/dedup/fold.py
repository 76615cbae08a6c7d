"""Folded text: the key by which deduplication compares pages. The page itself is never touched.

Two copies of one page differ in script, width, case, spacing and punctuation long before they differ in
words, so the key keeps only letters, digits and the marks that belong to letters, each in one form:

- compatibility and canonical forms are decomposed (NFKD: the same classes of equal texts as NFKC, and, unlike
  it, what becomes of a character does not depend on its neighbours, which is what lets a table do it) and
  cased down;
- a Han character stands for all its Simplified, Traditional, Taiwan and Hong Kong forms: the classes that
  OpenCC's character tables make when every pair they hold counts as equal, and `MORE_FORMS`, which only its
  phrase tables know. 著 and 着, 余 and 馀, 瞭 and 了 fold together: right for a key, wrong for a text, which is why
  this is no conversion;
- decimal digits of all scripts are 0 to 9; `digits="mask"` makes one 0 of each run, so that pages of one
  template with other prices and dates fold together (for listings, not for law);
- everything else goes: spaces, punctuation, symbols, emoji, controls, variation selectors, private use,
  U+FFFD.

A text of none of these letters (a row of emoji) folds to nothing: `digests` then takes the raw text, and
MinHash gives it no shingle. Laws: folding is idempotent, character by character but for masked runs, and
never depends on the rest of a batch. The table depends on the Unicode version of Python and on OpenCC's
dictionaries: both are in `provenance`.

Cost: about 230 MB/s of UTF-8 on one core; the table is made once per process, in a second.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import unicodedata
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import opencc
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.kernels.codepoints import buffers, decode, encode, strings, with_room
from ctllm_ray.text.kernels.compiled import compiled

Digits = Literal["keep", "mask"]

TABLE_END = 0x323B0  # the end of the last block of Han characters; beyond are tags, selectors and private use
HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, TABLE_END))
CONVERSIONS = ("t2s", "tw2s", "hk2s", "s2t", "s2tw", "s2hk")
#: Pairs that OpenCC exchanges inside phrases only (了解 and 瞭解), as found on 9.75 million characters of web
#: pages.
MORE_FORMS = ("了复借象仿坐夫背具苏链熏宁澄仇檗", "瞭覆藉像彷座伕揹俱甦鍊薰甯澂讎蘗")
SELECTORS = (0xFE00, 0xFE0F)  # variation selectors are marks by category and say nothing
MANY = 1 << 31  # an entry with this bit is a place in `sequences` (bits 8 to 30) and a count (bits 0 to 7)
DIGIT_ZERO, DIGIT_NINE = 0x30, 0x39


class FoldTable(NamedTuple):
    """What each code point below TABLE_END folds to: `one` (uint32; 0 for nothing),
    or `sequences` for several."""

    one: np.ndarray
    sequences: np.ndarray


def fold(texts: pa.Array, *, digits: Digits = "keep") -> pa.Array:
    """The folded texts (a string array like `texts`, without nulls)."""
    data, offsets = _fold_batch(*buffers(texts), *table(), digits == "mask")
    return strings(data, offsets)


def fold_text(text: str, *, digits: Digits = "keep") -> str:
    """Folds one text. Use `fold` for columns."""
    return str(fold(pa.array([text], pa.string()), digits=digits)[0])


@cache
def table() -> FoldTable:
    """The folding table of all code points."""
    forms = _forms()
    one, sequences = np.zeros(TABLE_END, np.uint32), [np.uint32(0)]
    for point, character in enumerate(map(chr, range(TABLE_END))):
        to = _fold_character(character, forms)
        if len(to) > 1:
            one[point] = MANY | len(sequences) << 8 | len(to)
            sequences += [np.uint32(ord(c)) for c in to]
        elif to:
            one[point] = ord(to)
    return FoldTable(one, np.array(sequences, np.uint32))


def _fold_character(character: str, forms: dict[str, str]) -> str:
    """What a character folds to: the steps are repeated until nothing changes."""
    before, now = "", character
    while now != before:
        before, now = now, unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", now).casefold())
        now = "".join([_digit(forms.get(c, c)) for c in now if _says(c)])
    return now


def _says(character: str) -> bool:
    """Whether a character is kept: letters, numbers and their marks, and Han blocks
    newer than Python's Unicode."""
    point = ord(character)
    if unicodedata.category(character) in {"Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Mn", "Mc"}:
        return not SELECTORS[0] <= point <= SELECTORS[1]
    return 0x20000 <= point < TABLE_END


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def _forms() -> dict[str, str]:
    """For each Han character with variants, the one that stands for all: in GB 2312
    if any is, else the lowest."""
    han = [chr(point) for first, end in HAN for point in range(first, end)]
    parent = dict(zip(han, han, strict=True))

    def root(c: str) -> str:
        while parent[c] != c:
            c = parent[c]
        return c

    def join(a: str, b: str) -> None:
        first, second = root(a), root(b)
        parent[max(first, second, key=_rank)] = min(first, second, key=_rank)

    for name in CONVERSIONS:
        for a, b in zip(han, opencc.OpenCC(name).convert("\n".join(han)).split("\n"), strict=True):
            if a != b:
                join(a, b)
    for a, b in zip(*MORE_FORMS, strict=True):
        join(a, b)
    return {c: root(c) for c in han if root(c) != c}


def _rank(character: str) -> tuple[bool, str]:
    return not character.encode("gb2312", "ignore"), character


@compiled
def _fold_batch(data, offsets, one, sequences, mask):
    """UTF-8 bytes and offsets of the folded rows."""
    out = np.empty(offsets[-1] - offsets[0] + 64, np.uint8)
    ends = np.zeros(len(offsets), np.int32)
    at = 0
    for row in range(len(offsets) - 1):
        points, _ = fold_points(decode(data, offsets[row], offsets[row + 1]), one, sequences, mask)
        out = with_room(out, at, len(points))
        at = encode(points, out, at)
        ends[row + 1] = at
    return out[:at], ends


@register_jitable
def fold_points(points, one, sequences, mask):
    """The folded code points, and the position in the text that each came from (int32)."""
    more = 0
    for c in points:
        more += one[c] & 0xFF if c < TABLE_END and one[c] >= MANY else 0
    out, places = np.empty(len(points) + more, np.uint32), np.empty(len(points) + more, np.int32)
    n = 0
    for i in range(len(points)):
        to = one[points[i]] if points[i] < TABLE_END else np.uint32(0)
        if to < MANY:
            places[n] = i
            n = _write_point(out, n, to, mask)
        else:
            first = (to & np.uint32(0x7FFFFFFF)) >> np.uint32(8)
            for k in range(to & np.uint32(0xFF)):
                places[n] = i
                n = _write_point(out, n, sequences[first + k], mask)
    return out[:n], places[:n]


@register_jitable
def _write_point(out, n, point, mask):
    """Writes a code point and returns the new length. Skips 0, and a digit after
    a digit if runs are masked."""
    if mask and DIGIT_ZERO <= point <= DIGIT_NINE:
        out[n] = DIGIT_ZERO
        return n + (n == 0 or out[n - 1] != DIGIT_ZERO)
    out[n] = point
    return n + (point != 0)
