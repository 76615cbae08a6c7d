"""S3 by its wire protocol: a moto server process on the loopback, spoken to as any other endpoint."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
import zstandard

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, StorageError

START_S = 60


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The URL of an S3 server with an empty bucket named `bucket`; the environment names it while the tests
    run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    given = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            _wait_for(url, server)
            storage.filesystem("s3://bucket")[0].mkdir("bucket")
            yield url
        finally:
            server.terminate()
            server.wait()
            s3fs.S3FileSystem.clear_instance_cache()


def _wait_for(url: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not answer at {url}")


@pytest.mark.usefixtures("endpoint")
def test_written_objects_are_listed_read_and_removed() -> None:
    storage.write_bytes("s3://bucket/crawl/b.txt", b"b")
    storage.write_bytes("s3://bucket/crawl/sub/a.txt", "中".encode())
    found = storage.list_files("s3://bucket/crawl/**/*.txt")
    assert [(file.uri, file.name, file.size) for file in found] == [
        ("s3://bucket/crawl/b.txt", "b.txt", 1),
        ("s3://bucket/crawl/sub/a.txt", "sub/a.txt", 3),
    ]
    assert storage.list_names("s3://bucket/crawl") == ["b.txt"]
    assert storage.read_bytes(found[1].uri).decode() == "中"
    storage.remove("s3://bucket/crawl/b.txt")
    storage.remove("s3://bucket/crawl/b.txt")
    assert not storage.exists("s3://bucket/crawl/b.txt")
    assert storage.exists("s3://bucket/crawl/sub/a.txt")


@pytest.mark.usefixtures("endpoint")
def test_a_new_content_has_a_new_version_and_is_seen_at_once() -> None:
    storage.write_bytes("s3://bucket/v", b"1")
    (before,) = storage.list_files("s3://bucket/v")
    storage.write_bytes("s3://bucket/v", b"22")
    (after,) = storage.list_files("s3://bucket/v")
    assert before.version != after.version
    assert storage.read_bytes("s3://bucket/v") == b"22"


@pytest.mark.usefixtures("endpoint")
def test_a_failing_writer_leaves_no_object_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyError):
        _fail_halfway("s3://bucket/half")
    assert not storage.exists("s3://bucket/half")
    assert os.listdir(tmp_path) == []


def _fail_halfway(uri: str) -> None:
    with storage.writing(uri) as local:
        Path(local).write_bytes(b"half")
        raise KeyError


@pytest.mark.usefixtures("endpoint")
def test_an_object_larger_than_the_read_ahead_streams_whole() -> None:
    content = os.urandom(storage.READ_AHEAD_BYTES * 2 + 12_345)
    storage.write_bytes("s3://bucket/large", content)
    with storage.reading("s3://bucket/large") as stream:
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == content
        stream.seek(5)
        assert stream.read(7) == content[5:12]


@pytest.mark.usefixtures("endpoint")
def test_a_compressed_file_is_read_from_s3_as_from_a_disk(tmp_path: Path) -> None:
    from ctllm_ray.corpus.engine.splits import Split, SplitLimits
    from ctllm_ray.corpus.sources.jsonl import jsonl

    content = zstandard.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(20_000)))
    (tmp_path / "a.jsonl.zst").write_bytes(content)
    storage.write_bytes("s3://bucket/web/a.jsonl.zst", content)
    found = []
    for pattern in ("s3://bucket/web/*.zst", f"{tmp_path}/*.zst"):
        (file,) = storage.list_files(pattern)
        split = Split(0, "in", "jsonl", {}, file, 0, None, SplitLimits(1 << 20, 64))
        found.append([row for table in jsonl(split) for row in table.to_pylist()])
    assert found[0] == found[1]
    assert len(found[0]) == 20_000


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("s3://nobucket/*.jsonl", "the folder or bucket .* does not exist"),
        ("s3://bucket/absent/*.jsonl", "the folder or bucket .* does not exist"),
        ("s3://bucket/*.parquet", "no file matches"),
        ("s3://bucket/only", "the path is a folder"),
    ],
)
def test_a_wrong_address_is_explained(pattern: str, says: str) -> None:
    storage.write_bytes("s3://bucket/only/a", b"")
    with pytest.raises(InputError, match=says):
        storage.list_files(pattern)


@pytest.mark.usefixtures("endpoint")
def test_a_missing_object_and_a_missing_bucket_are_explained() -> None:
    with pytest.raises(InputError, match="the file does not exist"):
        storage.read_bytes("s3://bucket/absent")
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.write_bytes("s3://nobucket/a", b"x")
    assert storage.list_names("s3://nobucket/a") == []


def test_a_server_that_does_not_answer_is_an_error_of_the_store_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(StorageError, match=r"the storage did not answer .* Could not connect") as caught:
            storage.list_files("s3://bucket/a")
        assert (caught.value.exit_code, caught.value.where) == (5, "s3://bucket/a")
        assert "AWS_ENDPOINT_URL" in caught.value.remedy
    s3fs.S3FileSystem.clear_instance_cache()
