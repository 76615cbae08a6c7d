"""Writes the Arrow IPC shards of one split. The same rows always give the same bytes.

A shard is closed once its text reaches a size that does not depend on who writes it, appears under its name
in one step, and carries its SHA-256 into the manifest.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import pyarrow as pa

from ctllm_ray.base import storage
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.schema import utf8_bytes

SHARD_BYTES = 256 << 20  # UTF-8 text of one shard before compression: about 100 MB on disk, read in seconds
_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))


class ShardWriter:
    """Writes tables to `<folder>/<kind>/<split>-<number>.arrow`. `shards` lists the closed files."""

    def __init__(self, folder: str, kind: str, split: int, schema: pa.Schema) -> None:
        self._folder, self._kind, self._split, self._schema = folder, kind, split, schema
        self._open: ExitStack | None = None
        self.shards: list[Shard] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
        elif self._open:
            self._open.__exit__(kind, error, trace)

    def write(self, table: pa.Table) -> None:
        """Appends a table as one record batch. An empty table adds nothing."""
        if table.num_rows == 0:
            return
        if self._open is None:
            self._start()
        self._writer.write_table(table.combine_chunks())
        self._rows += table.num_rows
        self._text_bytes += utf8_bytes(table["text"])
        if self._text_bytes >= SHARD_BYTES:
            self._close()

    def _start(self) -> None:
        self._path = f"{self._kind}/{self._split:05d}-{len(self.shards):03d}.arrow"
        self._rows = self._text_bytes = 0
        self._open = ExitStack()
        self._local = self._open.enter_context(storage.writing(storage.join(self._folder, self._path)))
        sink = self._open.enter_context(
            pa.OSFile(self._local, "wb")
        )  # close on failure too: a full disk needs the space
        self._writer = pa.ipc.new_file(sink, self._schema, options=_OPTIONS)

    def _close(self) -> None:
        if self._open is None:
            return
        with self._open:
            self._writer.close()
            with open(
                self._local, "rb"
            ) as written:  # not `storage`: if the file disappears meanwhile, that is a write error
                size, digest = storage.hash_stream(written)
        self._open = None
        self.shards.append(Shard(self._path, self._rows, size, self._text_bytes, digest))
