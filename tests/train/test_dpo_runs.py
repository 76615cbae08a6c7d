"""Whole runs of DPO: killed, resumed and resized they are one run; it learns the preference that the pairs
hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctllm_ray.base.errors import InputError, NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.objectives.dpo import SUMS
from ctllm_ray.train.report import render
from ctllm_ray.train.report.run_facts import collect_facts
from ctllm_ray.train.report.words import WORDS
from ctllm_ray.train.tracking import records
from ctllm_ray.train.validation.validate import validate_checkpoint
from ctllm_ray.train.validation.validate_pairs import score_pairs
from tests.train import pair_runs, tiny_runs
from tests.train.test_elastic import start
from tests.train.tiny_runs import assert_same_model, last, run

LORA = {"rank": 4, "alpha": 8.0}
NEAR = 1e-3  # nats per pair


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def ready(root: Path, *given: Any, **options: Any) -> Recipe:
    """A run whose reference is computed."""
    of = pair_runs.recipe(root, *given, **options)
    reference_log_probs.complete(of, reference_log_probs.here)
    return of


@pytest.mark.parametrize("stops", [[1], [5], [2, 3]])
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, stops: list[int]) -> None:
    whole, cut = ready(tmp_path / "whole"), ready(tmp_path / "cut")
    _, losses, rows = run(whole)
    found: list[tuple[float, bytes]] = []
    for batches in [*stops, 10**9]:
        _, *diary = run(cut, batches)
        found += zip(*diary, strict=True)
    assert found == list(zip(losses, rows, strict=True))
    assert_same_model(whole, cut)
    assert [r.metrics for r in records.read_steps(cut.folder("train"))] == [
        r.metrics for r in records.read_steps(whole.folder("train"))
    ]


def test_kill_minus_9_loses_only_what_was_not_saved(tmp_path: Path) -> None:
    often = {"keep_every_tokens": 2 * pair_runs.BATCH_TOKENS}
    whole, cut = ready(tmp_path / "whole"), ready(tmp_path / "cut", resources=often)
    run(whole)
    code = f"""
import os, signal, time, torch
from pathlib import Path
from ctllm_ray.train import session
from tests.train import pair_runs, tiny_runs
torch.set_num_threads(1)
class Killed(tiny_runs.Watched):
    def apply(self, rate):
        if len(self.losses) == 5:
            while not Path({cut.folder("train")!r}, "checkpoints", "00000004", "CHECKPOINT.json").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(rate)
around = tiny_runs.Around(kind=Killed)
session.train(pair_runs.recipe(Path({str(tmp_path / "cut")!r}), resources={often!r}), around.stepper_of, hooks=around)
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    _, losses, _ = run(cut)
    assert len(losses) == 2  # from the checkpoint after step 4
    assert_same_model(whole, cut)


def test_before_the_first_update_no_answer_is_preferred_and_the_loss_is_log_2(tmp_path: Path) -> None:
    _, losses, _ = run(ready(tmp_path), 1)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_preference_of_the_pairs_is_learnt_and_told(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    of = ready(tmp_path, 30, lora=lora)
    run(of)
    metrics = [record.metrics for record in records.read_steps(of.folder("train"))]
    first, end = metrics[0], metrics[-1]
    assert all(tuple(of_step) == SUMS for of_step in metrics)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert end["accuracy"] > 0.9
    assert end["margin"] > 0.1
    assert end["chosen_gain"] > end["rejected_gain"]
    assert 3 <= end["chosen_tokens"] <= 10  # answers of 2 to 9 ids and their end


def test_the_report_draws_what_is_told_and_has_words_for_it(tmp_path: Path) -> None:
    of = ready(tmp_path, 4)
    run(of)
    page = render.render_page(collect_facts(of))
    for name in SUMS:
        assert all(word in page for word in WORDS[name])


def test_held_out_pairs_are_judged_beside_the_reference(tmp_path: Path) -> None:
    of = ready(tmp_path, 30, validation={"every_tokens": 30 * pair_runs.BATCH_TOKENS})
    run(of)
    found = validate_checkpoint(of.model_dump(mode="json"), last(of).folder)
    assert {group: facts["pairs"] for group, facts in found.items()} == {"helpful": 6, "harmless": 6}
    for facts in found.values():
        assert facts["accuracy"] > 0.8
        assert facts["margin"] > 0
        assert facts["preferred_share"] >= facts["reference_preferred_share"]
    assert records.read_validation(of.folder("train"))[0]["groups"] == found


def test_a_group_that_the_mixture_leaves_out_is_not_judged(tmp_path: Path) -> None:
    of = ready(tmp_path, 2, mixture=[{"shares": {"helpful": 1.0}}], validation={"every_tokens": 10**6})
    run(of)
    found = validate_checkpoint(of.model_dump(mode="json"), last(of).folder)
    assert {group: "accuracy" in facts for group, facts in found.items()} == {
        "helpful": True,
        "harmless": False,
    }


def test_accuracy_is_of_margins_and_preferred_shares_of_probabilities() -> None:
    logs, references = np.array([-1.0, -2.0, -9.0, -3.0]), np.array([-1.0, -1.0, -9.0, -4.0])
    found = score_pairs(logs, references)
    assert found == {
        "pairs": 2, "accuracy": 0.5, "margin": 0.0, "preferred_share": 0.5, "reference_preferred_share": 0.0
    }  # fmt: skip


def test_metrics_are_means_over_the_pairs_of_the_global_batch_however_it_is_cut(tmp_path: Path) -> None:
    metrics = []
    for sequences in (1, 2, 4):
        of = ready(tmp_path / str(sequences), 3, resources={"micro_sequences": sequences})
        run(of)
        metrics.append([record.metrics for record in records.read_steps(of.folder("train"))])
    for one, two, four in zip(*metrics, strict=True):
        for name in SUMS:
            assert one[name] == pytest.approx(four[name], rel=1e-4, abs=1e-4)
            assert two[name] == pytest.approx(four[name], rel=1e-4, abs=1e-4)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("lora", "stage"), [(None, 1), (LORA, 2)])
def test_workers_and_zero_stages_come_and_go_and_the_losses_are_those_of_one(
    tmp_path: Path, lora: dict[str, Any] | None, stage: int
) -> None:
    batches = 60  # several workers stop within 50 batches of being told to
    options: dict[str, Any] = {
        "lora": lora,
        "schedule": {"use": "cosine", "peak_rate": 2e-4, "warmup_tokens": 0},
    }
    _, whole_losses, whole_rows = run(ready(tmp_path / "whole", batches, **options))
    parts = [
        (2, 3, {"stepper": "deepspeed", "zero_stage": stage}),
        (1, 3, {"stepper": "torch"}),
        (2, batches, {"stepper": "deepspeed", "zero_stage": 3}),
    ]
    losses: list[float] = []
    rows: list[bytes] = []
    for number, (world, most, resources) in enumerate(parts):
        of = ready(tmp_path / "resized", batches, resources=resources, **options)
        _, more_losses, more_rows = start(of, world, most, tmp_path / f"start-{number}")
        losses, rows = losses + more_losses, rows + more_rows
    assert rows == whole_rows
    assert max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True)) < NEAR
    assert last(of).state.zero_stage == 3


def test_without_a_reference_the_run_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        run(pair_runs.recipe(tmp_path))


def test_texts_are_no_pairs(tmp_path: Path) -> None:
    tiny_runs.write_tokens(tmp_path / "p" / "1" / "tokens")
    of = pair_runs.recipe(tmp_path, mixture=[{"shares": {"web": 1.0}}])
    with pytest.raises(InputError, match="the objective reads preference pairs"):
        reference_log_probs.complete(of, reference_log_probs.here)


@pytest.mark.parametrize(
    "wrong", [{"beta": 0.0}, {"beta": -1.0}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}]
)
def test_options_that_no_loss_has_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    of = pair_runs.recipe(tmp_path, objective={"use": "dpo"} | wrong)
    with pytest.raises(RecipeError):
        run(of)
