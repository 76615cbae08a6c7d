"""Reads a file as one record: its decompressed bytes, if they fit the limit."""

from __future__ import annotations

from collections.abc import Iterator

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import lines
from ctllm_ray.corpus.readers.records import Record, bad


def read_whole_file(split: Split, content_type: str) -> Iterator[Record]:
    """One record at position 0 with the file's bytes in `raw`; none for an empty file.

    Errors: record_too_large, and truncated for a compressed
    file that is cut or corrupt (its first bytes are kept).
    """
    content, size, gap = bytearray(), 0, ""
    for piece in lines.read_span(split, 0):
        gap = gap or piece.gap
        size += len(piece.content)
        if len(content) <= split.limits.record_bytes and not gap:
            content += piece.content
    if gap:
        yield bad(0, "truncated", gap, bytes(content), size=size)
    elif size > split.limits.record_bytes:
        yield bad(
            0,
            "record_too_large",
            f"{size} bytes; the limit is {split.limits.record_bytes}",
            bytes(content),
            size=size,
        )
    elif content:
        yield Record(0, raw=bytes(content), content_type=content_type)
