"""Runs a sweep on Ray Tune. Trials run side by side as far as resources allow.

Each trial is a training run inside a Tune worker process (trial.py), which then takes the next trial. So
torch and transformers are imported once per worker, and no trial starts a Ray Train worker group. Finished
trials are known from our own files (results.py). After a kill, Tune gets only the remaining trials; its own
restore, which needs its pickles and the same code, is not used. Ray retries a worker that dies, up to
`resources.train.max_failures`. An error that a person must fix ends the sweep with its type.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.fs
from ray import tune

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, StorageError, WorkerLost
from ctllm_ray.base.recipe import Recipe, Resources, parse_recipe
from ctllm_ray.mixture import results
from ctllm_ray.mixture.plan import SweepPlan, run_name
from ctllm_ray.mixture.results import Trial
from ctllm_ray.ray_session import check_nodes, environment, session
from ctllm_ray.train.checkpoint.run_lock import RunLock

TUNE = "tune"  # folder for Tune's own files; we read none of them
FAILURE = "failure"

#: Environment variables for Tune in the driver.
SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep at once: finished trials are on storage
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints tables even if it should be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_sweep(plan: SweepPlan, tell: Callable[[str], None] = lambda text: None) -> list[Trial]:
    """Trains all trials of a sweep that have no result yet; returns all. `tell` prints lines for people.

    Raises `VersionConflict` if the recipe or the data changed, or the sweep is already running; `WorkerLost`
    if a trial crashed its worker again and again; and any `CtllmError` of a trial.
    """
    lease = RunLock(plan.folder, uuid.uuid4().hex)
    try:
        results.begin(plan)
        ended = results.read_trials(plan.folder, plan.sweep.trials)
        done = {(trial.number, trial.replicate) for trial in ended}
        left = [run for run in plan.runs if run not in done]
        if left:
            width = plan.recipe.resources.sweep
            cpus = max(os.cpu_count() or 1, width.cpus * max(1, width.concurrent))
            with session(cpus, plan.recipe.resources.object_store_mb), environment(SETTINGS):
                check_nodes(plan.recipe.resources.label_selector(width.gpus))
                _train_trials(plan, left, _TrialReporter(plan, len(ended), tell))
        ended = results.read_trials(plan.folder, plan.sweep.trials)
        results.write_all(plan, ended)
        return ended
    finally:
        lease.release()


def work(values: dict[str, Any]) -> dict[str, Any]:
    """Runs one trial on a worker, from plain values. Errors that a retry cannot
    fix are returned as values."""
    from ctllm_ray.mixture import trial

    recipe = parse_recipe(values["trial"], "sweep")
    try:
        ended = trial.run_trial(recipe)
        return {"number": ended.number, "replicate": ended.replicate}
    except StorageError:
        raise  # a retry may succeed
    except CtllmError as error:
        return {FAILURE: pickle.dumps(error).hex()}


def _train_trials(plan: SweepPlan, left: Sequence[tuple[int, int]], reporter: _TrialReporter) -> None:
    """Trains the remaining trials. Raises `WorkerLost` for those that Ray gave up on."""
    width = plan.recipe.resources.sweep
    fs, path = storage.filesystem(plan.folder)
    remote = storage.is_remote(plan.folder)
    tuner = tune.Tuner(
        tune.with_resources(work, _trial_resources(plan.recipe.resources)),
        param_space={"trial": tune.grid_search([_plain(plan.trial(*run)) for run in left])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=width.concurrent or None,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=path,
            storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)) if remote else None,
            failure_config=tune.FailureConfig(max_failures=plan.recipe.resources.train.max_failures),
            callbacks=[reporter],
            verbose=0,
        ),
    )
    grid = tuner.fit()
    if grid.errors:
        first = str(grid.errors[0]).strip().splitlines() or [""]
        raise WorkerLost(
            f"{len(grid.errors)} trials crashed their worker again and again; last error: {first[-1]}",
            where=plan.folder,
            remedy="run the same command again; finished trials are kept. If memory ran out, set "
            "resources.train.micro_sequences=1, or run fewer trials at once with "
            "resources.sweep.concurrent",
        )


def _trial_resources(resources: Resources) -> tune.PlacementGroupFactory:
    """Ray resources of a trial, on nodes of its kind."""
    width = resources.sweep
    selector = resources.label_selector(width.gpus)
    bundle: dict[str, float] = {"CPU": width.cpus} | ({"GPU": width.gpus} if width.gpus else {})
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[selector] if selector else None)


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


class _TrialReporter(tune.Callback):
    """Reports each finished trial, and raises the error that ends the sweep."""

    def __init__(self, plan: SweepPlan, ended: int, tell: Callable[[str], None]) -> None:
        self._plan, self._ended, self._tell = plan, ended, tell
        self._failure: CtllmError | None = None

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Called after a trial's single report."""
        if FAILURE in result:
            self._failure = pickle.loads(bytes.fromhex(result[FAILURE]))
            return
        self._ended += 1
        self._tell(
            self._line(
                results.read_one(self._plan.folder, *(int(result[key]) for key in ("number", "replicate")))
            )
        )

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Called between two polls of the trials. Tune would convert an exception from
        the other callback to text."""
        if self._failure is not None:
            raise self._failure

    def _line(self, trial: Trial) -> str:
        name = run_name(trial.number, trial.replicate)
        whole = f"{self._ended} of {len(self._plan.runs)}"
        shares = ", ".join(f"{group} {share:.3f}" for group, share in trial.shares.items())
        if trial.status == "diverged":
            return f"{whole}: trial {name} ({shares}) diverged: {trial.reason}"
        bits = trial.objective(self._plan.sweep.weights)
        return f"{whole}: trial {name} ({shares}) {bits:.4f} bits/byte in {trial.seconds:.1f} s"
