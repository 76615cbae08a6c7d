"""What a sweep has found so far: a file for each trial that ended, and what they all depend on.

`trials/<number>/RESULT.json` is written when a trial ends, in one step: from then on it is never trained
again, and what was killed before it is. `SWEEP.json` is written first and holds what the trials depend on: a
later start under another recipe, or over other shards, stops and names what changed. `results.jsonl` is all
trials in one file, for people and programs, written anew each time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import changes
from ctllm_ray.base.errors import StorageError, VersionConflict
from ctllm_ray.mixture.plan import TRIALS, SweepPlan, run_name

SWEEP, RESULT, RESULTS = "SWEEP.json", "RESULT.json", "results.jsonl"
_RUN = re.compile(r"(\d{4,})(?:-(\d+))?")


@dataclass(frozen=True)
class Trial:
    """One trial that ended. A diverged one has no bits, and says why; it stays in the count."""

    number: int
    shares: dict[str, float]
    status: Literal["finished", "diverged"]
    bits: dict[str, float]  # per byte, by held-out group
    steps: int
    tokens: int
    loss: float | None  # nats per target, of the last update; None where it is no number
    tokens_per_s: float | None
    seconds: float  # of the start that ended it
    reason: str = ""
    replicate: int = 0  # which of the runs of its mixture

    def objective(self, weights: Mapping[str, float]) -> float:
        """Bits per byte, weighted over held-out groups; NaN where it diverged."""
        if self.status == "diverged":
            return math.nan
        return sum(weight * self.bits[name] for name, weight in weights.items() if weight)


def begin(plan: SweepPlan) -> None:
    """Writes SWEEP.json, or holds the plan against it. Raises `VersionConflict` where they differ."""
    uri = storage.join(plan.folder, SWEEP)
    decisions = plan.decisions()
    if not storage.exists(uri):
        storage.write_json(uri, decisions)
        return
    if result := changes(storage.read_json(uri), decisions):
        raise VersionConflict(
            "the recipe or its data changed since this sweep began: " + "; ".join(result[:8]),
            where=plan.folder,
            remedy="undo it, or begin another sweep under a name of its own: train.run=<name>",
        )


def write(folder: str, trial: Trial) -> None:
    """Writes the result of a trial: it is not trained again."""
    storage.write_json(_place(folder, trial.number, trial.replicate), asdict(trial))


def read_trials(folder: str, trials: int) -> list[Trial]:
    """The runs that ended, of the mixtures below this number, in order. Raises `StorageError` for a damaged
    file."""
    matches = map(_RUN.fullmatch, _run_folders(folder))
    runs = sorted((int(match[1]), int(match[2] or 0)) for match in matches if match)
    return [
        read_one(folder, *run) for run in runs if run[0] < trials and storage.exists(_place(folder, *run))
    ]


def read_one(folder: str, number: int, replicate: int = 0) -> Trial:
    """The result of a trial that ended."""
    uri = _place(folder, number, replicate)
    try:
        return Trial(**storage.read_json(uri))
    except TypeError as error:
        remedy = "delete the file: the trial is made again"
        raise StorageError(f"not the result of a trial: {error}", where=uri, remedy=remedy) from None


def _run_folders(folder: str) -> list[str]:
    fs, path = storage.filesystem(storage.join(folder, TRIALS))
    fs.invalidate_cache()
    return (
        [name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)] if fs.exists(path) else []
    )


def _place(folder: str, number: int, replicate: int) -> str:
    return storage.join(folder, TRIALS, run_name(number, replicate), RESULT)


def write_all(plan: SweepPlan, trials: Sequence[Trial]) -> None:
    """Writes results.jsonl: a line for each trial that ended."""
    lines = [orjson.dumps(_line(plan, trial)) + b"\n" for trial in trials]
    storage.write_bytes(storage.join(plan.folder, RESULTS), b"".join(lines))


def _line(plan: SweepPlan, trial: Trial) -> dict[str, Any]:
    objective = trial.objective(plan.sweep.weights)
    return asdict(trial) | {"objective": objective if math.isfinite(objective) else None}
