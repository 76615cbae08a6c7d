"""Near duplicates, phase 3: compares the candidate pairs
and keeps the duplicates. A unit is a range of documents.

A pair comes from as many bands as it shares; here each is compared once. Distinct pairs are gathered file by
file, so that memory is that of the distinct ones of `partition_rows / bands` documents, with at most `reach`
a key. Signatures are compared of all of them; texts, which cost a hundred times as much, of the few that
`bands.select_most_similar` leaves of a crowd.

A removed, already indexed document is never chosen as survivor. But documents similar to it may be dropped
for its survivor. To connect the two, the pair of both, a *link*, is written too; it is the only kind of pair
with two indexed documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import candidate_pairs, ranking
from ctllm_ray.corpus.dedup.candidate_pairs import (
    BANDS,
    CANDIDATES,
    Distinct,
    pack_pairs,
    ranges,
    unpack_pairs,
)
from ctllm_ray.corpus.dedup.signatures import SignaturePhase
from ctllm_ray.corpus.dedup.similarity import SimilarityTest
from ctllm_ray.corpus.dedup.snapshot_index import CorpusIndex
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.tables import RowFile, read_partition, write_partitions
from ctllm_ray.text.dedup.bands import Pairs, select_most_similar

PAIRS = "pairs"  # the phase, and the kind of its files
SCHEMA = pa.schema([("left", pa.int64()), ("right", pa.int64()), ("similarity", pa.float32())])


@dataclass(frozen=True)
class VerifyPairs(Phase):
    """Writes the pairs of duplicates, with their similarity."""

    UNIT: ClassVar[str] = "pairs"

    signatures: SignaturePhase
    similarity: SimilarityTest
    reach: int
    limits: bool  # in large clusters, compare only a few texts

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each range of documents."""
        return self.list_parts(recipe, BANDS, CANDIDATES, self.signatures.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads the pairs of a range; writes the duplicates."""
        index = self.signatures.index(recipe)
        met = self._read_pairs(recipe, index, split.index)
        with index.rows() as rows, index.texts() as texts:
            agreement = self.similarity.agreement(texts, met)
            agrees = agreement >= self.similarity.min_agreement
            agreeing, agreement = met.take(agrees), agreement[agrees]
            chosen = self._select_for_text(index, rows, agreeing, agreement)
            compared = agreeing.take(chosen)
            verdicts = self.similarity.verdicts(texts, compared, agreement[chosen])
        copies, links = _split_indexed(
            index, compared.take(verdicts.duplicates), verdicts.similarity[verdicts.duplicates]
        )
        table = pa.concat_tables([copies, links]).combine_chunks()
        shard = write_partitions(folder, f"{PAIRS}/{split.index:05d}.arrow", table, [table.num_rows])
        counts = {"in": len(met.left), "agreeing": len(agreeing.left), "compared": len(compared.left)}
        return SplitWork(counts | {"copies": copies.num_rows, "kept": counts["in"]}, 0, [shard])

    def _select_for_text(
        self, index: CorpusIndex, rows: RowFile, pairs: Pairs, agreement: np.ndarray
    ) -> np.ndarray:
        """bool: pairs whose texts are compared. All pairs, if signatures decide or chains are needed."""
        if not (self.similarity.verify and self.limits):
            return np.ones(len(pairs.left), bool)
        left, places = np.unique(pairs.left, return_inverse=True)
        ranks = ranking.ranks(rows, left, self.signatures.prefer, index.snapshot(left))
        return select_most_similar(pairs, agreement, ranks[places], reach=self.reach)

    def _read_pairs(self, recipe: Recipe, index: CorpusIndex, part: int) -> Pairs:
        """The pairs of a range of documents, each once, sorted by the worse document."""
        base = int(ranges(index, self.signatures.parts(recipe))[part])
        folder, shards = (
            recipe.folder(f"{self.use}/{BANDS}"),
            self.read_manifest(recipe, BANDS).of_kind(CANDIDATES),
        )
        distinct = Distinct()
        for shard in shards:
            table = read_partition(folder, [shard], part, candidate_pairs.SCHEMA)
            distinct.add(
                pack_pairs(Pairs(table["left"].to_numpy(), table["right"].to_numpy()), base, index.total)
            )
        return unpack_pairs(distinct.codes(), base, index.total)


def _split_indexed(index: CorpusIndex, pairs: Pairs, similarity: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """The pairs of duplicates, except those with a dropped document whose
    survivor is in no index; and links."""
    left, places = np.unique(pairs.left, return_inverse=True)
    stays = index.stays(left)
    known = stays[places] >= 0
    lost = (stays >= 0) & (stays != left)
    none = np.full(lost.sum(), np.nan, np.float32)
    copies = [pairs.left[known], pairs.right[known], similarity[known]]
    return pa.table(copies, schema=SCHEMA), pa.table([stays[lost], left[lost], none], schema=SCHEMA)
