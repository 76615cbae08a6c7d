"""Reads and writes the uncompressed Arrow IPC files
between the phases of a pass: key partitions and row files.

Two ways to read one kind of file. A *partition* is a record batch: whoever shuffles writes one file with as
many batches as there are partitions, empty ones too, and the reader of partition p takes batch p out of every
file. *Rows* are found by their number, over all files of a phase: the files are mapped into memory, so that a
row costs the page faults of its bytes and no more, and no more than one file is resident. Nothing is
compressed, since keys are noise and single rows must be found.

On remote storage a partition is read by its range of bytes; a file of rows is fetched once, into a folder of
the unit's own that goes with it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.storage_errors import remedy_of_reading
from ctllm_ray.shards.manifest import Shard

_LIBC = ctypes.CDLL(None)
MOST_MAPPED = 16_384  # files of a pass at once: a process may have some 65,000 mappings (vm.max_map_count)
_AGAIN = "delete the folder of this pass and run `ctllm prepare` again"


class TableWriter:
    """Writes record batches to one file below a section's folder, in order. After closing,
    `shard` describes the file."""

    def __init__(self, folder: str, path: str, schema: pa.Schema) -> None:
        self._uri, self._path, self.schema = storage.join(folder, path), path, schema
        self._open = ExitStack()
        self._rows = 0

    def __enter__(self) -> TableWriter:
        with ExitStack() as stack:
            self._local = stack.enter_context(storage.writing(self._uri))
            sink = stack.enter_context(pa.OSFile(self._local, "wb"))
            self._writer = pa.ipc.new_file(sink, self.schema)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._open:
            self._writer.close()
            with open(self._local, "rb") as written:
                size, digest = storage.hash_stream(written)
        self.shard = Shard(self._path, self._rows, size, 0, digest)

    def write(self, table: pa.Table) -> None:
        """Appends a table as one record batch, even if it is empty."""
        batch = pa.RecordBatch.from_arrays(
            [column.combine_chunks() for column in table.columns], schema=self.schema
        )
        self._writer.write_batch(batch)
        self._rows += table.num_rows


def write_partitions(folder: str, path: str, table: pa.Table, stops: Sequence[int]) -> Shard:
    """Writes the file of one unit of a shuffle: the rows up to each stop as one record batch."""
    with TableWriter(folder, path, table.schema) as writer:
        for start, stop in pairwise([0, *stops]):
            writer.write(table.slice(start, stop - start))
    return writer.shard


def key_ranges(parts: int) -> np.ndarray:
    """uint64: the first key of each partition but the first. All 64-bit keys are cut
    into ranges of equal width."""
    return np.array([(part << 64) // parts for part in range(1, parts)], np.uint64)


def read_partition(folder: str, shards: Sequence[Shard], number: int, schema: pa.Schema) -> pa.Table:
    """Reads one partition from the files of a phase, file after file. Raises `StorageError`."""
    return pa.Table.from_batches(
        [_batch(storage.join(folder, shard.path), number) for shard in shards], schema
    )


def read_keys(folder: str, shards: Sequence[Shard], schema: pa.Schema, low: int, high: int) -> pa.Table:
    """Reads rows whose first column is in [low, high), file after file. `key_ranges` cut this column."""
    record_batches: list[pa.RecordBatch] = []
    for shard in shards:
        with _reader(storage.join(folder, shard.path)) as reader:
            parts = reader.num_record_batches
            first, last = (max(0, (low * parts >> 64) - 1), min(parts - 1, (high * parts >> 64) + 1))
            for batch in map(reader.get_batch, range(first, last + 1)):
                keys = batch.column(0).to_numpy()
                start = int(np.searchsorted(keys, np.uint64(low)))
                stop = int(np.searchsorted(keys, np.uint64(high - 1), side="right"))
                record_batches.append(batch.slice(start, stop - start))
    return pa.Table.from_batches(record_batches, schema)


def _batch(uri: str, number: int) -> pa.RecordBatch:
    with _reader(uri) as reader:
        return reader.get_batch(number)


@contextmanager
def _reader(uri: str) -> Iterator[pa.RecordBatchFileReader]:
    """Opens a file for reading batches; a remote one by byte ranges."""
    if not storage.is_remote(uri):
        yield _open_mapped(uri)[0]
        return
    with storage.reading_ranges(uri) as stream:
        yield pa.ipc.open_file(pa.PythonFile(stream, "r"))


def _open_mapped(path: str) -> tuple[pa.RecordBatchFileReader, pa.Buffer]:
    """Opens a local file as mapped memory, which needs no file handle. Raises `StorageError`."""
    try:
        with pa.memory_map(path.removeprefix("file://")) as file:
            mapped = file.read_buffer()
        return pa.ipc.open_file(mapped), mapped
    except (pa.ArrowInvalid, OSError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        remedy = remedy_of_reading(error, _AGAIN)
        raise StorageError(
            f"a file of this pass cannot be read: {reason}", where=path, remedy=remedy
        ) from error


class RowFile:
    """The rows of a phase's files by number. Numbers run on from one file to the next."""

    def __init__(self, files: Sequence[tuple[str, Shard]]) -> None:
        self._uris = [storage.join(folder, shard.path) for folder, shard in files]
        self._ends = np.cumsum([0, *(shard.rows for _, shard in files)])
        self._files: dict[int, _File] = {}
        self._fetched = ""

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self._files.clear()
        if self._fetched:
            shutil.rmtree(self._fetched, ignore_errors=True)

    def take(self, numbers: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Reads rows (int64, ascending) with some columns, each as one chunk."""
        places = np.searchsorted(self._ends, numbers, side="right") - 1
        files, starts = np.unique(places, return_index=True)
        stops = [*starts[1:].tolist(), len(numbers)][: len(files)]
        batches: list[pa.RecordBatch] = []
        for file, start, stop in zip(files.tolist(), starts.tolist(), stops, strict=True):
            batches += self._file(file).take(numbers[start:stop] - self._ends[file], columns)
        if not batches:
            batches = self._file(0).take(np.empty(0, np.int64), columns)
        return pa.Table.from_batches(batches).combine_chunks()

    def ids(self, numbers: np.ndarray) -> pa.Array:
        """Reads the ids of rows (int64, ascending)."""
        return self.take(numbers, ["id"])["id"].combine_chunks()

    def _file(self, number: int) -> _File:
        if number not in self._files:
            if len(self._files) >= MOST_MAPPED:
                del self._files[next(iter(self._files))]  # rows taken from it are copies
            self._files[number] = _File(self._local(number))
        return self._files[number]

    def _local(self, number: int) -> str:
        """The path of a file on this machine. A remote file is downloaded."""
        uri = self._uris[number]
        if not storage.is_remote(uri):
            return uri
        self._fetched = self._fetched or tempfile.mkdtemp(prefix="ctllm-rows-")
        path = os.path.join(self._fetched, f"{number:05d}.arrow")
        try:
            storage.fetch(uri, path)
        except InputError as error:
            raise StorageError(error.what, where=uri, remedy=_AGAIN) from error
        return path


class _File:
    """One mapped file."""

    def __init__(self, path: str) -> None:
        reader, self._mapped = _open_mapped(path)
        self._path = path
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._ends = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._empty = pa.RecordBatch.from_pylist([], schema=reader.schema)

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> list[pa.RecordBatch]:
        """Record batches that contain the rows (ascending), in order. Raises `StorageError` for a missing column."""
        if missing := [name for name in columns if name not in self._empty.schema.names]:
            raise StorageError(
                f"a file of this pass has no column {missing[0]!r}: an earlier version of this program wrote it",
                where=self._path,
                remedy="delete the folder of this pass and run the same command again",
            )
        places = np.searchsorted(self._ends, rows, side="right") - 1
        results = [self._empty.select(columns)]
        for place in np.unique(places).tolist():
            inside = pa.array(rows[places == place] - self._ends[place])
            results.append(self._batches[place].select(columns).take(inside))  # a copy
        _let_go(self._mapped)  # else all files would become resident
        return results


def _let_go(mapped: pa.Buffer) -> None:
    """Releases the pages of a mapped file from this process. The system keeps them cached."""
    _LIBC.madvise(
        ctypes.c_void_p(mapped.address), ctypes.c_size_t(mapped.size), ctypes.c_int(mmap.MADV_DONTNEED)
    )
