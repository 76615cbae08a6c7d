"""The number of workers, the stepper and the ZeRO stage change in the middle of a run: data and loss do not
notice."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.train import session, stepper
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.tracking import records
from tests.train.tiny_runs import Around, recipe, run

BATCHES = 48
NEAR = 1e-3  # nats per token
#: At six times this rate the random documents are chaotic: one weight changed by 1e-7 moved the loss by 7e-3
#: after 47 updates of the very same program.
SCHEDULE = {"use": "wsd", "peak_rate": 0.0005, "warmup_tokens": 64}


class Diary(Around):
    """Hooks over any stepper, which write down the rows and losses of the batches it was given."""

    def __init__(self, of: Recipe, batches: int) -> None:
        super().__init__(batches)
        self._made, _ = stepper.select_stepper(of.resources.train)

    def stepper_of(self, *given: Any) -> Any:
        stepper: Any = self._made(*given)
        stepper.losses, stepper.rows = [], []
        backward = stepper.backward

        def watched(micro_batches: Any, divisor: int) -> torch.Tensor:
            batches = list(micro_batches)
            loss = backward(batches, divisor)
            stepper.rows.append(b"".join(batch.input_ids.tobytes() for batch in batches))
            stepper.losses.append(float(loss[0]))
            return loss

        stepper.backward = watched
        self.steppers.append(stepper)
        return stepper


def worker(plain: str, rank: int, world: int, batches: int, folder: str) -> None:
    """One worker of a start that stops after about so many batches."""
    os.environ |= {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    of = recipes.parse_recipe(json.loads(plain))
    around = Diary(of, batches)
    state = session.train(of, around.stepper_of, rank, world, around)
    torch.save((state.plain(), around.steppers[0].losses, around.steppers[0].rows), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def start(of: Recipe, world: int, batches: int, folder: Path) -> tuple[RunState, list[float], list[bytes]]:
    """A start with so many workers, each a process: the state it ends in, losses, rows of whole batches."""
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")  # what is slow to import is imported once
    context.set_forkserver_preload(
        ["ctllm_ray.train.session", "transformers.models.llama.modeling_llama", "deepspeed"]
    )
    given = [(of.model_dump_json(), rank, world, batches, str(folder)) for rank in range(world)]
    processes = [context.Process(target=worker, args=arguments) for arguments in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world
    found = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
    assert all(losses == found[0][1] for _, losses, _ in found)
    rows = [b"".join(parts) for parts in zip(*[rows for _, _, rows in found], strict=True)]
    return RunState.from_plain(found[0][0]), found[0][1], rows


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.timeout(600)
def test_two_workers_then_one_then_two_see_the_same_batches_and_almost_the_same_loss(tmp_path: Path) -> None:
    _, whole_losses, whole_rows = run(recipe(tmp_path / "whole", BATCHES, schedule=SCHEDULE))
    parts = [
        (2, 8, {"stepper": "deepspeed", "zero_stage": 1}),
        (1, 8, {"stepper": "torch"}),
        (2, BATCHES, {"stepper": "deepspeed", "zero_stage": 3}),
    ]
    losses: list[float] = []
    rows: list[bytes] = []
    for number, (world, batches, resources) in enumerate(parts):
        of = recipe(tmp_path / "resized", BATCHES, resources=resources, schedule=SCHEDULE)
        state, more_losses, more_rows = start(of, world, batches, tmp_path / f"start-{number}")
        losses, rows = losses + more_losses, rows + more_rows
        assert state.batch == len(rows)
    assert len(rows) == BATCHES
    assert rows == whole_rows
    assert max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True)) < NEAR
    resized = [e.facts for e in records.read_events(of.folder("train")) if e.kind == "resized"]
    assert [(facts["workers_before"], facts["workers"]) for facts in resized] == [(2, 1), (1, 2)]
