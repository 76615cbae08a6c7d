"""The interface of objectives: one file in train/objectives/ each, one loop for all.

The divisor of a global batch is known from the packing alone. So no worker waits for another to count, and
accumulation, padding and the number of workers change nothing. (Unsloth and others found in 2024 that
averages of micro-batch averages give short answers too much weight.)

- `target`: every id but BOS is learnt; the sum is divided by their number.
- `answer`: only what assistants say is learnt, all else is IGNORED in the labels; divided by the answers'
  targets.
- `pair`: as `answer`, and rows hold whole preference pairs: pieces 2k and 2k + 1 of a row are the chosen and
  the rejected conversation of one pair, each whole; divided by the pairs.

An objective may give sums beside the loss. They go the same way: added up over micro-batches and workers,
divided by the same number, recorded with each step as metrics and drawn in the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Train

if TYPE_CHECKING:
    import torch

Per = Literal["target", "answer", "pair"]


class Objective(Protocol):
    """What a file of train/objectives/ creates from the options of a recipe."""

    @property
    def per(self) -> Per:
        """The divisor of the sum over a global batch."""

    @property
    def needs_reference(self) -> bool:
        """Whether it needs log-probabilities of the initial model; for pairs only. Else
        `references` of a batch are 0."""

    @property
    def teaches_chat(self) -> bool:
        """Whether a model trained by it answers in turns."""

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of the values that `loss` returns besides the loss, as in records and report."""

    def loss(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sums over a micro-batch, fp32 [1 + len(sums)]: first the loss, which gives the
        gradient, then the named ones."""


def find_objective(train: Train) -> Objective:
    """The objective of a recipe. Raises `RecipeError` if the recipe's packing does not suit it."""
    options = dict(train.objective.model_extra or {})
    objective = cast(Objective, resolve.resolve(resolve.OBJECTIVES, train.objective.use)(**options))
    if objective.per == "pair" and not (train.packing == "best_fit" and train.document_attention):
        raise RecipeError(
            f"{train.objective.use} needs whole pairs that do not attend to each other",
            where="train",
            remedy="set train.packing=best_fit and train.document_attention=true",
        )
    return objective
