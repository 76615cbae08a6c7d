"""The worker's part of a training run on Ray Train: a
session with Ray around it. launch.py is the driver's part.

Workers and driver exchange messages through a board (board.py). An error that a person must fix is posted
there with its type; the next worker group that Ray starts finds it and exits at once.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
from ray.train.v2._internal.execution.context import get_train_context

from ctllm_ray.base.errors import CtllmError, RecipeError, StorageError
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.train.checkpoint.run_state import RunState

ASK_S = 2.0  # between a worker's checks whether the driver wants it to stop


def work(config: dict[str, Any]) -> dict[str, Any]:
    """One worker's part, from plain values and an actor handle."""
    board = config["board"]
    if ray.get(board.failure.remote()):
        return {"state": RunState().plain(), "preempted": False}
    recipe = parse_recipe(json.loads(config["recipe"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    hooks = _Hooks(recipe, config["owner"], board, rank, config["validates_aside"])
    try:
        state = _train(recipe, rank, world, hooks)
    except CtllmError as error:
        if isinstance(error, StorageError):
            hooks.note(f"a storage error, which may be temporary: {error.what}")
        else:
            ray.get(board.fail.remote(pickle.dumps(error)))
        raise
    return {"state": state.plain(), "preempted": hooks.is_preempted()}


def _train(recipe: Recipe, rank: int, world: int, hooks: _Hooks) -> RunState:
    import torch

    from ctllm_ray.train import session, stepper

    made, reason = stepper.select_stepper(recipe.resources.train)
    if reason and rank == 0:
        hooks.note(reason)
    try:
        return session.train(recipe, made, rank, world, hooks)
    except torch.OutOfMemoryError as error:
        raise RecipeError(
            f"the GPU has too little memory: {first_line(error)}",
            where=f"worker {rank}",
            remedy="set resources.train.micro_sequences=1, activation_checkpointing=true, a "
            "higher zero_stage or offload=true; `ctllm plan` estimates the memory",
        ) from error


class _Hooks:
    """The hooks of a worker under Ray."""

    def __init__(self, recipe: Recipe, owner: str, board: Any, rank: int, validates_aside: bool) -> None:
        self.owner = owner
        self._recipe, self._board, self._rank, self._validates_aside = recipe, board, rank, validates_aside
        self._asked_at, self._is_stopping = -math.inf, False

    def should_stop(self) -> bool:
        """True once this worker's machines will be taken away, or the driver wants to stop."""
        now = time.monotonic()
        if self._rank == 0 and now - self._asked_at >= ASK_S:
            self._asked_at = now
            self._is_stopping = ray.get(self._board.is_stopping.remote())
        return self._is_stopping or self.is_preempted()

    def is_preempted(self) -> bool:
        """True once a machine of this worker group will be taken away."""
        return get_train_context().preemption_context.preemption_info is not None

    def note(self, text: str) -> None:
        """Prints a line for people, through the driver."""
        ray.get(self._board.note.remote(text))

    def after_save(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing: Ray does not track checkpoints."""

    def validate(self, step: int) -> None:
        """Runs in its own task during training if the cluster has room; else rank 0
        validates while the others wait."""
        from ctllm_ray.train.checkpoint.checkpoint import FOLDER, folder_of

        folder = folder_of(self._recipe.folder("train"), step)
        plain = self._recipe.model_dump_json()
        if not self._validates_aside:
            if self._rank == 0:
                validate(None, plain, folder)
            return
        managed = get_train_context().get_storage()
        ray.train.report(
            {"step": step},
            ray.train.Checkpoint(
                f"{managed.experiment_fs_path}/{FOLDER}/{step:08d}", managed.storage_filesystem
            ),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
            validation=ray.train.ValidationTaskConfig(fn_kwargs={"recipe": plain, "folder": folder}),
        )


def validate(checkpoint: ray.train.Checkpoint | None, recipe: str, folder: str) -> dict[str, float]:
    """Bits per byte by group. The records of the run contain them and more."""
    from ctllm_ray.train.validation.validate import validate_checkpoint

    result = validate_checkpoint(json.loads(recipe), folder)
    return {f"bits_per_byte/{group}": bits["bits_per_byte"] for group, bits in result.items()}


def first_line(error: BaseException) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
