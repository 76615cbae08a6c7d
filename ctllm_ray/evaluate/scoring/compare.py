"""Compares two finished evaluations item by item, for `ctllm compare A B`."""

from __future__ import annotations

from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate import evaluation
from ctllm_ray.evaluate.scoring import item_results, scores
from ctllm_ray.evaluate.scoring.scores import Comparison


def compare(first: str, second: str, resamples: int) -> list[Comparison]:
    """Compares each common benchmark. Raises `NotFound` if one is not finished,
    `InputError` if none is common."""
    seed = evaluation.results(first)["decisions"]["seed"]
    names = [score["benchmark"] for score in evaluation.results(second)["scores"]]
    comparisons = scores.compare(
        item_results.read_items(first), item_results.read_items(second), seed, resamples
    )
    if not comparisons:
        remedy = "compare evaluations of the same tasks"
        raise InputError(
            "the two evaluations have no benchmark in common",
            where=f"{second}: {', '.join(names)}",
            remedy=remedy,
        )
    return comparisons
