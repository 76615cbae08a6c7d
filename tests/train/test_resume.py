"""Saving at k and going on equals never stopping, to the bit; and what must not go on says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.train import session
from ctllm_ray.train.checkpoint import checkpoint, resume, run_lock
from ctllm_ray.train.checkpoint.lineage import RUN
from ctllm_ray.train.checkpoint.run_lock import RUNNING
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.tracking import records
from tests.train import tiny_runs
from tests.train.tiny_runs import Watched, assert_same_model, last, recipe, run, write_tokens


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("stops", [[1], [3], [4], [7], [2, 1, 3]])
def test_resume_at_step_k_equals_never_stopping(tmp_path: Path, stops: list[int]) -> None:
    whole, cut = recipe(tmp_path / "whole"), recipe(tmp_path / "cut")  # a new phase begins after batch 4
    _, losses, rows = run(whole)
    found: list[tuple[float, bytes]] = []
    for batches in [*stops, 10**9]:
        state, *diary = run(cut, batches)
        found += zip(*diary, strict=True)
    assert found == list(zip(losses, rows, strict=True))
    assert (state.step, state.batch, state.tokens) == (8, 8, 8 * tiny_runs.BATCH_TOKENS)
    assert_same_model(whole, cut)
    steps = [record.step for record in records.read_steps(cut.folder("train"))]
    assert steps == list(range(1, 9))


class Spoilt(Watched):
    """Two batches of the run have a loss that is far too large: told by the sum of their bytes, whenever they come."""

    spoilt: frozenset[bytes] = frozenset()

    def tamper(self, rows: bytes, loss: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return loss + 40 if rows in self.spoilt else loss


def spoiling(rows: list[bytes], *numbers: int) -> type[Spoilt]:
    return type("SomeSpoilt", (Spoilt,), {"spoilt": frozenset(rows[number] for number in numbers)})


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> type[Spoilt]:
    """Spoils batches 11 and 15 of a run of 18."""
    return spoiling(run(recipe(tmp_path_factory.mktemp("plain"), 18))[2], 11, 15)


@pytest.fixture(scope="module", params=["skip", "rewind"])
def unstopped(
    request: pytest.FixtureRequest, spoilt: type[Spoilt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, RunState]:
    """That run under a policy, never stopped, and how it ended."""
    spikes = {"policy": request.param, "window_steps": 16, "deviations": 20}
    whole = recipe(tmp_path_factory.mktemp("whole"), 18, spikes=spikes)
    return whole, run(whole, kind=spoilt)[0]


@pytest.mark.parametrize("stop", [11, 12, 13, 16])
def test_resume_equals_never_stopping_where_batches_are_passed_over(
    tmp_path: Path, unstopped: tuple[Recipe, RunState], spoilt: type[Spoilt], stop: int
) -> None:
    whole, state = unstopped
    assert (state.step, state.batch, state.passed_over) == (16, 18, (11, 15))
    assert whole.train
    cut = recipe(tmp_path, 18, spikes=whole.train.spikes.model_dump())
    run(cut, stop, kind=spoilt)
    resumed = run(cut, kind=spoilt)[0]
    assert resumed.passed_over == state.passed_over
    assert resumed.recent_losses == state.recent_losses
    assert (resumed.step, resumed.tokens, resumed.targets) == (state.step, state.tokens, state.targets)
    assert_same_model(whole, cut)


def test_kill_minus_9_between_steps_loses_only_what_was_not_saved(tmp_path: Path) -> None:
    whole, cut = recipe(tmp_path / "whole"), recipe(tmp_path / "cut", resources={"keep_every_tokens": 2 * 64})
    run(whole)
    code = f"""
import os, signal, torch
from pathlib import Path
from ctllm_ray.train import session
from tests.train import tiny_runs
torch.set_num_threads(1)
class Killed(tiny_runs.Watched):
    def apply(self, rate):
        if len(self.losses) == 6:
            around.saver_done()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(rate)
class Around(tiny_runs.Around):
    def saver_done(self):
        import time
        while not Path({cut.folder("train")!r}, "checkpoints", "00000004", "CHECKPOINT.json").exists():
            time.sleep(0.01)
around = Around(kind=Killed)
session.train(tiny_runs.recipe(Path({str(tmp_path / "cut")!r}), resources={{"keep_every_tokens": 128}}),
              around.stepper_of, hooks=around)
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert (Path(cut.folder("train")) / RUNNING).exists()  # it did not say good-bye
    state, losses, _ = run(cut)
    assert len(losses) == 4  # from the checkpoint after step 4
    assert state.step == 8
    assert_same_model(whole, cut)


def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path: Path) -> None:
    whole, cut = recipe(tmp_path / "whole"), recipe(tmp_path / "cut")
    run(whole)
    run(cut, 2)
    run(cut, 3)
    broken = next(Path(last(cut).folder).glob("*.safetensors"))
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1  # the size stays right
    broken.write_bytes(content)
    run(cut)
    assert_same_model(whole, cut)
    told = [e for e in records.read_events(cut.folder("train")) if e.kind == "checkpoint_passed_over"]
    assert len(told) == 1
    assert told[0].facts["folder"] == str(broken.parent)
    assert "SHA-256" in told[0].facts["reason"]


def test_where_no_checkpoint_is_whole_the_run_does_not_begin_again_unasked(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    run(of, 2)
    next(Path(last(of).folder).glob("*.safetensors")).unlink()
    with pytest.raises(StorageError, match="all checkpoints are damaged"):
        run(of)


def test_a_finished_run_builds_nothing(tmp_path: Path) -> None:
    of = recipe(tmp_path, 3)
    state = run(of)[0]
    assert session.train(of, pytest.fail, hooks=tiny_runs.Around()) == state  # type: ignore[arg-type]


def test_decisions_that_changed_are_named(tmp_path: Path) -> None:
    run(recipe(tmp_path), 2)
    changed = recipe(tmp_path, optimizer={"weight_decay": 0.2}, precision="bf16")
    with pytest.raises(VersionConflict) as caught:
        run(changed)
    assert "train.optimizer.weight_decay: 0.1 -> 0.2" in caught.value.what
    assert 'train.precision: "fp32" -> "bf16"' in caught.value.what
    assert "train.run" in caught.value.remedy


def test_resources_and_validation_may_change(tmp_path: Path) -> None:
    whole, cut = recipe(tmp_path / "whole"), recipe(tmp_path / "cut")
    run(whole)
    run(cut, 3)
    run(
        recipe(tmp_path / "cut", resources={"checkpoint_s": 5, "keep": 3}, validation={"every_tokens": 10**6})
    )
    assert_same_model(whole, cut)


def test_another_vocabulary_is_an_error(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    run(of, 2)
    tokens = tmp_path / "t" / "1" / "tokens"
    path = tokens / "MANIFEST.json"
    plain = storage.read_json(str(path))
    plain["provenance"]["vocab_size"] = "200"
    storage.write_json(str(path), plain)
    with pytest.raises(
        VersionConflict, match=r"embed_tokens.*\[128, 192\] in the checkpoint and \[200, 192\]"
    ):
        run(of)


def test_a_shard_that_changed_since_is_named(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    run(of, 2)
    shard = next((tmp_path / "t" / "1" / "tokens" / "train" / "web").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="changed") as caught:
        run(of)
    assert caught.value.where == str(shard)


def test_a_batch_that_does_not_divide_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        resume, "from_first", lambda value, world: value
    )  # the other two workers are not there
    with pytest.raises(RecipeError, match="4 sequences cannot be divided among 3 workers"):
        session.train(recipe(tmp_path), pytest.fail, rank=0, world=3, hooks=tiny_runs.Around())  # type: ignore[arg-type]


def test_a_corpus_may_join_a_begun_run(tmp_path: Path) -> None:
    own = tmp_path / "t" / "1" / "tokens"
    run(recipe(tmp_path), 3)
    write_tokens(tmp_path / "more", seed=9)
    state = run(recipe(tmp_path, corpora=[str(own), str(tmp_path / "more")]))[0]
    assert state.step == 8
    data = storage.read_json(f"{recipe(tmp_path).folder('train')}/DATA.json")
    assert [generation["from_batch"] for generation in data["generations"]] == [0, 3]
    events = [
        event
        for event in records.read_events(recipe(tmp_path).folder("train"))
        if event.kind == "data_joined"
    ]
    assert [(event.step, event.facts["corpora"]) for event in events] == [(3, [str(tmp_path / "more")])]
    assert state.data != ""


def test_a_run_with_nothing_left_is_known_without_a_worker(tmp_path: Path) -> None:
    whole = recipe(tmp_path)
    assert whole.train is not None
    assert resume.read_ended(whole, whole.train) is None
    run(whole, 3)
    assert resume.read_ended(whole, whole.train) is None
    state = run(whole)[0]
    assert resume.read_ended(whole, whole.train) == state
    changed = recipe(tmp_path, schedule=STABLE | {"peak_rate": 0.001})
    with pytest.raises(VersionConflict, match=r"train\.schedule"):
        resume.read_ended(changed, changed.train)  # type: ignore[arg-type]


# --- branches --------------------------------------------------------------------------------------------------------

STABLE = {"use": "wsd", "peak_rate": 0.003, "warmup_tokens": 64}
DECAY = STABLE | {"decay_tokens": 4 * 64, "decay": "linear", "min_share": 0.0}


def test_a_branch_goes_on_with_tokens_and_optimizer_and_equals_a_run_with_that_schedule(
    tmp_path: Path,
) -> None:
    one_group = {
        "mixture": [{"shares": {"web": 1.0}}]
    }  # the order of groups within a block begins anew at a branch
    whole = recipe(tmp_path / "whole", 10, schedule=DECAY, **one_group)  # stable to batch 6, then decays
    run(whole)
    parent = recipe(tmp_path / "tree", 50, schedule=STABLE, **one_group)
    run(parent, 6)
    of = {"run": "decay", "branch_from": last(parent).folder}
    branch = recipe(tmp_path / "tree", 10, schedule=DECAY, **one_group, **of)
    state, losses, _ = run(branch)
    assert (state.step, state.batch, len(losses)) == (10, 10, 4)
    assert state.lineage["parent"] == last(parent).folder
    assert_same_model(whole, branch)
    assert last(parent).step == 6  # the parent is as it was


def test_a_branch_resumes_as_any_run(tmp_path: Path) -> None:
    parent = recipe(tmp_path, 50, schedule=STABLE)
    run(parent, 6)
    of = {"schedule": DECAY, "branch_from": last(parent).folder}
    whole, cut = recipe(tmp_path, 10, run="whole", **of), recipe(tmp_path, 10, run="cut", **of)
    run(whole)
    run(cut, 2)
    assert run(cut)[0].lineage["parent"] == last(parent).folder
    assert_same_model(whole, cut)


def test_a_branch_may_rewind_before_its_first_checkpoint(tmp_path: Path) -> None:
    parent = recipe(tmp_path, 50, schedule=STABLE)
    run(parent, 12)
    of = {"schedule": STABLE, "branch_from": last(parent).folder}
    rows = run(recipe(tmp_path, 30, run="plain", **of))[2]
    spikes = {"window_steps": 16, "deviations": 20}
    skip, rewind = (
        recipe(tmp_path, 30, run=p, spikes=spikes | {"policy": p}, **of) for p in ("skip", "rewind")
    )
    for one in (skip, rewind):
        assert run(one, kind=spoiling(rows, 12))[0].passed_over == (24,)
    assert_same_model(skip, rewind)


def test_a_branch_that_decays_before_its_parent_is_an_error(tmp_path: Path) -> None:
    parent = recipe(tmp_path, 50, schedule=STABLE)
    run(parent, 6)
    folder = last(parent).folder
    with pytest.raises(RecipeError, match="the branch ends at 384 tokens"):
        run(recipe(tmp_path, 6, run="a", schedule=STABLE, branch_from=folder))


# --- what is written down --------------------------------------------------------------------------------------------


def test_a_run_writes_down_what_it_began_with_and_every_checkpoint_where_it_comes_from(
    tmp_path: Path,
) -> None:
    of = recipe(tmp_path)
    run(of, 2)
    begun = storage.read_json(f"{of.folder('train')}/{RUN}")
    assert begun["recipe"]["train"]["batch_tokens"] == 64
    assert {"commit", "torch", "python"} <= begun["lineage"].keys()
    run(recipe(tmp_path, resources={"keep": 3}))
    assert storage.read_json(f"{of.folder('train')}/{RUN}") == begun  # once
    state = last(of).state
    assert state.recipe == of.decisions("train")
    assert (state.world, state.stepper, state.seed, state.data) == (1, "torch", 5, begun["data"])


def test_another_tokenizer_under_the_same_name_is_refused(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    run(of, 1)
    write_tokens(tmp_path / "other", facts=tiny_runs.FACTS | {"tokenizer": "b" * 64})
    with pytest.raises(VersionConflict, match="have different tokenizers"):
        run(recipe(tmp_path, corpora=[str(tmp_path / "t" / "1" / "tokens"), str(tmp_path / "other")]))


def test_a_second_run_under_one_name_is_refused_while_the_first_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)
    of = recipe(tmp_path)
    refused = []

    class Inside(tiny_runs.Around):
        def after_save(self, step: int, metrics: Any) -> None:
            other = tiny_runs.Around()
            other.owner = "another"
            with pytest.raises(VersionConflict, match="another process is training this run") as caught:
                session.train(of, other.stepper_of, hooks=other)
            refused.append(caught.value)

    around = Inside(2)
    session.train(of, around.stepper_of, hooks=around)
    assert len(refused) == 1
    assert not (Path(of.folder("train")) / RUNNING).exists()
    assert checkpoint.steps(of.folder("train")) == [2]
