"""HTML and text files: bytes for the charset ladder, documents as the recipe cuts them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ctllm_ray.corpus.engine.splits import SplitLimits

from .source_rows import errors, positions, rows


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("use", ["html", "text"])
def test_a_file_is_one_record_of_its_bytes(tmp_path: Path, use: str) -> None:
    content = "<p>你好\n\n世界".encode("gb18030")
    for name, packed in (("a.htm", content), ("a.htm.gz", gzip.compress(content))):
        (row,) = rows(use, write(tmp_path / name, packed))
        assert (row["id"], row["raw"], row["text"], row["url"]) == (f"in/{name}#0", content, None, None)
        assert row["content_type"] == {"html": "text/html", "text": "text/plain"}[use]


def test_the_recipe_may_state_the_charset_of_html_files(tmp_path: Path) -> None:
    (row,) = rows("html", write(tmp_path / "a.html", b"<p>"), content_type="text/html; charset=big5")
    assert row["content_type"] == "text/html; charset=big5"


@pytest.mark.parametrize("use", ["html", "text"])
def test_empty_large_and_cut_files(tmp_path: Path, use: str) -> None:
    assert rows(use, write(tmp_path / "empty", b"")) == []
    (large,) = rows(use, write(tmp_path / "large", b"x" * 101), SplitLimits(100, 8))
    assert (large["reject"], large["raw"], large["content_type"]) == (
        "error.record_too_large",
        b"x" * 8,
        None,
    )
    assert errors(rows(use, write(tmp_path / "fits", b"x" * 100), SplitLimits(100, 8))) == []
    (cut,) = rows(use, write(tmp_path / "cut.gz", gzip.compress(bytes(range(200)))[:100]))
    assert (cut["reject"], cut["raw"][:4]) == ("error.truncated", bytes(range(4)))


def test_lines_are_documents_and_blank_ones_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "第一\r\n\n  \n第二\n".encode("gbk") + b"end")
    found = rows("text", path, separator="line")
    assert [row["raw"].decode("gbk") for row in found] == ["第一", "第二", "end"]
    assert positions(found) == [0, 10, 15]


def test_paragraphs_are_documents_with_the_offset_of_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\n\na\r\nb\n \nc\n\n\n\nd\ne")
    found = rows("text", path, separator="blank_line")
    assert [row["raw"] for row in found] == [b"a\nb", b"c", b"d\ne"]
    assert positions(found) == [2, 9, 14]


@pytest.mark.parametrize("separator", ["line", "blank_line"])
def test_a_document_over_the_limit_is_one_error_between_others(tmp_path: Path, separator: str) -> None:
    large = {"line": b"y" * 50, "blank_line": b"y" * 9 + b"\n" + b"y" * 9}[separator]
    path = write(tmp_path / "a.txt", b"a\n\n" + large + b"\n\nb\n")
    found = rows("text", path, SplitLimits(15, 4), separator=separator)
    assert [(row["raw"], row["reject"]) for row in found] == [
        (b"a", None), (b"yyyy", "error.record_too_large"), (b"b", None),
    ]  # fmt: skip


@pytest.mark.parametrize("separator", ["line", "blank_line"])
def test_a_cut_file_of_documents_keeps_those_before_the_cut(tmp_path: Path, separator: str) -> None:
    content = b"\n\n".join(b"%d" % number for number in range(5000))
    found = rows("text", write(tmp_path / "a.gz", gzip.compress(content)[:-3000]), separator=separator)
    assert errors(found) == ["error.truncated"]
    assert [row["raw"] for row in found[:-1]] == [b"%d" % number for number in range(len(found) - 1)]
    assert len(found) > 100


def test_the_real_raw_pages_are_one_record_each(shared_data: Path) -> None:
    for path in (shared_data / "html_zh" / "raw").iterdir():
        (row,) = rows("html", path)
        assert row["raw"] == path.read_bytes()
