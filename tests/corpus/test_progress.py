"""Progress: documents, MB/s, time left and drops, in plain lines for a log and in one live line for a
person."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.progress import LINE_S, SectionProgress
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split, SplitLimits


class Clock:
    """A clock that a test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def splits(*sizes: int, same_file: bool = False) -> list[Split]:
    return [
        Split(
            i, "in", "jsonl", {}, File("a" if same_file else str(i), "", size, ""), 0, None, SplitLimits(1, 1)
        )
        for i, size in enumerate(sizes)
    ]


def done(
    index: int, documents: int = 100, kept: int = 75, text_bytes: int = 50_000_000, wall_s: float = 1e6
) -> Done:
    return Done(index, "", "", {"in": documents, "kept": kept}, text_bytes, [], wall_s)


def test_a_line_states_splits_documents_rate_drops_and_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = SectionProgress(stream, clock)
    progress.start(splits(60_000_000, 30_000_000, 30_000_000), [])
    clock.now += 20
    progress.advance(done(0))
    # half of the input bytes in 20 s: as much is left; 50 MB of text in 20 s
    assert progress.line() == "clean: 1/3 splits  100 documents  2.5 MB/s  dropped 25 (25.0%)  left 0:20"
    clock.now += 20
    progress.advance(done(1))
    assert progress.line() == "clean: 2/3 splits  200 documents  2.5 MB/s  dropped 50 (25.0%)  left 0:13"


def test_a_phase_over_keys_counts_keys_and_claims_no_speed_of_text() -> None:
    clock = Clock()
    progress = SectionProgress(None, clock)
    progress.start(splits(10, 10), [], "keys")
    clock.now += 5
    progress.advance(done(0, 9, 9, 0, 5.0))
    assert progress.line() == "clean: 1/2 splits  9 keys  left 0:05"


def test_a_section_that_makes_tokens_says_how_many() -> None:
    clock = Clock()
    progress = SectionProgress(None, clock)
    progress.start([replace(split, section="tokens") for split in splits(10, 10)], [])
    clock.now += 5
    progress.advance(
        Done(0, "", "", {"in": 9, "kept": 9, "tokens": 1000, "held_out_tokens": 23}, 10_000_000, [], 5.0)
    )
    assert progress.line() == "tokens: 1/2 splits  9 documents  2.0 MB/s  1,023 tokens  left 0:05"


def test_the_start_of_ray_is_no_time_of_work() -> None:
    clock = Clock()
    progress = SectionProgress(None, clock)
    progress.start(splits(10, 10), [])
    clock.now += 35  # 30 s until the first split was begun
    progress.advance(done(0, wall_s=5.0))
    assert progress.line() == "clean: 1/2 splits  100 documents  10.0 MB/s  dropped 25 (25.0%)  left 0:05"


def test_time_left_counts_hours_and_only_what_this_run_has_to_work() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = SectionProgress(stream, clock)
    progress.start(splits(*[10_000_000] * 1000), [done(i) for i in range(500)])
    clock.now += 10
    progress.advance(done(500))
    assert progress.line().startswith("clean: 501/1000 splits  100 documents")
    assert progress.line().endswith("left 1:23:10")
    first = stream.getvalue().splitlines()[0]
    assert first == "clean: 1000 splits, 500 of them already finished; 5,000.0 MB of input left"


def test_splits_of_one_file_share_its_bytes() -> None:
    clock = Clock()
    progress = SectionProgress(None, clock)
    progress.start(splits(40, 40, 40, 40, same_file=True), [])
    clock.now += 5
    progress.advance(done(0))
    assert progress.line().endswith("left 0:15")


def test_a_log_gets_a_line_at_the_start_every_few_seconds_and_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = SectionProgress(stream, clock)
    progress.start(splits(*[10] * 5), [])
    for index in range(5):
        clock.now += LINE_S / 2
        progress.advance(done(index))
    progress.stop()
    found = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in found] == [
        "clean: 5 splits; 0.0 MB of input left",
        "clean: 2/5 splits",
        "clean: 4/5 splits",
        "clean: 5/5 splits",
    ]
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_never_wraps_and_stays_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = SectionProgress(stream, Clock())
    progress.start(splits(10, 10), [])
    progress.advance(done(0))
    progress.advance(done(1))
    progress.stop()
    _, *live, last = stream.getvalue().split("\r\x1b[K")
    assert [state[:17] for state in live] == ["clean: 2 splits; ", "clean: 1/2 splits", "clean: 2/2 splits"]
    assert all(len(state) < 40 and "\n" not in state for state in live)
    assert last.startswith("clean: 2/2 splits  200 documents")
    assert last.endswith("\n")


def test_a_run_that_stops_before_its_first_split_leaves_a_clean_line() -> None:
    stream = Terminal()
    progress = SectionProgress(stream, Clock())
    progress.start(splits(10), [])
    progress.stop()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_empty_input_and_no_time_passed_divide_by_nothing() -> None:
    progress = SectionProgress(io.StringIO(), Clock())
    progress.start(splits(0), [])
    progress.advance(done(0, 0, 0, 0))
    assert progress.line() == "clean: 1/1 splits  0 documents  0.0 MB/s  dropped 0 (0.0%)  left 0:00"
    progress.stop()


def test_a_silent_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SectionProgress.silent()
    progress.start(splits(1), [])
    progress.advance(done(0))
    progress.stop()
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_work_without_splits_is_a_line_of_its_own(kind: type[io.StringIO]) -> None:
    stream = kind()
    SectionProgress(stream).note("tokenizer: drawing the sample")
    assert stream.getvalue() == "tokenizer: drawing the sample\n"
    SectionProgress.silent().note("nothing")
