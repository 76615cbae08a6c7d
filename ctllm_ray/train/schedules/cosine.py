"""Warm-up, then a cosine down to the end (Loshchilov & Hutter 2017, with the floor of GPT-3)."""

from __future__ import annotations

import math

from ctllm_ray.train.schedule import Decay


def cosine(*, warmup_tokens: int, min_share: float, total_tokens: int) -> Decay:
    """m + (1 - m) (1 + cos(pi p)) / 2, from the end of the warm-up to the end of the run; m = min_share."""

    def share(progress: float) -> float:
        return min_share + (1 - min_share) * (1 + math.cos(math.pi * progress)) / 2

    return Decay(min(warmup_tokens, total_tokens), share)
