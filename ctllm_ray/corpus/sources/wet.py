"""Texts from WET files (.warc.wet, .gz, .zst): the `conversion` records of Common Crawl's text extraction.

The url and date are WARC-Target-URI and WARC-Date; text that is not UTF-8 is error.invalid_utf8.
Other errors are those of `corpus/readers/warc_records.py`; records of other types (warcinfo) are
counted as `skipped.<type>`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import warc_records
from ctllm_ray.corpus.readers.records import Record, bad, skip, tables
from ctllm_ray.corpus.readers.warc_records import WarcRecord


def wet(split: Split) -> Iterator[pa.Table]:
    """RAW tables of the texts in a file."""
    yield from tables(split, warc_records.entries(split, _text))


def _text(record: WarcRecord) -> Record:
    if record.type != "conversion":
        return skip(record.position, record.known_type, record.url)
    try:
        text = record.block.decode()
    except UnicodeDecodeError as error:
        return bad(record.position, "invalid_utf8", str(error), record.block, record.url)
    return Record(record.position, text, record.url, None, record.fields.get("warc-date"))
