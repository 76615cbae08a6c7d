"""Where curves are shown besides the run's own records: TensorBoard always; MLflow, W&B and SwanLab where a
recipe names them (`resources.train.trackers`).

Each is a thin adapter: a few calls of the service's own client, configured by that client's own environment
variables (`MLFLOW_TRACKING_URI`, `WANDB_API_KEY`, `SWANLAB_API_KEY`, ...), never by a recipe. A run has one
identity in them, made from its folder, so that a resumed run goes on with the same curves. What is not finite
is not sent.

Each is made and called in a thread of its own: an HTTP request takes as long as it takes, and training waits
for none. One that fails is told nothing more and says why in `failure`, which becomes an event of the run; a
service that is slower than training misses values, never the run's own records.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ctllm_ray.base import storage
from ctllm_ray.base.errors import RecipeError

MOST_WAITING = 10_000  # calls handed to a tracker and not yet made


class Tracker(Protocol):
    """A place for curves."""

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step, by name."""

    def note(self, step: int, kind: str, text: str) -> None:
        """An event at a step."""

    def flush(self) -> None:
        """At each checkpoint."""

    def close(self) -> None:
        """At the end."""


def open_trackers(
    names: Sequence[str], folder: str, project: str, run: str, settings: Mapping[str, Any], next_step: int
) -> list[Behind]:
    """TensorBoard and the named ones, for the run in `folder`. Raises `RecipeError` where one is not
    installed."""
    facts = _Run(folder, project, run, settings)
    board = Behind("tensorboard", lambda: TensorBoard(storage.join(folder, "tensorboard"), next_step))
    return [board, *(Behind(name, partial(_SERVICES[name], facts)) for name in names)]


class Behind:
    """A tracker in a thread of its own: MLflow, for one, knows its open run by the thread. Made before this
    returns."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name, self.failure = name, ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._tracker = self._thread.submit(make).result()
        self._left = 0  # calls that wait; a race only miscounts it by a few

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Handed on, unless too many wait."""
        if self._left < MOST_WAITING:
            self._hand(self._tracker.values, step, values)

    def note(self, step: int, kind: str, text: str) -> None:
        """Handed on."""
        self._hand(self._tracker.note, step, kind, text)

    def flush(self) -> None:
        """Handed on; not waited for."""
        self._hand(self._tracker.flush)

    def close(self) -> None:
        """Waits until all that was handed on is told."""
        self._hand(self._tracker.close)
        self._thread.shutdown(wait=True)

    def _hand(self, call: Callable[..., None], *arguments: Any) -> None:
        self._left += 1
        self._thread.submit(self._call, call, arguments)

    def _call(self, call: Callable[..., None], arguments: tuple) -> None:
        try:
            if not self.failure:
                call(*arguments)
        except Exception as error:  # of any client: a run does not end because nobody looks at it
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._left -= 1


class _Run:
    """What the services are told of a run."""

    def __init__(self, folder: str, project: str, name: str, settings: Mapping[str, Any]) -> None:
        self.project, self.name, self.settings = project, name or project, dict(settings)
        self.identity = hashlib.sha256(folder.encode()).hexdigest()[
            :21
        ]  # SwanLab wanted exactly 21 characters once


def _client(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"{package} is not installed: {error}",
            where="resources.train.trackers",
            remedy="pip install 'ctllm-ray[trackers]' on the workers, or take it out of the list",
        ) from None


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


class TensorBoard:
    """Event files beside the run. A remote run has them in a local folder first: an object store cannot
    append."""

    def __init__(self, folder: str, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._remote = storage.is_remote(folder)
        self._local = (
            tempfile.mkdtemp(prefix="ctllm-tensorboard-") if self._remote else folder.removeprefix("file://")
        )
        # steps from next_step on that an earlier run wrote no longer count
        self._writer = SummaryWriter(self._local, purge_step=next_step, flush_secs=10)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in _finite(values).items():
            self._writer.add_scalar(name, value, step)

    def note(self, step: int, kind: str, text: str) -> None:
        """A text below `events/`."""
        self._writer.add_text(f"events/{kind}", text, step)

    def flush(self) -> None:
        """Writes all; copies the event file of a remote run."""
        self._writer.flush()
        if self._remote:
            for path in sorted(Path(self._local).iterdir()):
                storage.write_bytes(storage.join(self._folder, path.name), path.read_bytes())

    def close(self) -> None:
        """The last flush."""
        self.flush()
        self._writer.close()
        if self._remote:
            shutil.rmtree(self._local)


class Mlflow:
    """MLflow: found again by a tag."""

    def __init__(self, run: _Run) -> None:
        self._mlflow = _client("mlflow", "MLflow")
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
        self._mlflow.log_metrics(_finite(values), step=step)

    def note(self, step: int, kind: str, text: str) -> None:
        """The newest event of each kind as a tag (5,000 characters at most)."""
        self._mlflow.set_tag(f"event.{kind}", f"step {step}: {text}"[:5000])

    def flush(self) -> None:
        """MLflow sends at once."""

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()


class Wandb:
    """Weights & Biases."""

    def __init__(self, run: _Run) -> None:
        client = _client("wandb", "W&B")
        self._run = client.init(
            project=run.project, name=run.name, id=run.identity, resume="allow", config=run.settings
        )
        # its own step counter only grows: after a resume from an earlier step it would drop values
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics over a step of ours."""
        self._run.log({"step": step} | _finite(values))

    def note(self, step: int, kind: str, text: str) -> None:
        """The newest event of each kind in the run's summary."""
        self._run.summary[f"event/{kind}"] = f"step {step}: {text}"

    def flush(self) -> None:
        """W&B sends in the background."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class Swanlab:
    """SwanLab."""

    def __init__(self, run: _Run) -> None:
        self._swanlab = _client("swanlab", "SwanLab")
        self._swanlab.init(
            project=run.project,
            experiment_name=run.name,
            id=run.identity,
            resume="allow",
            config=run.settings,
        )

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics."""
        self._swanlab.log(_finite(values), step=step)

    def note(self, step: int, kind: str, text: str) -> None:
        """An event as a text."""
        self._swanlab.log({f"event/{kind}": self._swanlab.Text(text)}, step=step)

    def flush(self) -> None:
        """SwanLab sends in the background."""

    def close(self) -> None:
        """Ends the run."""
        self._swanlab.finish()


_SERVICES: dict[str, Callable[[_Run], Tracker]] = {"mlflow": Mlflow, "wandb": Wandb, "swanlab": Swanlab}
