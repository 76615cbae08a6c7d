"""A cache of answers on storage: a resumed evaluation repeats no request.

A question's key is a hash of all that the answer depends on. Answers are appended as JSON lines to chunks of
at most `MOST_LINES`; an object store cannot append, so the last chunk is written anew, all or nothing, at
most every `every_s` seconds. A crash loses what came since; with 0, which judges get, it loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
import xxhash

from ctllm_ray.base import storage

MOST_LINES = 4000  # per chunk, about 1 MB
EVERY_S = 5.0


def key(*parts: object) -> str:
    """A hash of plain values, hexadecimal."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))


class AnswerCache:
    """Answers by key in a folder, for one writer at a time."""

    def __init__(
        self, folder: str, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._every_s, self._clock = folder, every_s, clock
        self._answers: dict[str, Any] = {}
        names = [name for name in storage.list_names(folder) if name.endswith(".jsonl")]
        for name in names:
            for line in storage.read_bytes(storage.join(folder, name)).split(b"\n"):
                if line:
                    plain = orjson.loads(line)
                    self._answers[plain["key"]] = plain["answer"]
        self._chunk = len(names)
        self._lines: list[bytes] = []
        self._written, self._unwritten = clock(), False

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        return self._answers[key]

    def keep(self, key: str, answer: Any) -> None:
        """Stores an answer, made of plain values."""
        self._answers[key] = answer
        self._lines.append(orjson.dumps({"key": key, "answer": answer}, option=orjson.OPT_SERIALIZE_NUMPY))
        self._unwritten = True
        if self._clock() - self._written >= self._every_s or len(self._lines) >= MOST_LINES:
            self.write()

    def forget(self, key: str) -> None:
        """Marks a key as unanswered. Its line stays on storage; a later line of the key counts."""
        del self._answers[key]

    def write(self) -> None:
        """Flushes all answers to storage."""
        if self._unwritten:
            name = f"{self._chunk:05d}.jsonl"
            storage.write_bytes(storage.join(self._folder, name), b"\n".join(self._lines) + b"\n")
        self._written, self._unwritten = self._clock(), False
        if len(self._lines) >= MOST_LINES:
            self._lines = []
            self._chunk += 1
