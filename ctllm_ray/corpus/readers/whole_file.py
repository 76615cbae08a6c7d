"""Reads a file as one record: its decompressed bytes, if they fit the limit."""

from __future__ import annotations

from collections.abc import Iterator

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import decompress
from ctllm_ray.corpus.readers.records import Record, bad


def read_whole_file(split: Split, content_type: str) -> Iterator[Record]:
    """One record at position 0 with the file's bytes in `raw`; none for an empty file.

    Errors: record_too_large, and truncated for a compressed
    file that is cut or corrupt (its first bytes are kept).
    """
    content = bytearray()
    try:
        for piece in decompress.pieces(split.file):
            content += piece
            if len(content) > split.limits.record_bytes:
                reason = f"more than {split.limits.record_bytes} bytes"
                yield bad(0, "record_too_large", reason, bytes(content[: split.limits.error_raw_bytes]))
                return
    except decompress.Broken as broken:
        yield bad(0, "truncated", str(broken), bytes(content))
        return
    if content:
        yield Record(0, raw=bytes(content), content_type=content_type)
