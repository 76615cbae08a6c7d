"""Which stepper a run takes: the one it names, or with `auto` DeepSpeed wherever that helps and can start.

It has nothing to share out for one worker on a CPU, and takes seconds to import.
"""

from __future__ import annotations

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import TrainResources
from ctllm_ray.train.stepper import StepperOf
from ctllm_ray.train.steppers.torch import TorchStepper


def stepper_of(resources: TrainResources) -> tuple[StepperOf, str]:
    """The stepper, and why it is not DeepSpeed where `auto` would have liked it; empty otherwise.

    Raises `RecipeError` where DeepSpeed is asked for by name and cannot start.
    """
    alone = not resources.gpu and resources.worker_range[1] == 1 and not resources.offload
    if resources.stepper == "torch" and resources.offload:
        remedy = "set resources.train.stepper=deepspeed, or resources.train.offload=false"
        raise RecipeError("only DeepSpeed offloads", where="resources.train.offload", remedy=remedy)
    if resources.stepper == "torch" or (resources.stepper == "auto" and alone):
        return TorchStepper, ""
    from ctllm_ray.train.steppers.deepspeed import DeepSpeedStepper, reason_not_to_start

    reason = reason_not_to_start(resources)
    if not reason:
        return DeepSpeedStepper, ""
    if resources.stepper == "deepspeed" or resources.offload:
        remedy = (
            "install what is missing, or set resources.train.stepper=torch and resources.train.offload=false"
        )
        raise RecipeError(f"DeepSpeed cannot start: {reason}", where="resources.train.stepper", remedy=remedy)
    return TorchStepper, f"the plain PyTorch stepper trains, since DeepSpeed cannot start: {reason}"
