"""Opens trackers that show curves: TensorBoard always; MLflow, W&B and SwanLab if a recipe names them
(`resources.train.trackers`).

Each is a thin adapter: a few calls of the service's own client, configured by that client's own
environment variables (`MLFLOW_TRACKING_URI`, `WANDB_API_KEY`, `SWANLAB_API_KEY`, ...), never by a recipe.
A run has one identity in them, made from its folder, so that a resumed run goes on with the same curves.
What is not finite is not sent.

Each is created and called in its own thread, so training never waits for an HTTP request. A tracker that
fails gets no more calls and stores the reason in `failure`, which becomes an event of the run. A service that
is slower than training loses values; the run's own records lose none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ctllm_ray.base import resolve, storage
from ctllm_ray.train.tracking.tensorboard import TensorBoard
from ctllm_ray.train.tracking.tracker import TrackedRun, Tracker

MOST_WAITING = 10_000  # calls queued for a tracker


def open_trackers(
    names: Sequence[str], folder: str, project: str, run: str, settings: Mapping[str, Any], next_step: int
) -> list[BackgroundTracker]:
    """TensorBoard and the named trackers for the run in `folder`. Raises
    `RecipeError` if one is not installed."""
    identity = hashlib.sha256(folder.encode()).hexdigest()[:21]
    tracked = TrackedRun(identity, project, run or project, dict(settings))
    board = BackgroundTracker(
        "tensorboard", lambda: TensorBoard(storage.join(folder, "tensorboard"), next_step)
    )
    openers = {name: resolve.load_module(resolve.TRACKERS, name).open_tracker for name in names}
    return [board, *(BackgroundTracker(name, partial(opener, tracked)) for name, opener in openers.items())]


class BackgroundTracker:
    """A tracker in its own thread: MLflow, for example, knows its open run by the thread.
    Created before this returns."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name, self.failure = name, ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._tracker = self._thread.submit(make).result()
        self._left = 0  # queued calls; a race may miscount by a few

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Queues the values, unless too many calls are queued."""
        if self._left < MOST_WAITING:
            self._hand(self._tracker.values, step, values)

    def note(self, step: int, kind: str, text: str) -> None:
        """Queues an event."""
        self._hand(self._tracker.note, step, kind, text)

    def flush(self) -> None:
        """Queues a flush without waiting."""
        self._hand(self._tracker.flush)

    def close(self) -> None:
        """Waits until all queued calls are done."""
        self._hand(self._tracker.close)
        self._thread.shutdown(wait=True)

    def _hand(self, call: Callable[..., None], *arguments: Any) -> None:
        self._left += 1
        self._thread.submit(self._call, call, arguments)

    def _call(self, call: Callable[..., None], arguments: tuple) -> None:
        try:
            if not self.failure:
                call(*arguments)
        except Exception as error:  # of any client: a tracker's failure must not end a run
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._left -= 1
