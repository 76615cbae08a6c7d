"""Sweeps on Ray Tune: trials side by side, a killed driver, errors that end a sweep, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import InputError
from ctllm_ray.mixture import launch, plan, results
from ctllm_ray.mixture.report import outcome
from tests.mixture import small_sweeps as small

pytestmark = pytest.mark.cluster
WAIT_S = 240


def write(root: Path, trials: int = 2, concurrent: int = 2, **changed: Any) -> Path:
    """A recipe file of a sweep, each mixture run twice, so many trials at a time."""
    small.recipe(root)
    plain = small.plain(root, {"trials": trials, "replicates": 2}, block_sequences=64)
    plain["resources"]["sweep"] = {"concurrent": concurrent}
    file = root / "recipe.yaml"
    file.write_text(yaml.safe_dump(plain | changed), encoding="utf-8")
    return file


def test_a_sweep_ends_with_a_result_for_each_trial_a_mixture_and_a_page(
    tmp_path: Path, cluster: None
) -> None:
    planned = plan.plan_sweep(recipes.load_recipe(str(write(tmp_path))))
    told: list[str] = []
    trials = launch.run_sweep(planned, told.append)
    assert [(trial.number, trial.replicate) for trial in trials] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [trial.shares for trial in trials] == [planned.mixtures[n] for n in (0, 0, 1, 1)]
    assert trials[0].bits != trials[1].bits
    assert len(told) == 4
    lines = [json.loads(line) for line in Path(planned.folder, results.RESULTS).read_text().splitlines()]
    assert [line["objective"] for line in lines] == [
        trial.objective(planned.sweep.weights) for trial in trials
    ]
    outcome.write_outcome(planned, trials)
    assert "sha256 " + planned.data in Path(planned.folder, outcome.REPORT).read_text(encoding="utf-8")
    assert launch.run_sweep(planned, told.append) == trials  # nothing is left: no Ray, no trial
    assert len(told) == 4


def test_an_error_that_a_person_has_to_mend_ends_the_sweep_with_its_type(
    tmp_path: Path, cluster: None
) -> None:
    planned = plan.plan_sweep(recipes.load_recipe(str(write(tmp_path, concurrent=1))))
    shard = next(Path(tmp_path, "t/1/tokens/train/books").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="changed since it was written"):
        launch.run_sweep(planned)
    assert results.read_trials(planned.folder, 2) == []


def trial_file(folder: str, number: int, replicate: int) -> Path:
    return Path(folder, plan.TRIALS, plan.run_name(number, replicate), "RESULT.json")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_without_losing_a_finished_trial(tmp_path: Path) -> None:
    file = write(tmp_path, trials=3)
    command = [sys.executable, "-m", "ctllm_ray", "sweep", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    planned = plan.plan_sweep(recipes.load_recipe(str(file)))
    end = time.monotonic() + WAIT_S
    while not (before := results.read_trials(planned.folder, 3)):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    runs = [(trial.number, trial.replicate) for trial in before]
    stamps = {run: trial_file(planned.folder, *run).stat().st_mtime_ns for run in runs}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    assert [(trial.number, trial.replicate) for trial in results.read_trials(planned.folder, 3)] == sorted(
        planned.runs
    )
    for run, stamp in stamps.items():
        assert trial_file(planned.folder, *run).stat().st_mtime_ns == stamp
    assert f"{planned.folder}/{outcome.MIXTURE}" in done.stdout
