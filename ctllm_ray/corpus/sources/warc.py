"""Pages from WARC files: .warc, .warc.gz, .warc.zst.

Pages are `response` and `resource` records whose content is HTML, XHTML or plain text (also responses without
any Content-Type: the charset ladder and the extractor look at the bytes). Requests, metadata, revisits (they
have no content), images and the rest are no pages and are not counted. Chunked transfer and gzip, deflate and
brotli content encoding are undone, as far as the record limit: a zip bomb becomes error.record_too_large, and
is unfolded no further. Where a header announces an encoding and the bytes are not in it, as crawlers write
that unpack without saying so, the bytes are taken as they are.

`content_type` is the HTTP header's, with its charset; `raw` the page's bytes; the url and date are
WARC-Target-URI and WARC-Date. Errors: those of `corpus/readers/warc_records.py`, and error.invalid_http for a
response without a status line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Literal

import pyarrow as pa
from fastwarc.warc import WarcRecord, WarcRecordType

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import warc_records
from ctllm_ray.corpus.readers.records import Record, bad, tables

PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain", ""})
# magic numbers of gzip and zstd: such bytes are still compressed
_ENCODED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


def warc(split: Split) -> Iterator[pa.Table]:
    """RAW tables of the pages in a file."""
    yield from tables(split, warc_records.entries(split, partial(_page, split.limits.record_bytes)))


def _page(limit: int, position: int, entry: WarcRecord, block: bytes) -> Iterator[Record]:
    url, date = entry.headers.get("WARC-Target-URI"), entry.headers.get("WARC-Date")
    if entry.record_type == WarcRecordType.response and entry.is_http:
        try:
            content, content_type = _response(entry, block, limit)
        except OSError as error:
            yield bad(position, "invalid_http", str(error), block, url)
            return
    elif entry.record_type == WarcRecordType.resource:
        content, content_type = block, entry.headers.get("Content-Type") or ""
    else:
        return
    if not _is_page(content_type):
        return
    if len(content) > limit:
        yield bad(
            position, "record_too_large", f"the content decompresses to more than {limit} bytes", content, url
        )
    else:
        yield Record(position, url=url, date=date, raw=content, content_type=content_type)


def _response(entry: WarcRecord, block: bytes, limit: int) -> tuple[bytes, str]:
    """Up to limit + 1 bytes of a response's content, and its Content-Type. Raises
    `OSError` if it is not HTTP."""
    whole = warc_records.header(entry) + block
    response = _parse_record(whole, "all")
    if response.http_headers is None or response.http_headers.status_code is None:
        raise OSError("the response does not begin with an HTTP status line")
    content_type = (
        response.http_headers.get("Content-Type") or entry.headers.get("WARC-Identified-Payload-Type") or ""
    )
    if not _is_page(content_type):
        return b"", content_type
    try:
        return response.reader.read(limit + 1), content_type or "text/html"
    except OSError:
        content = _parse_record(whole, "none").reader.read(limit + 1)
        if content.startswith(_ENCODED):
            raise
        return content, content_type or "text/html"


def _parse_record(whole: bytes, auto_decode: Literal["all", "none"]) -> WarcRecord:
    """A record that is decoded while it is read. A record of an archive that was read
    ahead would decode at once."""
    record = WarcRecord.from_reader(io.BytesIO(whole), quirks_mode=True)
    record.parse_http(auto_decode=auto_decode, quirks_mode=True)
    return record


def _is_page(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in PAGE_TYPES
