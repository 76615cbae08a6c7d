"""MLflow: finds a resumed run by a tag."""

from __future__ import annotations

from collections.abc import Mapping

from ctllm_ray.train.tracking.tracker import TrackedRun, Tracker, finite_only, load_client


def open_tracker(run: TrackedRun) -> Tracker:
    """The tracker of a run. Raises `RecipeError` if the client is not installed."""
    return Mlflow(run)


class Mlflow:
    """An MLflow run."""

    def __init__(self, run: TrackedRun) -> None:
        self._mlflow = load_client("mlflow", "MLflow")
        self._mlflow.set_experiment(run.project)
        tag = "ctllm.run"
        result = self._mlflow.search_runs(
            experiment_names=[run.project],
            filter_string=f"tags.`{tag}` = '{run.identity}'",
            output_format="list",
        )
        if result:
            self._mlflow.start_run(run_id=result[0].info.run_id)
            return
        self._mlflow.start_run(run_name=run.name, tags={tag: run.identity})
        self._mlflow.log_dict(run.settings, "recipe.json")

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics."""
        self._mlflow.log_metrics(finite_only(values), step=step)

    def note(self, step: int, kind: str, text: str) -> None:
        """The newest event of each kind as a tag (at most 5,000 characters)."""
        self._mlflow.set_tag(f"event.{kind}", f"step {step}: {text}"[:5000])

    def flush(self) -> None:
        """MLflow sends at once."""

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()
