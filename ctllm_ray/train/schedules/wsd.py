"""Warm-up, stable, decay (WSD): the peak is held until the last `decay_tokens` of the run.

With m = min_share and progress p from 0 to 1 over the decay:

    exponential  m ** p               MiniCPM (Hu et al. 2024): 0.5 ** (t / T) after t of d tokens of decay,
                                      with the T = d / log2(1 / m) that ends at m
    linear       1 - (1 - m) p
    sqrt         1 - (1 - m) sqrt(p)  "1-sqrt" of Hägele et al. 2024
"""

from __future__ import annotations

import math
from typing import Literal

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.train.schedule import Decay


def wsd(
    *,
    warmup_tokens: int,
    min_share: float,
    total_tokens: int,
    decay_tokens: int,
    decay: Literal["exponential", "linear", "sqrt"],
) -> Decay:
    """The decay. Raises `RecipeError` if it does not fit the run or cannot end at its final value."""
    if decay == "exponential" and min_share == 0:
        remedy = "set `min_share` above 0, or use another `decay`"
        raise RecipeError("an exponential decay cannot end at zero", remedy=remedy)
    if warmup_tokens + decay_tokens > total_tokens:
        remedy = f"the run has {total_tokens:,} tokens: lower warmup_tokens or decay_tokens"
        raise RecipeError("warm-up and decay are longer than the run", remedy=remedy)
    shares = {
        "exponential": lambda progress: min_share**progress,
        "linear": lambda progress: 1 - (1 - min_share) * progress,
        "sqrt": lambda progress: 1 - (1 - min_share) * math.sqrt(progress),
    }
    return Decay(max(warmup_tokens, total_tokens - decay_tokens), shares[decay])
