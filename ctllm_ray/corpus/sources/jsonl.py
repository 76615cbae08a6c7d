r"""JSON lines: one JSON object a line, plain or .gz .zst .bz2 .xz.

The text is a string field, or HTML in another field that the extract stage takes further. Fields for url,
title and date may be missing, null or of another type; numbers become strings. Beside the errors of
corpus/readers/json_lines.py, where positions are told of too, there are error.missing_field (no text) and
error.wrong_type (text is not a string).

Measured: jsonl.zst to tables at 130 MB/s of UTF-8 (1.9 KB a
record, web_zh_raw), one core of a shared two-core machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.file_account import FileAccount
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import json_lines
from ctllm_ray.corpus.readers.json_lines import type_of
from ctllm_ray.corpus.readers.json_stream import without_halves
from ctllm_ray.corpus.readers.records import Record, bad, tables


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes."""
    return json_lines.spans(file, split_bytes)


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
    yield from tables(
        split,
        json_lines.records(split, partial(_record, split.account, _Fields(text, url, html, title, date))),
    )


def _record(
    account: FileAccount, names: _Fields, position: int, line: bytes, fields: dict[str, Any]
) -> Record:
    url = _string(fields.get(names.url))
    html = fields.get(names.html) if names.html else None
    content = fields.get(names.text) if html is None else html
    if content is None:
        present = ", ".join(list(fields)[:20])
        return bad(
            position,
            "missing_field",
            f"the record has no field {names.text!r}; its fields are {present}",
            line,
            url,
        )
    if type(content) is not str:
        name = names.text if html is None else names.html
        return bad(
            position, "wrong_type", f"field {name!r} is not a string but {type_of(content)}", line, url
        )
    title, date = _string(fields.get(names.title)), _string(fields.get(names.date))
    if html is None:
        return Record(position, content, url, title, date)
    try:
        raw = content.encode()
    except UnicodeEncodeError:
        account.repaired["half_surrogate"] += 1
        raw = without_halves(content).encode()
    return Record(position, None, url, title, date, raw, "text/html; charset=utf-8")


def _string(value: Any) -> str | None:
    if type(value) is str:
        return value
    return str(value) if type(value) in (int, float) else None
