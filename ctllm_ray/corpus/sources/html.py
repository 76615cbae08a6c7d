"""HTML files, one page each, as bytes; a later stage
detects the charset. Also compressed (.gz .zst .bz2 .xz).

A page has no url; its id ends with the file's name and position 0. An empty file is no record.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers.records import tables
from ctllm_ray.corpus.readers.whole_file import read_whole_file


def html(split: Split, *, content_type: str = "text/html") -> Iterator[pa.Table]:
    """A RAW table of one page. `content_type` may name a charset for all files:
    text/html; charset=gb18030."""
    yield from tables(split, read_whole_file(split, content_type))
