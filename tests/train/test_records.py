"""Records: what is read back is what went into the model, whatever was killed, resumed or rewound in
between."""

from __future__ import annotations

import json
import math
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import RecipeError, StorageError
from ctllm_ray.train.tracking import records
from ctllm_ray.train.tracking.open_trackers import MOST_WAITING, BackgroundTracker, open_trackers
from ctllm_ray.train.tracking.records import EVERY_S, MOST_LINES, Records, StepRecord


class Clock:
    """Unix seconds that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Curves:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def values(self, step: int, values: dict[str, float]) -> None:
        self.told.append((step, values))

    def note(self, step: int, kind: str, text: str) -> None:
        self.told.append((step, kind, text))

    def flush(self) -> None:
        self.told.append(("flush",))

    def close(self) -> None:
        self.told.append(("close",))


def update(step: int, loss: float = 3.0) -> StepRecord:
    return StepRecord(step, step - 1, step * 64, 60, loss, 1.0, 1e-3, 0.5, 0.001, 128.0, 0.4)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(r.step, r.loss) for r in records.read_steps(str(folder))]


def test_each_field_comes_back(tmp_path: Path) -> None:
    told = Records(str(tmp_path), 1, clock=Clock())
    told.step(update(1))
    told.close()
    assert records.read_steps(str(tmp_path)) == [
        StepRecord(1, 0, 64, 60, 3.0, 1.0, 1e-3, 0.5, 0.001, 128.0, 0.4, 1_000.0)
    ]


def test_a_folder_without_records_has_none(tmp_path: Path) -> None:
    assert records.read_steps(str(tmp_path)) == []
    assert records.read_last(str(tmp_path)) is None
    assert records.read_events(str(tmp_path)) == []
    assert records.read_validation(str(tmp_path)) == []


def test_a_chunk_is_written_at_most_every_few_seconds_and_at_a_checkpoint(tmp_path: Path) -> None:
    clock = Clock()
    told = Records(str(tmp_path), 1, clock=clock)
    told.step(update(1))
    told._wait()
    assert losses(tmp_path) == []
    clock.now += EVERY_S
    told.step(update(2))
    told._wait()
    assert len(losses(tmp_path)) == 2
    told.step(update(3))
    told.roll(4)
    assert len(losses(tmp_path)) == 3
    told.step(update(4))
    told.close()
    assert [path.name for path in sorted((tmp_path / "metrics").iterdir())] == [
        "00000001-00001.jsonl",
        "00000004-00002.jsonl",
    ]
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4]


def test_after_a_resume_the_steps_trained_again_replace_those_of_the_killed_run(tmp_path: Path) -> None:
    killed = Records(str(tmp_path), 1)
    for step in range(1, 4):
        killed.step(update(step, loss=1.0))
    killed.roll(4)  # the checkpoint of step 3
    for step in range(4, 8):
        killed.step(update(step, loss=2.0))
    killed.roll(8)  # written, but no checkpoint was completed
    resumed = Records(str(tmp_path), 4)
    resumed._wait()
    assert losses(tmp_path) == [
        (1, 1.0),
        (2, 1.0),
        (3, 1.0),
    ]  # before the first new step: where the model stands
    assert records.read_last(str(tmp_path)).step == 3  # type: ignore[union-attr]
    resumed.step(update(4, loss=3.0))
    resumed.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 3.0)]
    assert records.read_last(str(tmp_path)).loss == 3.0  # type: ignore[union-attr]


def test_a_rewind_takes_back_the_steps_from_there_on(tmp_path: Path) -> None:
    told = Records(str(tmp_path), 1)
    for step in range(1, 6):
        told.step(update(step, loss=1.0))
    told.rewind(3)
    told._wait()
    assert [step for step, _ in losses(tmp_path)] == [1, 2]
    told.step(update(3, loss=2.0))
    told.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_a_long_chunk_is_closed_by_itself(tmp_path: Path) -> None:
    told = Records(str(tmp_path), 1)
    for step in range(1, MOST_LINES + 2):
        told.step(update(step))
    told.close()
    assert len(list((tmp_path / "metrics").iterdir())) == 2
    assert len(losses(tmp_path)) == MOST_LINES + 1


def test_a_loss_that_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    told = Records(str(tmp_path), 1)
    told.step(update(1, loss=math.inf))
    told.close()
    line = json.loads(next((tmp_path / "metrics").iterdir()).read_text())
    assert line["loss"] is None
    assert math.isnan(records.read_steps(str(tmp_path))[0].loss)


def test_events_of_all_attempts_stay_in_the_order_of_time(tmp_path: Path) -> None:
    clock = Clock()
    for attempt in (1, 2):
        told = Records(str(tmp_path), 1, clock=clock)
        told.event("started", step=0, world=attempt)
        clock.now += 1
        told.event("spike", step=3, batch=7, documents=["网页/1", "网页/2"])
        clock.now += 1
        told.close()
    found = records.read_events(str(tmp_path))
    assert [(e.kind, e.step, e.time) for e in found] == [
        ("started", 0, 1000.0),
        ("spike", 3, 1001.0),
        ("started", 0, 1002.0),
        ("spike", 3, 1003.0),
    ]
    assert found[1].facts == {"batch": 7, "documents": ["网页/1", "网页/2"]}


def test_a_failed_write_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="metrics"):
        Records(str(tmp_path), 1).close()


def test_validation_of_another_process_reaches_the_trackers_at_the_next_checkpoint(tmp_path: Path) -> None:
    curves = Curves()
    told = Records(str(tmp_path), 1, [BackgroundTracker("curves", lambda: curves)])
    told.validation(10, 640, {"web": {"bits_per_byte": 1.5, "bits_per_char": 4.5, "documents": 3}})
    records.write_validation(str(tmp_path), 20, 1280, {"web": {"bits_per_byte": 1.25, "bits_per_char": 4.0}})
    told.roll(21)
    told.close()
    values = [t for t in curves.told if len(t) == 2]
    assert values == [
        (10, {"bits_per_byte/web": 1.5, "bits_per_char/web": 4.5}),
        (20, {"bits_per_byte/web": 1.25, "bits_per_char/web": 4.0}),
    ]
    assert [v["step"] for v in records.read_validation(str(tmp_path))] == [10, 20]


def test_trackers_hear_of_each_step_and_event_and_of_the_end(tmp_path: Path) -> None:
    curves = Curves()
    told = Records(str(tmp_path), 1, [BackgroundTracker("curves", lambda: curves)])
    told.step(update(1))
    told.event("checkpoint", step=1, stall_s=0.25)
    told.close()
    assert curves.told[0][0] == 1
    assert curves.told[0][1]["loss"] == 3.0
    assert curves.told[1:] == [(1, "checkpoint", '{"stall_s":0.25}'), ("close",)]


class Unreachable(Curves):
    """A tracker whose service does not answer."""

    def values(self, step: int, values: dict[str, float]) -> None:
        super().values(step, values)
        raise ConnectionError("no route to host")


def test_a_tracker_that_fails_is_an_event_and_ends_nothing(tmp_path: Path) -> None:
    service = Unreachable()
    tracker = BackgroundTracker("wandb", lambda: service)
    told = Records(str(tmp_path), 1, [tracker])
    told.step(update(1))
    tracker._thread.submit(lambda: None).result()  # all that was handed on is told
    told.roll(2)
    told.step(update(2))
    told.roll(3)
    told.close()
    assert [(e.kind, e.facts["reason"]) for e in records.read_events(str(tmp_path))] == [
        ("tracker_failed", "ConnectionError: no route to host")
    ]
    assert len(service.told) == 1
    assert len(losses(tmp_path)) == 2


def test_a_tracker_slower_than_training_makes_nobody_wait(tmp_path: Path) -> None:
    curves, go_on = Curves(), threading.Event()
    tracker = BackgroundTracker("slow", lambda: curves)
    tracker._thread.submit(go_on.wait)
    for step in range(MOST_WAITING + 5):
        tracker.values(step, {"loss": 1.0})
    go_on.set()
    tracker.close()
    assert len(curves.told) == MOST_WAITING + 1  # and the end


def test_tensorboard_is_always_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = Records(str(tmp_path), 1, open_trackers((), str(tmp_path), "tiny", "", {}, 1))
    told.step(update(1, loss=2.5))
    told.step(update(2, loss=math.nan))  # is not sent
    told.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 2.5)]
    assert "rate" in found.Tags()["scalars"]


class Service(types.ModuleType):
    """A stand-in for a tracking service's client: keeps the calls it gets."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, (*args, options) if options else args))
            return [] if name == "search_runs" else self

        return call


def opened(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Service:
    service = Service(name)
    monkeypatch.setitem(sys.modules, name, service)
    told = Records(str(folder), 1, open_trackers((name,), str(folder), "tiny", "a", {"seed": 7}, 1)[1:])
    told.step(update(1, loss=2.5))
    told.step(update(2, loss=math.nan))
    told.event("spike", step=2, batch=5)
    told.close()
    return service


def test_mlflow_gets_values_at_our_steps_and_the_run_is_found_again_by_its_tag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = dict(opened("mlflow", monkeypatch, tmp_path).calls[:-3])
    assert calls["set_experiment"] == ("tiny",)
    identity = calls["start_run"][0]["tags"]["ctllm.run"]
    assert identity in calls["search_runs"][0]["filter_string"]
    again = dict(opened("mlflow", monkeypatch, tmp_path).calls)
    assert again["start_run"][0]["tags"]["ctllm.run"] == identity
    assert "loss" not in again["log_metrics"][0]  # NaN is not sent
    assert again["log_metrics"][1] == {"step": 2}
    assert again["set_tag"] == ("event.spike", 'step 2: {"batch":5}')
    assert "end_run" in again


def test_wandb_resumes_one_run_and_counts_by_our_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = opened("wandb", monkeypatch, tmp_path)
    init = next(args[0] for name, args in service.calls if name == "init")
    assert init["resume"] == "allow"
    assert init["config"] == {"seed": 7}
    assert len(init["id"]) == 21
    logged = [args[0] for name, args in service.calls if name == "log"]
    assert [(row["step"], row.get("loss")) for row in logged] == [(1, 2.5), (2, None)]
    assert service.summary == {"event/spike": 'step 2: {"batch":5}'}
    assert service.calls[-1][0] == "finish"


def test_swanlab_resumes_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    service = opened("swanlab", monkeypatch, tmp_path)
    init = next(args[0] for name, args in service.calls if name == "init")
    assert (init["experiment_name"], init["resume"]) == ("a", "allow")
    logged = [args for name, args in service.calls if name == "log"]
    assert logged[0][0]["loss"] == 2.5
    assert logged[0][1] == {"step": 1}
    assert service.calls[-1][0] == "finish"


@pytest.mark.parametrize("name", ["mlflow", "wandb", "swanlab"])
def test_a_tracker_that_is_not_installed_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeError, match=r"ctllm-ray\[trackers\]"):
        open_trackers((name,), str(tmp_path), "tiny", "", {}, 1)


def test_a_run_on_an_object_store_has_its_records_and_its_tensorboard_there() -> None:
    folder = "memory://records-test/run"
    told = Records(folder, 1, open_trackers((), folder, "tiny", "", {}, 1))
    told.step(update(1, loss=2.5))
    told.roll(2)
    told.step(update(2, loss=2.25))
    told.close()
    assert [r.loss for r in records.read_steps(folder)] == [2.5, 2.25]
    assert [name for name in storage.list_names(f"{folder}/tensorboard") if "tfevents" in name]
