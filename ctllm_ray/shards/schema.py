"""The Arrow schemas of tables: a source yields RAW, stages pass WORKING, shards store DOCUMENT.

Scores and labels are flat columns (`score.<name>`, `label.<name>`) while stages add them one by one, and two
structs in the shards, where a reader wants them out of the way. Every table is cast before it leaves its
maker: a column of nulls would otherwise take type `null` and change the schema from batch to batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

CUT = pa.struct([("rule", pa.string()), ("text", pa.string())])

#: What a source yields. If `raw` holds bytes that are not decoded and extracted yet, `text` is null. A record
#: that could not be read has `reject` = `error.<kind>`, and its first bytes in `raw`.
RAW = pa.schema(
    [
        ("id", pa.string()),  # <input name>/<file name>#<position>: an address that any retry computes again
        ("text", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("date", pa.string()),
        ("raw", pa.binary()),
        (
            "content_type",
            pa.string(),
        ),  # of `raw`, from the HTTP header or the recipe: text/html; charset=gbk
        ("reject", pa.string()),
    ]
)

#: RAW plus what stages fill: `source` (name of the input), the removed lines, and the decision.
WORKING = pa.schema(
    [
        *RAW,
        pa.field("source", pa.string()),
        pa.field("cuts", pa.list_(CUT)),
        pa.field("reject_value", pa.float32()),
        pa.field("reject_bound", pa.float32()),
    ]
)


def document(scores: Sequence[str], labels: Sequence[str]) -> pa.Schema:
    """DOCUMENT: the schema of a shard. `reject` is null in kept shards, else the name of the rule."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("url", pa.string()),
            ("title", pa.string()),
            ("date", pa.string()),
            ("source", pa.string()),
            ("labels", pa.struct([(name, pa.string()) for name in labels])),
            ("scores", pa.struct([(name, pa.float32()) for name in scores])),
            ("cuts", pa.list_(CUT)),
            ("reject", pa.string()),
            ("reject_value", pa.float32()),
            ("reject_bound", pa.float32()),
            ("raw", pa.binary()),  # only for records that could not be read
        ]
    )


def working(table: pa.Table, source: str) -> pa.Table:
    """Widens a RAW table to WORKING, with the scores of its source."""
    n = table.num_rows
    extra = {"source": pa.array([source] * n, pa.string())}
    columns = [
        extra.get(f.name, table[f.name] if f.name in table.column_names else pa.nulls(n, f.type))
        for f in WORKING
    ]
    wide = pa.table(columns, schema=WORKING)
    for name in table.column_names:
        if name.startswith("score."):
            wide = wide.append_column(name, table[name])
    return wide


def pack(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Converts a working table to DOCUMENT: flat score and label columns become
    structs; missing ones are null."""
    columns = []
    for field in schema:
        prefix = {"scores": "score.", "labels": "label."}.get(field.name)
        columns.append(_struct(table, field, prefix) if prefix else table[field.name].combine_chunks())
    return pa.table(columns, schema=schema)


def _struct(table: pa.Table, field: pa.Field, prefix: str) -> pa.Array:
    inner = list(field.type)
    if not inner:
        return pa.array([{}] * table.num_rows, field.type)
    arrays = [
        table[prefix + f.name].combine_chunks().cast(f.type)
        if prefix + f.name in table.column_names
        else pa.nulls(table.num_rows, f.type)
        for f in inner
    ]
    return pa.StructArray.from_arrays(arrays, fields=inner)


def unpack(table: pa.Table) -> pa.Table:
    """Converts a DOCUMENT table to a working table: the fields of the two structs become flat columns."""
    for struct, prefix in (("scores", "score."), ("labels", "label.")):
        inner = table[struct].combine_chunks()
        for field, values in zip(inner.type, inner.flatten(), strict=True):
            table = table.append_column(prefix + field.name, values)
    return table.drop_columns(["scores", "labels"])


def field(table: pa.Table, column: str, name: str) -> pa.Array:
    """A field of the labels or scores of a DOCUMENT table; all null if the shards lack it."""
    struct = table[column].combine_chunks()
    if struct.type.get_field_index(name) < 0:
        return pa.nulls(table.num_rows, pa.string() if column == "labels" else pa.float32())
    return pa.compute.struct_field(struct, name)


def put_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with a column replaced, or appended."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def utf8_bytes(texts: pa.Array | pa.ChunkedArray) -> int:
    """UTF-8 bytes of all texts (or bytes of binary values). Nulls count 0."""
    return pa.compute.sum(pa.compute.binary_length(texts)).as_py() or 0


def live(table: pa.Table) -> np.ndarray:
    """A boolean array: True for rows with text that are not rejected yet. Stages work on these rows."""
    return pa.compute.is_null(table["reject"]).to_numpy() & pa.compute.is_valid(table["text"]).to_numpy()


def reject(table: pa.Table, rows: np.ndarray, rule: str, value: np.ndarray, bound: float) -> pa.Table:
    """Marks rows as rejected by a rule, unless an earlier rule rejected them.

    `rows` is boolean and `value` float32, both of the table's length.
    """
    rows = rows & pa.compute.is_null(table["reject"]).to_numpy()
    mask = pa.array(rows)

    def choose(column: str, new: pa.Array | pa.Scalar) -> pa.Array:
        return pa.compute.if_else(mask, new, table[column].combine_chunks())

    table = put_column(table, "reject", choose("reject", pa.scalar(rule, pa.string())))
    table = put_column(table, "reject_value", choose("reject_value", pa.array(value, pa.float32())))
    return put_column(table, "reject_bound", choose("reject_bound", pa.scalar(bound, pa.float32())))
