"""The interface of steppers, which turn batches into model
updates. The loop knows no optimizers, devices or ranks.

A module of train/steppers/ is a stepper, by the names of `resources.train.stepper`: `torch` (plain PyTorch,
data-parallel by one all-reduce), `deepspeed` (ZeRO 0 to 3). It has `open_stepper`, a `StepperOf`, and
`reason_not_to_start(resources)`, which is empty where it can run. State leaves and enters as whole fp32
tensors by parameter name, so a checkpoint fits any number of workers, any ZeRO stage and either stepper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import torch

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Train, TrainResources
from ctllm_ray.train.data.batch import Batch

#: Sums over a batch, fp32 [1 + n]: the loss, then the metrics (train/objective.py).
Loss = Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


class Stepper(Protocol):
    """The part of one worker in training. All ranks call every method in the same order."""

    kind: str  # its recipe name
    zero_stage: int  # ZeRO stage of the partitioned state; 0: none
    rank: int
    world: int
    module: torch.nn.Module  # for validation in this process; complete only if parameters are not partitioned

    def backward(self, micro_batches: Iterable[Batch], divisor: int) -> torch.Tensor:
        """The objective's sums over the global batch, divided
        by `divisor`; loss first [1 + n], equal on all ranks.

        Gradients are kept for `apply`. `divisor` counts the targets or pairs of the whole global batch.
        """

    def apply(self, rate: float) -> torch.Tensor:
        """Makes one clipped update at this learning rate. Returns the global gradient norm
        before clipping (0-d tensor)."""

    def discard(self) -> None:
        """Discards the gradients. Model and optimizer do not change."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """This rank's part of the state as whole fp32 CPU
        tensors (copies). Each name comes from exactly one rank.

        Names: `model.<parameter>`, `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`.
        """

    def load(self, tensor: Callable[[str], torch.Tensor], updates: int) -> None:
        """Loads the whole state from named fp32 CPU tensors.
        `updates` were made so far (Adam's bias correction)."""


#: Builds a worker's stepper from the model (fp32, on the CPU, equal on every rank), the loss, the recipe's
#: sections, the rank and the number of workers. torch.distributed is initialized before, if needed.
StepperOf = Callable[[torch.nn.Module, Loss, Train, TrainResources, int, int], Stepper]


def select_stepper(resources: TrainResources) -> tuple[StepperOf, str]:
    """The stepper; and if `auto` wanted DeepSpeed but cannot use it, the reason, else an empty string.

    `auto` is DeepSpeed if that helps and can start. One worker on a CPU gains nothing from it and would pay
    seconds of import. Raises `RecipeError` if the requested stepper cannot start.
    """
    alone = not resources.gpu and resources.worker_range[1] == 1 and not resources.offload
    auto = "torch" if alone else "deepspeed"
    name = auto if resources.stepper == "auto" else resources.stepper
    stepper = resolve.load_module(resolve.STEPPERS, name)
    reason = stepper.reason_not_to_start(resources)
    if not reason:
        return stepper.open_stepper, ""
    if resources.stepper == "auto" and not resources.offload:
        plain = resolve.load_module(resolve.STEPPERS, "torch")
        return plain.open_stepper, f"training with the PyTorch stepper, because {name} cannot start: {reason}"
    remedy = (
        "set another resources.train.stepper, set resources.train.offload=false, or install what is missing"
    )
    raise RecipeError(f"{name} cannot start: {reason}", where="resources.train.stepper", remedy=remedy)
