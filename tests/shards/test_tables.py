"""Files between the phases of a pass: rows by their number, of which no more than one file is in memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base.errors import StorageError
from ctllm_ray.shards import tables
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tables import RowFile, TableWriter, read_partition

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def written(folder: Path, files: int, rows: int) -> list[tuple[str, Shard]]:
    found = []
    for file in range(files):
        with TableWriter(str(folder), f"{file}.arrow", SCHEMA) as writer:
            for start in range(file * rows, (file + 1) * rows, rows // 2):
                numbers = list(range(start, start + rows // 2))
                writer.write(pa.table([numbers, [f"{n} " * 50 for n in numbers]], schema=SCHEMA))
        found.append((str(folder), writer.shard))
    return found


def resident_kb(folder: Path) -> int:
    """Of all files of a folder that this process has mapped."""
    kilobytes, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes


def test_rows_come_by_their_numbers_over_files_and_batches_and_leave_memory(tmp_path: Path) -> None:
    files = written(tmp_path, 3, 10_000)
    numbers = np.array([0, 4_999, 5_000, 9_999, 10_000, 29_999])
    with RowFile(files) as rows:
        assert rows.take(numbers, ["number"])["number"].to_pylist() == numbers.tolist()
        assert rows.take(numbers, ["text"])["text"].to_pylist() == [f"{n} " * 50 for n in numbers]
        everything = rows.take(np.arange(30_000), ["text", "number"])
        assert everything["number"].to_pylist() == list(range(30_000))
        assert str(tmp_path) in Path("/proc/self/maps").read_text()
        assert resident_kb(tmp_path) == 0
        assert rows.take(np.empty(0, np.int64), ["text"]).num_rows == 0


def test_open_files_hold_no_handle(tmp_path: Path) -> None:
    files = written(tmp_path, 20, 10)
    before = len(os.listdir("/proc/self/fd"))
    with RowFile(files) as rows:
        assert rows.take(np.arange(200), ["text"]).num_rows == 200
        kept = [read_partition(str(tmp_path), [shard], 0, SCHEMA) for _, shard in files]
        assert len(os.listdir("/proc/self/fd")) == before
        assert [table["number"][0].as_py() for table in kept] == list(range(0, 200, 10))


def test_a_file_for_which_memory_ran_out_is_not_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str) -> None:
        raise OSError(errno.ENOMEM, "Memory mapping file failed: Cannot allocate memory")

    files = written(tmp_path, 1, 10)
    monkeypatch.setattr(pa, "memory_map", full)
    with RowFile(files) as rows, pytest.raises(StorageError, match="Cannot allocate memory") as caught:
        rows.take(np.array([3]), ["text"])
    assert "vm.max_map_count" in caught.value.remedy
    assert "delete" not in caught.value.remedy
    assert "kept" in caught.value.remedy


def test_of_many_files_only_so_many_are_mapped_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, 20, 10)
    monkeypatch.setattr(tables, "MOST_MAPPED", 3)
    with RowFile(files) as rows:
        for _ in range(2):
            assert rows.take(np.arange(200), ["number"])["number"].to_pylist() == list(range(200))
            assert len(rows._files) == 3


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_was_cut_short_is_one_message(tmp_path: Path, left: int) -> None:
    files = written(tmp_path, 1, 10)
    path = tmp_path / "0.arrow"
    path.write_bytes(path.read_bytes()[:left])
    with RowFile(files) as rows, pytest.raises(StorageError, match="cannot be read") as caught:
        rows.take(np.array([3]), ["text"])
    assert "0.arrow" in caught.value.where
