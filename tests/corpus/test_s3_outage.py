"""An S3 that is away in the middle of a section: the section waits and goes on, or ends as an error of the
store."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import s3fs

from ctllm_ray.base import outage, storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.section import Done
from tests.base.test_storage_s3 import endpoint  # noqa: F401  # a fixture
from tests.corpus.conftest import run_here
from tests.corpus.test_s3_run import local_digests, remote_digests

Make = Callable[..., Recipe]
AWAY_S = 4.0


class Door:
    """A port that passes connections on to another one, until it is shut: then they are cut, and new ones
    refused."""

    def __init__(self, port: int) -> None:
        self._to, self._open = port, list[socket.socket]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._serve()

    def shut(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far:
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    (far if ready is near else near).sendall(data)


@pytest.fixture
def door(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:  # noqa: F811
    found = Door(int(endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{found.port}")
    monkeypatch.setenv(
        "AWS_MAX_ATTEMPTS", "1"
    )  # botocore's own attempts, and those of s3fs: 12 s in all by default
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    yield found
    found.shut()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def remote(make: Make, crawl: Path, tmp_path: Path, door: Door) -> Recipe:
    place = f"s3://bucket/{tmp_path.name}"
    for file in crawl.iterdir():
        storage.write_bytes(f"{place}/crawl/{file.name}", file.read_bytes())
    data = {"inputs": [{"use": "jsonl", "path": f"{place}/crawl/*.jsonl"}], "max_error_share": 0.1}
    return make(data=data).model_copy(update={"root": f"{place}/run"})


def shut_after(door: Door, splits: int, again_s: float) -> Callable[..., Iterator[Done]]:
    """A runner before whose split of this number the door is shut; it opens again after so long; 0: never."""

    def run(recipe: Recipe, folder: str, listed: list) -> Iterator[Done]:
        for number, split in enumerate(listed):
            if number == splits:
                door.shut()
                if again_s:
                    threading.Timer(again_s, door.open).start()
            yield section.run_split(recipe, folder, split)

    return run


def test_a_section_waits_for_a_store_that_is_away_and_writes_the_same_bytes(
    make: Make,
    remote: Recipe,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(outage, "PATIENCE_S", 60.0)
    local = make()
    pipeline.clean(local, run_here)
    pipeline.clean(remote, shut_after(door, 3, AWAY_S))
    assert remote_digests(remote) == local_digests(local)
    told = capsys.readouterr().err
    assert "the storage does not answer" in told
    assert "the storage answers again" in told


def test_a_store_that_stays_away_ends_the_section_as_an_error_of_the_store_and_nothing_is_done_twice(
    make: Make, remote: Recipe, door: Door
) -> None:
    with pytest.raises(StorageError, match="the storage did not answer") as refused:
        pipeline.clean(remote, shut_after(door, 3, 0))
    assert refused.value.exit_code == 5
    assert refused.value.where.startswith("s3://bucket/")
    door.open()
    worked: list[int] = []

    def counting(recipe: Recipe, folder: str, listed: list) -> Iterator[Done]:
        worked.extend(split.index for split in listed)
        return run_here(recipe, folder, listed)

    pipeline.clean(remote, counting)
    assert worked == [3, 4, 5]
    local = make()
    pipeline.clean(local, run_here)
    assert remote_digests(remote) == local_digests(local)
