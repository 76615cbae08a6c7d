"""The contract of what is learnt: a file of train/objectives/ for each way, one loop for all.

An objective says by what the loss of a global batch is divided, and what it says is known from the packing
alone: no worker waits for another to count, and accumulation, padding and the number of workers change
nothing (Unsloth and others found in 2024 that averages of micro-batches' averages weigh short answers too
much).

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
    """What a file of train/objectives/ makes from the options of a recipe."""

    @property
    def per(self) -> Per:
        """By what the sum over a global batch is divided."""

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with what the initial model gives each answer; of pairs only. Without it the
        `references` of a batch are 0."""

    @property
    def teaches_chat(self) -> bool:
        """Whether a model that it made answers in turns."""

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of what `loss` gives beside the loss, as the records and the report call it."""

    def loss(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sums over a micro-batch, fp32 [1 + len(sums)]: of the loss, which gives the gradient, then the
        named ones."""


def of(train: Train) -> Objective:
    """The objective that a recipe names. Raises `RecipeError` where the recipe does not pack rows as it reads
    them."""
    options = dict(train.objective.model_extra or {})
    objective = cast(Objective, resolve.resolve(resolve.OBJECTIVES, train.objective.use)(**options))
    if objective.per == "pair" and not (train.packing == "best_fit" and train.document_attention):
        raise RecipeError(
            f"{train.objective.use} reads whole pairs that must not see each other",
            where="train",
            remedy="set train.packing=best_fit and train.document_attention=true",
        )
    return objective
