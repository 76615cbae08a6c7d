"""A status line for progress: rewritten in place on a terminal, repeated from time to time in a log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

_CLEAR = "\r\x1b[K"  # moves to the start of the terminal's line and clears it


class LiveLine:
    """Writes to `stream`; None writes nothing. `clock` returns seconds.

    A log gets a line every `log_s` seconds at most, a terminal a new state every `live_s`.
    """

    def __init__(
        self,
        stream: TextIO | None,
        log_s: float,
        live_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._clock = stream, clock
        self.is_live = bool(stream and stream.isatty())
        self._pause_s = live_s if self.is_live else log_s
        self._written_at = clock()
        self._last = ""  # the last written state
        self._is_shown = False  # the cursor stands after a state

    def is_due(self) -> bool:
        """True if enough time has passed since the last state."""
        return self._clock() - self._written_at >= self._pause_s

    def update(self, state: str) -> None:
        """Writes a new state in place of the previous one."""
        self._written_at, self._last = self._clock(), state
        if self.is_live:
            width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be overwritten
            self._write(f"{_CLEAR}{state[:width]}")
            self._is_shown = True
        else:
            self._write(f"{state}\n")

    def print_above(self, text: str) -> None:
        """Writes a permanent line above the live one."""
        self._write(f"{_CLEAR if self._is_shown else ''}{text}\n")
        self._is_shown = False

    def close(self, state: str = "") -> None:
        """Ends the live line. The last state stays; a log that has it already does not get it again."""
        if self._is_shown:
            self._write(_CLEAR)
        if state and (self.is_live or state != self._last):
            self._write(f"{state}\n")
        self.is_live, self._is_shown, self._last = False, False, state

    def _write(self, text: str) -> None:
        if self._stream:
            self._stream.write(text)
            self._stream.flush()


def format_clock(seconds: float) -> str:
    """0:05, 12:30, 3:00:00."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
