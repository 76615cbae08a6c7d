"""The section `sweep` of a recipe: which mixtures to try, with which model, and which losses to minimize.

All of it affects the result, so only `replicates` has a default, which later starts may raise.
`resources.sweep` sets how many trials run at once. Everything else (packing, row length, optimizer) comes
from `train`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ctllm_ray.base.recipe_training import Count, Frozen, Model, Positive, Schedule, Share, check_sum


class Sweep(Frozen):
    """Settings of `ctllm sweep`: trials over mixtures of the groups in `bounds`. Later
    starts may request more trials."""

    trials: Annotated[int, Field(ge=2)]  # the first trial uses the token shares
    # runs per mixture with different seeds: they measure the noise
    replicates: Annotated[int, Field(ge=1, le=100)] = 2
    seed: int  # for the mixtures; seeds of weights and order derive from train's
    bounds: dict[
        str, tuple[Share, Share]
    ]  # minimum and maximum of each group's share; other groups take no part
    temperature: Share  # centre of the mixtures: token shares to this power; 1: unchanged, 0: equal groups
    concentration: Positive  # sum of the Dirichlet parameters: the higher, the closer to the centre
    weights: dict[str, Share]  # weights of held-out groups: the sweep minimizes their weighted bits per byte
    model: Model
    tokens: Count  # per trial
    batch_tokens: Count
    schedule: Schedule

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        for group, (least, most) in self.bounds.items():
            if least > most:
                raise ValueError(
                    f"bounds of {group!r}: the minimum {least:g} is larger than the maximum {most:g}"
                )
        if len(self.bounds) < 2:
            raise ValueError("bounds has fewer than two groups: there is nothing to mix")
        check_sum(self.weights, "weights")
        return self


class SweepResources(Frozen):
    """How many trials run at once, and what Ray reserves for each. A trial is one process."""

    concurrent: Annotated[int, Field(ge=0)] = 0  # 0: as many as fit the cluster
    cpus: Count = 1  # per trial, also its number of threads
    gpus: Annotated[float, Field(ge=0, le=1)] = 0  # per trial; 0.25: four trials share a GPU
