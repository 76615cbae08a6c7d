r"""Plain text files as bytes; a later stage detects the charset. Also compressed (.gz .zst .bz2 .xz).

A document is the whole file, or a line, or a paragraph (lines up to a blank one); blank lines are
no documents. Cutting at \n is right for UTF-8, GB18030 and Big5, in which that byte never is a part
of another character, but not for UTF-16. The charset of a short line is a guess: convert files of
lines to UTF-8 where you can.

The position in an id is the byte offset in the unpacked file. Errors: record_too_large, truncated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import lines
from ctllm_ray.corpus.readers.lines import Line
from ctllm_ray.corpus.readers.records import Record, bad, tables
from ctllm_ray.corpus.readers.whole_file import read_whole_file

CONTENT_TYPE = "text/plain"


def text(split: Split, *, separator: Literal["file", "line", "blank_line"] = "file") -> Iterator[pa.Table]:
    """RAW tables of the documents in a file."""
    cut = {"file": _file, "line": _lines, "blank_line": _paragraphs}[separator]
    yield from tables(split, cut(split))


def _file(split: Split) -> Iterator[Record]:
    return read_whole_file(split, CONTENT_TYPE)


def _lines(split: Split) -> Iterator[Record]:
    for line in lines.read_lines(split):
        if error := _find_error(line):
            yield error
        elif line.content.strip():
            yield Record(line.position, raw=line.content.removesuffix(b"\r"), content_type=CONTENT_TYPE)


def _find_error(line: Line) -> Record | None:
    """The record of a line that could not be read, or whose beginning may be lost."""
    if line.error:
        return bad(line.position, line.error, line.reason, line.content, size=line.size)
    if line.follows_gap and line.content.strip():
        return bad(line.position, "truncated", "its beginning may be lost", line.content)
    return None


def _paragraphs(split: Split) -> Iterator[Record]:
    paragraph = _Paragraph(split)
    for line in lines.read_lines(split):
        if error := _find_error(line):
            yield from paragraph.end()
            yield error
        elif line.content.strip():
            paragraph.add(line.position, line.content)
        else:
            yield from paragraph.end()
    yield from paragraph.end()


class _Paragraph:
    """The lines since the last blank one, held up to the limit."""

    def __init__(self, split: Split) -> None:
        self.limits, self.position, self.lines, self.size = split.limits, 0, list[bytes](), 0

    def add(self, position: int, line: bytes) -> None:
        if not self.size:
            self.position = position
        if self.size <= self.limits.record_bytes:
            self.lines.append(line.removesuffix(b"\r"))
        self.size += len(line) + 1

    def end(self) -> Iterator[Record]:
        content = b"\n".join(self.lines)
        if self.size - 1 > self.limits.record_bytes:
            reason = f"{self.size - 1} bytes; the limit is {self.limits.record_bytes}"
            yield bad(self.position, "record_too_large", reason, content, size=self.size)
        elif content:
            yield Record(self.position, raw=content, content_type=CONTENT_TYPE)
        self.lines, self.size = [], 0
