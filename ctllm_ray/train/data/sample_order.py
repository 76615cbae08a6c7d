"""Sample order of a run: maps each sample to a row of a group, from the recipe, DATA.json and the row counts.

Sample i of a run belongs to a group and has a number in it (shards/mixture.py); the group's stream says which
of its rows that is (shards/order.py). Each generation of shards is planned from its first batch to the run's
end, and a plan holds until the next generation begins: so shards that join change nothing before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.shards.mixture import Mixture, MixtureSpan, Segment, cut_segments, plan
from ctllm_ray.shards.order import Joined, Stream
from ctllm_ray.train.data.data_log import Branch


@dataclass(frozen=True)
class OrderStage:
    """From a batch on, the number of rows of each group, earlier stages included."""

    from_batch: int
    rows: dict[str, int]


class SampleOrder:
    """Maps samples to rows. Stages are the generations of DATA.json in order; a branch
    starts after the first of them."""

    def __init__(self, train: Train, seed: int, stages: Sequence[OrderStage], branch: Branch) -> None:
        self._train, self._stages = train, stages
        self._sequences = train.batch_tokens // train.sequence_tokens
        self._last = -(-train.tokens // train.batch_tokens) * self._sequences
        self._joined = {name: [Joined(*pair) for pair in pairs] for name, pairs in branch.joined.items()}
        segments: list[Segment] = []
        begun: Mapping[str, int] = branch.begun
        for index in range(max(0, branch.generations - 1), len(stages)):
            stage = stages[index]
            first = max(stage.from_batch, branch.batch) * self._sequences
            segments = cut_segments(segments, first)
            if segments:
                begun = Mixture(seed, segments, train.block_sequences).before(first)
            for name, rows in stage.rows.items():
                if (
                    index >= branch.generations or name not in branch.joined
                ):  # the other run may not have used it
                    self._joined.setdefault(name, []).append(Joined(begun.get(name, 0), rows))
            segments += self._plan_segments(stage, first, begun)
        self._mixture = Mixture(seed, segments, train.block_sequences)
        self._streams = {name: Stream(seed, name, joined) for name, joined in self._joined.items()}

    def _plan_segments(self, stage: OrderStage, first: int, begun: Mapping[str, int]) -> list[Segment]:
        train = self._train
        starts = [
            0,
            *(-(-(phase.until_tokens or 0) // train.sequence_tokens) for phase in train.mixture[:-1]),
        ]
        spans = [
            MixtureSpan(start, dict(phase.shares)) for start, phase in zip(starts, train.mixture, strict=True)
        ]
        caps = {name: math.floor(cap * stage.rows.get(name, 0)) for name, cap in train.epoch_caps.items()}
        return plan(spans, first, self._last, begun, caps, train.block_sequences)

    def draw_rows(self, first: int, last: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(group, positions in [0, last - first), rows of the group) for each
        group in samples [first, last)."""
        groups, numbers = self._mixture.samples(first, last)
        for index in np.unique(groups):
            name = self._mixture.groups[index]
            places = np.flatnonzero(groups == index)
            yield name, places, self._streams[name].rows(numbers[places])

    def consumed_rows(self, batch: int) -> dict[str, int]:
        """Rows of each group consumed before a batch, including those of a parent run."""
        return self._mixture.before(batch * self._sequences)

    def epochs_begun(self, batch: int) -> dict[str, int]:
        """Epochs of each group begun before a batch."""
        return {
            name: self._streams[name].epochs_begun(rows)
            for name, rows in self.consumed_rows(batch).items()
            if name in self._streams
        }

    def branch(self, batch: int, generations: int) -> Branch:
        """The data state for a run that branches off at a batch, after so many generations."""
        begun = self.consumed_rows(batch)
        most = self._stages[generations - 1].rows
        joined = {
            name: [[j.start, j.rows] for j in pairs if j.rows <= most.get(name, j.rows)]
            for name, pairs in self._joined.items()
        }
        return Branch(batch, begun, {name: pairs for name, pairs in joined.items() if pairs}, generations)

    def check_epochs(self, tokens: Mapping[str, int]) -> None:
        """Raises `RecipeError` if a group without an epoch cap is too small for its share."""
        consumed = self.consumed_rows(self._last // self._sequences)
        for name, rows in self._stages[-1].rows.items():
            used = consumed.get(name, 0)
            if used <= self._train.max_epochs * rows or name in self._train.epoch_caps:
                continue
            most = self._train.max_epochs
            raise RecipeError(
                f"group {name!r} is too small for its share: its {tokens[name]:,} tokens "
                f"({rows:,} rows) would be repeated {used / rows:.1f} times, more than "
                f"train.max_epochs {most:g}",
                where="train.mixture",
                remedy=f"multiply its share or train.tokens by {most * rows / used:.2g}; or cap "
                f"it, so that other groups take its share: train.epoch_caps.{name}={most:g}",
            )
