"""Finds which character n-grams of a text repeat, one length after another. `views.repeats` is built on it.

N-grams get names instead of hashes, so that equal names mean equal text and no collision can add to a share.
The loops avoid branches that depend on the text: mispredicted ones were half of the cost. On web pages all
nine levels take about 8 ns per byte of UTF-8, 40 % of the whole `map_cc` cascade.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba.extending import register_jitable


@register_jitable
def _slot(key, bits):
    """The slot of a 64-bit key in a table of 2**bits (Fibonacci hashing); unsigned,
    which numba indexes faster."""
    return (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)


@register_jitable
def table_bits(entries):
    """Size, as a power of two, of an open hash table that stays at most half full."""
    bits = 3
    while (1 << bits) < 2 * entries:
        bits += 1
    return bits


@register_jitable
def _key(name, last):
    """The pair that names an n-gram: the name of its (n-1)-gram and its last character."""
    return (np.uint64(name) << np.uint64(32)) | np.uint64(last)


@register_jitable
def bigrams_seen_twice(char_ids, at):
    """Fills `at` with positions whose bigram may repeat. Most unique bigrams are
    removed here, without a branch."""
    bits = table_bits(len(char_ids)) + 1
    history = np.zeros(1 << bits, np.uint8)
    for i in range(len(char_ids) - 1):
        slot = _slot(_key(char_ids[i], char_ids[i + 1]), bits)
        history[slot] = (history[slot] << 1) | 1
    kept = 0
    for i in range(len(char_ids) - 1):
        at[kept] = i
        kept += history[_slot(_key(char_ids[i], char_ids[i + 1]), bits)] > 1
    return kept


@register_jitable
def rename(names, char_ids, at, n, keys, counts):
    """Names the n-grams at `at` by the slots of their keys. Fills their counts; returns the highest.

    Written without branches that depend on the text: they were half of the cost.
    """
    bits = table_bits(len(at))
    free = np.uint64(0xFFFFFFFFFFFFFFFF)
    mask = np.uint64((1 << bits) - 1)
    tail = np.uint64(n - 1)
    keys[: 1 << bits] = free
    counts[: 1 << bits] = 0
    most = np.int32(0)
    for k in range(len(at)):
        i = np.uint64(at[k])
        key = _key(names[i], char_ids[i + tail])
        slot = _slot(key, bits)
        while (keys[slot] != key) & (keys[slot] != free):
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = key
        count = np.int32(counts[slot] + np.int32(1))
        counts[slot] = count
        most = max(most, count)
        names[i] = slot
    return most


@register_jitable
def survivors(names, counts, most, at, left, n, out):
    """Fills row n of `out`; keeps in `at` only positions whose (n+1)-gram may
    repeat. Returns their number."""
    top = -1
    covered = 0
    covered_top = 0
    end = 0
    end_top = 0
    kept = 0
    last = -2
    for k in range(left):
        i = np.int64(at[k])
        name = np.uint64(names[np.uint64(i)])
        count = counts[name]
        again = count > 1
        if count == most and again and (np.int64(name) == top or top < 0):
            top = np.int64(name)
            covered_top += i + n - max(end_top, i)
            end_top = i + n
        covered += i + n - max(end, i) if again else 0
        end = i + n if again else end
        # If the n-gram before this one repeats too, the (n+1)-gram that starts there may repeat.
        at[kept] = last
        kept += again & (last == i - 1)
        last = i if again else last
    out[n, 0] = covered
    out[n, 1] = most
    out[n, 2] = covered_top
    return kept
