"""The part of a recipe about choosing a mixture: which mixtures are tried, with what model, and what is to be
small.

All of it decides what comes out, so nothing has a default but `replicates`, which later starts may raise; how
many trials run at the same time stands in `resources.sweep`. What is not said here (packing, length of a row,
optimizer) the trials have from `train`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ctllm_ray.base.recipe_training import Count, Frozen, Model, Positive, Schedule, Share, check_sum


class Sweep(Frozen):
    """`ctllm sweep`: trials over mixtures of the groups in `bounds`. Later starts may ask for more trials."""

    trials: Annotated[int, Field(ge=2)]  # the first one takes the token shares
    # runs of each mixture, each with a seed of its own: their noise
    replicates: Annotated[int, Field(ge=1, le=100)] = 2
    seed: int  # of the mixtures; those of weights and order come from train's
    bounds: dict[
        str, tuple[Share, Share]
    ]  # least and most of each group's share; groups without them take no part
    temperature: (
        Share  # the middle of the mixtures: token shares to this power; 1: as they are, 0: all groups alike
    )
    concentration: Positive  # sum of the Dirichlet's parameters: the higher, the nearer to that middle
    weights: dict[str, Share]  # of held-out groups: their bits per byte, so weighted, are to be small
    model: Model
    tokens: Count  # of each trial
    batch_tokens: Count
    schedule: Schedule

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        for group, (least, most) in self.bounds.items():
            if least > most:
                raise ValueError(
                    f"the bounds of {group!r}: the least, {least:g}, is more than the most, {most:g}"
                )
        if len(self.bounds) < 2:
            raise ValueError("bounds names fewer than two groups: there is nothing to mix")
        check_sum(self.weights, "weights")
        return self


class SweepResources(Frozen):
    """How many trials run at the same time, and what Ray reserves for each; a trial is one process."""

    concurrent: Annotated[int, Field(ge=0)] = 0  # 0: as many as the cluster has room for
    cpus: Count = 1  # of each trial, and its threads
    gpus: Annotated[float, Field(ge=0, le=1)] = 0  # of each trial; 0.25: four of them share a GPU
