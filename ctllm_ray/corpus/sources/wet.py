"""Texts from WET files (.warc.wet, .gz, .zst): the `conversion` records of Common Crawl's text extraction.

The url and date are WARC-Target-URI and WARC-Date; text that is not UTF-8 is error.invalid_utf8.
Other errors are those of `corpus/readers/warc_records.py`; records of other types (warcinfo) are no
texts and are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from fastwarc.warc import WarcRecord, WarcRecordType

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import warc_records
from ctllm_ray.corpus.readers.records import Record, bad, tables


def wet(split: Split) -> Iterator[pa.Table]:
    """RAW tables of the texts in a file."""
    yield from tables(split, warc_records.entries(split, _text))


def _text(position: int, entry: WarcRecord, block: bytes) -> Iterator[Record]:
    if entry.record_type != WarcRecordType.conversion:
        return
    url = entry.headers.get("WARC-Target-URI")
    try:
        yield Record(position, block.decode(), url, None, entry.headers.get("WARC-Date"))
    except UnicodeDecodeError as error:
        yield bad(position, "invalid_utf8", str(error), block, url)
