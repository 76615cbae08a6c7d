"""The learning rate as a pure function of tokens: linear warm-up, then cosine, or stable and decay (WSD).

Tokens rather than steps, so that a changed batch size or a resumed run meets the same rate at the same data.
`tokens` always counts the batch whose update the rate is for: the first update has a rate above zero, and the
last one, at `total_tokens`, has exactly `min_share` of the peak. With w = warmup_tokens, d = decay_tokens, m
= min_share and s the start of the decay (total - d for WSD, w for cosine), p = (tokens - s) / d from 0 to 1:

    warm-up      tokens / w                        up to w
    cosine       m + (1 - m) (1 + cos(pi p)) / 2   d = total - w      Loshchilov & Hutter 2017, with the floor of GPT-3
    exponential  m ** p                            WSD, MiniCPM (Hu et al. 2024): 0.5 ** ((tokens - s) / T) with the
                                                   T = d / log2(1 / m) that ends at m
    linear       1 - (1 - m) p                     WSD
    sqrt         1 - (1 - m) sqrt(p)               WSD, "1-sqrt" of Hägele et al. 2024

A branch (`train.branch_from`) goes on counting from its parent's tokens, and `train.tokens` of the branch
counts the parent's part too: a WSD branch from a checkpoint at 80 M tokens with `tokens: 90 M`,
`decay_tokens: 10 M` only decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Schedule

Phase = Literal["warmup", "stable", "decay"]

#: Share of the peak by progress in 0..1 and the share at the end.
_SHAPES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda progress, least: least + (1 - least) * (1 + math.cos(math.pi * progress)) / 2,
    "exponential": lambda progress, least: least**progress,
    "linear": lambda progress, least: 1 - (1 - least) * progress,
    "sqrt": lambda progress, least: 1 - (1 - least) * math.sqrt(progress),
}


def rate(schedule: Schedule, tokens: int, total_tokens: int) -> float:
    """The learning rate of the update that brings the run to `tokens`; beyond the total it stays at the
    least."""
    phase = phase_at(schedule, tokens, total_tokens)
    if phase == "warmup":
        return schedule.peak_rate * tokens / schedule.warmup_tokens
    if phase == "stable":
        return schedule.peak_rate
    start = decay_start(schedule, total_tokens)
    progress = min(1.0, (tokens - start) / max(1, total_tokens - start))
    shape = _SHAPES["cosine" if schedule.use == "cosine" else schedule.decay]
    return schedule.peak_rate * shape(progress, schedule.min_share)


def phase_at(schedule: Schedule, tokens: int, total_tokens: int) -> Phase:
    """The part of the schedule that the update ending at `tokens` belongs to."""
    if tokens < schedule.warmup_tokens:
        return "warmup"
    return "stable" if tokens <= decay_start(schedule, total_tokens) else "decay"


def decay_start(schedule: Schedule, total_tokens: int) -> int:
    """Tokens at which the rate begins to fall: after the warm-up for cosine, `decay_tokens` before the end
    for WSD."""
    if schedule.use == "cosine":
        return min(schedule.warmup_tokens, total_tokens)
    return max(schedule.warmup_tokens, total_tokens - schedule.decay_tokens)


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
            remedy=f"branch between {parent.warmup_tokens:,} and {decay_start(parent, parent_total):,} tokens of it",
        )
    if phase_at(schedule, tokens, total_tokens) != "stable":
        raise RecipeError(
            f"the decay of the branch would begin at {decay_start(schedule, total_tokens):,} tokens, "
            f"before its parent's checkpoint at {tokens:,}",
            where="train.schedule",
            remedy=f"use wsd with decay_tokens of at most {total_tokens - tokens:,} and no longer warm-up",
        )
