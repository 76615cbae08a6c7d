"""Views: values that several measures read from a document, computed once.

A view is a function whose parameters name the views it needs itself, down to `points` (the code points,
uint32[:]) and `table` (characters.table()). `fuse` computes those that a recipe's measures name, in order,
and no others. Plain Python that numba compiles.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from ctllm_ray.text.kernels.characters import (
    BULLET,
    CLASS_MASK,
    CLAUSE_END,
    CLOSER,
    DIGIT,
    HAN,
    KANA,
    LATIN,
    NEWLINE,
    OTHER,
    RARE_HAN,
    SENTENCE_END,
    SPACE,
    SYMBOL,
)
from ctllm_ray.text.kernels.ngrams import bigrams_seen_twice, rename, survivors, table_bits

NGRAM_MAX = 10  # characters; CT-LLM and Gopher measure up to 10


def kinds(points, table):
    """Class and flags of each code point (uint16); a sentence-ending dot has the flags of an end mark."""
    out = np.empty(len(points), np.uint16)
    for i in range(len(points)):
        out[i] = _kind(points[i], table)
    for i in range(len(points)):
        if (points[i] == 0x2E or points[i] == 0xFF0E) and _dot_ends_sentence(points, i, table):
            out[i] |= SENTENCE_END | CLAUSE_END
    return out


@register_jitable
def _kind(point, table):
    if point < 0x10000:
        return table[point]
    if 0x20000 <= point < 0x33480:  # CJK extensions B to J
        return np.uint16(RARE_HAN)
    if 0x1F000 <= point < 0x20000:  # emoji and pictographs
        return np.uint16(SYMBOL)
    return np.uint16(OTHER)


@register_jitable
def _dot_ends_sentence(points, i, table):
    """True for a dot (. or ．) that ends a sentence; False for those of 3.14, v1.2.3, U.S. or 1. in a list.

    It stands at the end of a line; before a space or closing mark, but not behind an initial (J. Smith) or
    the number of an item; or between two Han characters, as in Chinese that is written with ASCII marks.
    """
    after = _kind(points[i + 1], table) if i + 1 < len(points) else np.uint16(NEWLINE)
    before = _kind(points[i - 1], table) & CLASS_MASK if i > 0 else NEWLINE
    group = after & CLASS_MASK
    if group == NEWLINE:
        return before != NEWLINE
    if group == SPACE or after & CLOSER:
        initial = before == LATIN and (i < 2 or _kind(points[i - 2], table) & CLASS_MASK != LATIN)
        return not initial and not (before == DIGIT and _numbers_line(points, i, table))
    return (group == HAN or group == RARE_HAN) and (before == HAN or before == RARE_HAN)


@register_jitable
def _numbers_line(points, i, table):
    """True if only digits, and spaces before them, stand between the start of the line and i."""
    k = i - 1
    while k >= 0 and _kind(points[k], table) & CLASS_MASK == DIGIT:
        k -= 1
    while k >= 0 and _kind(points[k], table) & CLASS_MASK == SPACE:
        k -= 1
    return k < 0 or _kind(points[k], table) & CLASS_MASK == NEWLINE


def class_counts(kinds):
    """Number of code points of each class (int64[16])."""
    counts = np.zeros(16, np.int64)
    for i in range(len(kinds)):
        counts[kinds[i] & CLASS_MASK] += 1
    return counts


def flag_counts(kinds):
    """Number of code points with each flag, by bit (int64[16], the first four unused)."""
    counts = np.zeros(16, np.int64)
    for i in range(len(kinds)):
        flags = kinds[i] >> 4
        bit = 4
        while flags:
            counts[bit] += flags & 1
            flags >>= 1
            bit += 1
    return counts


def lines(kinds):
    """Start and stop of each non-blank line, without surrounding spaces (int32[:, 2])."""
    n = len(kinds)
    total = 1
    for i in range(n):
        total += (kinds[i] & CLASS_MASK) == NEWLINE
    spans = np.empty((total, 2), np.int32)
    result = 0
    start = 0
    for i in range(n + 1):
        if i < n and (kinds[i] & CLASS_MASK) != NEWLINE:
            continue
        first, last = start, i
        while first < last and (kinds[first] & CLASS_MASK) == SPACE:
            first += 1
        while last > first and (kinds[last - 1] & CLASS_MASK) == SPACE:
            last -= 1
        if last > first:
            spans[result, 0] = first
            spans[result, 1] = last
            result += 1
        start = i + 1
    return spans[:result]


def ended(kinds, lines):
    """True for each line that ends with an end mark; closing quotes and brackets may follow (boolean)."""
    out = np.zeros(len(lines), np.bool_)
    for i in range(len(lines)):
        last = lines[i, 1] - 1
        closed = False
        while last > lines[i, 0] and kinds[last] & CLOSER:
            closed = True
            last -= 1
        mark = kinds[last] & SENTENCE_END
        # 「……」 and （见附录） end with the closing mark itself; such a line is complete if its text is long enough.
        out[i] = mark != 0 or (closed and lines[i, 1] - lines[i, 0] >= 10)
    return out


def char_ids(points):
    """A dense number for each distinct character, in order of first appearance (int32)."""
    n = len(points)
    out = np.empty(n, np.int32)
    bits = table_bits(min(n, 0x110000))
    slots = np.full(1 << bits, -1, np.int32)
    characters = np.empty(n, np.uint32)
    distinct = 0
    for i in range(n):
        point = points[i]
        slot = np.int64(np.uint32(point * np.uint32(2654435769)) >> np.uint32(32 - bits))
        while slots[slot] >= 0 and characters[slots[slot]] != point:
            slot = (slot + 1) & ((1 << bits) - 1)
        if slots[slot] < 0:
            slots[slot] = distinct
            characters[distinct] = point
            distinct += 1
        out[i] = slots[slot]
    return out


def char_counts(char_ids):
    """Occurrences of each distinct character, by its number (int32)."""
    counts = np.zeros(len(char_ids) + 1, np.int32)
    distinct = 0
    for i in range(len(char_ids)):
        counts[char_ids[i]] += 1
        distinct = max(distinct, char_ids[i] + 1)
    return counts[:distinct]


def repeats(char_ids):
    """For n = 2..10: positions covered by repeated n-grams, count of the top n-gram, positions it covers.

    int64[11, 3], each position counted once. N-grams are named, not hashed (after Karp, Miller and Rosenberg,
    1972): an (n+1)-gram is the pair of its n-gram's name and its last character, so equal names mean equal
    text. Only where both n-grams in it repeat can an (n+1)-gram repeat, so each length looks at what the one
    before left over: on prose a small part. Of n-grams that are equally frequent the first in the text is the
    top one.
    """
    n_chars = len(char_ids)
    out = np.zeros((NGRAM_MAX + 1, 3), np.int64)
    if n_chars < 2:
        return out
    names = char_ids.copy()
    at = np.empty(n_chars, np.int32)
    left = bigrams_seen_twice(char_ids, at)
    keys = np.empty(1 << table_bits(left), np.uint64)
    counts = np.empty(1 << table_bits(left), np.int32)
    for n in range(2, NGRAM_MAX + 1):
        top = rename(names, char_ids, at[:left], n, keys, counts)
        left = survivors(names, counts, top, at, left, n, out)
        if left == 0:
            break
    return out


#: Characters. Entropy and variety are means over windows, so that document length has no effect (pitfall 13).
WINDOW = 256


def windows(char_ids):
    """Mean entropy (nats) and mean distinct share over windows of 256 characters (float64[2]).

    The last window ends with the text and overlaps the one before; a shorter text is one window.
    """
    n = len(char_ids)
    out = np.zeros(2)
    if n == 0:
        return out
    size = min(n, WINDOW)
    counts = np.zeros(char_ids.max() + 1, np.int32)
    logs = np.zeros(size + 1)
    for c in range(2, size + 1):
        logs[c] = c * np.log(c)
    total = (n + size - 1) // size
    for w in range(total):
        start = min(w * size, n - size)
        for i in range(start, start + size):
            counts[char_ids[i]] += 1
        weighted = 0.0
        distinct = 0
        for i in range(start, start + size):
            c = counts[char_ids[i]]
            if c:
                weighted += logs[c]
                distinct += 1
                counts[char_ids[i]] = 0
        out[0] += np.log(size) - weighted / size
        out[1] += distinct / size
    return out / total


def clauses(kinds):
    """Number of clauses of each length: runs of Han and
    kana between marks (int64[64], 63 and longer last)."""
    counts = np.zeros(64, np.int64)
    run = 0
    for i in range(len(kinds)):
        kind = kinds[i]
        group = kind & CLASS_MASK
        if group == HAN or group == RARE_HAN or group == KANA:
            run += 1
        elif run and (kind & CLAUSE_END or group == SPACE or group == NEWLINE):
            counts[min(run, 63)] += 1
            run = 0
    if run:
        counts[min(run, 63)] += 1
    return counts


def line_hashes(points, lines):
    """A 64-bit hash of each line's characters (uint64)."""
    out = np.empty(len(lines), np.uint64)
    for i in range(len(lines)):
        value = np.uint64(0x9E3779B97F4A7C15)
        for k in range(lines[i, 0], lines[i, 1]):
            value = (value ^ np.uint64(points[k])) * np.uint64(0x100000001B3)
            value ^= value >> np.uint64(29)
        out[i] = value
    return out


def bulleted(kinds, lines):
    """Number of lines that start with a bullet glyph."""
    result = 0
    for i in range(len(lines)):
        result += (kinds[lines[i, 0]] & BULLET) != 0
    return result
