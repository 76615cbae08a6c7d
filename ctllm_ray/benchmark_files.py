"""Reads the rows of benchmark files in their native format,
each with an id. Evaluation and decontamination use them.

A row that is a list, as in C3's .json and MGSM's .tsv, has its values under "0", "1" and so on: a benchmark
knows what they are (`list_values`). An item's id is its address, the file's name and the row: the same in every
run, for pairing two evaluations and for looking an item up in a training corpus.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError

ID = "_id"  # the key of an item's id in its row

Row = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkTable:
    """The rows of files, each with its id, and the files' SHA-256."""

    rows: list[Row]
    files: Mapping[str, str]


def table(uri: str) -> BenchmarkTable:
    """Reads a file or all files that a glob matches: .jsonl,
    .json, .csv, .tsv or .parquet, also as .zst or .gz.

    Raises `InputError` that names the file where there is none or it cannot be read.
    """
    rows, files = [], {}
    for file in storage.list_files(uri):
        with storage.reading(file.uri) as stream:
            _, files[file.uri] = storage.hash_stream(stream)
        rows += of_file(file.uri)
    return BenchmarkTable(rows, files)


def of_file(uri: str) -> list[Row]:
    """The rows of one file, each with its id. Raises `InputError`."""
    name = uri.rpartition("/")[2]
    return [row | {ID: f"{name}#{at}"} for at, row in enumerate(_rows(uri))]


def _rows(uri: str) -> list[Row]:
    name = uri.removesuffix(".zst").removesuffix(".gz")
    try:
        content = _decompress(uri, storage.read_bytes(uri))
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return pq.read_table(io.BytesIO(content)).to_pylist()
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        if name.endswith(".jsonl"):
            return [_object(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
        if name.endswith(".tsv"):
            lines = content.decode("utf-8-sig").split("\n")
            return [_number(line.rstrip("\r").split("\t")) for line in lines if line.strip()]
        plain = json.loads(content)
        return [_number(row) if isinstance(row, list) else _object(json.dumps(row)) for row in plain]
    except (ValueError, OSError) as error:
        remedy = "use .jsonl, .json, .csv, .tsv or .parquet in UTF-8, optionally as .zst or .gz"
        raise InputError(f"the benchmark file cannot be read: {error}", where=uri, remedy=remedy) from error


def _decompress(uri: str, content: bytes) -> bytes:
    if uri.endswith(".zst"):
        import zstandard

        try:
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
    return gzip.decompress(content) if uri.endswith(".gz") else content


def _number(values: Sequence[Any]) -> Row:
    return {str(place): value for place, value in enumerate(values)}


def list_values(row: Row) -> list[Any]:
    """The values of a row that is a list in its file; empty for an object."""
    return [row[key] for key in row if key != ID] if "0" in row else []


def _object(line: str) -> Row:
    plain = json.loads(line)
    if not isinstance(plain, dict):
        raise ValueError(f"a row is not a JSON object: {line[:80]}")
    return plain


def field_of(row: Row, *names: str) -> Any:
    """The value under the first of these names that the row has. Raises `InputError` if it has none."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(
        f"a row has no field {names[0]!r}",
        where=str(row.get(ID)),
        remedy=f"the row's fields are {', '.join(row)}",
    )
