"""The stepper: what turns batches into an updated model. The loop knows nothing of optimizers, devices or
ranks.

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

#: Sums over a batch, fp32 [1 + n]: of the loss, then what is told beside it (train/objective.py).
Loss = Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


class Stepper(Protocol):
    """One worker's part of training. Every method is called by all ranks alike."""

    kind: str  # its name in a recipe
    zero_stage: int  # how much of the state is partitioned over ranks, as ZeRO counts; 0: none
    rank: int
    world: int
    module: torch.nn.Module  # for validation in place; whole only where parameters are not partitioned

    def backward(self, micro_batches: Iterable[Batch], divisor: int) -> torch.Tensor:
        """The objective's sums over the global batch, divided: the loss first [1 + n]; equal on all ranks, on
        which gradients wait. `divisor` is that of the whole global batch over all ranks: its targets, or its
        pairs.
        """

    def apply(self, rate: float) -> torch.Tensor:
        """Global gradient norm before clipping (0-d tensor), after one clipped update at this learning
        rate."""

    def discard(self) -> None:
        """Throws the waiting gradients away: the model and the optimizer stay as they were."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """This rank's part of the state as whole fp32 CPU tensors, copies: each name comes from exactly one
        rank.

        Names: `model.<parameter>`, `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`.
        """

    def load(self, tensor: Callable[[str], torch.Tensor], updates: int) -> None:
        """Takes the whole state from named fp32 CPU tensors; `updates` were made so far (Adam's bias
        correction)."""


#: Builds a worker's stepper from the model (fp32, on the CPU, the same on every rank), the loss, the parts of
#: the recipe, and the rank and number of workers. What it needs of torch.distributed has been set up before.
StepperOf = Callable[[torch.nn.Module, Loss, Train, TrainResources, int, int], Stepper]


def select_stepper(resources: TrainResources) -> tuple[StepperOf, str]:
    """The stepper, and why it is not DeepSpeed where `auto` would have liked it; empty otherwise.

    `auto` is DeepSpeed wherever that helps and can start: it has nothing to share out for one worker on a CPU, and
    takes seconds to import. Raises `RecipeError` where the stepper that is asked for cannot start.
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
        return plain.open_stepper, f"the plain PyTorch stepper trains, since {name} cannot start: {reason}"
    remedy = (
        "set another resources.train.stepper, or resources.train.offload=false, or install what is missing"
    )
    raise RecipeError(f"{name} cannot start: {reason}", where="resources.train.stepper", remedy=remedy)
