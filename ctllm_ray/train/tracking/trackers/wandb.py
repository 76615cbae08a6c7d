"""Weights & Biases: a resumed run keeps its id."""

from __future__ import annotations

from collections.abc import Mapping

from ctllm_ray.train.tracking.tracker import TrackedRun, Tracker, finite_only, load_client


def open_tracker(run: TrackedRun) -> Tracker:
    """The tracker of a run. Raises `RecipeError` if the client is not installed."""
    return Wandb(run)


class Wandb:
    """A Weights & Biases run."""

    def __init__(self, run: TrackedRun) -> None:
        client = load_client("wandb", "W&B")
        self._run = client.init(
            project=run.project, name=run.name, id=run.identity, resume="allow", config=run.settings
        )
        # Its own step counter only grows: after a resume from an earlier step it would drop values.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics over our own step."""
        self._run.log({"step": step} | finite_only(values))

    def note(self, step: int, kind: str, text: str) -> None:
        """The newest event of each kind in the run's summary."""
        self._run.summary[f"event/{kind}"] = f"step {step}: {text}"

    def flush(self) -> None:
        """W&B sends in the background."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()
