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
from ctllm_ray.corpus.readers.decompress import Piece

SPAN_FACTOR = 8
MAX_SPANS = 32


class Line(NamedTuple):
    """`content` without its newline. With `error` (a kind of `error.<kind>`) only its
    first bytes, and a `reason`; `size` is its length with what was not kept, in bytes."""

    position: int
    content: bytes
    error: str = ""
    reason: str = ""
    size: int = 0
    follows_gap: bool = False  # its beginning may be lost


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


def read_lines(split: Split, flow: Iterator[Piece] | None = None) -> Iterator[Line]:
    """The lines that begin in a split, in order; its bytes go into the account of the split. `flow` is the file from
    its beginning, where somebody looked at it.

    Where the stream is cut or corrupt, one Line of error `truncated`: the line in progress, or nothing.
    """
    origin = max(0, split.start - 1)  # the byte before `start` shows whether a line begins there
    line, entered = _Unended(origin, split.limits), split.start == 0
    for piece in flow or read_span(split, origin):
        if piece.gap:
            broken = line.break_off(piece.gap)
            if entered and (split.stop is None or broken.position < split.stop):
                yield broken
            entered = True
            continue
        ended = piece.content.split(b"\n")
        tail = ended.pop()
        for content in ended:
            if entered and split.stop is not None and line.position >= split.stop:
                return
            whole = line.end(content)
            if entered:
                yield whole
            entered = True
        line.grow(tail)
    last = line.end(b"")
    if entered and last.content and (split.stop is None or last.position < split.stop):
        yield last


def read_span(split: Split, origin: int) -> Iterator[Piece]:
    """The pieces from byte `origin` of the decompressed file on, to its end.

    Bytes of the split's span go into its account, so that those of all spans add up to the file's size. Stored
    bytes of a compressed file count where the piece begins that they became.
    """
    position = origin
    if not decompress.suffix(split.file.name):
        for piece in decompress.plain_pieces(split.file, origin):
            first, last = max(position, split.start), position + piece.stored
            count = max(0, (last if split.stop is None else min(last, split.stop)) - first)
            split.account.count(piece.gap, count, count, to_end=piece.to_end)
            yield piece
            position = last
        return
    position = 0
    for piece in decompress.pieces(split.file):
        if position >= split.start and (split.stop is None or position < split.stop):
            split.account.count(piece.gap, piece.stored, len(piece.content), to_end=piece.to_end)
        if position + piece.length > origin:
            skipped = max(0, origin - position)
            yield piece._replace(content=piece.content[skipped:]) if skipped else piece
        position += piece.length


class _Unended:
    """The current line while its end is unknown: its start, its length, and its bytes
    as far as they may be held."""

    def __init__(self, position: int, limits: SplitLimits) -> None:
        self.position, self.limits = position, limits
        self._kept, self._size, self._follows_gap = bytearray(), 0, False

    def grow(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self.limits.record_bytes:
            self._kept += part
        else:
            room = self.limits.error_raw_bytes - len(self._kept)
            self._kept += part[: max(0, room)]
            del self._kept[self.limits.error_raw_bytes :]

    def end(self, part: bytes) -> Line:
        """Ends the line after `part` and returns it; then this object holds the next line."""
        if self._size == 0 and len(part) <= self.limits.record_bytes:
            line = Line(self.position, part, follows_gap=self._follows_gap)
            self.position += len(part) + 1
            self._follows_gap = False
            return line
        self.grow(part)
        if self._size > self.limits.record_bytes:
            reason = f"{self._size} bytes; the limit is {self.limits.record_bytes}"
            return self._next(Line(self.position, bytes(self._kept), "record_too_large", reason, self._size))
        return self._next(Line(self.position, bytes(self._kept), follows_gap=self._follows_gap))

    def break_off(self, reason: str) -> Line:
        """Ends the line at a gap, which counts as one byte, as if it were its newline."""
        kept = bytes(self._kept[: self.limits.error_raw_bytes])
        line = self._next(Line(self.position, kept, "truncated", reason, self._size))
        self._follows_gap = True
        return line

    def _next(self, line: Line) -> Line:
        self.position += self._size + 1
        self._kept, self._size, self._follows_gap = bytearray(), 0, False
        return line
