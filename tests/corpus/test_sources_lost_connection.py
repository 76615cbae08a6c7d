"""A store that fails while a file is read stops the run; it is never taken for a damaged file.

Were it, a retry would see other records than the first try, and pages would be lost because a network was
slow.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ctllm_ray.base.errors import StorageError

from .source_rows import rows
from .test_sources_warc import record, response


class _Flaky:
    """A stream that fails once `healthy` bytes have been read: from then on, or where it comes back once."""

    def __init__(self, stream: Any, healthy: int, comes_back: bool) -> None:
        self._stream, self._healthy, self._comes_back = stream, healthy, comes_back

    def read(self, size: int = -1) -> bytes:
        self._healthy -= max(0, size)
        if self._healthy < 0:
            self._healthy = 1 << 40 if self._comes_back else self._healthy
            self._stream.read(max(0, size) // 2)  # half of it came: it must not be taken for the rest
            raise ConnectionResetError("the connection was reset")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Flaky:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class FlakyFileSystem(MemoryFileSystem):
    protocol = "flaky"
    healthy = 1 << 40
    comes_back = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        stream = super().open(path, mode, **options)
        return _Flaky(stream, self.healthy, self.comes_back) if mode == "rb" else stream


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("use", ["jsonl", "warc", "wet", "parquet", "html", "text"])
def test_a_connection_that_stays_lost_is_an_error_of_the_store_and_no_damaged_file(
    store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.setattr(FlakyFileSystem, "healthy", 1 << 40)
    path = {"parquet": "/f/a.parquet", "html": "/f/a.html"}.get(use, "/f/a.gz")
    with store.open(path, "wb") as out:
        if use == "parquet":
            pq.write_table(
                pa.table({"text": ["some text"] * 200_000}), out, use_dictionary=False, compression="none"
            )
        elif use == "html":
            out.write(b"<p>" * 1_000_000)
        else:
            out.write(gzip.compress(record(response(b"<p>" * 500_000)) * 3, compresslevel=0))
    whole = rows(use, f"flaky:/{path}")
    monkeypatch.setattr(FlakyFileSystem, "healthy", 1_200_000)
    with pytest.raises(StorageError, match=r"the storage did not answer for .* connection was reset"):
        rows(use, f"flaky:/{path}")
    monkeypatch.setattr(FlakyFileSystem, "comes_back", True)
    assert rows(use, f"flaky:/{path}") == whole
