"""The learning rate as a pure function of tokens: linear warm-up, the peak, then a decay (train/schedules/).

Tokens rather than steps, so that a changed batch size or a resumed run meets the same rate at the same data.
`tokens` always counts the batch whose update the rate is for: the first update has a rate above zero, and the
last one, at `total_tokens`, has exactly what the decay ends with (`min_share` of the peak).

A branch (`train.branch_from`) goes on counting from its parent's tokens, and `train.tokens` of the branch
counts the parent's part too: a WSD branch from a checkpoint at 80 M tokens with `tokens: 90 M`,
`decay_tokens: 10 M` only decays.
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
    """How a schedule ends: where the rate begins to fall, and its share of the peak by progress in 0..1."""

    start_tokens: int
    share: Callable[[float], float]


def find_decay(schedule: Schedule, total_tokens: int) -> Decay:
    """The decay of the schedule that a recipe names. Raises `RecipeError` for values that it cannot take."""
    function = resolve.resolve(resolve.SCHEDULES, schedule.use)
    given = schedule.model_dump() | {"total_tokens": total_tokens}
    return function(**{name: given[name] for name in resolve.options(function).model_fields if name in given})


def rate(schedule: Schedule, tokens: int, total_tokens: int) -> float:
    """The learning rate of the update that brings the run to `tokens`; beyond the total it stays at the
    least."""
    phase = phase_at(schedule, tokens, total_tokens)
    if phase == "warmup":
        return schedule.peak_rate * tokens / schedule.warmup_tokens
    if phase == "stable":
        return schedule.peak_rate
    decay = find_decay(schedule, total_tokens)
    progress = min(1.0, (tokens - decay.start_tokens) / max(1, total_tokens - decay.start_tokens))
    return schedule.peak_rate * decay.share(progress)


def phase_at(schedule: Schedule, tokens: int, total_tokens: int) -> Phase:
    """The part of the schedule that the update ending at `tokens` belongs to."""
    if tokens < schedule.warmup_tokens:
        return "warmup"
    return "stable" if tokens <= find_decay(schedule, total_tokens).start_tokens else "decay"


def check_branch(
    schedule: Schedule, total_tokens: int, parent: Schedule, parent_total: int, tokens: int
) -> None:
    """Raises `RecipeError` unless a branch at `tokens` goes on from its parent's stable phase into its
    own."""
    if tokens >= total_tokens:
        raise RecipeError(
            f"the branch ends at {total_tokens:,} tokens and its parent's checkpoint has {tokens:,}",
            where="train.tokens",
            remedy="train.tokens counts the parent's tokens too: set it to the parent's plus those of the branch",
        )
    if phase_at(parent, tokens, parent_total) != "stable":
        raise RecipeError(
            f"the parent is not in its stable phase at {tokens:,} tokens",
            where="train.branch_from",
            remedy=f"branch between {parent.warmup_tokens:,} and "
            f"{find_decay(parent, parent_total).start_tokens:,} tokens of it",
        )
    if phase_at(schedule, tokens, total_tokens) != "stable":
        raise RecipeError(
            f"the decay of the branch would begin at {find_decay(schedule, total_tokens).start_tokens:,} tokens, "
            f"before its parent's checkpoint at {tokens:,}",
            where="train.schedule",
            remedy=f"use wsd with decay_tokens of at most {total_tokens - tokens:,} and no longer warm-up",
        )
