"""What the loop does beside training: marks, agreement, spikes, divergence, records, several workers."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ctllm_ray.base.errors import Diverged, StorageError
from ctllm_ray.train import loop, session
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.loop import passes
from ctllm_ray.train.tracking import records
from tests.train.test_resume import spoiling
from tests.train.tiny_runs import Around, Watched, assert_same_model, last, recipe, run

SPIKES = {"policy": "skip", "window_steps": 16, "deviations": 20}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def events(of: Any, kind: str) -> list[records.Event]:
    return [event for event in records.read_events(of.folder("train")) if event.kind == kind]


def test_every_update_is_recorded_with_its_rate_at_the_tokens_it_ends_at(tmp_path: Path) -> None:
    of = recipe(tmp_path, 4, schedule={"use": "wsd", "peak_rate": 0.004, "warmup_tokens": 4 * 64})
    state, losses, _ = run(of)
    found = records.read_steps(of.folder("train"))
    assert [r.loss for r in found] == losses
    assert [r.rate for r in found] == [0.001, 0.002, 0.003, 0.004]
    assert [(r.step, r.batch, r.tokens) for r in found] == [(n + 1, n, 64 * (n + 1)) for n in range(4)]
    assert sum(r.targets for r in found) == state.targets
    assert all(r.grad_norm > 0 and r.seconds > 0 and r.wait_s >= 0 and not math.isnan(r.mfu) for r in found)


def test_checkpoints_are_told_of_in_order_and_validation_follows_its_checkpoint(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    class Listening(Around):
        def after_save(self, step: int, metrics: Any) -> None:
            assert step in checkpoint.steps(of.folder("train"))
            assert metrics["tokens"] == step * 64
            told.append(("saved", step))

        def validate(self, step: int) -> None:
            told.append(("validate", step))

    of = recipe(tmp_path, 7, resources={"keep_every_tokens": 2 * 64}, validation={"every_tokens": 3 * 64})
    around = Listening()
    session.train(of, around.stepper_of, hooks=around)
    wanted = [("saved", 2), ("saved", 3), ("validate", 3), ("saved", 4), ("saved", 6), ("validate", 6)]
    assert told == [*wanted, ("saved", 7), ("validate", 7)]


def test_marks_are_where_a_multiple_is_reached_or_passed() -> None:
    assert [passes(100, before, before + 64) for before in (0, 36, 64, 128, 136)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert passes(10, 0, 64)


def test_a_time_between_checkpoints_is_kept_by_the_clock_of_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "BEAT_S", 0.0)  # agree after every step
    of = recipe(tmp_path, 6, resources={"checkpoint_s": 1e-9, "keep": 2})
    run(of)
    assert checkpoint.steps(of.folder("train")) == [5, 6]
    assert [event.step for event in events(of, "checkpoint")][-2:] == [5, 6]
    assert all(event.facts["stall_s"] >= 0 and event.facts["bytes"] > 0 for event in events(of, "checkpoint"))


def test_a_stop_saves_and_says_so(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    state = run(of, 3)[0]
    assert (state.step, last(of).step) == (3, 3)
    assert [event.step for event in events(of, "stopped")] == [3]
    assert not events(of, "finished")


def test_sigterm_saves_and_ends_a_run_without_ray_and_validation_runs_in_between(tmp_path: Path) -> None:
    of = recipe(tmp_path, validation={"every_tokens": 3 * 64})

    class Terminated(Watched):
        def apply(self, rate: float) -> torch.Tensor:
            if len(self.losses) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().apply(rate)

    before = signal.getsignal(signal.SIGTERM)
    assert session.train(of, Terminated).step == 5
    assert signal.getsignal(signal.SIGTERM) is before
    assert last(of).step == 5
    (found,) = records.read_validation(of.folder("train"))
    assert (found["step"], set(found["groups"])) == (3, {"web", "books"})
    assert session.train(of, Watched).step == 8
    assert [one["step"] for one in records.read_validation(of.folder("train"))] == [3, 6, 8]


def test_validation_that_a_killed_start_left_out_is_made_up_for(tmp_path: Path) -> None:
    of = recipe(tmp_path, 3, validation={"every_tokens": 3 * 64})
    run(of)  # its hooks do not validate
    around = Around()
    session.train(of, around.stepper_of, hooks=around)
    assert (around.validations, around.steppers) == ([3], [])


def test_a_full_disk_stops_the_run_with_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = recipe(tmp_path, resources={"keep_every_tokens": 2 * 64})
    real = checkpoint.write_state_file

    def full(uri: str, tensors: Any) -> Any:
        if "/00000004/" in uri:
            raise StorageError("cannot be written: No space left on device", where=uri)
        return real(uri, tensors)

    monkeypatch.setattr(checkpoint, "write_state_file", full)
    with pytest.raises(StorageError, match="the checkpoint of step 4 could not be written"):
        run(of)
    assert checkpoint.steps(of.folder("train")) == [2]
    monkeypatch.undo()
    assert run(of)[0].step == 8


# --- spikes and divergence
# -------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> list[bytes]:
    """The rows of the 18 batches of the runs below."""
    return run(recipe(tmp_path / "rows", 18))[2]


def test_a_spike_is_reported_with_its_documents_and_trained(tmp_path: Path, rows: list[bytes]) -> None:
    of = recipe(tmp_path, 18, spikes=SPIKES | {"policy": "report"})
    state = run(of, kind=spoiling(rows, 12))[0]
    assert (state.step, state.passed_over) == (18, ())
    (spike,) = events(of, "spike")
    assert (spike.step, spike.facts["batch"]) == (13, 12)
    assert spike.facts["loss"] > spike.facts["bound"]
    assert spike.facts["documents"]
    assert all(name.startswith(("web/train/", "books/train/")) for name in spike.facts["documents"])


def test_a_batch_that_is_skipped_leaves_the_model_as_it_was(tmp_path: Path, rows: list[bytes]) -> None:
    of = recipe(tmp_path, 18, resources={"keep_every_tokens": 64}, spikes=SPIKES)
    state = run(of, kind=spoiling(rows, 12))[0]
    assert (state.step, state.batch, state.tokens, state.passed_over) == (17, 18, 18 * 64, (12,))
    (skipped,) = events(of, "skipped")
    assert (skipped.step, skipped.facts["batch"]) == (12, 12)
    folder = of.folder("train")
    assert [r.batch for r in records.read_steps(folder)] == [*range(12), *range(13, 18)]
    before = checkpoint.open_at(
        checkpoint.folder_of(folder, 12)
    )  # after batch 11: the next update is of batch 13
    assert before.state.batch == 12


def test_a_rewind_goes_back_to_the_checkpoint_and_equals_a_run_that_never_met_the_batch(
    tmp_path: Path, rows: list[bytes]
) -> None:
    skipping = recipe(tmp_path / "skip", 18, spikes=SPIKES)
    run(skipping, kind=spoiling(rows, 12))
    of = recipe(
        tmp_path / "rewind", 18, resources={"keep_every_tokens": 5 * 64}, spikes=SPIKES | {"policy": "rewind"}
    )
    state, losses, _ = run(of, kind=spoiling(rows, 12))
    (rewound,) = events(of, "rewound")
    assert (rewound.step, rewound.facts["to_step"], rewound.facts["batch"]) == (12, 10, 12)
    assert len(losses) == 18 + 2  # batches 10 and 11 twice
    assert (state.step, state.passed_over) == (17, (12,))
    assert [r.step for r in records.read_steps(of.folder("train"))] == list(range(1, 18))
    assert_same_model(skipping, of)


def test_a_rewind_without_a_checkpoint_yet_goes_back_to_the_start(tmp_path: Path, rows: list[bytes]) -> None:
    skipping = recipe(tmp_path / "skip", 18, spikes=SPIKES)
    run(skipping, kind=spoiling(rows, 12))
    of = recipe(tmp_path / "rewind", 18, spikes=SPIKES | {"policy": "rewind"})
    run(of, kind=spoiling(rows, 12))
    assert events(of, "rewound")[0].facts["to_step"] == 0
    assert_same_model(skipping, of)


class NotANumber(Watched):
    """From its fourth batch on every loss is NaN, and so are the gradients."""

    def tamper(self, rows: bytes, loss: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if len(self.rows) < 4:
            return loss
        for parameter in self.module.parameters():
            assert parameter.grad is not None
            parameter.grad.fill_(math.nan)
        return loss * math.nan


def test_a_loss_that_is_no_number_ends_the_run_with_its_batch_and_documents_and_nothing_bad_is_saved(
    tmp_path: Path,
) -> None:
    of = recipe(tmp_path, resources={"keep_every_tokens": 3 * 64})
    with pytest.raises(Diverged) as caught:
        run(of, kind=NotANumber)
    assert caught.value.what.startswith("the loss of step 4 is NaN or infinite")
    assert "batch 3" in caught.value.where
    assert "/train/" in caught.value.where
    assert "peak_rate" in caught.value.remedy
    assert caught.value.exit_code == 10
    assert checkpoint.steps(of.folder("train")) == [3]
    assert all(bool(last(of).tensor(name).isfinite().all()) for name in last(of).names)


def test_batches_without_a_number_are_passed_over_but_not_for_ever(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="in a row") as caught:
        run(recipe(tmp_path, 30, spikes=SPIKES), kind=NotANumber)
    assert type(caught.value).__name__ == "Diverged"


class BadGradient(Watched):
    """The gradient of its third batch is not finite, though its loss is."""

    def tamper(self, rows: bytes, loss: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if len(self.rows) == 3:
            next(iter(self.module.parameters())).grad.fill_(math.inf)  # type: ignore[union-attr]
        return loss


def test_a_gradient_that_is_no_number_is_told_or_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="the gradient norm of step 3 is NaN or infinite"):
        run(recipe(tmp_path / "a"), kind=BadGradient)
    assert run(recipe(tmp_path / "b", spikes=SPIKES), kind=BadGradient)[0].passed_over == (2,)


# --- several workers
# -------------------------------------------------------------------------------------------------

WORKER = """
import json, os, sys
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from ctllm_ray.train import loop, session
from tests.train import tiny_runs
loop.BEAT_S = 0.0  # agree after every step
torch.set_num_threads(1)
rank = int(sys.argv[1])
for number, stage in enumerate(json.loads(sys.argv[2])):
    world, root = stage["world"], Path(stage["root"])
    if rank >= world:
        continue
    if world > 1:
        known = {"init_method": f"tcp://127.0.0.1:{stage['port']}", "timeout": timedelta(seconds=300)}
        dist.init_process_group("gloo", rank=rank, world_size=world, **known)
    around = tiny_runs.Around(stage["batches"])
    state = session.train(tiny_runs.recipe(root, **stage["options"]), around.stepper_of, rank, world, around)
    one = around.steppers[0]
    found = {"losses": one.losses, "rows": [r.hex() for r in one.rows], "state": state.plain(), "saves": around.saves}
    (root / f"stage-{number}-{rank}.json").write_text(json.dumps(found))
    if world > 1:
        dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict]]]:
    """What gloo workers tell of four starts: one run by 2, 1 and 2 workers, and one by 2 that saves all the
    time.

    Two processes for all of them, as most of the time goes to their imports.
    """
    root = tmp_path_factory.mktemp("workers")
    often = {"resources": {"checkpoint_s": 1e-9}, "spikes": SPIKES}
    wanted = [("cut", 2, 3, {}), ("cut", 1, 2, {}), ("cut", 2, 10**9, {}), ("often", 2, 10**9, often)]
    for name in ("cut", "often"):
        recipe(root / name)  # writes its tokens
    described = [
        {
            "root": str(root / name),
            "world": world,
            "batches": batches,
            "options": options,
            "port": free_port(),
        }
        for name, world, batches, options in wanted
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    commands = [[sys.executable, "-c", WORKER, str(rank), json.dumps(described)] for rank in range(2)]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    return root, [
        [json.loads((root / name / f"stage-{number}-{rank}.json").read_text()) for rank in range(world)]
        for number, (name, world, _, _) in enumerate(wanted)
    ]


def test_two_workers_see_the_batches_of_one_and_resize_at_will(
    tmp_path: Path, stages: tuple[Path, list[list[dict]]]
) -> None:
    root, told = stages
    whole, of = recipe(tmp_path), recipe(root / "cut")
    _, losses, rows = run(whole)
    found: list[tuple[float, str]] = []
    for stage, world in zip(told[:3], (2, 1, 2), strict=True):
        assert len({tuple(worker["losses"]) for worker in stage}) == 1  # all workers know the global loss
        joined = ["".join(parts) for parts in zip(*(worker["rows"] for worker in stage), strict=True)]
        found += zip(stage[0]["losses"], joined, strict=True)
        assert stage[0]["state"]["world"] == world
    assert [row for _, row in found] == [row.hex() for row in rows]
    assert [loss for loss, _ in found] == pytest.approx(losses, abs=1e-5)
    one, other = last(whole), last(of)
    assert len(other.files) == 2
    for name in one.names:
        torch.testing.assert_close(one.tensor(name), other.tensor(name), rtol=0, atol=1e-4)
    assert [event.facts["workers"] for event in events(of, "resized")] == [1, 2]


def test_all_workers_save_together(stages: tuple[Path, list[list[dict]]]) -> None:
    first, second = stages[1][3]
    assert first["saves"] == second["saves"]
    assert first["saves"][-1] == 8
    assert len(first["saves"]) > 2
