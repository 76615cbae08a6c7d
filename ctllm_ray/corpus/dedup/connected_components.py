"""Connected components of near duplicates whose pairs do not fit one process: rounds of stars, as phases.

`edges` scatters the pairs, `large-00`, `small-00`, `large-01` ... are the rounds of text/dedup/components.py,
each a shuffle by file, and `groups` brings the pairs of a component into one partition. Each of these has as
many units as it takes for a unit to hold `local_pairs` pairs; only a component that is itself larger makes
one larger. A round that leaves every unit's pairs as they were is the last: a unit's counts carry a digest of
what it wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import verify_pairs
from ctllm_ray.corpus.dedup.verify_pairs import PAIRS
from ctllm_ray.corpus.engine import splits
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tables import read_partition, write_partitions
from ctllm_ray.text.dedup.components import Edges, components, downward, large_star, mirror_edges, small_star
from ctllm_ray.text.dedup.minhash import POLYNOMIAL

EDGES, GROUPS = "edges", "groups"  # phases, and kinds of files
LARGE, SMALL = "large", "small"  # halves of a round
ROUNDS = 64  # more than any corpus needs: about log2 of the longest chain
SCHEMA = pa.schema([("first", pa.int64()), ("second", pa.int64())])


@dataclass(frozen=True)
class PairPhase(Phase):
    """The common part of the phases in this file: the number of partitions of pairs."""

    UNIT: ClassVar[str] = "pairs"

    local_pairs: int

    def parts(self, recipe: Recipe) -> int:
        """The number of partitions of `local_pairs` pairs of duplicates."""
        return math.ceil(self.read_manifest(recipe, PAIRS).counts.get("copies", 0) / self.local_pairs)

    def edges(self, recipe: Recipe, phase: str, part: int) -> Edges:
        """One partition of the edges that an earlier phase wrote."""
        made, folder = self.read_manifest(recipe, phase), recipe.folder(f"{self.use}/{phase}")
        table = read_partition(folder, made.of_kind(EDGES), part, SCHEMA)
        return Edges(table["first"].to_numpy(), table["second"].to_numpy())

    def pairs(self, recipe: Recipe, phase: str, kind: str, part: int) -> pa.Table:
        """One partition of the pairs that an earlier phase wrote."""
        made, folder = self.read_manifest(recipe, phase), recipe.folder(f"{self.use}/{phase}")
        return read_partition(folder, made.of_kind(kind), part, verify_pairs.SCHEMA)

    def write_scattered(
        self, folder: str, kind: str, index: int, table: pa.Table, by: np.ndarray, parts: int
    ) -> Shard:
        """Writes a table whose rows are partitioned by the numbers `by`."""
        places = partition_of(by, parts)
        order = np.argsort(places, kind="stable")
        stops = np.searchsorted(places[order], np.arange(parts), side="right").tolist()
        return write_partitions(
            folder, f"{kind}/{index:05d}.arrow", table.take(pa.array(order)).combine_chunks(), stops
        )


def partition_of(numbers: np.ndarray, parts: int) -> np.ndarray:
    """int64: the partition of each number, unordered."""
    mixed = numbers.astype(np.uint64) * np.uint64(POLYNOMIAL) >> np.uint64(32)
    return (mixed * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class ScatterPairs(PairPhase):
    """Writes the pairs as edges in both directions, and with their similarity by the better document."""

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each file of pairs."""
        folder = recipe.folder(f"{self.use}/{PAIRS}")
        made = self.read_manifest(recipe, PAIRS).of_kind(PAIRS)
        return [splits.of_shard(index, self.name, folder, shard) for index, shard in enumerate(made)]

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a file of pairs and partitions it both ways."""
        shard = self.read_manifest(recipe, PAIRS).of_kind(PAIRS)[split.index]
        pairs = read_partition(recipe.folder(f"{self.use}/{PAIRS}"), [shard], 0, verify_pairs.SCHEMA)
        parts = self.parts(recipe)
        both = mirror_edges(Edges(pairs["left"].to_numpy(), pairs["right"].to_numpy()))
        edges = self.write_scattered(
            folder, EDGES, split.index, pa.table([*both], schema=SCHEMA), both.first, parts
        )
        by_left = self.write_scattered(folder, PAIRS, split.index, pairs, pairs["left"].to_numpy(), parts)
        return SplitWork({"in": pairs.num_rows, "kept": pairs.num_rows}, 0, [edges, by_left])


@dataclass(frozen=True)
class StarRound(PairPhase):
    """Half of a round: a large star or a small star."""

    UNIT: ClassVar[str] = "edges"

    previous: str  # the phase whose edges it reads

    @property
    def large(self) -> bool:
        """True for the first half of a round."""
        return f"/{LARGE}-" in self.name

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernel."""
        small_star(downward(large_star(mirror_edges(Edges(np.array([1]), np.array([2]))))))

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each partition of the edges."""
        return self.list_parts(recipe, self.previous, EDGES, self.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a partition of edges; writes the star's result in the form that the
        other half of a round reads."""
        edges = self.edges(recipe, self.previous, split.index)
        starred = large_star(edges) if self.large else small_star(edges)
        out = downward(starred) if self.large else mirror_edges(starred)
        shard = self.write_scattered(
            folder, EDGES, split.index, pa.table([*out], schema=SCHEMA), out.first, self.parts(recipe)
        )
        digest = xxhash.xxh3_64_intdigest(np.concatenate(starred).tobytes(), split.index)
        return SplitWork({"in": len(edges.first), "kept": len(edges.first), "digest": digest}, 0, [shard])

    def is_stable(self, recipe: Recipe) -> bool:
        """True if this is the second half of a round that changed no edge."""
        kind, number = self.name.rpartition("/")[2].split("-")
        if kind == LARGE or number == "00":
            return False
        before = self.read_manifest(recipe, f"{kind}-{int(number) - 1:02d}")
        return before.counts["digest"] == self.read_manifest(recipe, f"{kind}-{number}").counts["digest"]


def rounds(use: str, local_pairs: int) -> list[StarRound]:
    """The halves of all possible rounds, in order."""
    names = [f"{half}-{number:02d}" for number in range(ROUNDS) for half in (LARGE, SMALL)]
    return [StarRound(f"{use}/{name}", local_pairs, before) for before, name in pairwise([EDGES, *names])]


@dataclass(frozen=True)
class GroupPairs(PairPhase):
    """Brings the pairs of one component into one partition."""

    def stars(self, recipe: Recipe) -> str:
        """The phase that wrote (member, root), in both directions."""
        settled = next(star for star in rounds(self.use, self.local_pairs) if star.is_stable(recipe))
        return settled.name.rpartition("/")[2]

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each partition of the pairs."""
        return self.list_parts(recipe, EDGES, PAIRS, self.parts(recipe))

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads the pairs of some documents and their roots; writes the pairs by root."""
        pairs = self.pairs(recipe, EDGES, PAIRS, split.index)
        result = components(*self.edges(recipe, self.stars(recipe), split.index))
        roots = result.roots[np.searchsorted(result.members, pairs["left"].to_numpy())]
        shard = self.write_scattered(folder, GROUPS, split.index, pairs, roots, self.parts(recipe))
        return SplitWork({"in": pairs.num_rows, "kept": pairs.num_rows}, 0, [shard])
