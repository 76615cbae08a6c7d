"""Computes scores from items: for each benchmark and each part, the value, its interval, and the counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ctllm_ray.base import resolve
from ctllm_ray.evaluate.scoring import bits_per_byte, statistics
from ctllm_ray.evaluate.scoring.item_results import LOST, SCORED, Item
from ctllm_ray.evaluate.scoring.statistics import Difference, Estimate

Kind = Literal["share", "mark", "bits"]  # right answers; 1 to 10; bits per byte, lower is better


@dataclass(frozen=True)
class BenchmarkScore:
    """The score of a benchmark or of one part. Items without a score are
    counted: items = scored + the rest."""

    benchmark: str
    part: str  # empty: all parts, each item counts equally
    kind: Kind
    value: float
    stderr: float
    low: float
    high: float
    items: int
    scored: int
    too_long: int
    unparsable: int
    no_label: int
    bad: int
    shown: int
    chance: float | None  # of random guessing, over the scored items
    parts_mean: float | None  # mean over parts, as C-Eval and CMMLU publish it
    seen: int | None  # scored items that the corpus contained; None: unknown
    unseen_value: float | None  # score and interval of the others; None: the corpus contained none
    unseen_low: float | None
    unseen_high: float | None
    lm_eval: float | None  # lm-eval's own metric over the scored items, if ours is another

    def plain(self) -> dict[str, object]:
        """Plain values for JSON; NaN becomes null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def compute_scores(
    items: Sequence[Item], seed: int, resamples: int, seen_from: float = 1.0
) -> list[BenchmarkScore]:
    """The scores of each benchmark, then of its parts if there are several, in the order of items.

    From an overlap of `seen_from` on, an item counts as seen in the corpus.
    """
    benchmark_scores: list[BenchmarkScore] = []
    for whole in _by(items, "benchmark").values():
        parts = [_score(each, part, seed, resamples, seen_from) for part, each in _by(whole, "part").items()]
        values = [part.value for part in parts if math.isfinite(part.value)]
        mean = statistics.mean_of(values) if values and len(parts) > 1 else None
        benchmark_scores.append(_score(whole, "", seed, resamples, seen_from, mean))
        benchmark_scores += parts if len(parts) > 1 else []
    return benchmark_scores


def _by(items: Sequence[Item], name: str) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(getattr(item, name), []).append(item)
    return groups


def kind_of(benchmark: str) -> Kind:
    """The kind of a benchmark's scores."""
    if benchmark == bits_per_byte.NAME:
        return "bits"
    return "mark" if benchmark in resolve.module_names(resolve.JUDGES) else "share"


def _score(
    items: Sequence[Item],
    part: str,
    seed: int,
    resamples: int,
    seen_from: float,
    parts_mean: float | None = None,
) -> BenchmarkScore:
    scored = [item for item in items if item.status == SCORED]
    chances = [item.chance for item in scored if item.chance is not None]
    theirs = [item.lm_eval for item in scored if item.lm_eval is not None]
    statuses = [item.status for item in items]
    return BenchmarkScore(
        benchmark=items[0].benchmark,
        part=part,
        kind=kind_of(items[0].benchmark),
        **asdict(_estimate(scored, kind_of(items[0].benchmark), seed, resamples)),
        items=len(items),
        scored=len(scored),
        **{reason: statuses.count(reason) for reason in LOST},
        chance=statistics.mean_of(chances) if chances else None,
        parts_mean=parts_mean,
        lm_eval=statistics.mean_of(theirs) if theirs else None,
        **_without_seen(scored, kind_of(items[0].benchmark), seed, resamples, seen_from),
    )


def _without_seen(
    scored: Sequence[Item], kind: Kind, seed: int, resamples: int, seen_from: float
) -> dict[str, Any]:
    """The number of items that the corpus contained, and the score on the others."""
    others = [item for item in scored if not item.seen_overlap or item.seen_overlap < seen_from]
    known = any(item.seen_overlap is not None for item in scored)
    fields: dict[str, Any] = {"seen": len(scored) - len(others) if known else None}
    if len(others) == len(scored):
        return fields | dict.fromkeys(("unseen_value", "unseen_low", "unseen_high"))
    estimate = _estimate(others, kind, seed, resamples)
    return fields | {"unseen_value": estimate.value, "unseen_low": estimate.low, "unseen_high": estimate.high}


def _estimate(scored: Sequence[Item], kind: Kind, seed: int, resamples: int) -> Estimate:
    values = [item.score or 0.0 for item in scored]
    if kind == "share":
        return statistics.share(values)
    return statistics.ratio(*_weigh(scored), seed, resamples)


def _weigh(scored: Sequence[Item]) -> tuple[list[float], list[float]]:
    """Numerators and denominators: bits and bytes of texts; else scores and ones."""
    if scored and kind_of(scored[0].benchmark) == "bits":
        return [(item.nats or 0.0) / math.log(2) for item in scored], [
            float(item.text_bytes or 1) for item in scored
        ]
    return [item.score or 0.0 for item in scored], [1.0] * len(scored)


@dataclass(frozen=True)
class Comparison:
    """The difference of two evaluations on a benchmark. Only items that both scored
    count; others are reported."""

    benchmark: str
    kind: Kind
    first: float
    second: float
    difference: Difference
    only_first: int
    only_second: int
    other_prompts: int  # compared items with different prompts (other examples, another template)


def compare(first: Sequence[Item], second: Sequence[Item], seed: int, resamples: int) -> list[Comparison]:
    """Compares each common benchmark item by item. Items are equal if their texts are equal."""
    others = _by(second, "benchmark")
    return [
        _compare_task(items, others[benchmark], seed, resamples)
        for benchmark, items in _by(first, "benchmark").items()
        if benchmark in others
    ]


def _compare_task(first: Sequence[Item], second: Sequence[Item], seed: int, resamples: int) -> Comparison:
    a, b = ({_identity(item): item for item in items if item.status == SCORED} for items in (first, second))
    both = [identity for identity in a if identity in b]
    pairs = [(a[identity], b[identity]) for identity in both]
    (above_a, below), (above_b, _) = (_weigh([pair[side] for pair in pairs]) for side in (0, 1))
    total = sum(below) or math.nan
    return Comparison(
        benchmark=first[0].benchmark,
        kind=kind_of(first[0].benchmark),
        first=math.fsum(above_a) / total,
        second=math.fsum(above_b) / total,
        difference=statistics.compare_paired(above_a, above_b, below, seed, resamples),
        only_first=len(a) - len(both),
        only_second=len(b) - len(both),
        other_prompts=sum(one.prompt_hash != two.prompt_hash for one, two in pairs),
    )


def _identity(item: Item) -> tuple[str, str, str]:
    return item.part, item.item, item.doc_hash
