"""Records of a run on storage: one line per step and event, safe against crashes.

Only rank 0 records. Step lines go to `metrics/<first step:08d>-<serial:05d>.jsonl`, events to
`events/<serial:05d>.jsonl`, validation to `validation/<step:08d>.json`. An object store cannot append, so a
background thread rewrites a chunk atomically, at most every 5 s, and closes it at each checkpoint. What a
killed run loses is trained again. A later chunk (higher serial) replaces all records from its first step on,
so after a resume or a rewind `read_steps` returns each step once, as it went into the model. Events are never
replaced: they are the run's history.

It costs the training thread 20 microseconds a step, and 10 more for each tracker. Values that are not finite
are null in JSON and NaN when read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

import orjson

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.train.tracking.open_trackers import BackgroundTracker

EVERY_S = 5.0  # between two writes of a chunk
MOST_LINES = 5000  # per chunk, 1 MB: rewriting stays cheap even if checkpoints are far apart
METRICS, EVENTS, VALIDATION = "metrics", "events", "validation"

#: Bits per byte, bits per character, nats per token and counts of one group of held-out documents.
Bits = Mapping[str, float]


@dataclass(frozen=True)
class StepRecord:
    """One update. Speeds are of the whole run, over all workers."""

    step: int  # this update's number, from 1
    batch: int  # number of its global batch
    tokens: int  # positions consumed so far, including this batch
    targets: int  # trained labels in this batch
    loss: float  # nats per target (per pair for preference objectives), before the update
    grad_norm: float  # before clipping
    rate: float  # learning rate
    seconds: float  # since the previous update
    wait_s: float  # of those, waiting for data
    tokens_per_s: float  # positions
    mfu: float = math.nan  # share of the devices' peak; train/plan/mfu.py states the convention
    time: float = 0.0  # Unix seconds at which it was recorded
    metrics: Mapping[str, float] = field(
        default_factory=dict
    )  # the objective's metrics besides its loss, with the same divisor


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: started, resumed, resized, checkpoint, spike,
    skipped, rewound, finished..."""

    kind: str
    time: float  # Unix seconds
    step: int
    facts: Mapping[str, Any]


class Recorder(Protocol):
    """The interface for the loop: `Records` on rank 0, `Quiet` on the others."""

    def step(self, record: StepRecord) -> None:
        """After each update."""

    def event(self, kind: str, *, step: int, **facts: Any) -> None:
        """Records an event; facts are plain values."""

    def validation(self, step: int, tokens: int, groups: Mapping[str, Bits]) -> None:
        """Records results on held-out documents for the model after `step`."""

    def roll(self, next_step: int) -> None:
        """Called at a checkpoint before it is complete. When this returns, all records are on storage."""

    def rewind(self, next_step: int) -> None:
        """Called at a rewind: records from `next_step` on no longer count."""

    def close(self) -> None:
        """Called at the end, also after an error."""


class Quiet:
    """Records nothing: for all ranks except 0."""

    def step(self, record: StepRecord) -> None:
        """Nothing."""

    def event(self, kind: str, *, step: int, **facts: Any) -> None:
        """Nothing."""

    def validation(self, step: int, tokens: int, groups: Mapping[str, Bits]) -> None:
        """Nothing."""

    def roll(self, next_step: int) -> None:
        """Nothing."""

    def rewind(self, next_step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Records:
    """Writes the records of a run whose next update is `next_step`. A failed write
    is raised by the next call."""

    def __init__(
        self,
        folder: str,
        next_step: int,
        trackers: Sequence[BackgroundTracker] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._trackers, self._clock = folder, tuple(trackers), clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._pending: Future[None] | None = None
        self._serial = _last_serial(storage.join(folder, METRICS))
        self._events_name = f"{_last_serial(storage.join(folder, EVENTS)) + 1:05d}.jsonl"
        self._events: list[bytes] = []
        self._failed: set[str] = set()
        self._lines: list[bytes] = []
        self._reported = set(storage.list_names(storage.join(folder, VALIDATION)))
        self._written = 0.0  # when the chunk was last queued
        self.rewind(next_step)

    def step(self, record: StepRecord) -> None:
        """Records an update; it is on storage within about 5 s."""
        now = self._clock()
        self._lines.append(orjson.dumps(asdict(replace(record, time=now))))
        values = {"loss": record.loss, "grad_norm": record.grad_norm, "rate": record.rate, "mfu": record.mfu}
        values |= {"tokens_per_s": record.tokens_per_s, "wait_s": record.wait_s, "tokens": record.tokens}
        values |= record.metrics
        for tracker in self._trackers:
            tracker.values(record.step, values)
        if len(self._lines) >= MOST_LINES:
            self.roll(record.step + 1)
        elif now - self._written >= EVERY_S and (self._pending is None or self._pending.done()):
            self._written = now
            self._write(self._chunk, self._lines)

    def event(self, kind: str, *, step: int, **facts: Any) -> None:
        """Records an event; it is on storage soon."""
        line = orjson.dumps({"kind": kind, "time": self._clock(), "step": step, "facts": facts}, default=str)
        self._events.append(line)
        for tracker in self._trackers:
            tracker.note(step, kind, orjson.dumps(facts, default=str).decode())
        self._write(storage.join(self._folder, EVENTS, self._events_name), self._events)

    def validation(self, step: int, tokens: int, groups: Mapping[str, Bits]) -> None:
        """Writes and reports the results for the model after `step`."""
        write_validation(self._folder, step, tokens, groups)
        self._tell_validation()

    def roll(self, next_step: int) -> None:
        """Closes the chunk and waits until all is on storage. Passes validation of other
        processes to the trackers."""
        self._write(self._chunk, self._lines)
        self._wait()
        self._tell_validation()
        for tracker in self._trackers:
            tracker.flush()
        self._begin(next_step)
        self._tell_failures(next_step - 1)

    def rewind(self, next_step: int) -> None:
        """Closes the chunk. The next one replaces all records from `next_step` on."""
        if self._lines:
            self.roll(next_step)
        self._begin(next_step)
        # empty, but it exists: from now on the steps it replaces are gone
        self._write(self._chunk, self._lines)

    def close(self) -> None:
        """Writes the rest."""
        try:
            self._write(self._chunk, self._lines)
            self._wait()
            self._tell_validation()
        finally:
            self._thread.shutdown(wait=True)
            for tracker in self._trackers:
                tracker.close()

    def _tell_failures(self, step: int) -> None:
        """Records an event for each tracker that failed since the last call."""
        for tracker in self._trackers:
            if tracker.failure and tracker.name not in self._failed:
                self._failed.add(tracker.name)
                self.event("tracker_failed", step=step, tracker=tracker.name, reason=tracker.failure)

    def _begin(self, next_step: int) -> None:
        self._serial += 1
        self._chunk = storage.join(self._folder, METRICS, f"{next_step:08d}-{self._serial:05d}.jsonl")
        self._lines = []
        self._written = self._clock()

    def _write(self, uri: str, lines: Sequence[bytes]) -> None:
        """Queues the lines for the background thread, which writes in order."""
        if self._pending is not None and self._pending.done():
            self._wait()
        before, content = self._pending, b"".join(line + b"\n" for line in lines)
        self._pending = self._thread.submit(_write_after, before, uri, content)

    def _wait(self) -> None:
        """Waits for the background thread; raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _tell_validation(self) -> None:
        folder = storage.join(self._folder, VALIDATION)
        for name in storage.list_names(folder):
            if name in self._reported or not self._trackers:
                continue
            self._reported.add(name)
            plain = storage.read_json(storage.join(folder, name))
            values = {f"{key}/{group}": bits[key] for group, bits in plain["groups"].items() for key in BITS}
            for tracker in self._trackers:
                tracker.values(plain["step"], values)


#: The validation values that trackers show.
BITS = ("bits_per_byte", "bits_per_char")


def _write_after(before: Future[None] | None, uri: str, content: bytes) -> None:
    if before is not None:
        before.result()  # one thread, so it is done; its error is not lost
    storage.write_bytes(uri, content)


def write_validation(folder: str, step: int, tokens: int, groups: Mapping[str, Bits]) -> None:
    """Writes `validation/<step>.json` of the run in a folder.
    Any process may call it; each step has one writer."""
    value = {"step": step, "tokens": tokens, "groups": groups}
    storage.write_json(storage.join(folder, VALIDATION, f"{step:08d}.json"), value)


def is_validated(folder: str, step: int) -> bool:
    """True if the validation of a step is on storage."""
    return f"{step:08d}.json" in storage.list_names(storage.join(folder, VALIDATION))


def read_steps(folder: str) -> list[StepRecord]:
    """The updates that made the run's model, by step."""
    results: dict[int, StepRecord] = {}
    for _, first, name in sorted(_chunks(storage.join(folder, METRICS))):
        for step in [step for step in results if step >= first]:
            del results[step]
        results |= {r.step: r for r in _steps(storage.join(folder, METRICS, name))}
    return [results[step] for step in sorted(results)]


def read_last(folder: str) -> StepRecord | None:
    """The newest update on storage, from few chunks; None before the first."""
    replaced_from = math.inf
    for _, first, name in sorted(_chunks(storage.join(folder, METRICS)), reverse=True):
        steps = [r for r in _steps(storage.join(folder, METRICS, name)) if r.step < replaced_from]
        if steps:
            return steps[-1]
        replaced_from = min(replaced_from, first)
    return None


def read_events(folder: str) -> list[Event]:
    """All events of a run, oldest first."""
    names = storage.list_names(storage.join(folder, EVENTS))
    lines = [line for name in names for line in _lines(storage.join(folder, EVENTS, name))]
    return sorted((Event(**line) for line in lines), key=lambda event: event.time)


def read_validation(folder: str) -> list[dict[str, Any]]:
    """The validations of a run by step: {"step", "tokens", "groups": {group: bits}}."""
    names = storage.list_names(storage.join(folder, VALIDATION))
    return [
        storage.read_json(storage.join(folder, VALIDATION, name)) for name in names if name.endswith(".json")
    ]


def read_validation_last(folder: str) -> dict[str, Any]:
    """The newest validation of a run; empty before the first."""
    names = [name for name in storage.list_names(storage.join(folder, VALIDATION)) if name.endswith(".json")]
    return storage.read_json(storage.join(folder, VALIDATION, names[-1])) if names else {}


def _chunks(folder: str) -> list[tuple[int, int, str]]:
    """(serial, first step, name) of each chunk of step lines."""
    names = [name for name in storage.list_names(folder) if name.endswith(".jsonl")]
    parts = [(*name.removesuffix(".jsonl").split("-"), name) for name in names]
    return [(int(serial), int(first), name) for first, serial, name in parts]


def _last_serial(folder: str) -> int:
    names = [name for name in storage.list_names(folder) if name.endswith(".jsonl")]
    return max((int(name.removesuffix(".jsonl").rpartition("-")[2]) for name in names), default=0)


_FIELDS = {known.name for known in fields(StepRecord)}


def _steps(uri: str) -> list[StepRecord]:
    rows: Iterator[dict[str, Any]] = (
        {k: _nan_for_null(v) for k, v in line.items() if k in _FIELDS} for line in _lines(uri)
    )
    return [StepRecord(**row) for row in rows]


def _nan_for_null(value: Any) -> Any:
    """Restores NaN, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _nan_for_null(inner) for name, inner in value.items()}
    return math.nan if value is None else value


def _lines(uri: str) -> list[Any]:
    """The values of a file with one JSON value per line. Raises `StorageError`
    for a line that is not JSON."""
    try:
        return [orjson.loads(line) for line in storage.read_bytes(uri).splitlines()]
    except ValueError as error:
        remedy = "delete the file; the run continues without these records"
        raise StorageError(f"a records file is not valid JSON: {error}", where=uri, remedy=remedy) from None
