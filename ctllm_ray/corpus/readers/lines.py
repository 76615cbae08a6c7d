r"""Reads the lines of a split with constant memory, each with its byte offset in the decompressed file.

A line ends with \n and belongs to the span in which its first byte lies. A span that starts in the middle
of a line leaves that line to the span before it; so any cutting of a file gives the same lines, each
once. A line that is longer than `limits.record_bytes` is walked over without being held, and only its
first bytes are handed on.

A plain file is cut at byte offsets. A compressed file cannot be entered in the middle, so every span of it
unpacks the file from the start and skips: unpacking runs about 50 times as fast as the stages that follow,
hence spans of such a file are `SPAN_FACTOR` times as long, and there are at most `MAX_SPANS` (on average half
of them are skipped by each: 16 spans' unpacking is a third of one span's work). How many there are follows
from an estimate of the unpacked size, the same on every machine; the last span is open-ended, so the estimate
decides where cuts lie, not what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split, SplitLimits
from ctllm_ray.corpus.readers import decompress

SPAN_FACTOR = 8
MAX_SPANS = 32


class Line(NamedTuple):
    """`content` without its newline. With `error` (a kind of `error.<kind>`) only its
    first bytes, and a `reason`."""

    position: int
    content: bytes
    error: str = ""
    reason: str = ""


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans (start, stop) in decompressed bytes that cover
    a file of lines; the last stop is None, the end."""
    step, size = split_bytes, file.size
    if decompress.suffix(file.name):
        step = SPAN_FACTOR * split_bytes
        if file.size <= split_bytes:  # text compresses 2 to 6 times: too small to be worth opening
            return [(0, None)]
        size = decompress.unpacked_bytes(file)
        step = max(step, -(-size // MAX_SPANS))
    starts = list(range(0, max(size, 1), step))
    return [*pairwise(starts), (starts[-1], None)]


def read_lines(split: Split) -> Iterator[Line]:
    """The lines that begin in a split, in order. A cut or corrupt stream ends with one
    Line of error `truncated`."""
    origin = max(
        0, split.start - 1
    )  # one byte early: the byte before `start` shows whether a line begins there
    first, entered = _Unended(origin, split.limits), split.start == 0
    try:
        for piece in decompress.pieces(split.file, origin):
            ended = piece.split(b"\n")
            tail = ended.pop()
            for content in ended:
                if entered and split.stop is not None and first.position >= split.stop:
                    return
                line = first.end(content)
                if entered:
                    yield line
                entered = True
            first.grow(tail)
    except decompress.Broken as broken:
        last = Line(
            first.position, bytes(first.kept[: split.limits.error_raw_bytes]), "truncated", str(broken)
        )
    else:
        last = first.end(b"")
        entered = entered and bool(last.content)
    if entered and (split.stop is None or last.position < split.stop):
        yield last


class _Unended:
    """The current line while its end is unknown: its start, its length, and its bytes
    as far as they may be held."""

    def __init__(self, position: int, limits: SplitLimits) -> None:
        self.position, self.limits, self.kept, self.size = position, limits, bytearray(), 0

    def grow(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self.limits.record_bytes:
            self.kept += part
        else:
            room = self.limits.error_raw_bytes - len(self.kept)
            self.kept += part[: max(0, room)]
            del self.kept[self.limits.error_raw_bytes :]

    def end(self, part: bytes) -> Line:
        """Ends the line after `part` and returns it; then this object holds the next line."""
        if self.size == 0 and len(part) <= self.limits.record_bytes:
            line = Line(self.position, part)
            self.position += len(part) + 1
            return line
        self.grow(part)
        reason = f"{self.size} bytes; the limit is {self.limits.record_bytes}"
        fits = self.size <= self.limits.record_bytes
        line = Line(self.position, bytes(self.kept)) if fits else self._too_large(reason)
        self.position += self.size + 1
        self.kept, self.size = bytearray(), 0
        return line

    def _too_large(self, reason: str) -> Line:
        return Line(self.position, bytes(self.kept), "record_too_large", reason)
