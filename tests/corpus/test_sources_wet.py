"""WET: the conversion records and nothing else; text that is not UTF-8 is an error with its bytes."""

from __future__ import annotations

from pathlib import Path

from ctllm_ray.corpus.engine.splits import SplitLimits

from .source_rows import LIMITS, errors, rows
from .test_sources_warc import INFO, record, write


def conversion(text: bytes) -> bytes:
    return record(text, "conversion", "text/plain")


def test_a_conversion_is_its_text_with_url_and_date(tmp_path: Path) -> None:
    path = write(tmp_path / "a.warc.wet", INFO + conversion("你好\n世界".encode()) + conversion(b""))
    first, second = rows("wet", path)
    assert (first["text"], first["url"], first["date"]) == (
        "你好\n世界",
        "http://a.cn/页",
        "2020-01-01T00:00:00Z",
    )
    assert first["id"] == f"in/a.warc.wet#{len(INFO)}"
    assert second["text"] == ""


def test_text_that_is_not_utf8_is_an_error_between_good_ones(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.wet", conversion(b"a") + conversion("中".encode("gbk") + b" \xff") + conversion(b"b")
    )
    found = rows("wet", path, LIMITS)
    assert [row["text"] for row in found] == ["a", None, "b"]
    assert errors(found) == ["error.invalid_utf8"]
    assert found[1]["raw"] == "中".encode("gbk") + b" \xff"


def test_the_real_chinese_wet_file_has_226_texts(shared_data: Path) -> None:
    found = rows("wet", shared_data / "html_zh" / "zh_pages.warc.wet.gz", SplitLimits(16 << 20, 64))
    assert (len(found), errors(found)) == (226, [])
    assert all(row["text"] is not None and row["url"] for row in found)


def test_wrong_lengths_in_a_real_sample_lose_nothing_unseen(shared_data: Path) -> None:
    found = rows("wet", shared_data / "warc_samples" / "facebookresearch__cc_net__sample.warc.txt")
    assert [row["url"] for row in found if not row["reject"]] == [
        "http://sample_english.com",
        "http://sample_chinese.zh",
        "http://sample_russian.ru",
    ]
    assert set(errors(found)) == {"error.invalid_warc"}
