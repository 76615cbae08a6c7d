"""A whole section on a real S3 server process: the same bytes as on a disk, resumed, and through the
command."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import s3fs
import yaml

from ctllm_ray.base import recipe, storage
from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.cli import run
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import splits
from ctllm_ray.corpus.explain import replay, why
from ctllm_ray.shards import manifest
from tests.base.test_storage_s3 import endpoint  # noqa: F401  # a fixture
from tests.corpus.conftest import run_here
from tests.corpus.test_section import digests

Make = Callable[..., Recipe]
pytestmark = pytest.mark.usefixtures("endpoint")


@pytest.fixture
def remote(make: Make, crawl: Path, tmp_path: Path) -> Recipe:
    """The small recipe with its crawl and its root in a bucket, in folders of this test."""
    place = f"s3://bucket/{tmp_path.name}"
    for file in crawl.iterdir():
        storage.write_bytes(f"{place}/crawl/{file.name}", file.read_bytes())
    data = {"inputs": [{"use": "jsonl", "path": f"{place}/crawl/*.jsonl"}], "max_error_share": 0.1}
    return make(data=data).model_copy(update={"root": f"{place}/run"})


def remote_digests(made: Recipe) -> dict[str, object]:
    """As `digests`, of a section in a bucket; the paths of the inputs aside."""
    folder = made.folder("clean")
    hashes = {
        f"{kind}/{name}": hashlib.sha256(storage.read_bytes(storage.join(folder, kind, name))).hexdigest()
        for kind in ("kept", "rejected")
        for name in storage.list_names(storage.join(folder, kind))
    }
    return hashes | {"manifest": less_paths(manifest.read_manifest(folder))}


def less_paths(finished: manifest.Manifest) -> manifest.Manifest:
    """The manifest without versions of programs and without the place of its inputs, which the fingerprint
    covers."""
    inputs = [part | {"path": ""} for part in finished.recipe["data"]["inputs"]]
    plain = finished.recipe | {"data": finished.recipe["data"] | {"inputs": inputs}}
    return replace(finished, provenance={}, fingerprint="", recipe=plain)


def local_digests(made: Recipe) -> dict[str, object]:
    return digests(made) | {"manifest": less_paths(manifest.read_manifest(made.folder("clean")))}


def test_a_run_on_s3_writes_the_bytes_of_a_local_one(make: Make, remote: Recipe) -> None:
    local = make()
    pipeline.clean(local, run_here)
    finished = pipeline.clean(remote, run_here)
    assert remote_digests(remote) == local_digests(local)
    folder = remote.folder("clean")
    assert all(
        shard.bytes == len(storage.read_bytes(storage.join(folder, shard.path))) for shard in finished.shards
    )
    stored = yaml.safe_load(storage.read_bytes(remote.folder("recipe.yaml")))
    assert recipe.parse_recipe(stored) == remote


def test_a_finished_section_on_s3_is_only_read(remote: Recipe) -> None:
    first = pipeline.clean(remote, run_here)
    for file in storage.list_files(remote.data.inputs[0].path):
        storage.remove(file.uri)

    def never(*_: object) -> list:
        raise AssertionError("worked again")

    assert pipeline.clean(remote, never) == first


def test_a_begun_section_on_s3_goes_on(make: Make, remote: Recipe) -> None:
    local = make()
    pipeline.clean(local, run_here)

    class Killed(Exception):
        pass

    def half(given: Recipe, folder: str, splits: list) -> Iterator:
        yield from run_here(given, folder, splits[:2])
        raise Killed

    with pytest.raises(Killed):
        pipeline.clean(remote, half)
    worked: list[int] = []

    def counted(given: Recipe, folder: str, splits: list) -> Iterator:
        worked.extend(split.index for split in splits)
        yield from run_here(given, folder, splits)

    pipeline.clean(remote, counted)
    assert worked == [2, 3, 4, 5]
    assert remote_digests(remote) == local_digests(local)


def test_a_store_that_goes_away_is_one_message_and_costs_no_finished_split(
    make: Make, remote: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make()
    pipeline.clean(local, run_here)
    with socket.socket() as closed, monkeypatch.context() as gone:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused

        def interrupted(given: Recipe, folder: str, splits: list) -> Iterator:
            yield from run_here(given, folder, splits[:2])
            gone.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
            s3fs.S3FileSystem.clear_instance_cache()
            yield from run_here(given, folder, splits[2:])

        with pytest.raises((InputError, StorageError), match="Could not connect") as caught:
            pipeline.clean(remote, interrupted)
    assert "AWS_ENDPOINT_URL" in caught.value.remedy
    s3fs.S3FileSystem.clear_instance_cache()
    left: list[int] = []

    def counted(given: Recipe, folder: str, splits: list) -> Iterator:
        left.extend(split.index for split in splits)
        yield from run_here(given, folder, splits)

    pipeline.clean(remote, counted)
    assert left == [2, 3, 4, 5]
    assert remote_digests(remote) == local_digests(local)


def test_an_object_that_changed_stops_a_begun_section(remote: Recipe) -> None:
    with pytest.raises(InputError, match="the file does not exist"):
        pipeline.clean(remote, lambda *_: storage.read_bytes("s3://bucket/absent"))  # type: ignore[arg-type,return-value]
    place = remote.data.inputs[0].path.replace("*", "3")
    storage.write_bytes(place, storage.read_bytes(place).replace("春".encode(), "秋".encode()))
    with pytest.raises(Exception, match=r"input files changed.*3\.jsonl"):
        pipeline.clean(remote, run_here)


def test_why_replay_and_report_read_from_s3(
    remote: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = pipeline.clean(remote, run_here)
    (found,) = why.explain_page(remote.folder("clean"), finished, remote, "crawl/0.jsonl#0")
    assert found.row["url"] == "http://host0.example/0/0"
    result = replay.replay_bounds(remote.folder("clean"), finished, remote, [])
    assert result.before == result.after
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(remote.model_dump(mode="json")), encoding="utf-8")
    assert run(["report", str(path)]) == 0
    assert storage.read_bytes(capsys.readouterr().out.strip()).startswith(b"<!")


def test_a_missing_bucket_is_one_message(make: Make, remote: Recipe) -> None:
    with pytest.raises(InputError, match="the folder or bucket"):
        pipeline.clean(
            make(data={"inputs": [{"use": "jsonl", "path": "s3://none/*"}], "max_error_share": 0.1})
        )
    with pytest.raises(StorageError, match="bucket does not exist"):
        pipeline.clean(remote.model_copy(update={"root": "s3://none/run"}), run_here)


@pytest.mark.cluster
def test_the_command_with_ray_on_s3_writes_the_bytes_of_a_local_run(
    make: Make, remote: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "MAX_FILES", 10_000)  # as in the command
    local = make()
    pipeline.clean(local, run_here)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(remote.model_dump(mode="json")), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "ctllm_ray", "prepare", str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert f"shards: {remote.folder('clean')}" in ended.stdout
    assert remote_digests(remote) == local_digests(local)
