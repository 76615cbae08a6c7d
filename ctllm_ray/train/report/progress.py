"""Reports the progress of a training run in the driver:
step, loss, tokens/s, MFU, time left, validation, events.

The driver may be far from the workers, so it reads what rank 0 records on storage, every few
seconds: nothing passes through Ray, and a second terminal could follow the same run. A bar on a
terminal, plain lines elsewhere.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError
from ctllm_ray.base.live_line import LiveLine, format_clock
from ctllm_ray.train.tracking import records
from ctllm_ray.train.tracking.records import Event, StepRecord

POLL_S, POLL_REMOTE_S = 2.0, 5.0  # between reads of the records; they are written every 5 s
LINE_S = 15.0  # between log lines without a terminal
BAR_CELLS = 16

#: Events that get a line of their own. Checkpoints and validation are part of the status line.
_SPOKEN = (
    "started", "resumed", "resized", "spike", "skipped", "rewound", "checkpoint_passed_over",
    "tracker_failed",
    "data_joined", "specials_untaught", "stopped", "finished",
)  # fmt: skip


class TrainingProgress:
    """Reports on the run in a folder from a thread, while the `with` block lasts."""

    def __init__(
        self,
        folder: str,
        total_tokens: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._total_tokens = folder, total_tokens
        self._line = LiveLine(stream or sys.stderr, LINE_S, clock=clock)
        self._began = clock()
        self._shown: StepRecord | None = None
        self._heard = len(records.read_events(folder))  # events of earlier runs were reported then
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> TrainingProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
        self._line.close(self.line(self._shown, bar=False) if self._shown else "")

    def _follow(self) -> None:
        pause_s = POLL_REMOTE_S if storage.is_remote(self._folder) else POLL_S
        while not self._stop.wait(pause_s):
            self.look()

    def look(self) -> None:
        """Reads new records and reports them. If the storage does not answer, the next call retries."""
        try:
            events, last = records.read_events(self._folder), records.read_last(self._folder)
        except CtllmError:
            return
        for event in events[self._heard :]:
            if event.kind in _SPOKEN:
                self.print_above(sentence(event))
        self._heard = len(events)
        if last is None or last.time < self._began or last == self._shown:
            return  # nothing new, or from an earlier run
        self._shown = last
        if self._line.is_due():
            self._line.update(self.line(last, bar=self._line.is_live))

    def line(self, last: StepRecord, *, bar: bool = False) -> str:
        """The state of the run in one line. Time left is estimated from the speed of the last update."""
        done = min(1.0, last.tokens / self._total_tokens)
        full = round(done * BAR_CELLS)
        left_s = max(0, self._total_tokens - last.tokens) / max(last.tokens_per_s, 1e-9)
        parts = [
            f"{'█' * full}{'░' * (BAR_CELLS - full)} step {last.step:,}" if bar else f"step {last.step:,}",
            f"{last.tokens:,} tokens ({done:.0%})",
            f"loss {last.loss:.4f}",
            f"{last.tokens_per_s:,.0f} tokens/s",
            *([] if math.isnan(last.mfu) else [f"MFU {last.mfu:.1%}"]),
            f"left {format_clock(left_s)}",
            *self._validation(),
        ]
        return "  ".join(parts)

    def _validation(self) -> list[str]:
        validation_last = records.read_validation_last(self._folder)
        if not validation_last:
            return []
        shown = [
            f"{group} {bits['bits_per_byte']:.4f}"
            for group, bits in sorted(validation_last["groups"].items())
        ][:4]
        return [f"bits/byte at {validation_last['step']:,}: {', '.join(shown)}"]

    def print_above(self, text: str) -> None:
        """Prints a permanent line above the live one."""
        self._line.print_above(text)


def sentence(event: Event) -> str:
    """An event in one line: kind, step, facts."""
    facts = [f"{name} {_short(value)}" for name, value in event.facts.items()]
    return f"{event.kind.replace('_', ' ')} at step {event.step:,}{': ' if facts else ''}{', '.join(facts)}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        more = f" and {len(value) - 3:,} more" if len(value) > 3 else ""
        return f"[{', '.join(map(_short, value[:3]))}]{more}"
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
