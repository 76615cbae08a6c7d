"""The pass that keeps one of near duplicates: MinHash
bands find pairs, a comparison decides, an order chooses.

Five phases and the removal: keys of every document, documents that meet, pairs that are copies, which of
them stay. Where pairs are more than `local_pairs`, rounds of stars bring the pairs of a component
together first. What the kernels do and cost stands in text/: `minhash`, `bands`, `similarity`,
`survivors`; the phases are in corpus/dedup/. Losers are `near.duplicate`; the ledger holds their
similarity to the survivor that the label names.

The bounds of jobs/recipes/zh_web.yaml were chosen on labelled
pages (docs/calibration.md); those of map_cc.yaml are CT-LLM's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Share
from ctllm_ray.corpus.dedup.candidate_pairs import BANDS, CandidatePairs
from ctllm_ray.corpus.dedup.connected_components import EDGES, GROUPS, GroupPairs, ScatterPairs, rounds
from ctllm_ray.corpus.dedup.decision_rows import DECISIONS
from ctllm_ray.corpus.dedup.decisions import Removal
from ctllm_ray.corpus.dedup.select_survivors import SelectSurvivors, Survivors
from ctllm_ray.corpus.dedup.signatures import SignatureOptions, SignaturePhase
from ctllm_ray.corpus.dedup.similarity import SimilarityTest, Verify
from ctllm_ray.corpus.dedup.snapshot_index import KEYS
from ctllm_ray.corpus.dedup.verify_pairs import PAIRS, VerifyPairs
from ctllm_ray.corpus.engine.phase import Pass

FORMS = ("texts", "conversations", "pairs")
SCORES = ("near.similarity", "near.cluster_size")
LABELS = ("near.survivor",)

Count = Annotated[int, Field(gt=0)]


def near(
    *,
    of: Literal["raw", "folded"],
    shingle_chars: Count,
    bands: Count,
    rows: Count,
    min_chars: Count,
    reach: Count,
    min_agreement: Share,
    verify: Verify | None = None,
    survivors: Survivors,
    permutations: Count = 128,
    prefer: tuple[str, ...] = (),
    partition_rows: Count = 4_000_000,
    local_pairs: Count = 4_000_000,
    keep_index: bool = False,
    against: tuple[str, ...] = (),
) -> Pass:
    """Creates the pass. A worker holds some 60 bytes per key of `partition_rows`, and 300
    per pair of `local_pairs`.

    It also holds 210 bytes per document that shares a key with another, or 300 per
    key if all are one cluster.
    """
    verified = Verify.model_validate(verify) if verify else None
    options = SignatureOptions(of, shingle_chars, permutations, bands, rows, min_chars)
    with_signs = bool(verified and verified.same_meaning)
    if with_signs and of == "raw":
        remedy = "set of: folded, or remove `same_meaning`"
        raise RecipeError("same_meaning compares folded texts", where="passes.near.verify", remedy=remedy)
    signatures = SignaturePhase(
        f"near/{KEYS}",
        options,
        tuple(prefer),
        verified is not None,
        with_signs,
        partition_rows,
        tuple(against),
    )
    result = _Near(
        signatures, SimilarityTest(shingle_chars, min_agreement, verified), reach, survivors, local_pairs
    )
    result.lasting = (f"near/{KEYS}", f"near/{DECISIONS}") if keep_index else ()
    return result


class _Near(Pass):
    """The phases of the pass. The number of star rounds depends on the pairs."""

    def __init__(
        self,
        signatures: SignaturePhase,
        similarity: SimilarityTest,
        reach: int,
        survivors: Survivors,
        local: int,
    ) -> None:
        candidate_pairs = CandidatePairs(f"near/{BANDS}", signatures, reach)
        self._settling = bool(signatures.against) and survivors == "components"
        verify_pairs = VerifyPairs(
            f"near/{PAIRS}", signatures, similarity, reach, limits=survivors == "neighbours"
        )
        self._first = (signatures, candidate_pairs, verify_pairs)
        self._scatter, self._rounds = ScatterPairs(f"near/{EDGES}", local), rounds("near", local)
        self._groups = GroupPairs(f"near/{GROUPS}", local)
        select_survivors = SelectSurvivors(f"near/{DECISIONS}", local, signatures, similarity, survivors)
        self._last = (select_survivors, Removal("near", DECISIONS, similarity.bound))
        super().__init__(*self._first, self._scatter, *self._rounds, self._groups, *self._last)

    def check(self, recipe: Recipe) -> None:
        """Raises `RecipeError` for `survivors: components` with an older index: a new page
        may join two old components."""
        if self._settling:
            remedy = "set survivors: neighbours, or remove `against`"
            raise RecipeError(
                "survivors: components does not work with an index of earlier versions",
                where="passes.near.survivors",
                remedy=remedy,
            )
        super().check(recipe)

    def order(self, recipe: Recipe) -> Iterator[str]:
        """The phases; if pairs are many, with rounds of stars until one changes nothing."""
        yield from (phase.name for phase in self._first)
        if self._scatter.parts(recipe) > 1:
            yield self._scatter.name
            for star in self._rounds:
                yield star.name
                if star.is_stable(recipe):
                    break
            yield self._groups.name
        yield from (phase.name for phase in self._last)
