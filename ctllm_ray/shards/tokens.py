"""Token shards: documents as framed token ids, in a layout that training reads directly from the file.

Arrow IPC without compression and with one record batch, so that the ids of a local shard are one flat
memory-mapped array and reading a stretch of a document copies nothing. `ids` holds [BOS] + content +
[EOS] of each document. A document of m ids has m - 1 targets, `ids[1:]`, as BOS is only ever an
input. Two bytes per token where the vocabulary has no more than 65,536 pieces, else four: a fifth to
a half of the text's own size.

A shard holds texts, conversations or preference pairs; its schema says which. Encoded conversations have one
more column: `answers`, the spans of ids that an assistant says, as [start, stop, start, stop, ...], eight
bytes per answer. The chosen conversation of a pair comes directly before the rejected one, under the same
`doc_id`; no table or shard holds half of a pair. `text_bytes` and `text_chars` of conversations count the
answers only, so that bits per byte relate to the trained text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.storage_errors import remedy_of_reading
from ctllm_ray.shards.manifest import Shard

TRAIN, HELD_OUT = "train", "held_out"
SHARD_BYTES = 128 << 20  # of ids: a writer holds this much in memory; about a minute of training on one GPU
SMALL_VOCABULARY = 1 << 16  # pieces that two bytes can distinguish
Form = Literal["texts", "conversations", "pairs"]  # what a shard contains
_FORM = b"form"  # key in a shard's schema metadata
_REMEDY = "restore the file, or delete the section's folder and run `ctllm prepare` again"


def id_type(vocab_size: int) -> pa.DataType:
    """The type of an id: uint16 if the vocabulary allows it, else uint32."""
    return pa.uint16() if vocab_size <= SMALL_VOCABULARY else pa.uint32()


def schema(ids: pa.DataType, scores: Sequence[str], form: Form = "texts") -> pa.Schema:
    """TOKENS: the schema of a token shard. It has one row per document, two per preference pair."""
    columns = [
        ("doc_id", pa.string()),  # the `id` of the clean document
        ("ids", pa.large_list(ids)),
        ("text_bytes", pa.int32()),  # UTF-8
        ("text_chars", pa.int32()),  # code points
        ("scores", pa.struct([(name, pa.float32()) for name in scores])),
    ]
    answers = [] if form == "texts" else [("answers", pa.large_list(pa.int32()))]
    return pa.schema([*columns, *answers], {_FORM: form.encode()} if answers else None)


def table(
    doc_ids: Sequence[str] | pa.Array,
    ids: Sequence[np.ndarray],
    text_bytes: np.ndarray | pa.Array,
    text_chars: np.ndarray | pa.Array,
    scores: Mapping[str, np.ndarray | pa.Array],
    type_of_ids: pa.DataType,
) -> pa.Table:
    """A TOKENS table from framed ids, one array per document. Raises `ArrowInvalid` if an id does not fit."""
    form = schema(type_of_ids, tuple(scores))
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in ids], dtype=np.int64)]).astype(np.int64)
    values = np.concatenate(ids) if len(ids) else np.empty(0, np.int64)
    inner = [pa.array(column, pa.float32()) for column in scores.values()]
    fields = list(form.field("scores").type)
    columns = [
        pa.array(doc_ids, pa.string()),
        pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values).cast(type_of_ids)),
        pa.array(text_bytes).cast(pa.int32()),
        pa.array(text_chars).cast(pa.int32()),
        pa.StructArray.from_arrays(inner, fields=fields)
        if inner
        else pa.array([{}] * len(ids), pa.struct([])),
    ]
    return pa.table(columns, schema=form)


def with_answers(table: pa.Table, answers: Sequence[np.ndarray], form: Form) -> pa.Table:
    """Adds answers to a TOKENS table of conversations or pairs: [start, stop,
    ...] of what an assistant says."""
    offsets = np.cumsum([0, *(len(spans) for spans in answers)], dtype=np.int64)
    flat = np.concatenate(answers) if len(answers) else np.empty(0, np.int32)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.int32()))
    wide = table.append_column("answers", column)
    return wide.cast(schema(table.schema.field("ids").type.value_type, _score_names(table.schema), form))


def _score_names(result: pa.Schema) -> list[str]:
    return [field.name for field in result.field("scores").type]


def shard_path(kind: str, group: str, split: int, number: int) -> str:
    """The path of a shard below the section's folder. A group may contain any characters."""
    return f"{kind}/{folder_name(group)}/{split:05d}-{number:03d}.arrow"


def folder_name(group: str) -> str:
    """The group's name as one path component."""
    quoted = quote(group, safe="")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


class TokenShardWriter:
    """Writes TOKENS tables to `<folder>/<kind>/<group>/<split>-<number>.arrow`.
    `shards` lists the closed files."""

    def __init__(
        self,
        folder: str,
        kind: str,
        group: str,
        split: int,
        id_type: pa.DataType,
        scores: Sequence[str],
        form: Form = "texts",
    ) -> None:
        self._folder, self._kind, self._group, self._split = folder, kind, group, split
        self._schema = schema(id_type, scores, form)
        self.shards: list[Shard] = []
        self._start()

    def __enter__(self) -> TokenShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def write(self, table: pa.Table) -> None:
        """Appends the documents of a TOKENS table. They stay in memory until the shard is full."""
        if table.num_rows == 0:
            return
        lists = table["ids"].combine_chunks()
        self._ids.write(memoryview(lists.flatten().to_numpy()).cast("B"))
        self._lengths.append(pc.list_value_length(lists).to_numpy())
        self._rest.append(table.drop_columns(["ids"]))
        if self._ids.tell() >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        """Closes the open shard, if any, under its final name. Writing again begins the next shard."""
        if not self._rest:
            return
        path = shard_path(self._kind, self._group, self._split, len(self.shards))
        batch = self._batch()
        with storage.writing(storage.join(self._folder, path)) as local:
            with pa.OSFile(local, "wb") as sink, pa.ipc.new_file(sink, self._schema) as writer:
                writer.write_batch(batch)
            with open(local, "rb") as written:
                size, digest = storage.hash_stream(written)
        text_bytes = pc.sum(batch["text_bytes"]).as_py()
        tokens = len(batch["ids"].values)
        self.shards.append(Shard(path, batch.num_rows, size, text_bytes, digest, tokens, self._group))
        self._start()

    def _start(self) -> None:
        self._ids = pa.BufferOutputStream()
        self._lengths: list[np.ndarray] = []
        self._rest: list[pa.Table] = []

    def _batch(self) -> pa.RecordBatch:
        values = self._ids.getvalue()
        kind = self._schema.field("ids").type.value_type
        flat = pa.Array.from_buffers(kind, values.size // (kind.bit_width // 8), [None, values])
        offsets = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum(np.concatenate(self._lengths), dtype=np.int64)]
        )
        rest = pa.concat_tables(self._rest).combine_chunks()
        columns = {name: rest[name].combine_chunks() for name in rest.column_names}
        columns["ids"] = pa.LargeListArray.from_arrays(pa.array(offsets), flat)
        return pa.record_batch([columns[name] for name in self._schema.names], schema=self._schema)


class TokenShard:
    """One open token shard. Document i has the ids `values[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, uri: str, batch: pa.RecordBatch) -> None:
        self._uri, self._batch = uri, batch
        lists = batch["ids"]
        self.values: np.ndarray = lists.values.to_numpy()  # uint16 or uint32 [tokens], read-only
        self.offsets: np.ndarray = lists.offsets.to_numpy()  # int64 [documents + 1]
        self.text_bytes: np.ndarray = batch["text_bytes"].to_numpy()  # int32 [documents]
        self.text_chars: np.ndarray = batch["text_chars"].to_numpy()  # int32 [documents]
        self.form: str = (batch.schema.metadata or {}).get(_FORM, b"texts").decode()

    @classmethod
    def open(cls, uri: str) -> TokenShard:
        """Opens the shard at a URI: memory-mapped if local, else downloaded whole. Raises `StorageError`."""
        try:
            source = (
                pa.BufferReader(storage.read_bytes(uri))
                if storage.is_remote(uri)
                else pa.memory_map(_local(uri))
            )
            reader = pa.ipc.open_file(source)
            _check(reader, uri)
            batch = reader.get_batch(0)
            batch.validate()
        except InputError as error:
            raise StorageError(
                f"a token shard cannot be read: {error.what}", where=uri, remedy=_REMEDY
            ) from error
        except pa.ArrowInvalid as error:
            raise StorageError(
                f"the token shard cannot be read: {error}", where=uri, remedy=_REMEDY
            ) from None
        except OSError as error:
            reason, remedy = os.strerror(error.errno or 0), remedy_of_reading(error, _REMEDY)
            raise StorageError(f"a token shard cannot be read: {reason}", where=uri, remedy=remedy) from error
        return cls(uri, batch)

    def __len__(self) -> int:
        """The number of documents."""
        return self._batch.num_rows

    def ids(self, number: int) -> np.ndarray:
        """The framed ids of a document, [BOS] + content + [EOS], as a view."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def doc_id(self, number: int) -> str:
        """The id of a document: the address of its clean document."""
        return self._batch["doc_id"][number].as_py()

    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Answer spans: int32 [2 x answers] of ids within their document, and offsets int64 [documents + 1].

        Document i has spans[offsets[i]:offsets[i + 1]] = [start,
        stop, ...]. All of a text counts, but for its BOS.
        """
        if self.form == "texts":
            ends = np.diff(self.offsets)
            spans = np.stack([np.minimum(np.ones_like(ends), ends), ends], 1).ravel()
            return spans.astype(np.int32), np.arange(len(self) + 1, dtype=np.int64) * 2
        lists = self._batch["answers"]
        return lists.values.to_numpy(), lists.offsets.to_numpy()

    def score(self, name: str) -> np.ndarray:
        """A score of every document, float32; NaN if it was not measured. Raises
        `InputError` for an unknown name."""
        scores = self._batch["scores"]
        names = [field.name for field in scores.type]
        if name not in names:
            remedy = (
                "add it to `tokens.scores` and make the token shards again; they have: "
                f"{', '.join(names) or 'none'}"
            )
            raise InputError(f"the token shards have no score {name!r}", where=self._uri, remedy=remedy)
        return pc.fill_null(scores.field(name), np.float32("nan")).to_numpy()


def _local(uri: str) -> str:
    return uri.removeprefix("file://")


def _check(reader: pa.RecordBatchFileReader, uri: str) -> None:
    """Raises `StorageError` if an Arrow file is not a token shard."""
    names = set(reader.schema.names)
    missing = {"doc_id", "ids", "text_bytes", "text_chars", "scores"} - names
    if missing or reader.num_record_batches != 1:
        reason = (
            f"no column {', '.join(sorted(missing))}"
            if missing
            else f"{reader.num_record_batches} record batches"
        )
        raise StorageError(f"an Arrow file, but not a token shard: {reason}", where=uri, remedy=_REMEDY)
