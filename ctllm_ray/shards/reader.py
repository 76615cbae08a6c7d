"""Reads tables from the shards that a manifest lists. It opens no other file of the folder.

Local shards are memory-mapped and remote ones fetched whole; only the wanted columns of a batch are
decompressed, so scanning the scores of a corpus costs a small part of reading it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.storage_errors import remedy_of_reading
from ctllm_ray.shards.manifest import Manifest

_AGAIN = "restore the file, or delete the section's folder and run `ctllm prepare` again"


def tables(
    folder: str, manifest: Manifest, kind: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """(shard path, table) for each record batch of the `kept` or `rejected` shards, in order."""
    for path in manifest.paths(kind):
        for table in shard_tables(storage.join(folder, path), columns):
            yield path, table


def shard_tables(uri: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The record batches of an Arrow IPC file as tables. Raises `StorageError` if the file is not one."""
    with _open(uri) as source:
        yield from _tables(source, uri, columns)


def same_tables(uri: str, size: int, sha256: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Like `shard_tables`, for a shard that must still equal its manifest entry. Raises
    `StorageError` if it does not."""
    with _open(uri) as source:
        content = source.read_buffer()
        if content.size != size or hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError(
                "the shard differs from its manifest entry (size or SHA-256)", where=uri, remedy=_AGAIN
            )
        yield from _tables(pa.BufferReader(content), uri, columns)


def _tables(source: Any, uri: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    try:
        names = pa.ipc.open_file(source).schema.names
        chosen = [names.index(c) for c in columns] if columns is not None else None
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=chosen))
        for i in range(reader.num_record_batches):
            yield pa.table(reader.get_batch(i))
    except (pa.ArrowInvalid, ValueError) as error:
        raise StorageError(f"the shard cannot be read: {error}", where=uri, remedy=_AGAIN) from None


def shard_table(uri: str, number: int) -> pa.Table:
    """Reads one record batch of an Arrow IPC file, with all columns."""
    with _open(uri) as source:
        return pa.table(pa.ipc.open_file(source).get_batch(number))


def _open(uri: str) -> Any:
    try:
        if storage.is_remote(uri):
            return pa.BufferReader(storage.read_bytes(uri))
        return pa.memory_map(uri.removeprefix("file://"))
    except (InputError, OSError) as error:
        reason = error.what if isinstance(error, InputError) else os.strerror(error.errno or 0)
        remedy = remedy_of_reading(error, _AGAIN)
        raise StorageError(
            f"a shard that the manifest lists cannot be read: {reason}", where=uri, remedy=remedy
        ) from error
