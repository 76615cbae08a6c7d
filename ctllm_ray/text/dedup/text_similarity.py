"""Similarity of two candidate documents: estimated from signatures, or computed exactly from folded texts.

`agreement` of signatures estimates the Jaccard similarity for a few nanoseconds a pair; it is off by up to
0.044 (one standard deviation, 128 permutations). `jaccard` is exact: the shingles of a pair meet in one hash
table, which is emptied by counting on to the next pair: a fifth of the time that sorting them took, some 10
us a pair of pages.

Neither can tell a copy with every twentieth character changed (Jaccard 0.65 of 5-character shingles) from a
page that shares a template and most of its text with another (0.65 too). `own` can: it asks what a document
says that the other does not. A copy, a part, a page with other header and footer has next to nothing of its
own, and that in stretches of a few characters; pages of one template have their own matter, both of them, in
one piece. The measure is taken of the document of the two that has less of its own: the one that may go,
since nothing is lost with it. Copies with more changes than that are for edits.py.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.dedup.edits import differ_in_slips
from ctllm_ray.text.dedup.meaning import differ_in_meaning
from ctllm_ray.text.dedup.minhash import shingle_hashes
from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

LEFT, RIGHT = 1, 2  # which document of a pair contains a shingle
#: Multiple of the longest edit. Slips hardly ever leave a longer unshared run, so slips are not searched
#: beyond it.
SLIPS_ALONE = 5


def agreement(signatures: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32[pairs]: the share of equal positions in two signatures; it estimates the Jaccard similarity."""
    values: np.ndarray = _agreement(signatures, left, right)
    return values


def jaccard(texts: pa.Array, left: np.ndarray, right: np.ndarray, *, shingle_chars: int) -> np.ndarray:
    """float32[pairs]: the Jaccard similarity of the shingle sets of folded texts; 0 if both are empty."""
    values: np.ndarray = _jaccard(*buffers(texts), left, right, shingle_chars)
    return values


class Own(NamedTuple):
    """For the document of a pair with less text of its own: its
    unshared share (float32) and longest unshared run (code points)."""

    share: np.ndarray
    run: np.ndarray


def own(texts: pa.Array, left: np.ndarray, right: np.ndarray, *, shingle_chars: int) -> Own:
    """How much of folded texts is unshared: code points covered by no shingle that the other text has."""
    return Own(*_own(*buffers(texts), left, right, shingle_chars))


class PairVerdicts(NamedTuple):
    """For each pair: the Jaccard similarity (float32), and whether the two are duplicates (bool)."""

    similarity: np.ndarray
    duplicates: np.ndarray


def verdicts(
    texts: pa.Array,
    left: np.ndarray,
    right: np.ndarray,
    *,
    shingle_chars: int,
    sure_jaccard: float,
    min_jaccard: float,
    own_shingle_chars: int,
    max_own_share: float,
    max_own_run: int,
    slips_jaccard: float,
    max_edit_share: float,
    max_edit_run: int,
    same_meaning: Mapping[str, Any] | None = None,
) -> PairVerdicts:
    """Folded texts are duplicates from `sure_jaccard` on. Lower thresholds add a condition.

    From `min_jaccard` on, one of the two must have nothing of its
    own. From `slips_jaccard` on, they may differ in slips only. With `same_meaning`, the bounds of
    meaning.py, no two are duplicates that say something else, however similar; the texts then hold signs (signs.py).
    """
    similarity = jaccard(texts, left, right, shingle_chars=shingle_chars)
    duplicates = similarity >= sure_jaccard
    unsure = np.flatnonzero((similarity >= min(min_jaccard, slips_jaccard)) & ~duplicates)
    share, run = own(texts, left[unsure], right[unsure], shingle_chars=own_shingle_chars)
    nothing_new = (similarity[unsure] >= min_jaccard) & (share <= max_own_share) & (run <= max_own_run)
    duplicates[unsure] = nothing_new
    unsure = unsure[
        ~nothing_new & (similarity[unsure] >= slips_jaccard) & (run <= SLIPS_ALONE * max_edit_run)
    ]
    edits = differ_in_slips(
        texts, left[unsure], right[unsure], max_edit_share=max_edit_share, max_edit_run=max_edit_run
    )
    duplicates[unsure] = edits
    if same_meaning:
        pairs = np.flatnonzero(duplicates)
        duplicates[pairs] = ~differ_in_meaning(texts, left[pairs], right[pairs], **same_meaning)
    return PairVerdicts(similarity, duplicates)


@compiled
def _agreement(signatures, left, right):
    out = np.empty(len(left), np.float32)
    for i in range(len(left)):
        equal = 0
        for k in range(signatures.shape[1]):
            equal += signatures[left[i], k] == signatures[right[i], k]
        out[i] = equal / signatures.shape[1]
    return out


@compiled
def _jaccard(data, offsets, left, right, size):
    keys, marks, stamps = _table(data, offsets, left, right)
    out = np.zeros(len(left), np.float32)
    for i in range(len(left)):
        a, b = left[i], right[i]
        hashes_a = shingle_hashes(decode(data, offsets[a], offsets[a + 1]), size)
        hashes_b = shingle_hashes(decode(data, offsets[b], offsets[b + 1]), size)
        mask = _mask(len(hashes_a) + len(hashes_b))
        only_a = _mark(hashes_a, LEFT, keys, marks, stamps, i + 1, mask)[0]
        only_b, both = _mark(hashes_b, RIGHT, keys, marks, stamps, i + 1, mask)
        out[i] = both / max(only_a + only_b, 1)
    return out


@compiled
def _own(data, offsets, left, right, size):
    keys, marks, stamps = _table(data, offsets, left, right)
    share, run = np.empty(len(left), np.float32), np.empty(len(left), np.int32)
    for i in range(len(left)):
        a, b = left[i], right[i]
        points_a, points_b = (
            decode(data, offsets[a], offsets[a + 1]),
            decode(data, offsets[b], offsets[b + 1]),
        )
        hashes_a, hashes_b = shingle_hashes(points_a, size), shingle_hashes(points_b, size)
        mask = _mask(len(hashes_a) + len(hashes_b))
        _mark(hashes_a, LEFT, keys, marks, stamps, i + 1, mask)
        _mark(hashes_b, RIGHT, keys, marks, stamps, i + 1, mask)
        alone_a, run_a = _alone(hashes_a, keys, marks, mask, len(points_a), size)
        alone_b, run_b = _alone(hashes_b, keys, marks, mask, len(points_b), size)
        share_a, share_b = alone_a / max(len(points_a), 1), alone_b / max(len(points_b), 1)
        share[i], run[i] = min(share_a, share_b), run_a if share_a <= share_b else run_b
    return share, run


@register_jitable
def _table(data, offsets, left, right):
    """An empty hash table large enough for the shingles of any of the pairs: keys, marks,
    and the pair of each entry."""
    most = 0
    for i in range(len(left)):
        count = 0
        for row in (left[i], right[i]):
            for byte in data[offsets[row] : offsets[row + 1]]:
                count += byte & 0xC0 != 0x80  # the first byte of a character
        most = max(most, count)
    places = _mask(most) + 1
    return np.empty(places, np.uint64), np.empty(places, np.uint8), np.zeros(places, np.int32)


@register_jitable
def _mask(count):
    """Index mask 2**n - 1 of a table that this many shingles fill by at most two thirds."""
    places = 2
    while 2 * places < 3 * count:
        places *= 2
    return places - 1


@register_jitable
def _mark(hashes, side, keys, marks, stamps, stamp, mask):
    """Inserts the shingles of one side. Returns how many are new, and how many the other side has too."""
    new = both = 0
    for h in hashes:
        place = np.int64(h & np.uint64(mask))
        while stamps[place] == stamp and keys[place] != h:
            place = (place + 1) & mask
        if stamps[place] != stamp:
            stamps[place], keys[place], marks[place] = stamp, h, side
            new += 1
        elif not marks[place] & side:
            marks[place] |= side
            both += 1
    return new, both


@register_jitable
def _alone(hashes, keys, marks, mask, count, size):
    """For a text of `count` code points: how many no shared shingle covers, and the longest such run."""
    alone = run = covered = 0
    for i in range(len(hashes)):
        place = np.int64(hashes[i] & np.uint64(mask))
        while keys[place] != hashes[i]:
            place = (place + 1) & mask
        if marks[place] == LEFT | RIGHT:
            alone += max(i - covered, 0)
            run = max(run, i - covered)
            covered = min(i + size, count)
    return alone + count - covered, max(run, count - covered)
