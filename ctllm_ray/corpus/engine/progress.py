"""Progress of a section: documents, MB/s, time left, drops
or tokens; a live line on a terminal, else log lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from ctllm_ray.base.live_line import LiveLine, format_clock
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split

LINE_S = 10  # seconds between log lines without a terminal


class SectionProgress:
    """Reports the progress of a section. Time left is estimated
    from the input bytes of splits finished in this run.

    MB/s are UTF-8 bytes of text over the time since the start; `clock` gives seconds.
    """

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._line = clock, LiveLine(stream, LINE_S, clock=clock)

    @staticmethod
    def silent() -> SectionProgress:
        """A progress without output."""
        return SectionProgress(None)

    @staticmethod
    def to_stderr() -> SectionProgress:
        """A progress on stderr, for a terminal or a log."""
        return SectionProgress(sys.stderr)

    def note(self, text: str) -> None:
        """Prints a line of its own, for work without splits."""
        self._line.print_above(text)

    def start(self, splits: Sequence[Split], done: Sequence[Done], unit: str = "documents") -> None:
        """Call before the first split. `done` was finished by earlier runs;
        `unit` is what the counts count."""
        sharing = Counter(split.file.uri for split in splits)
        self._weight = {split.index: split.bytes / sharing[split.file.uri] for split in splits}
        self._left = sum(self._weight.values()) - sum(self._weight[d.index] for d in done)
        self._worked = 0.0
        self._splits, self._finished, self._unit = len(splits), len(done), unit
        self._section = splits[0].section if splits else ""
        self._counts: Counter[str] = Counter()
        self._text_bytes = 0
        self._began = self._clock()
        before = f", {len(done)} of them already finished" if done else ""
        total = "1 split" if len(splits) == 1 else f"{len(splits)} splits"
        self._line.update(f"{self._section}: {total}{before}; {self._left / 1e6:,.1f} MB of input left")

    def advance(self, item: Done) -> None:
        """Call after each finished split. The clock starts with
        the first one: Ray's start is not part of the speed."""
        if self._worked == 0:
            self._began = max(self._began, self._clock() - item.wall_s)
        self._finished += 1
        self._counts.update(item.counts)
        self._text_bytes += item.text_bytes
        self._worked += self._weight[item.index]
        if self._line.is_due():
            self._line.update(self.line())

    def line(self) -> str:
        """The current state in one line."""
        elapsed = max(self._clock() - self._began, 1e-3)
        eta = (self._left - self._worked) / (self._worked / elapsed) if self._worked else 0
        parts = [
            f"{self._section}: {self._finished}/{self._splits} splits",
            f"{self._counts['in']:,} {self._unit}",
            *self._describe_documents(elapsed),
            f"left {format_clock(eta)}",
        ]
        return "  ".join(parts)

    def _describe_documents(self, elapsed_s: float) -> list[str]:
        """Speed and result; empty for keys, pairs and the like, which have no text and are all kept."""
        if self._unit != "documents":
            return []
        speed = f"{self._text_bytes / elapsed_s / 1e6:.1f} MB/s"
        if "tokens" in self._counts:
            return [speed, f"{self._counts['tokens'] + self._counts['held_out_tokens']:,} tokens"]
        documents = self._counts["in"]
        dropped = documents - self._counts["kept"]
        return [speed, f"dropped {dropped:,} ({dropped / max(1, documents):.1%})"]

    def stop(self) -> None:
        """Call after the last split or an interruption. The last line stays."""
        self._line.close(self.line() if self._counts["in"] else "")
