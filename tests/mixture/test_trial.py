"""One trial: an ordinary training run whose result stays and whose checkpoint goes; a killed one goes on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ctllm_ray.base.errors import StorageError
from ctllm_ray.mixture import plan, results, trial
from ctllm_ray.train import session
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.steppers.torch import TorchStepper
from ctllm_ray.train.tracking import records
from tests.mixture import small_sweeps as small


def test_a_trial_leaves_bits_by_held_out_group_and_no_checkpoint(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path))
    found = trial.run_trial(planned.trial(1))
    assert results.read_trials(planned.folder, 3) == [found]
    assert (found.number, found.status, found.steps, found.tokens) == (1, "finished", 4, 256)
    assert found.shares == planned.mixtures[1]
    assert set(found.bits) == {"books", "law", "web"} == set(planned.domains)
    assert found.objective({"books": 0.5, "web": 0.5}) == (found.bits["books"] + found.bits["web"]) / 2
    assert checkpoint.steps(planned.trial(1).folder("train")) == []
    assert len(records.read_steps(planned.trial(1).folder("train"))) == 4


def test_the_same_trial_made_again_has_the_same_bits_and_another_mixture_has_others(tmp_path: Path) -> None:
    one, two = (plan.plan_sweep(small.recipe(tmp_path / name)) for name in ("one", "two"))
    assert (
        trial.run_trial(one.trial(1)).bits
        == trial.run_trial(two.trial(1)).bits
        != trial.run_trial(one.trial(2)).bits
    )


class Killed(Exception):
    """As if the process were gone."""


def test_a_trial_that_was_killed_goes_on_from_its_checkpoint_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path))
    expected = trial.run_trial(plan.plan_sweep(small.recipe(tmp_path / "whole")).trial(0))
    recipe = planned.trial(0)
    with pytest.raises(Killed):
        session.train(recipe, Dying)
    assert results.read_trials(planned.folder, 3) == []
    assert trial.run_trial(recipe).bits == expected.bits


class Dying(TorchStepper):
    """A stepper whose process dies in the third step."""

    def apply(self, rate: float) -> torch.Tensor:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            raise Killed
        return super().apply(rate)


def test_a_diverged_trial_is_kept_and_marked(tmp_path: Path) -> None:
    planned = plan.plan_sweep(
        small.recipe(tmp_path, {"schedule": {"use": "cosine", "peak_rate": 1e30, "warmup_tokens": 0}})
    )
    found = trial.run_trial(planned.trial(0))
    assert found.status == "diverged"
    assert "NaN or infinite" in found.reason
    assert found.bits == {}
    assert math.isnan(found.objective(planned.sweep.weights))
    results.write_all(planned, results.read_trials(planned.folder, 3))
    assert '"objective":null' in Path(planned.folder, "results.jsonl").read_text()


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path))
    results.write_trial(planned.folder, small.trial(0, planned.mixtures[0], {}))
    Path(planned.folder, "trials/0000/RESULT.json").write_text('{"number": 0}')
    with pytest.raises(StorageError, match="not a trial result"):
        results.read_trials(planned.folder, 3)
