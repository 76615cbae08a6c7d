"""Files: what a user does wrong is explained; a write is whole or not there at all."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, InputError, StorageError

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl", "other.txt"):
        path = tmp_path / "crawl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "crawl"


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that anyone may enter, while the test is not root (root may do anything)."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield place
    os.seteuid(user)
    for path in place.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("*", ["a.jsonl", "b.jsonl", "other.txt"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl"]),
        ("s*/c.jsonl", ["sub/c.jsonl"]),
        ("sub/c.jsonl", ["c.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
    ],
)
def test_a_pattern_gives_files_in_order_named_below_its_fixed_part(
    folder: Path, pattern: str, names: list
) -> None:
    found = storage.list_files(f"{folder}/{pattern}")
    assert [file.name for file in found] == names
    assert all(storage.read_bytes(file.uri).decode().endswith(file.name) for file in found)
    assert all(file.size == Path(file.uri).stat().st_size for file in found)


def test_names_do_not_move_with_the_folder(folder: Path, tmp_path: Path) -> None:
    before = [file.name for file in storage.list_files(f"{folder}/**/*.jsonl")]
    folder.rename(tmp_path / "moved")
    assert [file.name for file in storage.list_files(f"{tmp_path}/moved/**/*.jsonl")] == before


def test_a_file_with_wildcards_in_its_name_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "part[1].jsonl").touch()
    assert [file.name for file in storage.list_files(f"{tmp_path}/part[1].jsonl")] == ["part[1].jsonl"]


def test_file_uris_and_relative_paths_are_local(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert storage.list_files("a.jsonl") == storage.list_files(f"file://{folder}/a.jsonl")


def test_another_content_gives_another_version(folder: Path) -> None:
    (before,) = storage.list_files(f"{folder}/a.jsonl")
    os.utime(folder / "a.jsonl", (1, 1))
    (after,) = storage.list_files(f"{folder}/a.jsonl")
    assert before.version != after.version


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{}/*.parquet", "no file matches"),
        ("{}/absent.jsonl", "no file matches"),
        ("{}/absent/*.jsonl", "does not exist"),
        ("{}", "the path is a folder"),
        ("nosuch://bucket/a", "rotocol"),
    ],
)
def test_a_wrong_path_is_explained_with_the_path_and_a_remedy(folder: Path, pattern: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        storage.list_files(pattern.format(folder))
    assert caught.value.where == pattern.format(folder)
    assert caught.value.remedy


def test_a_file_without_permission_is_explained(unprivileged: Path) -> None:
    (unprivileged / "a.jsonl").touch(mode=0o000)
    (file,) = storage.list_files(f"{unprivileged}/*.jsonl")
    with pytest.raises(InputError, match="Permission denied") as caught:
        storage.open_input(file.uri)
    assert "permission" in caught.value.remedy


def test_a_folder_without_permission_is_not_taken_for_an_empty_one(unprivileged: Path) -> None:
    closed = unprivileged / "closed"
    closed.mkdir(mode=0o000)
    with pytest.raises(InputError, match="Permission denied"):
        storage.list_files(f"{closed}/*.jsonl")


def test_no_permission_to_write_is_explained(unprivileged: Path) -> None:
    closed = unprivileged / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        storage.write_bytes(f"{closed}/run/a", b"x")


def test_a_folder_read_as_a_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        storage.read_bytes(str(tmp_path))


def test_what_is_written_can_be_read_and_listed_and_removed(tmp_path: Path) -> None:
    uri = f"{tmp_path}/new/folder/a.json"
    storage.write_json(uri, {"b": "中", "a": 1})
    assert storage.read_json(uri) == {"a": 1, "b": "中"}
    assert storage.read_bytes(uri).decode() == '{\n "a": 1,\n "b": "中"\n}\n'
    assert storage.list_names(f"{tmp_path}/new/folder") == ["a.json"]
    assert storage.exists(uri)
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)
    assert storage.list_names(f"{tmp_path}/absent") == []


def test_a_file_that_is_not_json_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        storage.read_json(f"{tmp_path}/a.json")


def test_a_failing_writer_leaves_nothing_and_the_old_file_as_it_was(tmp_path: Path) -> None:
    uri = f"{tmp_path}/a"
    storage.write_bytes(uri, b"old")
    with pytest.raises(KeyError):
        _fail_halfway(uri)
    assert os.listdir(tmp_path) == ["a"]
    assert storage.read_bytes(uri) == b"old"


def _fail_halfway(uri: str) -> None:
    with storage.writing(uri) as local:
        Path(local).write_bytes(b"half")
        raise KeyError


def test_nothing_is_visible_under_the_name_before_the_end(tmp_path: Path) -> None:
    with storage.writing(f"{tmp_path}/a") as local:
        Path(local).write_bytes(b"x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"x"


def test_written_files_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/a", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; the test is skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_explained_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="No space left") as caught:
        storage.write_bytes(f"{small_disk}/a", bytes(1 << 20))
    assert "free space" in caught.value.remedy
    assert os.listdir(small_disk) == []


def test_a_full_disk_is_explained_when_arrow_writes(small_disk: Path) -> None:
    table = pa.table({"a": os.urandom(1 << 20).hex().split("0")})
    with pytest.raises(StorageError, match="No space left"):
        _write_arrow(f"{small_disk}/a", table)
    assert os.listdir(small_disk) == []


def _write_arrow(uri: str, table: pa.Table) -> None:
    with (
        storage.writing(uri) as local,
        pa.OSFile(local, "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def test_errors_survive_the_way_from_a_worker(tmp_path: Path) -> None:
    with pytest.raises(CtllmError) as caught:
        storage.list_files(f"{tmp_path}/absent")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.exit_code) == (InputError, str(caught.value), 3)
