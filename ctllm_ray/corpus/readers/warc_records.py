r"""Cuts WARC, WET and ARC files into records. What is no record is an error, and reading goes on behind it.

A WARC record is its version line, header fields, an empty line, `Content-Length` bytes, and two line ends (WARC
1.1, section 4). An ARC record is a line that ends with a length, so many bytes, and a line end. Archives of the
wild differ, and are read: field names in any case, bare \n, a wrong length (the record ends where the next
one begins). A record is looked for behind whatever is none, and behind a gap in the
compressed stream. Positions are byte offsets in the unpacked file, so they survive recompression.

Errors: record_too_large; truncated (the file ends inside a record, or its compression is cut or corrupt there);
invalid_warc (bytes between two records, or a record without type or length).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import lines
from ctllm_ray.corpus.readers.http_fields import decode_field, parse_fields
from ctllm_ray.corpus.readers.records import Record, bad
from ctllm_ray.corpus.readers.window import Window

#: A header longer than this is none.
HEADER_BYTES = 1 << 16
LENGTH_DIGITS = 18  # of a Content-Length: a longer one is damage
TAIL_BYTES = 1 << 12  # of what is passed over: the beginning of the next record may stand there
#: More bytes than this between two records were a record once: its four mandatory fields alone are longer.
GAP_BYTES = 100
_ARC_FILE = b"filedesc://"
#: The types of WARC 1.1, and that of an ARC file's first record.
_TYPES = frozenset(
    [
        "warcinfo",
        "request",
        "response",
        "resource",
        "metadata",
        "revisit",
        "conversion",
        "continuation",
        "filedesc",
    ]
)


class Form(NamedTuple):
    """How records of a format begin: where one may (at a line's start), and the reader of its header."""

    begin: re.Pattern[bytes]
    read_header: Callable[[bytes], dict[str, str]]
    end_of_header: re.Pattern[bytes]


class WarcRecord(NamedTuple):
    """A record: its position, its header fields by lower-case name, and its block."""

    position: int
    fields: dict[str, str]
    block: bytes

    @property
    def type(self) -> str:
        """Its WARC-Type in lower case; `filedesc` for the first record of an ARC file."""
        return self.fields["warc-type"].lower()

    @property
    def known_type(self) -> str:
        """Its type, or `unknown_type`: what a record that is skipped counts as."""
        return self.type if self.type in _TYPES else "unknown_type"

    @property
    def url(self) -> str | None:
        """Its WARC-Target-URI, without the angle brackets of WARC 1.0."""
        url = self.fields.get("warc-target-uri")
        return url.strip("<>") if url else url


#: Turns a WARC record into one record of the source.
Page = Callable[[WarcRecord], Record]


def _arc_fields(header: bytes) -> dict[str, str]:
    url, _, date, content_type, *_, length = decode_field(header).split(" ")
    day, time = date[:8], date[8:14].ljust(6, "0")
    iso = f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}Z"
    kind = "filedesc" if url.startswith(_ARC_FILE.decode()) else "response"
    values = {"warc-type": kind, "warc-target-uri": url, "warc-date": iso}
    return values | {"arc-content-type": content_type, "content-length": length.strip()}


_WARC = Form(re.compile(rb"^WARC/\d\.\d[ \t]*\r?\n", re.MULTILINE), parse_fields, re.compile(rb"\r?\n\r?\n"))
_ARC = Form(
    re.compile(rb"^[a-z][a-z0-9+.-]*:[^ \r\n]* \S+ \d{8,14} [^\r\n]* \d+\r?\n", re.IGNORECASE | re.MULTILINE),
    _arc_fields,
    re.compile(rb"\r?\n"),
)
_LINE_ENDS = re.compile(rb"(?:[ \t]*\r?\n)*")


def entries(split: Split, page: Page) -> Iterator[Record]:
    """What `page` makes of each record of a file, in order, and one error record for each broken one."""
    window = Window(lines.read_span(split, 0))
    window.fill(HEADER_BYTES)
    form = _find_form(window.ahead)
    while window.fill(HEADER_BYTES):
        if ends := _LINE_ENDS.match(window.ahead):
            window.take(ends.end())
        if not window.ahead:
            if not window.is_complete:
                continue
            start = window.position
            if reason := window.pass_gap():
                if start == 0 and window.fill(HEADER_BYTES):
                    form = _find_form(window.ahead)
                _pass_to_next(window, form)
                yield bad(start, "truncated", reason, size=window.position - start)
            continue
        yield _read_record(window, form, page, split.limits.record_bytes)


def _find_form(head: bytearray) -> Form:
    """ARC where a file begins as ARC files do, or where records of ARC and none of WARC are at its beginning."""
    if head.startswith(_ARC_FILE):
        return _ARC
    return _ARC if _ARC.begin.search(head) and not _WARC.begin.search(head) else _WARC


def _read_record(window: Window, form: Form, page: Page, limit: int) -> Record:
    """The record at the window's position, or the error for what stands there instead."""
    start = window.position
    fields = _read_header(window, form)
    if fields is None:
        return _bad_bytes(window, form)
    url, length = fields.get("warc-target-uri"), int(fields["content-length"])
    if length > limit:
        first = _pass_block(window, form, length)
        reason = f"{length} bytes, the limit is {limit}"
        return bad(start, "record_too_large", reason, first, url, size=window.position - start)
    block = _read_block(window, form, length)
    if block is not None:
        return page(WarcRecord(start, fields, block))
    content = window.take(len(window.ahead))
    reason = window.pass_gap() or "the file ends"
    _pass_to_next(window, form)
    reason = f"{reason}, after {len(content)} of the record's {length} bytes"
    return bad(start, "truncated", reason, content, url, size=window.position - start)


def _read_header(window: Window, form: Form) -> dict[str, str] | None:
    """The header's fields, with type and length; None, with the window as it was, where no record begins."""
    if not form.begin.match(window.ahead):
        return None
    end = form.end_of_header.search(window.ahead, 0, HEADER_BYTES)
    if end is None:
        return None
    fields = form.read_header(bytes(window.ahead[: end.start()]))
    length = fields.get("content-length", "")
    if not length.isdecimal() or len(length) > LENGTH_DIGITS or not fields.get("warc-type"):
        return None
    window.take(end.end())
    return fields


def _read_block(window: Window, form: Form, length: int) -> bytes | None:
    """The block of a record; where none follows it, up to the record that begins inside it or shortly behind it.
    None if the file ends first."""
    window.fill(length + HEADER_BYTES)
    inner = 0 if _ends_record(window, form, length) else _find_next(window, form)
    if 0 < inner < length + GAP_BYTES:
        return window.take(inner).rstrip(b"\r\n")
    return window.take(length) if len(window.ahead) >= length else None


def _ends_record(window: Window, form: Form, length: int) -> bool:
    """Whether a record with so long a block is followed by another one, or by the end."""
    after = _LINE_ENDS.match(window.ahead, length) if len(window.ahead) >= length else None
    if after is None:
        return False
    at_end = after.end() == len(window.ahead) and window.is_complete
    return at_end or form.begin.match(window.ahead, after.end()) is not None


def _find_next(window: Window, form: Form) -> int:
    """Where the next record begins behind the first byte ahead, at a line's start; 0 if there is none."""
    match = form.begin.search(window.ahead, 1)
    return match.start() if match else 0


def _pass_block(window: Window, form: Form, length: int) -> bytes:
    """Passes over a block that is too large to hold, or over what there is of it; returns its first bytes."""
    first = bytes(window.ahead[:HEADER_BYTES])
    while length and window.fill(HEADER_BYTES) and window.ahead:
        inner = _find_next(window, form)
        whole = len(window.ahead) if window.is_complete else len(window.ahead) - TAIL_BYTES
        count = min(length, inner or whole)
        window.take(count)
        length = 0 if inner else length - count
    return first


def _bad_bytes(window: Window, form: Form) -> Record:
    """The error for bytes that are no record; the window then stands where one may begin."""
    start, first = window.position, bytes(window.ahead[:HEADER_BYTES])
    window.take(1)
    _pass_to_next(window, form)
    size = window.position - start
    if not window.ahead and b"WARC/".startswith(first[:5]) and not form.end_of_header.search(first):
        reason = window.pass_gap() or "the file ends inside a record"
        _pass_to_next(window, form)
        return bad(start, "truncated", reason, first, size=size)
    return bad(start, "invalid_warc", f"the next {size} bytes are not a WARC record", first, size=size)


def _pass_to_next(window: Window, form: Form) -> None:
    """Passes over bytes up to where a record may begin, the next gap, or the end."""
    at = 0
    while window.fill(HEADER_BYTES) and window.ahead:
        if match := form.begin.search(window.ahead, at):
            window.take(match.start())
            return
        window.pass_all_but(TAIL_BYTES)
        at = 1
