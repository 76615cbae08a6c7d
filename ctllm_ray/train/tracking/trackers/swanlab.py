"""SwanLab: a resumed run keeps its id."""

from __future__ import annotations

from collections.abc import Mapping

from ctllm_ray.train.tracking.tracker import TrackedRun, Tracker, finite_only, load_client


def open_tracker(run: TrackedRun) -> Tracker:
    """The tracker of a run. Raises `RecipeError` if the client is not installed."""
    return Swanlab(run)


class Swanlab:
    """A SwanLab run."""

    def __init__(self, run: TrackedRun) -> None:
        self._swanlab = load_client("swanlab", "SwanLab")
        self._swanlab.init(
            project=run.project,
            experiment_name=run.name,
            id=run.identity,
            resume="allow",
            config=run.settings,
        )

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics."""
        self._swanlab.log(finite_only(values), step=step)

    def note(self, step: int, kind: str, text: str) -> None:
        """An event as a text."""
        self._swanlab.log({f"event/{kind}": self._swanlab.Text(text)}, step=step)

    def flush(self) -> None:
        """SwanLab sends in the background."""

    def close(self) -> None:
        """Ends the run."""
        self._swanlab.finish()
