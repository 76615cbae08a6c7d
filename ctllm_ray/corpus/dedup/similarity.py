"""Compares candidate pairs: by their signatures and, if the recipe says so, by their texts.

Signatures and folded texts are read out of the mapped files of the keys phase, for as many pairs at a time as
fit `TEXT_BYTES`. The bounds and what they cost and catch: text/dedup/text_similarity.py and
docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ctllm_ray.base.recipe_training import Share
from ctllm_ray.corpus.dedup.signatures import signatures_of
from ctllm_ray.shards.tables import RowFile
from ctllm_ray.text.dedup.bands import Pairs
from ctllm_ray.text.dedup.text_similarity import PairVerdicts, agreement, jaccard, verdicts

PAIRS = 200_000  # compared at once by signatures: at most 2 x 512 bytes each
TEXT_BYTES = 16 << 20  # of texts compared at once; hashes of their shingles take eight times as much


class SameMeaning(BaseModel):
    """How much pages may differ in what carries meaning (text/dedup/meaning.py), whatever their similarity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_chars: Annotated[int, Field(ge=0)]  # in so long a page one changed number is enough to stay
    max_changed_share: Share  # of a longer page's characters may be changed numbers


class Verify(BaseModel):
    """Thresholds for comparing texts. Jaccard similarities use the shingles of the signatures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_jaccard: Share
    sure_jaccard: Annotated[float, Field(ge=0)]  # from this value on, no other condition applies
    own_shingle_chars: Annotated[int, Field(gt=0)]
    max_own_share: Share  # share of a document's characters that no shingle of the other one covers
    max_own_run: Annotated[int, Field(ge=0)]  # longest run of such characters
    slips_jaccard: Share
    max_edit_share: Share  # edits, as a share of the longer document's characters
    max_edit_run: Annotated[int, Field(ge=0)]  # longest run of edited characters
    #: Left out where it is not set: passes begun before it existed go on.
    same_meaning: Annotated[SameMeaning | None, Field(exclude_if=lambda value: value is None)] = None


@dataclass(frozen=True)
class SimilarityTest:
    """The conditions for duplicates. Without `verify`, signatures decide alone."""

    shingle_chars: int
    min_agreement: float
    verify: Verify | None

    @property
    def bound(self) -> float:
        """The smallest similarity at which a document may be dropped."""
        return min(self.verify.min_jaccard, self.verify.slips_jaccard) if self.verify else self.min_agreement

    def agreement(self, texts: RowFile, pairs: Pairs) -> np.ndarray:
        """float32: the share of equal positions in the signatures of pairs."""
        results = [_agreement(texts, part) for part in _slices(pairs, range(PAIRS, len(pairs.left), PAIRS))]
        return np.concatenate([np.empty(0, np.float32), *results])

    def verdicts(self, texts: RowFile, pairs: Pairs, agreement: np.ndarray) -> PairVerdicts:
        """The similarity of pairs whose signatures agree, and whether they are duplicates."""
        if not self.verify:
            return PairVerdicts(agreement, np.ones(len(agreement), bool))
        bounds = self.verify.model_dump() | {"shingle_chars": self.shingle_chars}
        results = [PairVerdicts(np.empty(0, np.float32), np.empty(0, bool))]
        for part in _slices(pairs, _text_stops(texts, pairs)):
            numbers, left, right = _local(part)
            results.append(
                verdicts(texts.take(numbers, ["text"])["text"].combine_chunks(), left, right, **bounds)
            )
        return PairVerdicts(*map(np.concatenate, zip(*results, strict=True)))

    def are_copies(self, texts: RowFile, pairs: Pairs) -> np.ndarray:
        """bool: which pairs are duplicates."""
        agreement = self.agreement(texts, pairs)
        enough = agreement >= self.min_agreement
        enough[enough] = self.verdicts(texts, pairs.take(enough), agreement[enough]).duplicates
        return enough

    def similarity(self, texts: RowFile, pairs: Pairs) -> np.ndarray:
        """The similarity of documents (float32): by texts if texts are compared, else by signatures."""
        if not self.verify:
            return self.agreement(texts, pairs)
        results = [np.empty(0, np.float32)]
        for part in _slices(pairs, _text_stops(texts, pairs)):
            numbers, left, right = _local(part)
            folded = texts.take(numbers, ["text"])["text"].combine_chunks()
            results.append(jaccard(folded, left, right, shingle_chars=self.shingle_chars))
        return np.concatenate(results)


def _agreement(texts: RowFile, pairs: Pairs) -> np.ndarray:
    numbers, left, right = _local(pairs)
    return agreement(signatures_of(texts, numbers), left, right)


def _local(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The documents of pairs (numbers, ascending), and the pairs as positions among them."""
    numbers, places = np.unique(np.concatenate(pairs), return_inverse=True)
    return numbers, places[: len(pairs.left)], places[len(pairs.left) :]


def _slices(pairs: Pairs, stops: range | np.ndarray) -> Iterator[Pairs]:
    """The pairs cut at these positions; nothing if there are none."""
    if len(pairs.left):
        cut = zip(*(np.split(side, list(stops)) for side in pairs), strict=True)
        yield from (Pairs(left, right) for left, right in cut)


def _text_stops(texts: RowFile, pairs: Pairs) -> np.ndarray:
    """Where to cut pairs so that the texts of each part take little more than `TEXT_BYTES`."""
    if not len(pairs.left):
        return np.empty(0, np.int64)
    numbers, left, right = _local(pairs)
    sizes = texts.take(numbers, ["text_bytes"])["text_bytes"].to_numpy().astype(np.int64)
    part = np.cumsum(sizes[left] + sizes[right]) // TEXT_BYTES
    return np.flatnonzero(part[1:] != part[:-1]) + 1
