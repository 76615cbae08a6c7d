"""The live line: in place on a terminal, now and then in a log, and what stays is there once."""

from __future__ import annotations

import io

import pytest

from ctllm_ray.base.live_line import LiveLine, format_clock

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_whole_lines_and_the_last_state_once() -> None:
    stream = io.StringIO()
    line = LiveLine(stream, log_s=10)
    line.update("1 of 3")
    line.print_above("a note")
    line.update("3 of 3")
    line.close("3 of 3")
    assert stream.getvalue() == "1 of 3\na note\n3 of 3\n"


def test_a_terminal_has_one_line_and_notes_stay_above_it() -> None:
    stream = Terminal()
    line = LiveLine(stream, log_s=10)
    line.print_above("begun")
    line.update("1 of 3")
    line.print_above("a note")
    line.update("3 of 3")
    line.close("3 of 3")
    assert stream.getvalue() == f"begun\n{CLEAR}1 of 3{CLEAR}a note\n{CLEAR}3 of 3{CLEAR}3 of 3\n"


def test_a_line_that_ends_without_a_state_leaves_the_terminal_clean() -> None:
    stream = Terminal()
    line = LiveLine(stream, log_s=10)
    line.update("1 of 3")
    line.close()
    assert stream.getvalue() == f"{CLEAR}1 of 3{CLEAR}"


@pytest.mark.parametrize(("kind", "pause_s"), [(io.StringIO, 10.0), (Terminal, 0.2)])
def test_the_next_state_is_due_after_the_pause_of_its_kind(kind: type[io.StringIO], pause_s: float) -> None:
    clock = Clock()
    line = LiveLine(kind(), log_s=10, live_s=0.2, clock=clock)
    assert not line.is_due()
    clock.now += pause_s
    assert line.is_due()
    line.update("1 of 3")
    clock.now += pause_s * 0.9
    assert not line.is_due()


def test_no_stream_writes_nothing() -> None:
    line = LiveLine(None, log_s=10)
    line.update("1 of 3")
    line.print_above("a note")
    line.close("3 of 3")


def test_a_clock_shows_hours_only_if_there_are_some() -> None:
    assert [format_clock(seconds) for seconds in (5.9, 750, 10_800)] == ["0:05", "12:30", "3:00:00"]
