"""Which stepper trains where the recipe leaves it open."""

from __future__ import annotations

import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import TrainResources
from ctllm_ray.train.stepper import select_stepper
from ctllm_ray.train.steppers.deepspeed import DeepSpeedStepper
from ctllm_ray.train.steppers.torch import TorchStepper


def test_one_worker_on_a_cpu_has_nothing_to_share_out_so_plain_pytorch_trains() -> None:
    assert select_stepper(TrainResources()) == (TorchStepper, "")


@pytest.mark.parametrize("workers", [2, (1, 2)])
def test_several_workers_train_with_deepspeed(workers: int | tuple[int, int]) -> None:
    assert select_stepper(TrainResources(workers=workers)) == (DeepSpeedStepper, "")


def test_a_stepper_that_is_named_is_taken() -> None:
    assert select_stepper(TrainResources(stepper="deepspeed"))[0] is DeepSpeedStepper
    assert select_stepper(TrainResources(stepper="torch", workers=2))[0] is TorchStepper


def test_offloading_without_deepspeed_is_an_error_and_not_forgotten() -> None:
    with pytest.raises(RecipeError, match="only DeepSpeed supports offloading"):
        select_stepper(TrainResources(stepper="torch", offload=True))
