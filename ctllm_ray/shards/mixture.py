"""Maps a sample number to a group and to a number within the group: the data mixture as a pure function.

The run is cut into segments with constant shares. A new segment begins with each phase, when a group reaches
its cap of epochs, and when rows join. A segment is cut into blocks of `block_sequences` samples with whole
counts per group (largest remainder), equal in every block, so shares are exact to one sample per block.
Within a block the groups are shuffled by the seed. The last block of a segment may be shorter, with its own
counts. A group's samples are numbered in order of time, so none is lost or repeated at a border.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.shards.order import key, permute

#: Smaller fractions of a sample are rounding errors of the shares: 0.29 x 100 counts as 29, not as a little
#: less.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MixtureSpan:
    """Shares of groups (they sum to one) from sample `first` until the next span begins."""

    first: int  # sample
    shares: dict[str, float]


@dataclass(frozen=True)
class Segment:
    """Samples [first, last) were planned with these shares. From `until` (<= last) another plan holds."""

    first: int
    last: int
    until: int
    shares: dict[str, float]
    begun: dict[str, int]  # samples of each group before `first`


def apportion(shares: Mapping[str, float], samples: int) -> dict[str, int]:
    """Whole counts in proportion to the shares, with sum `samples` (largest remainder; ties go
    to the group named first)."""
    exact = {name: share * samples for name, share in shares.items()}
    counts = {name: int(value + _ROUNDING) for name, value in exact.items()}
    rest = sorted(shares, key=lambda name: round(counts[name] - exact[name], 9))
    for name in rest[: samples - sum(counts.values())]:
        counts[name] += 1
    return counts


def plan(
    spans: Sequence[MixtureSpan],
    first: int,
    last: int,
    begun: Mapping[str, int],
    caps: Mapping[str, int],
    block_sequences: int,
) -> list[Segment]:
    """Plans the segments of samples [first, last). `begun`
    samples of each group are used already; `caps` limits them.

    A group that reaches its cap is dropped and its share goes to the others in proportion. Raises
    `RecipeError` where no group is left, or where a share is too small for one sample in a block.
    """
    segments: list[Segment] = []
    used = {name: begun.get(name, 0) for span in spans for name in span.shares}
    while first < last:
        span, end = _span_at(spans, first, last)
        live = {g: s for g, s in span.shares.items() if s > 0 and used[g] < caps.get(g, math.inf)}
        shares = {g: s / sum(live.values()) for g, s in live.items()}
        _check(shares, block_sequences, span)
        for name in live.keys() & caps.keys():
            end = min(end, first + _samples_until(caps[name] - used[name], name, shares, block_sequences))
        segments.append(Segment(first, end, end, shares, dict(used)))
        used = before(segments, end, block_sequences)
        first = end
    return segments


def _span_at(spans: Sequence[MixtureSpan], sample: int, last: int) -> tuple[MixtureSpan, int]:
    """The span that contains a sample, and its end."""
    index = bisect_right([span.first for span in spans], sample) - 1
    return spans[index], min([last, *(span.first for span in spans[index + 1 :])])


def _check(shares: Mapping[str, float], block_sequences: int, span: MixtureSpan) -> None:
    if not shares:
        groups = ", ".join(name for name, share in span.shares.items() if share > 0)
        raise RecipeError(
            f"the data ends before the run: all groups of a phase reach their cap of epochs ({groups})",
            where="train.epoch_caps", remedy="lower train.tokens, raise the caps, or add groups to the mixture",
        )  # fmt: skip
    for name, count in apportion(shares, block_sequences).items():
        if count == 0:
            raise RecipeError(
                f"group {name!r} has share {shares[name]:g}: less than one sequence in a "
                    f"block of {block_sequences}",
                where="train.mixture", remedy=f"set train.block_sequences to at least {int(1 / shares[name]) + 1}",
            )  # fmt: skip


def _samples_until(left: int, name: str, shares: Mapping[str, float], block: int) -> int:
    """The maximum number of samples that use at most `left` of a group (at least one if any is left)."""
    blocks, rest = divmod(left, apportion(shares, block)[name])
    partial = min(block - 1, int((rest + 1) / shares[name]) + 1)
    while partial and apportion(shares, partial)[name] > rest:
        partial -= 1
    return blocks * block + partial


def cut_segments(segments: Sequence[Segment], sample: int) -> list[Segment]:
    """The segments cut off at a sample from which another plan holds."""
    return [replace(s, until=min(s.until, sample)) for s in segments if s.first < sample]


def before(segments: Sequence[Segment], sample: int, block_sequences: int, seed: int = 0) -> dict[str, int]:
    """Counts the samples of each group before a sample."""
    segment = next(s for s in reversed(segments) if s.first < sample or s is segments[0])
    counts = dict(segment.begun)
    blocks, rest = divmod(sample - segment.first, block_sequences)
    for name, count in apportion(segment.shares, block_sequences).items():
        counts[name] = counts.get(name, 0) + blocks * count
    if rest:
        names = list(segment.shares)
        drawn = _block(seed, segment, blocks, block_sequences)[0][:rest]
        for index, count in enumerate(np.bincount(drawn, minlength=len(names))):
            counts[names[index]] += int(count)
    return counts


def _block(seed: int, segment: Segment, number: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """For each sample of a block: its group, as an index into the segment's shares, and
    its number within the group."""
    length = min(block, segment.last - segment.first - number * block)
    counts = list(apportion(segment.shares, length).values())
    groups = np.repeat(np.arange(len(counts)), counts)
    drawn = groups[permute(np.arange(length), length, key(seed, "block", segment.first, number))]
    order = np.argsort(drawn, kind="stable")
    within = np.empty(length, np.int64)
    within[order] = np.concatenate([np.arange(count) for count in counts])
    return drawn, within


class Mixture:
    """Maps samples to (group, number within the group), from consecutive segments without a gap."""

    def __init__(self, seed: int, segments: Sequence[Segment], block_sequences: int) -> None:
        self.segments, self.block_sequences = list(segments), block_sequences
        self.groups = list(dict.fromkeys(name for segment in segments for name in segment.shares))
        self._seed = seed
        self._firsts = [segment.first for segment in segments]
        self._drawn = lru_cache(maxsize=8)(self._draw)

    def samples(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """For samples [first, last): the group, as an index into `groups`, and
        the number within the group."""
        groups, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while first < last:
            index = bisect_right(self._firsts, first) - 1
            segment = self.segments[index]
            block, start = divmod(first - segment.first, self.block_sequences)
            end = min(last - first + start, self.block_sequences, segment.until - first + start)
            drawn, counted = self._drawn(index, block)
            groups.append(drawn[start:end])
            numbers.append(counted[start:end])
            first += end - start
        return np.concatenate(groups), np.concatenate(numbers)

    def before(self, sample: int) -> dict[str, int]:
        """Counts the samples of each group before a sample."""
        return before(self.segments, sample, self.block_sequences, self._seed)

    def _draw(self, index: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        segment = self.segments[index]
        drawn, within = _block(self._seed, segment, block, self.block_sequences)
        names = list(segment.shares)
        counts = apportion(segment.shares, self.block_sequences)
        begun = np.array([segment.begun.get(name, 0) + block * counts[name] for name in names])
        places = np.array([self.groups.index(name) for name in names])
        return places[drawn], begun[drawn] + within
