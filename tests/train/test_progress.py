"""Progress: the driver says what rank 0 has put on storage, once, in one live line or in plain lines."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest

from ctllm_ray.base.errors import StorageError
from ctllm_ray.train.report import progress
from ctllm_ray.train.report.progress import LINE_S, TrainingProgress
from ctllm_ray.train.tracking import records
from ctllm_ray.train.tracking.records import Records, StepRecord


class Clock:
    """Unix seconds that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def update(step: int, mfu: float = 0.4) -> StepRecord:
    return StepRecord(step, step - 1, step * 1_000, 990, 3.25, 1.0, 1e-3, 0.5, 0.001, 2_000.0, mfu)


def told(folder: Path, clock: Clock, *steps: int, mfu: float = 0.4) -> Records:
    found = Records(str(folder), steps[0], clock=clock)
    for step in steps:
        found.step(update(step, mfu))
    found.roll(steps[-1] + 1)
    return found


def test_a_line_states_step_loss_speed_mfu_time_left_and_the_last_validation(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    following = TrainingProgress(str(tmp_path), 200_000, stream, clock)
    told(tmp_path, clock, 49, 50)
    records.write_validation(
        str(tmp_path), 40, 40_000, {"web": {"bits_per_byte": 1.5}, "news": {"bits_per_byte": 1.25}}
    )
    clock.now += LINE_S
    following.look()
    # 150 steps of 1,000 tokens at 2,000 tokens/s
    assert stream.getvalue() == (
        "step 50  50,000 tokens (25%)  loss 3.2500  2,000 tokens/s  MFU 40.0%  left 1:15  "
        "bits/byte at 40: news 1.2500, web 1.5000\n"
    )


def test_an_unknown_peak_leaves_mfu_out(tmp_path: Path) -> None:
    following = TrainingProgress(str(tmp_path), 200_000, io.StringIO(), Clock())
    assert "MFU" not in following.line(update(1, mfu=math.nan))


def test_plain_lines_keep_their_distance_and_the_end_is_always_said(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    with TrainingProgress(str(tmp_path), 4_000, stream, clock) as following:
        told(tmp_path, clock, 1)
        following.look()
        assert stream.getvalue() == ""
        told(tmp_path, clock, 2, 3, 4)
    assert stream.getvalue().splitlines() == [
        "step 4  4,000 tokens (100%)  loss 3.2500  2,000 tokens/s  MFU 40.0%  left 0:00"
    ]


def test_what_an_earlier_run_left_is_not_told_again(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    told(tmp_path, clock, 1).event("spike", step=1)
    before = told(tmp_path, clock, 2)
    before.event("spike", step=2)
    before.roll(3)
    clock.now += 3600
    with TrainingProgress(str(tmp_path), 4_000, stream, clock):
        pass
    assert stream.getvalue() == ""


def test_events_have_lines_of_their_own_and_checkpoints_do_not(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    with TrainingProgress(str(tmp_path), 4_000, stream, clock):
        run = told(tmp_path, clock, 1)
        run.event("checkpoint", step=1, stall_s=0.1)
        run.event("spike", step=1, batch=1, loss=9.5, documents=["a/1", "a/2", "a/3", "a/4", "a/5"])
        run.close()
    assert stream.getvalue().splitlines()[0] == (
        "spike at step 1: batch 1, loss 9.5, documents [a/1, a/2, a/3] and 2 more"
    )
    assert "checkpoint" not in stream.getvalue()


def test_a_terminal_has_one_line_with_a_bar_that_is_written_over(tmp_path: Path) -> None:
    clock, stream = Clock(), Terminal()
    following = TrainingProgress(str(tmp_path), 4_000, stream, clock)
    told(tmp_path, clock, 1)
    following.look()
    clock.now += 1
    told(tmp_path, clock, 2)
    following.look()
    following.look()  # nothing new: nothing is written
    assert stream.getvalue().count("\r\x1b[K") == 2
    assert "████████░░░░░░░░ step 2  2,000 tokens (50%)" in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_records_that_cannot_be_read_end_nothing(tmp_path: Path) -> None:
    following = TrainingProgress(str(tmp_path), 4_000, io.StringIO(), Clock())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "00000001-00001.jsonl").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        records.read_last(str(tmp_path))
    following.look()


def test_a_fact_is_shown_short() -> None:
    event = records.Event("resized", 0.0, 7, {"world": 2, "share": 0.123456, "why": "x" * 200})
    assert progress.sentence(event) == f"resized at step 7: world 2, share 0.1235, why {'x' * 117}..."
