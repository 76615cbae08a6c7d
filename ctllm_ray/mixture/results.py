"""The stored results of a sweep: one file per finished trial, and what they all depend on.

`trials/<number>/RESULT.json` is written in one step when a trial ends. After that the trial is never trained
again; a trial killed earlier is. `SWEEP.json` is written first and records what the trials depend on: a later
start with another recipe or other shards stops and names the changes. `results.jsonl` has all trials in one
file and is rewritten each time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.resumable import ResumableFolder
from ctllm_ray.mixture.plan import TRIALS, SweepPlan, run_name

RESULTS = "results.jsonl"
_RUN = re.compile(r"(\d{4,})(?:-(\d+))?")


@dataclass(frozen=True)
class Trial:
    """A finished trial. A diverged one has no bits but a reason; it still counts."""

    number: int
    shares: dict[str, float]
    status: Literal["finished", "diverged"]
    bits: dict[str, float]  # per byte, by held-out group
    steps: int
    tokens: int
    loss: float | None  # nats per target at the last update; None if not finite
    tokens_per_s: float | None
    seconds: float  # of the start that finished it
    reason: str = ""
    replicate: int = 0  # which run of its mixture

    def objective(self, weights: Mapping[str, float]) -> float:
        """Weighted bits per byte over held-out groups; NaN if it diverged."""
        if self.status == "diverged":
            return math.nan
        return sum(weight * self.bits[name] for name, weight in weights.items() if weight)


def begin(plan: SweepPlan) -> None:
    """Writes SWEEP.json, or compares the plan with it. Raises `VersionConflict` if they differ."""
    files, decisions = _files(plan.folder), plan.decisions()
    if (begun := files.read_begun()) is None:
        files.begin(decisions)
        return
    files.check_unchanged(
        begun,
        decisions,
        "the recipe or its data changed since this sweep began",
        remedy="undo the change, or start another sweep with its own name: train.run=<name>",
    )


def write_trial(folder: str, trial: Trial) -> None:
    """Writes the result of a trial. It is not trained again."""
    _files(folder).write_unit(run_name(trial.number, trial.replicate), asdict(trial))


def read_trials(folder: str, trials: int) -> list[Trial]:
    """The finished runs of mixtures below this number, in order. Raises `StorageError` for a damaged file."""
    matches = map(_RUN.fullmatch, _files(folder).list_units())
    runs = sorted((int(match[1]), int(match[2] or 0)) for match in matches if match)
    return [read_one(folder, *run) for run in runs if run[0] < trials]


def read_one(folder: str, number: int, replicate: int = 0) -> Trial:
    """The result of a finished trial."""
    files, name = _files(folder), run_name(number, replicate)
    try:
        return Trial(**files.read_unit(name))
    except TypeError as error:
        reason, remedy = (
            f"the file is not a trial result: {error}",
            "delete the file; the trial is then trained again",
        )
        raise StorageError(reason, where=files.locate_unit(name), remedy=remedy) from None


def _files(folder: str) -> ResumableFolder:
    """The resumable folder. A unit is a trial; there is no last file: a sweep is
    finished when all its trials are."""
    return ResumableFolder(folder, begun="SWEEP.json", unit=f"{TRIALS}/{{}}/RESULT.json")


def write_all(plan: SweepPlan, trials: Sequence[Trial]) -> None:
    """Writes results.jsonl, one line per finished trial."""
    lines = [orjson.dumps(_line(plan, trial)) + b"\n" for trial in trials]
    storage.write_bytes(storage.join(plan.folder, RESULTS), b"".join(lines))


def _line(plan: SweepPlan, trial: Trial) -> dict[str, Any]:
    objective = trial.objective(plan.sweep.weights)
    return asdict(trial) | {"objective": objective if math.isfinite(objective) else None}
