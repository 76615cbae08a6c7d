"""Converts records to RAW tables of limited size.

A source is a generator of `Record`s, most of whose fields are usually null; here they become Arrow tables of
about `limits.batch_bytes`. A record that could not be read is one of `bad(...)`: `reject` says
`error.<kind>`, `title` the reason in words, `raw` its first bytes. A record of an archive that is no page is
one of `skip(...)`: it is counted and goes no further.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from ctllm_ray.base import resolve
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import schema

#: A table is also closed at this many records: each takes about a kilobyte of Python objects until then.
BATCH_RECORDS = 16_384
STATUS = "url.http_status"  # the score of sources that know it


class Record(NamedTuple):
    """One row of RAW, before its position becomes an id."""

    position: int
    text: str | None = None
    url: str | None = None
    title: str | None = None
    date: str | None = None
    raw: bytes | None = None
    content_type: str | None = None
    reject: str | None = None
    http_status: int | None = None
    lost: int = 0  # bytes of a record that could not be read


def bad(
    position: int, kind: str, reason: str, raw: bytes = b"", url: str | None = None, *, size: int = 0
) -> Record:
    """The record for input that could not be read; `size` is its length in bytes where `raw` is only its beginning."""
    return Record(position, url=url, title=reason, raw=raw, reject=f"error.{kind}", lost=size or len(raw))


def skip(position: int, why: str, url: str | None = None) -> Record:
    """The record for something that is whole, but no document."""
    return Record(position, url=url, reject=f"skipped.{why}")


def tables(split: Split, records: Iterable[Record]) -> Iterator[pa.Table]:
    """RAW tables of the records in order, each closed when its text and raw bytes reach `limits.batch_bytes`.

    Never an empty one. The bytes of a text are taken as three per character unless it is ASCII. Lost bytes go into
    the account of the split.
    """
    held: list[Record] = []
    size = 0
    for record in records:
        split.account.unread += record.lost
        if record.reject and record.raw:
            record = record._replace(raw=record.raw[: split.limits.error_raw_bytes])
        held.append(record)
        size += _bytes(record)
        if size >= split.limits.batch_bytes or len(held) >= BATCH_RECORDS:
            yield _table(split, held)
            held, size = [], 0
    if held:
        yield _table(split, held)


def _bytes(record: Record) -> int:
    text = record.text or ""
    return (len(text) if text.isascii() else 3 * len(text)) + len(record.raw or b"")


def _table(split: Split, records: list[Record]) -> pa.Table:
    positions, *columns, statuses, _ = zip(*records, strict=True)
    ids = [split.id(position) for position in positions]
    arrays = [pa.array(values, field.type) for values, field in zip([ids, *columns], schema.RAW, strict=True)]
    table = pa.table(arrays, schema=schema.RAW)
    if STATUS not in resolve.declared_names(resolve.SOURCES, split.use, "SCORES"):
        return table
    return table.append_column(f"score.{STATUS}", pa.array(statuses, pa.float32()))
