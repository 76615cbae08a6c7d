"""Parquet files: a row is a record, with text in a string column or HTML in a column of bytes or strings.

Whole columns are handed from Parquet to the RAW table without a Python object per row. A split is a
run of adjacent row groups; the position in an id is the row's number in the file. Rows are read in
slices that hold about `limits.batch_bytes`, so a row group of any size needs no more memory than a
slice of it (and its dictionary).

The columns for url, title and date may be absent under their default names; any other absent column is an
`InputError`. Numbers and timestamps become strings there. Errors: missing_field (null text), invalid_utf8
(Parquet does not check it), record_too_large, truncated (the rest of a damaged row group, or a file whose
end, which holds the index, is cut off: one record each).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
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


class _Broken(Exception):
    """A file or row group that cannot be read."""


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans (first row group, one after the last) of about `split_bytes` uncompressed bytes each."""
    if file.size == 0:
        return [(0, None)]
    try:
        with _open_parquet(file) as parquet:
            sizes = [parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)]
    except _Broken:
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
            columns = _present(names, parquet.schema_arrow, split.file)
            stop = parquet.num_row_groups if split.stop is None else split.stop
            row = sum(parquet.metadata.row_group(i).num_rows for i in range(split.start))
            for group in range(split.start, stop):
                yield from _row_group(split, parquet, group, row, columns)
                row += parquet.metadata.row_group(group).num_rows
    except _Broken as broken:
        yield from tables(split, [bad(0, "truncated", str(broken))])


@contextmanager
def _open_parquet(file: File) -> Iterator[pq.ParquetFile]:
    """Opens the file's reader. Raises `InputError` if it is not Parquet,
    `_Broken` if its index is missing."""
    with storage.reading(file.uri) as stream:
        magic = stream.read(4)
        if magic != b"PAR1":
            raise InputError(
                "the file is not Parquet", where=file.uri, remedy="use another source, or give Parquet files"
            )
        stream.seek(0)
        try:
            parquet = pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise _Broken(str(error)) from None
        yield parquet


def _present(names: dict[str, str | None], columns: pa.Schema, file: File) -> dict[str, str]:
    """The column of each RAW field that has one. Raises
    `InputError` if it is missing or of an unsuitable type."""
    present = {}
    for field, name in names.items():
        if name is None:
            continue
        if name not in columns.names:
            if _OPTIONAL.get(field) == name and (field != "text" or names["raw"]):
                continue
            raise InputError(
                f"the file has no column {name!r}", where=file.uri, remedy=nearest(name, columns.names)
            )
        kind = columns.field(name).type
        if pa.types.is_nested(kind) or (field in {"text", "raw", "charset"} and not _is_bytes(kind)):
            remedy = "give a column of strings or bytes"
            raise InputError(
                f"column {name!r} of type {kind} cannot be used as {field}", where=file.uri, remedy=remedy
            )
        present[field] = name
    return present


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _row_group(
    split: Split, parquet: pq.ParquetFile, group: int, row: int, columns: dict[str, str]
) -> Iterator[pa.Table]:
    """RAW tables of a row group whose first row is number `row`; if it is damaged,
    ends with one error record."""
    about = parquet.metadata.row_group(group)
    fit = split.limits.batch_bytes * about.num_rows // max(1, about.total_byte_size)
    rows = max(1, min(BATCH_RECORDS, fit))
    try:
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(columns.values())):
            yield from _slice_table(_table(split, batch, row, columns), split.limits.batch_bytes)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield from tables(
            split, [bad(row, "truncated", f"the rest of row group {group} is damaged: {error}")]
        )


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
