"""Near duplicates, last step before removal: chooses which documents survive.

One unit holds whole components: all pairs if they are few (`local_pairs`), else a partition of groups.
`neighbours` drops a document only for one that it is directly similar to; `components` keeps the best of each
component (text/dedup/survivors.py has both). The recorded similarity is always that of a document and its
survivor. If a chain connected them without a comparison, they are compared now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import decisions, ranking
from ctllm_ray.corpus.dedup.connected_components import GROUPS, PairPhase
from ctllm_ray.corpus.dedup.decisions import Decisions
from ctllm_ray.corpus.dedup.signatures import SignaturePhase
from ctllm_ray.corpus.dedup.similarity import SimilarityTest
from ctllm_ray.corpus.dedup.verify_pairs import PAIRS
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.tables import RowFile
from ctllm_ray.text.dedup import survivors
from ctllm_ray.text.dedup.bands import Pairs
from ctllm_ray.text.dedup.components import components

Survivors = Literal["neighbours", "components"]


@dataclass(frozen=True)
class SelectSurvivors(PairPhase):
    """Chooses the survivor of every document that is in a pair."""

    signatures: SignaturePhase
    similarity: SimilarityTest
    survivors: Survivors

    def source(self, recipe: Recipe) -> str:
        """The phase that it reads."""
        return GROUPS if self.parts(recipe) > 1 else PAIRS

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernels."""
        survivors.of_neighbours(np.array([0]), np.array([1]), np.arange(2), np.equal)
        components(np.array([0]), np.array([1]))

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for all pairs, or one per partition of groups; none if there are no duplicates."""
        source = self.source(recipe)
        return self.list_parts(recipe, source, source, self.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads the pairs of whole components; writes the decisions about their documents."""
        source = self.source(recipe)
        table, index = self.pairs(recipe, source, source, split.index), self.signatures.index(recipe)
        numbers, places = np.unique(
            np.concatenate([table["left"].to_numpy(), table["right"].to_numpy()]), return_inverse=True
        )
        left, right = places[: table.num_rows], places[table.num_rows :]
        with index.rows() as rows, index.texts() as texts:
            ranks = ranking.ranks(rows, numbers, self.signatures.prefer, index.snapshot(numbers))
            stays = self._stays(texts, numbers, left, right, ranks, index.settled)
            alike = _look_up_similarity(left, right, table["similarity"].to_numpy(), stays)
            unknown = np.flatnonzero(
                np.isnan(alike) & (stays != np.arange(len(stays))) & (numbers >= index.settled)
            )
            alike[unknown] = self.similarity.similarity(
                texts, Pairs(numbers[stays[unknown]], numbers[unknown])
            )
            here = (numbers >= index.settled) | (stays == np.arange(len(stays)))
            decided = Decisions(numbers[here], numbers[stays[here]], alike[here])
            shard = decisions.write_decisions(
                folder, split.index, decided, index, rows, self.kept_shards(recipe)
            )
        return SplitWork(
            {"in": len(table), "kept": len(table), "clusters": len(np.unique(stays))}, 0, [shard]
        )

    def _stays(
        self,
        texts: RowFile,
        numbers: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        ranks: np.ndarray,
        settled: int,
    ) -> np.ndarray:
        """The survivor's position for each position."""
        if self.survivors == "components":
            labels = np.arange(len(ranks))
            result = components(left, right)
            labels[result.members] = result.roots
            return survivors.of_components(labels, ranks)
        known = np.where(numbers < settled, np.arange(len(numbers)), -1)
        links = numbers[right] < settled
        known[right[links]] = left[links]

        def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            return self.similarity.are_copies(texts, Pairs(numbers[one], numbers[other]))

        return survivors.of_neighbours(left, right, ranks, alike, known)


def _look_up_similarity(
    left: np.ndarray, right: np.ndarray, similarity: np.ndarray, stays: np.ndarray
) -> np.ndarray:
    """float32: the similarity of each position and its survivor; NaN if they are not a pair."""
    alike = np.full(len(stays), np.nan, np.float32)
    for one, other in ((left, right), (right, left)):
        is_pair = stays[one] == other
        alike[one[is_pair]] = similarity[is_pair]
    return alike
