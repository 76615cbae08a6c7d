"""How alike two documents that met are: by their signatures, or exactly, by their folded texts.

`agreement` of signatures estimates the Jaccard similarity for a few nanoseconds a pair; it is off by up to 0.044 (one
standard deviation, 128 permutations). `jaccard` is exact and sorts the shingles of each document once.

Neither can tell a copy with a tenth of its characters changed (Jaccard 0.45 of 5-character shingles) from a page that
shares a template and half of its text with another (0.5 too). `own` can: it asks what a document says that the other
does not. A copy, a part, a page with other header and footer has next to nothing of its own, and that in stretches
of a few characters; pages of one template have their own matter, both of them, in one piece. The measure is taken of
the document of the two that has less of its own: the one that may go, since nothing is lost with it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.codepoints import buffers, decode
from ctllm_ray.text.compiled import compiled
from ctllm_ray.text.minhash import shingle_hashes


def agreement(signatures: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32[pairs]: the share of equal places of two signatures, the estimate of the Jaccard similarity."""
    found: np.ndarray = _agreement(signatures, left, right)
    return found


def jaccard(texts: pa.Array, left: np.ndarray, right: np.ndarray, *, shingle_chars: int) -> np.ndarray:
    """float32[pairs]: the Jaccard similarity of the sets of shingles of folded texts; 0 where both have none."""
    found: np.ndarray = _jaccard(*buffers(texts), left, right, shingle_chars)
    return found


class Own(NamedTuple):
    """Of the document of each pair with less of its own: the share (float32) and the longest stretch (code points)."""

    share: np.ndarray
    run: np.ndarray


def own(texts: pa.Array, left: np.ndarray, right: np.ndarray, *, shingle_chars: int) -> Own:
    """What folded texts say alone: code points that are in no shingle which the other text has too."""
    return Own(*_own(*buffers(texts), left, right, shingle_chars))


class Verdicts(NamedTuple):
    """For each pair the Jaccard similarity (float32), and whether one of the two may go (bool)."""

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
) -> Verdicts:
    """Folded texts are duplicates from `sure_jaccard` on, and from `min_jaccard` where one has nothing of its own."""
    similarity = jaccard(texts, left, right, shingle_chars=shingle_chars)
    duplicates = similarity >= sure_jaccard
    unsure = np.flatnonzero((similarity >= min_jaccard) & ~duplicates)
    share, run = own(texts, left[unsure], right[unsure], shingle_chars=own_shingle_chars)
    duplicates[unsure] = (share <= max_own_share) & (run <= max_own_run)
    return Verdicts(similarity, duplicates)


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
    rows = len(offsets) - 1
    needed = np.zeros(rows, np.bool_)
    for i in range(len(left)):
        needed[left[i]] = needed[right[i]] = True
    starts = np.zeros(rows + 1, np.int64)
    hashes = np.empty(offsets[-1] - offsets[0], np.uint64)  # a shingle starts at a byte at least
    for row in range(rows):
        starts[row + 1] = starts[row]
        if needed[row]:
            found = np.unique(shingle_hashes(decode(data, offsets[row], offsets[row + 1]), size))
            starts[row + 1] += len(found)
            hashes[starts[row] : starts[row + 1]] = found
    out = np.zeros(len(left), np.float32)
    for i in range(len(left)):
        a, a_end, b, b_end = starts[left[i]], starts[left[i] + 1], starts[right[i]], starts[right[i] + 1]
        either, both = a_end - a + b_end - b, 0
        while a < a_end and b < b_end:
            x, y = hashes[a], hashes[b]
            both += x == y
            a += x <= y
            b += y <= x
        out[i] = both / max(either - both, 1)
    return out


@compiled
def _own(data, offsets, left, right, size):
    share, run = np.empty(len(left), np.float32), np.empty(len(left), np.int32)
    for i in range(len(left)):
        a, b = left[i], right[i]
        points_a, points_b = decode(data, offsets[a], offsets[a + 1]), decode(data, offsets[b], offsets[b + 1])
        hashes_a, hashes_b = shingle_hashes(points_a, size), shingle_hashes(points_b, size)
        alone_a, run_a = _alone(hashes_a, np.sort(hashes_b), len(points_a), size)
        alone_b, run_b = _alone(hashes_b, np.sort(hashes_a), len(points_b), size)
        share_a, share_b = alone_a / max(len(points_a), 1), alone_b / max(len(points_b), 1)
        share[i], run[i] = min(share_a, share_b), run_a if share_a <= share_b else run_b
    return share, run


@register_jitable
def _alone(hashes, others, count, size):
    """Of a text of `count` code points: how many no shared shingle covers, and the longest stretch of them."""
    alone = run = covered = 0
    for i in range(len(hashes)):
        place = np.searchsorted(others, hashes[i])
        if place < len(others) and others[place] == hashes[i]:
            alone += max(i - covered, 0)
            run = max(run, i - covered)
            covered = min(i + size, count)
    return alone + count - covered, max(run, count - covered)
