r"""JSON lines: one JSON object a line, plain or .gz .zst .bz2 .xz.

The position in an id is the byte offset of the line in the unpacked file: it survives recompression, and every span of
a file computes it alike. Blank lines are not records. The text is a string field, or HTML in another field that the
extract stage takes further. Fields for url, title and date may be missing, null or of another type; numbers become
strings.

A line that cannot be read is one record with `reject` = error.invalid_json, error.invalid_utf8, error.invalid_unicode
(half of a surrogate pair, as cutting a UTF-16 string leaves it), error.missing_field (no text), error.wrong_type (text
is not a string, or the line not an object), error.record_too_large; a file that ends early or is corrupt ends with one
error.truncated. JSON is taken at its word: NaN and bare control characters in strings make a line invalid.

Measured: jsonl.zst to tables at 130 MB/s of UTF-8 (1.9 KB a record, web_zh_raw), one core of a shared two-core machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus import lines
from ctllm_ray.corpus.raw import Record, bad, tables
from ctllm_ray.corpus.splits import Split

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return lines.spans(file, split_bytes)


class _Fields(NamedTuple):
    text: str
    url: str
    html: str | None
    title: str
    date: str


def jsonl(
    split: Split,
    *,
    text: str = "text",
    url: str = "url",
    html: str | None = None,
    title: str = "title",
    date: str = "date",
) -> Iterator[pa.Table]:
    """RAW tables of the objects that begin in a split; the options name the fields."""
    yield from tables(split, _records(split, _Fields(text, url, html, title, date)))


def _records(split: Split, names: _Fields) -> Iterator[Record]:
    for position, line, error, reason in lines.lines(split):
        if error:
            yield bad(position, error, reason, line)
            continue
        if position == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line and not line.isspace():
            yield _record(position, line, names)


def _record(position: int, line: bytes, names: _Fields) -> Record:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return bad(position, _kind(error, line), str(error), line)
    if type(fields) is not dict:
        return bad(position, "wrong_type", f"the line is not an object but {_type(fields)}", line)
    url = _string(fields.get(names.url))
    html = fields.get(names.html) if names.html else None
    content = fields.get(names.text) if html is None else html
    if content is None:
        present = ", ".join(list(fields)[:20])
        return bad(position, "missing_field", f"no field {names.text!r}, only: {present}", line, url)
    if type(content) is not str:
        name = names.text if html is None else names.html
        return bad(position, "wrong_type", f"field {name!r} is not a string but {_type(content)}", line, url)
    title, date = _string(fields.get(names.title)), _string(fields.get(names.date))
    if html is None:
        return Record(position, content, url, title, date)
    return Record(position, None, url, title, date, content.encode(), "text/html; charset=utf-8")


def _kind(error: orjson.JSONDecodeError, line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    return "invalid_unicode" if "surrogate" in str(error) else "invalid_json"


def _string(value: Any) -> str | None:
    if type(value) is str:
        return value
    return str(value) if type(value) in (int, float) else None


def _type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return names.get(type(value), "null")
