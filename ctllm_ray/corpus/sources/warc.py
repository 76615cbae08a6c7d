"""Pages from WARC files (.warc, .warc.gz, .warc.zst) and ARC files, their older form.

Pages are `response` and `resource` records of HTML, XHTML, XML, feeds or plain text; where no type is stated, or
application/octet-stream, the bytes decide. Every other record is counted as `skipped.<why>`: `request`, `metadata`,
`revisit` (they have no content), `image`, `json` and so on. Chunked transfer and gzip, deflate, brotli and zstd
content encoding are undone, as far as the record limit: a zip bomb becomes error.record_too_large, and is unfolded no
further.

`content_type` is the HTTP header's, with its charset; `raw` the page's bytes; the url and date are WARC-Target-URI
and WARC-Date; the HTTP status becomes the score `url.http_status`. Errors: those of
`corpus/readers/warc_records.py`, and error.invalid_http for a response without a status line.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import warc_records
from ctllm_ray.corpus.readers.http_response import HttpResponse, read_response
from ctllm_ray.corpus.readers.page_types import skipped_as
from ctllm_ray.corpus.readers.records import Record, bad, skip, tables
from ctllm_ray.corpus.readers.warc_records import WarcRecord

SCORES = ("url.http_status",)


def warc(split: Split) -> Iterator[pa.Table]:
    """RAW tables of the pages in a file."""
    yield from tables(split, warc_records.entries(split, partial(_page, split.limits.record_bytes)))


def _page(limit: int, record: WarcRecord) -> Record:
    if record.type == "resource":
        response = HttpResponse(0, record.fields.get("content-type", ""), record.block)
    elif record.type == "response" and _is_http(record):
        try:
            response = read_response(record.block, limit)
        except ValueError as error:
            return bad(record.position, "invalid_http", str(error), record.block, record.url)
    else:
        why = "not_http" if record.type == "response" else record.known_type
        return skip(record.position, why, record.url)
    content_type = response.content_type or record.fields.get("warc-identified-payload-type", "")
    if why := skipped_as(content_type, response.content):
        return skip(record.position, why, record.url)
    if len(response.content) > limit:
        reason = f"the content decompresses to more than {limit} bytes"
        size = len(record.block)
        return bad(record.position, "record_too_large", reason, response.content, record.url, size=size)
    return Record(
        record.position,
        url=record.url,
        date=record.fields.get("warc-date"),
        raw=response.content,
        content_type=content_type or "text/html",
        http_status=response.status or None,
    )


def _is_http(record: WarcRecord) -> bool:
    """Whether a response came by HTTP, by its type, or else by its address."""
    content_type = record.fields.get("content-type", "").lower()
    if content_type:
        return "application/http" in content_type
    return (record.url or "").lower().startswith(("http:", "https:"))
