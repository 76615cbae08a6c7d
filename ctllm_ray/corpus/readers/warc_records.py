r"""Reads the complete records of WARC and WET files. Broken ones become error records.

FastWARC parses (https://resiliparse.chatnoir.eu), in its lenient mode, which accepts headers that end in bare
\n and finds the next record behind a damaged one. It reads from our own decompression, because FastWARC 2.0
takes a cut gzip file for a complete one; so a position is the record's byte offset in the unpacked file and
survives recompression. What the lenient mode skips shows by arithmetic: bytes between the end of a record and
the start of the next.

Errors: record_too_large, truncated (the file ends inside a record, or its compression is cut or corrupt: one,
then the file is over), invalid_warc (something between two records is not one).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from fastwarc.warc import ArchiveIterator, WarcRecord

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import decompress
from ctllm_ray.corpus.readers.records import Record, bad

#: More bytes than this between two records were a record once: its four mandatory fields alone are longer
#: (WARC 1.1, section 5). A header's length is computed from its fields and is a few bytes off with unusual
#: spacing.
GAP_BYTES = 100

#: Turns a record and its block (the bytes after the WARC header) into at most one record of the source.
Page = Callable[[int, WarcRecord, bytes], Iterator[Record]]


def entries(split: Split, page: Page) -> Iterator[Record]:
    """What `page` makes of each record of a file, in order, and one error record for each broken one."""
    stream = decompress.Reader(decompress.pieces(split.file))
    limit, end, headless = (
        split.limits.record_bytes,
        0,
        False,
    )  # `end`: where the last record should have ended
    for entry in ArchiveIterator(stream, parse_http=False, stream_detect=False, quirks_mode=True):
        position, size, url = entry.stream_pos, entry.content_length, entry.headers.get("WARC-Target-URI")
        if position - end > GAP_BYTES:
            yield bad(end, "invalid_warc", f"the next {position - end} bytes are not a WARC record")
        end, headless = position, not _has_header(entry)
        if headless:
            continue
        block = entry.reader.read(min(size, limit)) if size else b""
        if size > limit:
            yield bad(position, "record_too_large", f"{size} bytes, the limit is {limit}", block, url)
        elif len(block) < size:
            reason = stream.broken or "the file ends"
            yield bad(
                position,
                "truncated",
                f"{reason}, after {len(block)} of the record's {size} bytes",
                block,
                url,
            )
            return
        else:
            yield from page(position, entry, block)
        end = position + len(header(entry)) + size
    yield from _rest(stream, end, headless)


def _has_header(entry: WarcRecord) -> bool:
    """False for a damaged header, or for one cut by the end of the file (the lenient
    mode accepts what is there)."""
    return bool(entry.headers.get("WARC-Type") and entry.headers.get("Content-Length"))


def _rest(stream: decompress.Reader, end: int, headless: bool) -> Iterator[Record]:
    """An error record if data follows the last record, or its end is missing."""
    if stream.broken:
        yield bad(max(end, stream.position), "truncated", stream.broken)
    elif headless or (stream.position <= end + GAP_BYTES and stream.last not in {b"", b"\n"}):
        yield bad(end, "truncated", "the file ends inside a record")
    elif stream.position > end + GAP_BYTES:
        yield bad(end, "invalid_warc", f"the last {stream.position - end} bytes are not a WARC record")


def header(entry: WarcRecord) -> bytes:
    """The WARC header of a record, with the empty line that ends it."""
    written = io.BytesIO()
    entry.headers.write(written)
    return written.getvalue()
