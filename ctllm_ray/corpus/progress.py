"""Progress of long work: documents, MB/s, time left, drops so far; a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from ctllm_ray.corpus.section import Done
from ctllm_ray.corpus.splits import Split

LINE_S = 10  # seconds between plain lines, where nobody watches a terminal


class Progress:
    """Says how far a section is. Time left is reckoned from the input bytes of the splits worked in this run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = bool(stream and stream.isatty())

    @staticmethod
    def silent() -> Progress:
        """One that says nothing."""
        return Progress(None)

    @staticmethod
    def to_stderr() -> Progress:
        """One for a person or a log."""
        return Progress(sys.stderr)

    def start(self, splits: Sequence[Split], done: Sequence[Done]) -> None:
        """Before the first split; `done` was finished by earlier runs."""
        sharing = Counter(split.file.uri for split in splits)
        self._weight = {split.index: split.file.size / sharing[split.file.uri] for split in splits}
        self._left = sum(self._weight.values()) - sum(self._weight[d.index] for d in done)
        self._worked = 0.0
        self._splits, self._finished = len(splits), len(done)
        self._counts: Counter[str] = Counter()
        self._text_bytes = 0
        self._began = self._said = time.monotonic()
        if done:
            self._say(f"resuming: {len(done)} of {len(splits)} splits were finished before")

    def advance(self, item: Done) -> None:
        """After each finished split."""
        self._finished += 1
        self._counts.update(item.counts)
        self._text_bytes += item.text_bytes
        self._worked += self._weight[item.index]
        now = time.monotonic()
        if self._live or now - self._said >= LINE_S:
            self._said = now
            self._say(self.line(now))

    def line(self, now: float) -> str:
        """The state of the run in one line."""
        elapsed = max(now - self._began, 1e-3)
        eta = (self._left - self._worked) / (self._worked / elapsed) if self._worked else 0
        documents = self._counts["in"]
        dropped = documents - self._counts["kept"]
        return (
            f"{self._finished}/{self._splits} splits  {documents:,} documents  {self._text_bytes / elapsed / 1e6:.1f} MB/s  "
            f"dropped {dropped:,} ({dropped / max(1, documents):.1%})  left {_clock(eta)}"
        )

    def stop(self) -> None:
        """After the last split."""
        if self._live:
            self._stream.write("\r\x1b[K")  # type: ignore[union-attr]
        if self._counts["in"]:
            self._live = False
            self._say(self.line(time.monotonic()))

    def _say(self, text: str) -> None:
        if self._stream:
            self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
            self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
