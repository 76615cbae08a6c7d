"""The learning rate as a pure function of tokens: linear warm-up, peak, then a decay (train/schedules/).

Tokens rather than steps, so that a changed batch size or a resumed run meets the same rate at the same data.
`tokens` always counts the batch whose update the rate is for: the first update has a rate above zero, and the
last one, at `total_tokens`, has exactly what the decay ends with (`min_share` of the peak).

A branch (`train.branch_from`) continues counting from its parent's tokens, and its `train.tokens` includes
the parent's part. So a WSD branch from a checkpoint at 80 M tokens with `tokens: 90 M`, `decay_tokens: 10 M`
only decays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Schedule

Phase = Literal["warmup", "stable", "decay"]


@dataclass(frozen=True)
class Decay:
    """The end of a schedule: where the rate begins to fall, and its share of the peak by progress in 0..1."""

    start_tokens: int
    share: Callable[[float], float]


def find_decay(schedule: Schedule, total_tokens: int) -> Decay:
    """The decay of a recipe's schedule. Raises `RecipeError` for invalid values."""
    function = resolve.resolve(resolve.SCHEDULES, schedule.use)
    options = schedule.model_dump() | {"total_tokens": total_tokens}
    return function(
        **{name: options[name] for name in resolve.options(function).model_fields if name in options}
    )


def rate(schedule: Schedule, tokens: int, total_tokens: int) -> float:
    """The learning rate of the update that brings the run to `tokens`; after the end the minimum."""
    phase = phase_at(schedule, tokens, total_tokens)
    if phase == "warmup":
        return schedule.peak_rate * tokens / schedule.warmup_tokens
    if phase == "stable":
        return schedule.peak_rate
    decay = find_decay(schedule, total_tokens)
    progress = min(1.0, (tokens - decay.start_tokens) / max(1, total_tokens - decay.start_tokens))
    return schedule.peak_rate * decay.share(progress)


def phase_at(schedule: Schedule, tokens: int, total_tokens: int) -> Phase:
    """The phase of the schedule for the update that ends at `tokens`."""
    if tokens < schedule.warmup_tokens:
        return "warmup"
    return "stable" if tokens <= find_decay(schedule, total_tokens).start_tokens else "decay"


def check_branch(
    schedule: Schedule, total_tokens: int, parent: Schedule, parent_total: int, tokens: int
) -> None:
    """Raises `RecipeError` unless a branch at `tokens` continues its parent's stable phase."""
    if tokens >= total_tokens:
        raise RecipeError(
            f"the branch ends at {total_tokens:,} tokens, but its parent's checkpoint already has {tokens:,}",
            where="train.tokens",
            remedy="train.tokens includes the parent's tokens: set it to their sum with the branch's tokens",
        )
    if phase_at(parent, tokens, parent_total) != "stable":
        raise RecipeError(
            f"the parent is not in its stable phase at {tokens:,} tokens",
            where="train.branch_from",
            remedy=f"branch between {parent.warmup_tokens:,} and "
            f"{find_decay(parent, parent_total).start_tokens:,} tokens of the parent",
        )
    if phase_at(schedule, tokens, total_tokens) != "stable":
        raise RecipeError(
            "the decay of the branch would begin at "
            f"{find_decay(schedule, total_tokens).start_tokens:,} tokens, before its "
            f"parent's checkpoint at {tokens:,}",
            where="train.schedule",
            remedy=f"use wsd with decay_tokens of at most {total_tokens - tokens:,}, and a warm-up "
            "that is not longer than the parent's",
        )
