"""Parquet: every row once, whatever the spans; a bad row is one error, a bad recipe an explanation."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctllm_ray.base.storage import list_files
from ctllm_ray.corpus.engine.splits import SplitLimits
from ctllm_ray.corpus.sources.parquet import spans

from .source_rows import errors, positions, rows, tables


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_columns_become_fields_and_numbers_and_times_become_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {
        "body": ["你好", ""], "url": ["http://a.cn", None], "title": [1, 2],
        "date": [datetime(2020, 1, 2), None],
    })  # fmt: skip
    first, second = rows("parquet", path, text="body")
    assert first == {
        "id": "in/a.parquet#0", "text": "你好", "url": "http://a.cn", "title": "1",
        "date": "2020-01-02 00:00:00.000000", "raw": None, "content_type": None, "reject": None,
    }  # fmt: skip
    assert (second["id"], second["text"], second["date"]) == ("in/a.parquet#1", "", None)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_may_be_of_any_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.array(["中", "b", "中"]).cast(pa.string()).cast(kind)})
    assert [row["text"] for row in rows("parquet", path)] == ["中", "b", "中"]


def test_html_is_raw_with_its_declared_charset_and_text_serves_where_it_is_null(tmp_path: Path) -> None:
    columns = {
        "html": [b"<p>", b"<b>", None, None],
        "cs": ["gbk", None, None, None],
        "text": ["x", "x", "y", None],
    }
    found = rows("parquet", write(tmp_path / "a.parquet", columns), html="html", charset="cs")
    assert [(row["raw"], row["text"], row["content_type"], row["reject"]) for row in found] == [
        (b"<p>", None, "text/html; charset=gbk", None),
        (b"<b>", None, "text/html", None),
        (None, "y", None, None),
        (None, None, None, "error.missing_field"),
    ]


def test_html_in_strings_is_utf8(tmp_path: Path) -> None:
    (row,) = rows("parquet", write(tmp_path / "a.parquet", {"html": ["<p>好"]}), html="html")
    assert (row["raw"], row["content_type"]) == ("<p>好".encode(), "text/html; charset=utf-8")


def test_bad_rows_are_errors_between_good_ones(tmp_path: Path) -> None:
    text = pa.array([b"a", b"\xff\xfe", None, b"x" * 101, b"b"], pa.binary())
    path = write(tmp_path / "a.parquet", {"text": text, "url": ["u"] * 5})
    found = rows("parquet", path, SplitLimits(100, 4))
    assert [(row["text"], row["raw"], row["reject"]) for row in found] == [
        ("a", None, None),
        (None, b"\xff\xfe", "error.invalid_utf8"),
        (None, None, "error.missing_field"),
        (None, b"xxxx", "error.record_too_large"),
        ("b", None, None),
    ]
    assert [bool(row["title"]) for row in found] == [False, True, True, True, False]
    assert {row["url"] for row in found} == {"u"}


def test_strings_that_are_not_utf8_are_found_although_parquet_calls_them_strings(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(
        2, pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfe")
    )
    found = rows("parquet", write(tmp_path / "a.parquet", {"text": broken, "url": broken}))
    assert [(row["text"], row["url"]) for row in found] == [("a", "a"), (None, None)]
    assert errors(found) == ["error.invalid_utf8"]


@pytest.mark.parametrize("split_bytes", [1, 2000, 10_000_000])
def test_any_cutting_into_spans_reads_the_same_rows(tmp_path: Path, split_bytes: int) -> None:
    columns = {"text": [f"{number} " * (number % 50) for number in range(1000)]}
    path = write(tmp_path / "a.parquet", columns, row_group_size=37, compression="zstd")
    found = rows("parquet", path)
    assert [row["text"] for row in found] == columns["text"]
    assert positions(found) == list(range(1000))
    assert rows("parquet", path, split_bytes=split_bytes) == found


def test_tables_are_closed_near_the_batch_size_although_rows_differ_in_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["x"] * 500 + ["y" * 5000] * 20})
    found = tables("parquet", path, SplitLimits(1 << 20, 4, batch_bytes=10_000))
    assert max(sum(map(len, table["text"].to_pylist())) for table in found) <= 15_000
    assert sum(table.num_rows for table in found) == 520


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "txet"}, "did you mean 'text'?"),
        ({"url": "link"}, "no column 'link'"),
        ({"html": "n"}, "cannot be used as raw"),
    ],
)
def test_a_column_that_cannot_serve_is_explained(tmp_path: Path, options: dict, says: str) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a"], "n": [1]})
    (row,) = rows("parquet", path, **options)
    assert row["reject"] == "error.wrong_columns"
    assert says in row["title"]


def test_an_empty_file_and_one_without_rows_have_no_records(tmp_path: Path) -> None:
    (tmp_path / "empty.parquet").touch()
    assert rows("parquet", tmp_path / "empty.parquet", split_bytes=10) == []
    path = write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
    assert rows("parquet", path, split_bytes=10) == []


def test_another_kind_of_file_and_one_without_its_end_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b'{"text": "a"}\n')
    (row,) = rows("parquet", tmp_path / "a.parquet")
    assert (row["reject"], row["title"][:23]) == ("error.not_parquet", "the file is not Parquet")
    path = write(tmp_path / "b.parquet", {"text": ["a"] * 1000})
    path.write_bytes(path.read_bytes()[:-20])
    assert errors(rows("parquet", path, split_bytes=10)) == ["error.truncated"]


def test_a_damaged_row_group_is_one_error_and_the_others_are_read(tmp_path: Path) -> None:
    texts = [f"{number:05d} {number * 7919}" for number in range(3000)]
    path = write(
        tmp_path / "a.parquet", {"text": texts}, row_group_size=1000, compression="zstd", use_dictionary=False
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.data_page_offset + 40
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    found = rows("parquet", path)
    assert errors(found) == ["error.truncated"]
    assert [row["text"] for row in found if not row["reject"]] == texts[:1000] + texts[2000:]
    assert [row["id"] for row in found if row["reject"]] == ["in/a.parquet#1000"]


def test_any_flipped_byte_of_the_index_neither_ends_the_process_nor_hides_rows(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", "b", None], "url": ["x", "y", "z"]}, row_group_size=2)
    content = path.read_bytes()
    first = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for at in range(first, len(content)):
        for bit in (0, 1, 4):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            found = rows(
                "parquet", path
            )  # pyarrow aborts if one asks where a column with damaged levels lies
            assert len(found) >= 3 or errors(found)


def test_rows_that_never_come_are_one_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", "b", "c"]}, use_dictionary=False, compression="none")
    content = path.read_bytes()
    at = content.index(b"\x15\x06")  # three values in the page's header, as a Thrift integer
    path.write_bytes(content[:at] + b"\x15\x00" + content[at + 2 :])
    assert errors(rows("parquet", path)) == ["error.truncated"]


def test_a_page_with_a_wrong_checksum_is_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        {"text": ["right", "b"]},
        use_dictionary=False,
        compression="none",
        write_page_checksum=True,
    )
    path.write_bytes(path.read_bytes().replace(b"right", b"wrong"))
    assert errors(rows("parquet", path)) == ["error.truncated"]


def test_a_file_with_a_damaged_beginning_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", "b"]})
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])
    assert [row["text"] for row in rows("parquet", path)] == ["a", "b"]


def test_the_bytes_of_a_file_without_row_groups_and_without_the_column_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.ParquetWriter(path, pa.schema([("other", pa.string())])).close()
    assert errors(rows("parquet", path)) == ["error.wrong_columns"]


def test_the_real_pages_are_read_with_their_bytes_urls_and_charsets(shared_data: Path) -> None:
    path = shared_data / "html_zh" / "pages.parquet"
    limits = SplitLimits(16 << 20, 64)
    options = {"html": "raw", "url": "page_url", "charset": "declared_charset"}
    found = rows("parquet", path, limits, **options)
    truth = pq.read_table(path)
    assert [row["raw"] for row in found] == truth["raw"].to_pylist()
    assert [row["url"] for row in found] == truth["page_url"].to_pylist()
    assert errors(found) == []
    assert len(spans(list_files(str(path))[0], 1 << 20)) == 1  # one row group
