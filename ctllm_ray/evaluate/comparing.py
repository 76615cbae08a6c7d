"""`ctllm compare A B`: two finished evaluations, item by item."""

from __future__ import annotations

from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate import items, scores, work
from ctllm_ray.evaluate.scores import Comparison


def compare(first: str, second: str, resamples: int) -> list[Comparison]:
    """Each benchmark that both have. Raises `NotFound` where one is not finished, `InputError` where none is shared."""
    seed = work.results(first)["decisions"]["seed"]
    names = [score["benchmark"] for score in work.results(second)["scores"]]
    found = scores.compare(items.read(first), items.read(second), seed, resamples)
    if not found:
        remedy = "compare evaluations of the same tasks"
        raise InputError("the two have no benchmark in common", where=f"{second}: {', '.join(names)}", remedy=remedy)
    return found
