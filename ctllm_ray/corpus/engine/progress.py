"""Progress of a section: documents, MB/s, time left, drops or tokens so far; a live line on a terminal, else
a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from ctllm_ray.base.live_line import LiveLine, format_clock
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split

LINE_S = 10  # seconds between plain lines, where nobody watches a terminal


class SectionProgress:
    """Says how far a section is. Time left is reckoned from the input bytes of the splits worked in this run.

    MB/s are UTF-8 bytes of text over the time since the start; `clock` gives seconds.
    """

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._line = clock, LiveLine(stream, LINE_S, clock=clock)

    @staticmethod
    def silent() -> SectionProgress:
        """One that says nothing."""
        return SectionProgress(None)

    @staticmethod
    def to_stderr() -> SectionProgress:
        """One for a person or a log."""
        return SectionProgress(sys.stderr)

    def note(self, text: str) -> None:
        """A line of its own, for work that has no splits."""
        self._line.print_above(text)

    def start(self, splits: Sequence[Split], done: Sequence[Done], unit: str = "documents") -> None:
        """Before the first split; `done` was finished by earlier runs, `unit` is what its counts count."""
        sharing = Counter(split.file.uri for split in splits)
        self._weight = {split.index: split.file.size / sharing[split.file.uri] for split in splits}
        self._left = sum(self._weight.values()) - sum(self._weight[d.index] for d in done)
        self._worked = 0.0
        self._splits, self._finished, self._unit = len(splits), len(done), unit
        self._section = splits[0].section if splits else ""
        self._counts: Counter[str] = Counter()
        self._text_bytes = 0
        self._began = self._clock()
        before = f", {len(done)} of them finished before" if done else ""
        total = "1 split" if len(splits) == 1 else f"{len(splits)} splits"
        self._line.update(f"{self._section}: {total}{before}; {self._left / 1e6:,.1f} MB of input to work")

    def advance(self, item: Done) -> None:
        """After each finished split. The clock starts where the first one did: starting Ray is no speed."""
        if self._worked == 0:
            self._began = max(self._began, self._clock() - item.wall_s)
        self._finished += 1
        self._counts.update(item.counts)
        self._text_bytes += item.text_bytes
        self._worked += self._weight[item.index]
        if self._line.is_due():
            self._line.update(self.line())

    def line(self) -> str:
        """The state of the run in one line."""
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
        """Speed and result; nothing for keys, pairs and the like, which have no text and are all kept."""
        if self._unit != "documents":
            return []
        speed = f"{self._text_bytes / elapsed_s / 1e6:.1f} MB/s"
        if "tokens" in self._counts:
            return [speed, f"{self._counts['tokens'] + self._counts['held_out_tokens']:,} tokens"]
        documents = self._counts["in"]
        dropped = documents - self._counts["kept"]
        return [speed, f"dropped {dropped:,} ({dropped / max(1, documents):.1%})"]

    def stop(self) -> None:
        """After the last split, or where the run ended before it: the last line stays."""
        self._line.close(self.line() if self._counts["in"] else "")
