"""Token shards: what goes in comes out, one flat array, the same bytes for the same rows, and damage is
named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base.errors import InputError, StorageError
from ctllm_ray.shards import tokens
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tokens import TokenShard, TokenShardWriter


def framed(*lengths: int) -> list[np.ndarray]:
    """Documents of so many content ids, framed by 1 and 2."""
    return [np.array([1, *range(100 * i + 3, 100 * i + 3 + n), 2]) for i, n in enumerate(lengths)]


def rows(documents: Sequence[np.ndarray], first: int = 0, kind: pa.DataType | None = None) -> pa.Table:
    n = len(documents)
    return tokens.table(
        [f"a/b.jsonl#{first + i}" for i in range(n)],
        documents,
        np.arange(first, first + n),
        np.arange(first, first + n) * 2,
        {"score": np.arange(first, first + n) / 2},
        kind or pa.uint16(),
    )


def write(
    folder: Path, *tables: pa.Table, kind: pa.DataType | None = None, group: str = "web"
) -> list[Shard]:
    with TokenShardWriter(str(folder), tokens.TRAIN, group, 7, kind or pa.uint16(), ["score"]) as writer:
        for table in tables:
            writer.write(table)
    return writer.shards


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
def test_what_goes_in_comes_out_as_one_flat_array(tmp_path: Path, kind: pa.DataType) -> None:
    documents = framed(3, 0, 50, 7)
    (shard,) = write(tmp_path, rows(documents[:2], 0, kind), rows(documents[2:], 2, kind), kind=kind)
    opened = TokenShard.open(str(tmp_path / shard.path))
    assert opened.values.dtype == kind.to_pandas_dtype()
    assert opened.offsets.dtype == np.int64
    np.testing.assert_array_equal(opened.values, np.concatenate(documents))
    assert opened.offsets.tolist() == [0, 5, 7, 59, 68]
    assert len(opened) == shard.rows == 4
    assert [opened.doc_id(i) for i in range(4)] == [f"a/b.jsonl#{i}" for i in range(4)]
    assert opened.ids(2).tolist() == documents[2].tolist()
    assert opened.text_bytes.tolist() == [0, 1, 2, 3]
    assert opened.text_chars.tolist() == [0, 2, 4, 6]
    assert opened.score("score").tolist() == [0, 0.5, 1, 1.5]
    assert (shard.path, shard.tokens, shard.group, shard.text_bytes) == (
        "train/web/00007-000.arrow",
        68,
        "web",
        6,
    )


def test_a_shard_says_its_own_size_and_hash_and_is_the_same_however_its_rows_came(tmp_path: Path) -> None:
    documents = framed(3, 0, 50, 7)
    (one,) = write(tmp_path / "one", rows(documents))
    (two,) = write(
        tmp_path / "two", rows(documents[:1]), rows(documents[1:3], 1), rows([]), rows(documents[3:], 3)
    )
    content = (tmp_path / "one" / one.path).read_bytes()
    assert one == two
    assert (one.bytes, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_slice_or_a_filtered_table_writes_its_own_rows_only(tmp_path: Path) -> None:
    documents = framed(3, 0, 50, 7)
    (whole,) = write(tmp_path / "whole", rows(documents[1:3], 1))
    (sliced,) = write(tmp_path / "sliced", rows(documents).slice(1, 2))
    (chosen,) = write(tmp_path / "chosen", rows(documents).filter(pa.array([False, True, True, False])))
    assert whole.sha256 == sliced.sha256 == chosen.sha256


def test_a_shard_closes_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SHARD_BYTES", 100)
    documents = framed(40, 20, 10, 2)
    found = write(tmp_path, *(rows([d], i) for i, d in enumerate(documents)))
    assert [s.path[-9:-6] for s in found] == ["000", "001"]
    assert [(s.rows, s.tokens) for s in found] == [(2, 64), (2, 16)]


def test_nothing_written_is_no_shard_and_a_failure_leaves_none(tmp_path: Path) -> None:
    assert write(tmp_path, rows([])) == []
    broken = write_and_fail(tmp_path)
    with pytest.raises(ZeroDivisionError):
        next(broken)
    assert list(tmp_path.rglob("*.arrow")) == []


def write_and_fail(folder: Path) -> Iterator[None]:
    with TokenShardWriter(str(folder), tokens.TRAIN, "web", 0, pa.uint16(), ["score"]) as writer:
        writer.write(rows(framed(3)))
        yield 1 / 0


def test_an_id_that_does_not_fit_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        tokens.table(["a"], [np.array([1, 70_000, 2])], [1], [1], {}, pa.uint16())


@pytest.mark.parametrize("group", ["诗词/古", "..", ".", "a b%", "CON"])
def test_a_group_of_any_name_is_one_folder_inside_the_section(tmp_path: Path, group: str) -> None:
    (shard,) = write(tmp_path, rows(framed(1)), group=group)
    assert shard.group == group
    assert shard.path.count("/") == 2
    assert (tmp_path / shard.path).resolve().is_relative_to(tmp_path / "train")
    assert (tmp_path / shard.path).parent.parent == tmp_path / "train"


def test_two_bytes_are_taken_where_the_vocabulary_allows() -> None:
    assert tokens.id_type(65_536) == pa.uint16()
    assert tokens.id_type(65_537) == pa.uint32()


def test_a_score_that_was_not_measured_is_not_a_number_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    scored = tokens.table(
        ["a", "b"], framed(1, 1), [1, 1], [1, 1], {"score": pa.array([None, 2.0])}, pa.uint16()
    )
    (shard,) = write(tmp_path, scored)
    opened = TokenShard.open(str(tmp_path / shard.path))
    assert np.isnan(opened.score("score")[0])
    assert opened.score("score")[1] == 2
    with pytest.raises(InputError, match="'quality'") as caught:
        opened.score("quality")
    assert "they have: score" in caught.value.remedy


def test_a_shard_without_scores_is_a_shard(tmp_path: Path) -> None:
    table = tokens.table(["a"], framed(4), [1], [1], {}, pa.uint32())
    with TokenShardWriter(str(tmp_path), tokens.HELD_OUT, "web", 0, pa.uint32(), []) as writer:
        writer.write(table)
    assert TokenShard.open(str(tmp_path / writer.shards[0].path)).ids(0).tolist() == [1, 3, 4, 5, 6, 2]


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "other"])
def test_a_damaged_shard_is_named_with_a_remedy(tmp_path: Path, damage: str) -> None:
    (shard,) = write(tmp_path, rows(framed(3, 50)))
    path = tmp_path / shard.path
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        with pa.ipc.new_file(str(path), pa.schema([("x", pa.int8())])) as writer:
            writer.write(pa.table({"x": pa.array([1], pa.int8())}))
    else:
        path.write_bytes(path.read_bytes()[: 700 if damage == "cut" else 0])
    with pytest.raises(StorageError) as caught:
        TokenShard.open(str(path))
    assert caught.value.where == str(path)
    assert "prepare" in caught.value.remedy
