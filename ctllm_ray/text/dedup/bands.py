"""LSH bands of MinHash signatures: computes band keys, and the candidate pairs of documents that share a key.

A band is `rows` neighbouring positions of a signature, hashed to 64 bits together with its number. Two
documents of Jaccard similarity s share at least one of `bands` keys with probability
1 - (1 - s**rows)**bands (`compute_share_probability`). A chance collision of two bands only costs one more
comparison: every pair is verified (`text_similarity.py`).

A document is compared with the first `reach` earlier documents that share a key. Comparing with all of them
would be quadratic in the copies of a template. Comparing with the first one only would miss documents that
are similar only to the second. Documents should be in the order of survivors (`survivors.py`): a page is
dropped only in favour of one that it was compared with. The rule looks at earlier documents only, so later
additions never change existing pairs. A new snapshot against a stored index gives the pairs that one run over
everything would give.

In a large cluster (one template, one page under a thousand addresses), `reach` documents per band remain, and
different ones in each band. `select_most_similar` keeps the most similar and the best of them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctllm_ray.text.dedup.minhash import finish64
from ctllm_ray.text.kernels.compiled import compiled
from ctllm_ray.text.kernels.runs import places_in


class Pairs(NamedTuple):
    """`left` and `right` (int64): rows, or numbers of documents, the one that goes first on the left."""

    left: np.ndarray
    right: np.ndarray

    def take(self, which: np.ndarray) -> Pairs:
        """Selects pairs by a mask or by positions."""
        return Pairs(self.left[which], self.right[which])


def compute_share_probability(similarity: float, *, bands: int, rows: int) -> float:
    """The probability that two documents of this Jaccard similarity share at least one band."""
    return float(1 - (1 - similarity**rows) ** bands)


def band_keys(signatures: np.ndarray, *, bands: int, rows: int) -> np.ndarray:
    """Band keys, uint64[documents, bands], of signatures uint32[documents, permutations]. Leave
    out rows without shingles."""
    if bands * rows > signatures.shape[1]:
        raise ValueError(
            f"{bands} bands of {rows} rows need {bands * rows} permutations; the signatures "
            f"have {signatures.shape[1]}"
        )
    keys: np.ndarray = _keys(signatures, bands, rows)
    return keys


def find_candidates(keys: np.ndarray, *, reach: int) -> Pairs:
    """Candidate pairs of one band (uint64[n]): each document with the first `reach`
    earlier ones that share its key."""
    order = np.argsort(keys, kind="stable")
    return Pairs(*_find_candidates(keys[order], order, reach))


def select_most_similar(pairs: Pairs, alike: np.ndarray, ranks: np.ndarray, *, reach: int) -> np.ndarray:
    """bool[pairs]: of each document on the right the `reach` pairs that are most alike, and the `reach` best.

    Pairs are sorted by their right; `alike` is float32[pairs],
    `ranks` those of the documents on the left (int64).
    """
    most_alike, best = _places(pairs.right, -alike, ranks), _places(pairs.right, ranks)
    kept: np.ndarray = (most_alike < reach) | (best < reach)
    return kept


def _places(groups: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """int64: the rank of each row within its group by the values, smallest
    first; later columns break ties."""
    result = np.empty(len(groups), np.int64)
    result[np.lexsort((*reversed(values), groups))] = places_in(groups)
    return result


def distinct(pairs: list[Pairs]) -> Pairs:
    """The pairs of several bands, without duplicates, sorted."""
    both = np.unique(np.concatenate([np.stack(p, axis=1) for p in pairs]), axis=0)
    return Pairs(both[:, 0], both[:, 1])


@compiled
def _keys(signatures, bands, rows):
    keys = np.empty((len(signatures), bands), np.uint64)
    for i in range(len(signatures)):
        for band in range(bands):
            key = finish64(np.uint64(band + 1))
            for k in range(band * rows, (band + 1) * rows):
                key = finish64(key ^ np.uint64(signatures[i, k]))
            keys[i, band] = key
    return keys


@compiled
def _find_candidates(keys, order, reach):
    """Pairs of rows that are neighbours with equal keys; `order` ascends within each key."""
    total = start = 0
    for i in range(len(keys)):
        if keys[i] != keys[start]:
            start = i
        total += min(i - start, reach)
    left, right = np.empty(total, np.int64), np.empty(total, np.int64)
    n = start = 0
    for i in range(len(keys)):
        if keys[i] != keys[start]:
            start = i
        for j in range(start, start + min(i - start, reach)):
            left[n], right[n] = order[j], order[i]
            n += 1
    return left, right
