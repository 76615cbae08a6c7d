"""The methods that `dedup_accuracy.py` compares: from texts to the pairs that are near-duplicates, in memory.

Ours calls the kernels that the pass `near` calls, in the same order; the others are as published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.text.dedup.bands import Pairs, band_keys, distinct, find_candidates, select_most_similar
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.minhash import signatures
from ctllm_ray.text.dedup.signs import fold_with_signs
from ctllm_ray.text.dedup.text_similarity import agreement, verdicts

Find = Callable[[pa.Array], Pairs]


@dataclass(frozen=True)
class Near:
    """The bounds of one method; those that are not asked of a method hold for every pair."""

    folds: bool = True
    shingle_chars: int = 5
    bands: int = 32
    rows: int = 4
    reach: int = 8
    min_chars: int = 60
    min_agreement: float = 0.35
    min_jaccard: float = 0.5
    sure_jaccard: float = 0.8  # from here on nothing else is asked
    own_shingle_chars: int = 3
    max_own_share: float = 0.08
    max_own_run: int = 6
    slips_jaccard: float = 0.35
    max_edit_share: float = 0.12
    max_edit_run: int = 4
    same_meaning: Mapping[str, float] | None = field(
        default_factory=lambda: {"short_chars": 180, "max_changed_share": 0.03}
    )

    def __call__(self, texts: pa.Array) -> Pairs:
        """The pairs of documents that are near-duplicates of each other."""
        signed = fold_with_signs(texts) if self.same_meaning else fold(texts) if self.folds else texts
        texts = fold(texts) if self.folds else texts
        long = np.flatnonzero(pc.utf8_length(texts).to_numpy() >= self.min_chars)
        values = signatures(texts.take(pa.array(long)), shingle_chars=self.shingle_chars).values
        keys = band_keys(values, bands=self.bands, rows=self.rows)
        met = distinct(
            [find_candidates(np.ascontiguousarray(keys[:, i]), reach=self.reach) for i in range(self.bands)]
        )
        met = met.take(np.lexsort((met.left, met.right)))
        alike = agreement(values, *met)
        met, alike = met.take(alike >= self.min_agreement), alike[alike >= self.min_agreement]
        if self.min_jaccard == 0:
            return Pairs(long[met.left], long[met.right])
        met = met.take(select_most_similar(met, alike, met.left, reach=self.reach))
        met = Pairs(long[met.left], long[met.right])
        return met.take(self._duplicates(signed, *met))

    def are_copies(self, texts: pa.Array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """bool[pairs]: which of any pairs of documents are near-duplicates."""
        numbers, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        compared = texts.take(pa.array(numbers))
        folded = fold(compared)
        signed = fold_with_signs(compared) if self.same_meaning else folded
        left, right = places[: len(left)], places[len(left) :]
        values = signatures(folded, shingle_chars=self.shingle_chars).values
        return (agreement(values, left, right) >= self.min_agreement) & self._duplicates(signed, left, right)

    def _duplicates(self, texts: pa.Array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return verdicts(
            texts, left, right, **{name: getattr(self, name) for name in VERDICT_BOUNDS}
        ).duplicates


VERDICT_BOUNDS = (
    "shingle_chars",
    "sure_jaccard",
    "min_jaccard",
    "own_shingle_chars",
    "max_own_share",
    "max_own_run",
    "slips_jaccard",
    "max_edit_share",
    "max_edit_run",
    "same_meaning",
)
ZH_WEB = Near()
JACCARD_ONLY = replace(
    ZH_WEB, same_meaning=None, sure_jaccard=ZH_WEB.min_jaccard, slips_jaccard=ZH_WEB.min_jaccard
)
MAP_CC = Near(
    False, 13, 9, 13, 10**9, 13, 0, 0, same_meaning=None
)  # CT-LLM: raw 13-grams, whoever shares a band


def published(texts: pa.Array) -> Pairs:
    """datasketch as its documentation has it: SHA-1, `MinHashLSH(threshold=0.5)`, on 5-grams of the raw
    characters."""
    from datasketch import MinHash, MinHashLSH

    index, left, right = MinHashLSH(threshold=0.5, num_perm=128), [], []
    for row, text in enumerate(texts.to_pylist()):
        sketch = MinHash(num_perm=128)
        if shingles := {text[i : i + 5].encode() for i in range(len(text) - 4)}:
            sketch.update_batch(list(shingles))
            found = index.query(sketch)
            left += found
            right += [row] * len(found)
            index.insert(row, sketch)
    return Pairs(np.array(left, np.int64), np.array(right, np.int64))


METHODS: dict[str, Find] = {
    "ours (zh_web)": ZH_WEB,
    "ours, Jaccard only": JACCARD_ONLY,
    "CT-LLM's 13-grams, 9 x 13": MAP_CC,
    "datasketch LSH 0.5": published,
}


def best_first(find: Find, texts: pa.Array, ranks: np.ndarray) -> Pairs:
    """The pairs that a method finds when it reads the texts in the order of survivors, as the near pass
    does."""
    order = np.argsort(ranks)
    left, right = find(texts.take(pa.array(order)))
    return Pairs(order[left], order[right])
