"""Parquet files: a row is a record, with text in a string column or HTML in a column of bytes or strings.

Whole columns are handed from Parquet to the RAW table without a Python object per row. A split is a
run of adjacent row groups; the position in an id is the row's number in the file. Rows are read in
slices that hold about `limits.batch_bytes`, so a row group of any size needs no more memory than a
slice of it (and its dictionary).

The columns for url, title and date may be absent under their default names, or of a type that cannot be read:
then they are null. Numbers and timestamps become strings there. Errors of a row: missing_field (null text),
invalid_utf8 (Parquet does not check it), record_too_large. One error for a file, or for a split's part of it, whose
rows are counted as missing: wrong_columns (none for the text, two of one name, or of another type), truncated (the
rest of a damaged row group, or a file whose end, which holds the index, is cut off), not_parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctllm_ray.base import storage
from ctllm_ray.base.resolve import nearest
from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers.records import BATCH_RECORDS, bad, tables
from ctllm_ray.shards import schema

#: Bytes of a column chunk to read at once.
BUFFER_BYTES = 1 << 20

_OPTIONAL = {"url": "url", "title": "title", "date": "date", "text": "text"}
_REASONS = {
    "error.missing_field": "the column is null in this row",
    "error.record_too_large": "longer than the limit",
    "error.invalid_utf8": "not UTF-8",
}


class _Unreadable(Exception):
    """A file that cannot be read, as the `error.<kind>` of its record."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans (first row group, one after the last) of about `split_bytes` uncompressed bytes each."""
    if file.size == 0:
        return [(0, None)]
    try:
        with _open_parquet(file) as parquet:
            sizes = [parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)]
    except _Unreadable:
        return [(0, None)]
    starts, held = [0], 0
    for group, size in enumerate(sizes):
        if held and held + size > split_bytes:
            starts.append(group)
            held = 0
        held += size
    return [*pairwise(starts), (starts[-1], None)]


def parquet(
    split: Split,
    *,
    text: str = "text",
    url: str = "url",
    html: str | None = None,
    title: str = "title",
    date: str = "date",
    charset: str | None = None,
) -> Iterator[pa.Table]:
    """RAW tables of the rows of a split. The options name columns; `charset` is a
    column of charsets of `html`."""
    if split.file.size == 0:
        return
    names = {"text": text, "url": url, "title": title, "date": date, "raw": html, "charset": charset}
    try:
        with _open_parquet(split.file) as parquet:
            yield from _row_groups(split, parquet, names)
    except _Unreadable as error:
        split.account.count(str(error), split.file.size, 0, to_end=True)
        yield from tables(split, [bad(0, error.kind, str(error))])


def _row_groups(split: Split, parquet: pq.ParquetFile, names: dict[str, str | None]) -> Iterator[pa.Table]:
    """RAW tables of the split's row groups; one error record if its columns cannot serve."""
    stop = parquet.num_row_groups if split.stop is None else split.stop
    counts = [parquet.metadata.row_group(group).num_rows for group in range(stop)]
    bounds, row = _bounds(parquet.metadata, split.file.size), sum(counts[: split.start])
    try:
        columns = _find_columns(names, parquet.schema_arrow)
    except _Unreadable as error:
        end = split.file.size if split.stop is None else bounds[stop]
        split.account.count(str(error), end - bounds[split.start], 0, to_end=True)
        split.account.missing = max(0, sum(counts[split.start :]) - 1)
        yield from tables(split, [bad(row, error.kind, str(error))])
        return
    for group in range(split.start, stop):
        yield from _row_group(split, parquet, group, row, columns, bounds[group + 1] - bounds[group])
        row += counts[group]
    if split.stop is None:
        size = 0 if stop > split.start else split.file.size  # nobody has counted a file without row groups
        yield from _check_index(split, parquet.metadata.num_rows, row, size)


def _check_index(split: Split, stated: int, rows: int, size: int) -> Iterator[pa.Table]:
    """One error record where a file's index states more rows than its row groups have; counts `size` bytes."""
    reason = f"the index is damaged: it has row groups for {rows} of {stated} rows" if stated > rows else ""
    split.account.count(reason, size, 0, to_end=True)
    if reason:
        split.account.missing = (split.account.missing or 0) + stated - rows - 1
        yield from tables(split, [bad(rows, "truncated", reason)])


def _bounds(about: pq.FileMetaData, size: int) -> list[int]:
    """Byte offsets that cut a file into shares for its row groups, by their uncompressed sizes.

    Where they really lie, the index tells for each column; but pyarrow 26.0.1 ends the process (an exception of
    C++ that nobody catches) when asked about a column whose entry is damaged.
    """
    sizes = [max(0, about.row_group(group).total_byte_size) for group in range(about.num_row_groups)]
    return [*(size * held // max(1, sum(sizes)) for held in accumulate(sizes[:-1], initial=0)), size]


@contextmanager
def _open_parquet(file: File) -> Iterator[pq.ParquetFile]:
    """Opens the file's reader. Raises `_Unreadable` if it is not Parquet, or its index is missing."""
    with storage.reading(file.uri) as stream:
        magic = stream.read(16)
        if magic[:4] != b"PAR1" and not _ends_as_parquet(stream, file):
            raise _Unreadable("not_parquet", f"the file is not Parquet; it begins with {magic!r}")
        stream.seek(0)
        try:
            parquet = pq.ParquetFile(
                stream, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
            )
        except (pa.ArrowException, OSError) as error:
            raise _Unreadable("truncated", str(error)) from None
        yield parquet


def _ends_as_parquet(stream: IO[bytes], file: File) -> bool:
    """Whether a file with another beginning ends as Parquet does: nothing in its first four bytes is needed."""
    stream.seek(max(0, file.size - 4))
    return stream.read(4) == b"PAR1"


def _find_columns(names: dict[str, str | None], columns: pa.Schema) -> dict[str, str]:
    """The column of each RAW field that has one. Raises
    `_Unreadable` if the column of the text is missing, ambiguous or of an unsuitable type."""
    present = {}
    for field, name in names.items():
        if name is None:
            continue
        problem = _find_problem(field, name, columns)
        if not problem:
            present[field] = name
        elif _OPTIONAL.get(field) != name or (field == "text" and not names["raw"]):
            raise _Unreadable("wrong_columns", problem)
    return present


def _find_problem(field: str, name: str, columns: pa.Schema) -> str:
    """Why a column cannot serve; empty if it can."""
    count = columns.names.count(name)
    if count != 1:
        return (
            f"{count} columns are named {name!r}"
            if count
            else f"the file has no column {name!r}; {nearest(name, columns.names)}"
        )
    kind = columns.field(name).type
    if pa.types.is_null(kind):
        return f"column {name!r} has no values"
    if pa.types.is_nested(kind) or (field in {"text", "raw", "charset"} and not _is_bytes(kind)):
        return f"column {name!r} of type {kind} cannot be used as {field}; give a column of strings or bytes"
    return ""


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    binary = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return _is_string(kind) or any(check(kind) for check in binary)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _row_group(
    split: Split, parquet: pq.ParquetFile, group: int, row: int, columns: dict[str, str], stored: int
) -> Iterator[pa.Table]:
    """RAW tables of a row group of `stored` bytes whose first row is number `row`; if it is damaged,
    ends with one error record."""
    about, last = parquet.metadata.row_group(group), row
    size = max(0, about.total_byte_size)  # below zero in a damaged index
    fit = split.limits.batch_bytes * about.num_rows // max(1, size)
    rows = max(1, min(BATCH_RECORDS, fit))
    try:
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(columns.values())):
            yield from _slice_table(_table(split, batch, last, columns), split.limits.batch_bytes)
            last += batch.num_rows
        if last - row != about.num_rows:
            raise _Unreadable("truncated", f"{last - row} of {about.num_rows} rows came")
    except (pa.ArrowException, OSError, _Unreadable) as error:
        lost = stored - stored * (last - row) // max(1, about.num_rows)
        reason = f"the rest of row group {group} is damaged: {error}"
        split.account.count("", stored - lost, size * (stored - lost) // max(1, stored))
        split.account.count(reason, lost, 0)
        split.account.missing = (split.account.missing or 0) + max(0, row + about.num_rows - last - 1)
        yield from tables(split, [bad(last, "truncated", reason)])
        return
    split.account.count("", stored, size)


def _slice_table(table: pa.Table, batch_bytes: int) -> Iterator[pa.Table]:
    """The table in slices of about `batch_bytes` (rows may be far longer than their row group's average)."""
    sizes = sum(
        pc.fill_null(pc.binary_length(table[name]), 0).to_numpy().astype(np.int64) for name in ("text", "raw")
    )
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // batch_bytes)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), table.num_rows]):
        yield table.slice(start, stop - start)


def _table(split: Split, batch: pa.RecordBatch, row: int, columns: dict[str, str]) -> pa.Table:
    n = batch.num_rows
    fields = {field: batch.column(name) for field, name in columns.items()}
    values: dict[str, pa.Array] = {f: _strings(fields[f]) for f in ("url", "title", "date") if f in fields}
    values["id"] = pa.array([split.id(row + i) for i in range(n)], pa.string())
    raw = _bytes(fields["raw"]) if "raw" in fields else pa.nulls(n, pa.binary())
    text = _bytes(fields["text"]) if "text" in fields else pa.nulls(n, pa.binary())
    content = pc.coalesce(raw, text)
    values["text"] = _strings(pc.if_else(raw.is_valid(), None, text))
    lost = pc.and_(pc.and_(raw.is_null(), text.is_valid()), values["text"].is_null())
    large = pc.fill_null(pc.greater(pc.binary_length(content), split.limits.record_bytes), False)
    reject = pc.if_else(lost, "error.invalid_utf8", pa.nulls(n, pa.string()))
    reject = pc.if_else(large, "error.record_too_large", reject)
    values["reject"] = pc.if_else(content.is_null(), "error.missing_field", reject)
    if "raw" in fields:
        values["raw"] = raw
        values["content_type"] = pc.if_else(raw.is_valid(), _content_type(fields), None)
    if values["reject"].null_count < n:
        lost = pc.sum(pc.if_else(values["reject"].is_valid(), pc.binary_length(content), 0)).as_py() or 0
        split.account.unread += lost
        values |= _mark_rejects(values, content, split.limits.error_raw_bytes)
    arrays = [values[field.name] if field.name in values else pa.nulls(n, field.type) for field in schema.RAW]
    return pa.table(arrays, schema=schema.RAW)


def _mark_rejects(
    values: dict[str, pa.Array], content: pa.Array, error_raw_bytes: int
) -> dict[str, pa.Array]:
    """Text, raw, content type and title of rows; rejected ones have no text, their
    first bytes, and the reason."""
    n = len(content)
    fine = values["reject"].is_null()
    reasons = pa.array([_REASONS.get(reject) for reject in values["reject"].to_pylist()], pa.string())
    first = pc.binary_slice(content, 0, error_raw_bytes)
    return {
        "text": pc.if_else(fine, values["text"], None),
        "raw": pc.if_else(fine, values.get("raw", pa.nulls(n, pa.binary())), first),
        "content_type": pc.if_else(fine, values.get("content_type", pa.nulls(n, pa.string())), None),
        "title": pc.if_else(fine, values.get("title", pa.nulls(n, pa.string())), reasons),
    }


def _bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.binary())


def _strings(column: pa.Array) -> pa.Array:
    """The column as strings; null if bytes are not UTF-8."""
    if not _is_bytes(column.type):
        return column.cast(pa.string())
    column = _bytes(column)
    try:
        return column.cast(pa.string())  # checks UTF-8
    except pa.ArrowInvalid:
        return pa.array([_decode(value) for value in column.to_pylist()], pa.string())


def _decode(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _content_type(fields: dict[str, pa.Array]) -> pa.Array | pa.Scalar:
    if _is_string(fields["raw"].type):
        return pa.scalar("text/html; charset=utf-8")
    if "charset" not in fields:
        return pa.scalar("text/html")
    charset = pc.fill_null(_strings(fields["charset"]), "")
    declared = pc.binary_join_element_wise("text/html; charset=", charset, "")
    return pc.if_else(pc.equal(charset, ""), "text/html", declared)
