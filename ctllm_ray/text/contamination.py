"""Finds evaluation items in pages: builds an index of folded n-grams and returns the text spans that match.

An item (a question with its options, an answer, a passage) is all n-grams of its folded text, so a
Traditional or re-punctuated copy is found, and where the options were shuffled, the rest of the item
still is. A page is hit where it holds one of them; the *overlap* is the share of the item's n-grams
that the page holds anywhere. What follows from a hit (cut the stretch, drop the page, from which
overlap on) is for the recipe.

N-grams that more than `max_items` items share (下列关于…的说法正确的是) do not identify an item
and are ignored. An item that is shorter than an n-gram, or has only such n-grams, cannot be found: `Index.grams`
is 0 for it, and the builder of the index must report their number. An n-gram is 64 bits: with 10**7 n-grams,
10**12 characters of pages give half a false hit.

Cost: about 70 MB/s of UTF-8 on one core against 4 million n-grams. An index holds 16 bytes an
n-gram, and a filter of two to four bytes an n-gram that spares nearly all look-ups.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.text.dedup.fold import fold, fold_points, table
from ctllm_ray.text.dedup.minhash import shingle_hashes
from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled
from ctllm_ray.text.kernels.runs import starts_of

FILTER_FACTOR = 16  # bits of the filter for an n-gram, at least: one look-up in 16 is for nothing


class NgramIndex(NamedTuple):
    """Items `items[starts[k]:starts[k + 1]]` contain the n-gram
    `hashes[k]` (uint64, ascending); `grams` counts per item.

    `filter` has a bit set for the `bits` upper bits of each hash, and `first[b]` is the place of the first
    hash whose `bits` - 4 upper bits are b or more.
    """

    ngram_chars: int
    hashes: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    grams: np.ndarray
    bits: int
    filter: np.ndarray
    first: np.ndarray


class Hits(NamedTuple):
    """One row per span: page, item, code points `start` to `end` of the page, and the
    item's overlap with the page."""

    rows: np.ndarray
    items: np.ndarray
    start: np.ndarray
    end: np.ndarray
    overlap: np.ndarray


def index(items: pa.Array, *, ngram_chars: int, max_items: int) -> NgramIndex:
    """Builds the index of evaluation items (a string array without nulls)."""
    hashes, owners = _distinct(*_grams(*buffers(fold(items)), ngram_chars))
    _, counts = np.unique(hashes, return_counts=True)
    keep = np.repeat(counts <= max_items, counts)
    hashes, owners = hashes[keep], owners[keep]
    wanted, starts = np.unique(hashes, return_index=True)
    bits = max(int(len(wanted) * FILTER_FACTOR).bit_length(), 12)
    first = np.searchsorted(wanted, np.arange(1 << (bits - 4), dtype=np.uint64) << np.uint64(68 - bits))
    grams = np.bincount(owners, minlength=len(items))
    starts, first = np.append(starts, len(owners)), np.append(first, len(wanted))
    return NgramIndex(ngram_chars, wanted, starts, owners, grams, bits, _filter(wanted, bits), first)


def hits(texts: pa.Array, index: NgramIndex) -> Hits:
    """The spans of raw texts (a string array without nulls) that match items of
    the index, by page and item."""
    look_up = (index.hashes, index.bits, index.filter, index.first)
    result = _matches(*buffers(texts), *table(), *look_up, index.ngram_chars)
    match, gram = _by_item(index, result[1])
    order = np.lexsort((result[2][match], index.items[gram], result[0][match]))
    row, place, start, end = (column[match][order] for column in (result[0], *result[2:]))
    item, hashed = index.items[gram][order], result[1][match][order]
    # A span ends if the next n-gram is not the next one of the page.
    first = starts_of(row, item, place - np.arange(len(place)))
    last = np.append(first[1:], len(row)) - 1 if len(row) else first
    return Hits(
        row[first], item[first], start[first], end[last], _overlap(row, item, hashed, index.grams)[first]
    )


def _distinct(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique pairs, sorted."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    starts = starts_of(hashes, owners)
    return hashes[starts], owners[starts]


def _by_item(index: NgramIndex, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each match and each item that contains its n-gram: the match, and the item's
    position in `index.items`."""
    counts = index.starts[grams + 1] - index.starts[grams]
    match = np.repeat(np.arange(len(grams)), counts)
    within = np.arange(len(match)) - np.repeat(np.cumsum(counts) - counts, counts)
    return match, np.repeat(index.starts[grams], counts) + within


def _overlap(rows: np.ndarray, items: np.ndarray, grams: np.ndarray, of: np.ndarray) -> np.ndarray:
    """float32 per match: distinct n-grams of its item that occur in its page,
    over all n-grams of the item."""
    pair = rows * len(of) + items
    pairs, _ = _distinct(pair, grams)
    which, counts = np.unique(pairs, return_counts=True)
    return (counts[np.searchsorted(which, pair)] / of[items]).astype(np.float32)


@compiled
def _grams(data, offsets, size):
    """The hash of each n-gram and the row of its text. Texts shorter than one n-gram give nothing."""
    total = offsets[-1] - offsets[0]
    hashes, rows = np.empty(total, np.uint64), np.empty(total, np.int32)
    n = 0
    for row in range(len(offsets) - 1):
        points = decode(data, offsets[row], offsets[row + 1])
        if len(points) >= size:
            for hashed in shingle_hashes(points, size):
                hashes[n], rows[n] = hashed, row
                n += 1
    return hashes[:n], rows[:n]


@compiled
def _matches(data, offsets, one, sequences, wanted, bits, filtered, first, size):
    """For each page n-gram in the index: row, position in `wanted`, position in
    the folded page, start, end."""
    values = np.empty((5, 1024), np.int64)
    n = 0
    for row in range(len(offsets) - 1):
        points, places = fold_points(decode(data, offsets[row], offsets[row + 1]), one, sequences, False)
        if len(points) < size:
            continue
        hashes = shingle_hashes(points, size)
        for i in range(len(hashes)):
            slot = hashes[i] >> np.uint64(64 - bits)
            if not filtered[slot >> np.uint64(3)] & (np.uint8(1) << np.uint8(slot & np.uint64(7))):
                continue
            k = first[slot >> np.uint64(4)]
            while k < len(wanted) and wanted[k] < hashes[i]:
                k += 1
            if k < len(wanted) and wanted[k] == hashes[i]:
                if n == values.shape[1]:
                    values = np.concatenate((values, np.empty_like(values)), axis=1)
                values[0, n], values[1, n], values[2, n] = row, k, i
                values[3, n], values[4, n] = places[i], places[i + size - 1] + 1
                n += 1
    return values[:, :n]


@compiled
def _filter(hashes, bits):
    """A bit filter (uint8) of 2**bits bits: a bit is set if the upper bits of some hash equal its number."""
    out = np.zeros(1 << (bits - 3), np.uint8)
    for hashed in hashes:
        slot = hashed >> np.uint64(64 - bits)
        out[slot >> np.uint64(3)] |= np.uint8(1) << np.uint8(slot & np.uint64(7))
    return out
