"""Gives the documents in row b of batch n, as a pure function of the recipe, DATA.json and (n, b).

Sample n x G + b of a run (G rows in a global batch) is a row of a group (train/data/sample_order.py), and the
row is found in the packed shards (train/data/row_index.py). No state but the number of the next batch: a run
resumes anywhere with any number of workers, and any batch can be looked at later.

Nothing is shuffled on disk: a row costs one walk through a permutation, a look-up, and the copy of its ids
out of the memory-mapped shard (benchmarks/loader.py has the figures).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

from ctllm_ray.base.errors import NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.resolve import nearest
from ctllm_ray.train import objective
from ctllm_ray.train.data.batch import Batch, blank
from ctllm_ray.train.data.corpora import Corpora
from ctllm_ray.train.data.data_log import Branch
from ctllm_ray.train.data.packed_shards import Control, Layout, PackedUnit, References, units
from ctllm_ray.train.data.prefetch import prefetch
from ctllm_ray.train.data.row_index import RowIndex, UnitCache
from ctllm_ray.train.data.sample_order import OrderStage, SampleOrder

AHEAD = 2  # batches that the background thread keeps ready


@dataclass(frozen=True)
class DocumentPiece:
    """A part of a document in a row: `count` targets from `ids[start]` on (start >= 1; its
    inputs begin one earlier)."""

    row: int  # of the global batch
    group: str
    shard: str
    doc_id: str
    start: int
    count: int


@dataclass(frozen=True)
class Account:
    """What a range of batches takes from one group."""

    rows: int
    targets: int
    padding: int
    epochs_begun: int  # at the end of the range, since the group's first row


class Batches:
    """The batches of a run. `control` and `references` (of a shard) are inputs of its
    objective besides the ids.

    Raises `RecipeError` if groups do not fit the mixture.
    """

    def __init__(
        self,
        recipe: Recipe,
        corpora: Corpora,
        control: Control | None = None,
        references: References | None = None,
    ) -> None:
        assert recipe.train is not None
        train = recipe.train
        seed = recipe.train_seed
        self.sequence_tokens = train.sequence_tokens
        self.sequences = train.batch_tokens // train.sequence_tokens  # rows of a global batch
        self.count = -(-train.tokens // train.batch_tokens)  # batches of the run
        # first batch of the run; a branch continues where it left another run
        self.first = corpora.branch.batch
        self._apart = train.document_attention
        self._pad = corpora.vocabulary.pad if corpora.vocabulary.pad >= 0 else corpora.vocabulary.eos
        per = objective.find_objective(train).per
        self._units = UnitCache(Layout(train.packing, train.sequence_tokens, seed, per, control, references))
        groups = {name for phase in train.mixture for name, share in phase.shares.items() if share > 0}
        self.unused = sorted(set(corpora.groups()) - groups)  # groups that no phase uses
        self._rows: dict[str, RowIndex] = {name: RowIndex() for name in sorted(groups)}
        stages = list(self._stages(corpora))
        self._order = SampleOrder(train, seed, stages, corpora.branch)
        self._order.check_epochs({name: rows.tokens for name, rows in self._rows.items()})

    def _stages(self, corpora: Corpora) -> Iterator[OrderStage]:
        """The rows of each group at each generation, which are added here."""
        for generation in corpora.generations:
            for name, rows in self._rows.items():
                joined = units(generation, name)
                rows.add(joined, self._units.counts(joined))
                if not len(rows) and generation is corpora.generations[-1]:
                    raise RecipeError(
                        f"the mixture uses group {name!r}, which has no documents", where="train.mixture",
                        remedy=nearest(name, corpora.groups()),
                    )  # fmt: skip
            yield OrderStage(
                generation.from_batch, {name: len(rows) for name, rows in self._rows.items() if len(rows)}
            )

    def share(self, rank: int, world: int) -> tuple[int, int]:
        """The rows [first, last) of a rank. Raises `RecipeError` if the workers do
        not divide the global batch."""
        if self.sequences % world:
            divisors = ", ".join(str(n) for n in range(1, self.sequences + 1) if self.sequences % n == 0)
            raise RecipeError(
                f"a global batch of {self.sequences} sequences cannot be divided among {world} workers",
                where="train.batch_tokens", remedy=f"use {divisors} workers, or another train.batch_tokens",
            )  # fmt: skip
        return rank * self.sequences // world, (rank + 1) * self.sequences // world

    def targets(self, number: int) -> int:
        """Trained labels in a whole global batch, from lengths alone."""
        return sum(
            self._rows[group].targets(rows) for group, _, rows in self._draw_rows(number, 0, self.sequences)
        )

    def divisor(self, number: int) -> int:
        """The divisor of the loss of a whole global batch: its targets, or its pairs. At least 1."""
        drawn = self._draw_rows(number, 0, self.sequences)
        return max(1, sum(self._rows[group].loss_divisor(rows) for group, _, rows in drawn))

    def batch(self, number: int, first: int, last: int) -> Batch:
        """Rows [first, last) of a global batch."""
        located = list(self._locate_rows(number, first, last))
        most = max((unit.references_of(row) for _, _, unit, row in located), default=0)
        batch = blank(last - first, self.sequence_tokens, self._pad, self._apart, most)
        for place, _, unit, row in located:
            unit.fill(row, self._apart, batch, place)
        return batch

    def pieces(self, number: int, first: int, last: int) -> list[DocumentPiece]:
        """The pieces of rows [first, last) of a global batch, row by row."""
        results = [
            DocumentPiece(first + place, group, *described)
            for place, group, unit, row in self._locate_rows(number, first, last)
            for described in unit.describe_row(row)
        ]
        return sorted(results, key=lambda piece: piece.row)

    def digest(self, number: int) -> str:
        """XXH3-128 over ids, labels and positions of a whole global batch, hexadecimal."""
        batch = self.batch(number, 0, self.sequences)
        digest = xxhash.xxh3_128()
        for array in (batch.input_ids, batch.labels, batch.positions):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def stream(
        self, numbers: Iterable[int], first: int, last: int, micro_sequences: int
    ) -> Generator[list[Batch], None, None]:
        """Rows [first, last) of these batches as micro-batches, prepared in a thread. Close it when done."""
        starts = range(first, last, micro_sequences)
        made = ([self.batch(n, at, min(at + micro_sequences, last)) for at in starts] for n in numbers)
        return prefetch(made, AHEAD)

    def account(self, first: int, last: int) -> dict[str, Account]:
        """What batches [first, last) take from each group. Parts of a run sum to the whole."""
        sums = {name: np.zeros(3, np.int64) for name in self._rows}
        for number in range(first, last):
            for name, _, rows in self._draw_rows(number, 0, self.sequences):
                sums[name] += (len(rows), self._rows[name].targets(rows), self._rows[name].count_filled(rows))
        begun = self._order.epochs_begun(last)
        return {
            name: Account(
                int(rows), int(targets), int(rows * self.sequence_tokens - filled), begun.get(name, 0)
            )
            for name, (rows, targets, filled) in sums.items()
        }

    def branch(self, batch: int, generations: int) -> Branch:
        """The data state for a run that branches off at a batch, when this run had so many generations."""
        return self._order.branch(batch, generations)

    def _locate_rows(self, number: int, first: int, last: int) -> Iterator[tuple[int, str, PackedUnit, int]]:
        """(position in [0, last - first), group, open unit, row of the unit) for each row, group by group."""
        for group, places, rows in self._draw_rows(number, first, last):
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                unit, within = self._rows[group].locate(row)
                yield place, group, self._units[unit], within

    def _draw_rows(self, number: int, first: int, last: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        if not self.first <= number < self.count:
            remedy = (
                "use one of these" if number >= self.first else "look at the run that this one branched from"
            )
            raise NotFound(
                f"batch {number} does not exist: this run has batches {self.first} to {self.count - 1}",
                remedy=remedy,
            )
        start = number * self.sequences
        return self._order.draw_rows(start + first, start + last)
