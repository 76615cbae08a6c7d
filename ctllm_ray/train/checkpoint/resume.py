"""Finds where a run resumes: at its newest undamaged checkpoint, at another run's, or from the beginning.

Rank 0 proposes the newest checkpoint; one that any worker finds damaged is passed over by all. Hashing is
shared out among workers where storage is shared; from an object store each machine fetches the files anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import changes
from ctllm_ray.base.errors import CtllmError, NotFound, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.train.adapters import MODEL
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.checkpoint.checkpoint import Checkpoint, PassedOver
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data import branches
from ctllm_ray.train.data.data_log import Origin
from ctllm_ray.train.devices.collectives import from_first, most
from ctllm_ray.train.schedule import check_branch
from ctllm_ray.train.stepper import Stepper
from ctllm_ray.train.tracking.records import is_validated


@dataclass(frozen=True)
class Start:
    """`state` is where the run resumes; `saved` holds its tensors; `origin` its data if it
    branches from another run."""

    state: RunState
    saved: Checkpoint | None
    origin: Origin | None = None


def start(recipe: Recipe, train: Train, seed: int, rank: int, world: int) -> Start:
    """Where the run of a recipe resumes. Raises `VersionConflict` if the recipe's decisions changed."""
    own = newest(recipe.folder("train"), rank, world)
    if own is not None:
        _check_decisions(own, recipe)
        return Start(own.state, own)
    return _branch(recipe, train, rank, world) if train.branch_from else Start(RunState(seed=seed), None)


def read_ended(recipe: Recipe, train: Train) -> RunState | None:
    """The state of a finished run; None if training or its last validation remains.

    Read from the newest checkpoint's description alone. Raises `VersionConflict` as `start` does.
    """
    try:
        last = checkpoint.newest(recipe.folder("train"))
    except NotFound:
        return None
    _check_decisions(last, recipe)
    validated = train.validation is None or is_validated(recipe.folder("train"), last.state.step)
    return last.state if validated and last.state.tokens >= train.tokens else None


def newest(run_folder: str, rank: int, world: int) -> Checkpoint | None:
    """The newest checkpoint that no worker finds damaged; None if the run has none yet.

    Rank 0 proposes one: on a network file system, workers may see a new file at different times.
    """
    unfit: list[PassedOver] = []
    while True:
        proposed, error = _propose(run_folder, unfit) if rank == 0 else (None, None)
        folder, error = from_first((proposed.folder if proposed else "", error), world)
        if error is not None:
            raise error
        if not folder:
            return None
        result, reason = (proposed, "") if proposed else _open_or_reason(folder)
        reason = _agree_on(reason or _damage(result, rank, world), world)
        if result is not None and not reason:
            return result
        unfit.append(PassedOver(folder, reason))


def _propose(run_folder: str, unfit: list[PassedOver]) -> tuple[Checkpoint | None, CtllmError | None]:
    """The newest checkpoint that looks undamaged, or the error that ends all workers."""
    try:
        return checkpoint.newest(run_folder, unfit=unfit), None
    except NotFound:
        return None, None
    except CtllmError as error:
        return None, error


def _open_or_reason(folder: str) -> tuple[Checkpoint | None, str]:
    """The checkpoint in a folder, or why it cannot be used."""
    try:
        return checkpoint.open_at(folder), ""
    except (StorageError, NotFound) as error:
        return None, error.what


def load(stepper: Stepper, saved: Checkpoint) -> None:
    """Loads a checkpoint. Downloaded copies are deleted once all workers have loaded it."""
    stepper.load(saved.tensor, saved.state.step)
    most([0], stepper.world)
    saved.forget_copies()


def check_shapes(model: torch.nn.Module, saved: Checkpoint) -> None:
    """Raises `VersionConflict` if the weights of a checkpoint do not fit the trained part of the model."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        shape = saved.shape(f"model.{name}")
        if shape != tuple(parameter.shape):
            hint = ": the tokenizer has another vocabulary" if "embed" in name or "lm_head" in name else ""
            raise VersionConflict(
                f"{name} is {list(shape)} in the checkpoint and {list(parameter.shape)} in the model{hint}",
                where=saved.folder,
                remedy="use the model size and the tokenizer that the checkpoint was trained with",
            )


def _damage(saved: Checkpoint | None, rank: int, world: int) -> str:
    """What is wrong with this worker's part of a checkpoint's files; empty if nothing is."""
    if saved is None:
        return ""
    names = sorted(saved.files)
    return saved.verify(names if storage.is_remote(saved.folder) else names[rank::world])


def _agree_on(reason: str, world: int) -> str:
    """What any worker found wrong; empty if nothing is."""
    any_worker = bool(most([bool(reason)], world)[0])
    return reason or ("another worker found it damaged" if any_worker else "")


def _check_decisions(saved: Checkpoint, recipe: Recipe) -> None:
    result = changes(_of_the_model(saved.state.recipe), _of_the_model(recipe.decisions("train")))
    if result:
        raise VersionConflict(
            "the recipe changed since this run began: " + "; ".join(result[:8]),
            where=recipe.folder("train"),
            remedy="undo the change, or start a run with another name: train.run=<name>; to "
            "continue from this one, add train.branch_from=<a checkpoint folder>",
        )


def _of_the_model(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """The decisions without validation settings, which do not affect the model."""
    return {**decisions, "train": {k: v for k, v in decisions.get("train", {}).items() if k != "validation"}}


def _branch(recipe: Recipe, train: Train, rank: int, world: int) -> Start:
    """The first start of a run that branches from another's checkpoint: tokens
    and optimizer state continue."""
    parent = checkpoint.open_at(storage.absolute(recipe.locate(train.branch_from)))
    if reason := _agree_on(_damage(parent, rank, world), world):
        remedy = "branch from another checkpoint of that run"
        raise StorageError(
            f"the checkpoint to branch from is damaged: {reason}", where=parent.folder, remedy=remedy
        )
    then = Train.model_validate(parent.state.recipe["train"])
    check_branch(train.schedule, train.tokens, then.schedule, then.tokens, parent.state.tokens)
    kept = {
        name: fact for name, fact in parent.state.lineage.items() if name == MODEL
    }  # what adapters were added to
    state = replace(parent.state, passed_over=(), recent_losses=(), lineage={"parent": parent.folder} | kept)
    return Start(state, parent, branches.origin(recipe, parent.state, parent.folder))
