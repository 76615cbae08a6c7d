"""The extract stage: which rows it works on, what it fills, and that it loses none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ctllm_ray.corpus.stages import extract as module
from ctllm_ray.corpus.stages.extract import extract
from ctllm_ray.shards import schema

PROSE = "春天的时候，村口的老槐树下总坐着几位老人，他们说起从前的事情，声音不高，却很清楚。"
PAGE = f"<html><title>老槐树_乡土网</title><body><h1>老槐树</h1><p>{PROSE}</p><p>责任编辑：张三</p></body></html>"


def table(*rows: dict[str, Any]) -> pa.Table:
    filled = [{"id": f"t/{i}#0"} | row for i, row in enumerate(rows)]
    return schema.working(pa.Table.from_pylist(filled, schema=schema.RAW), "t")


def row(*rows: dict[str, Any], **options: Any) -> dict[str, Any]:
    return extract(table(*rows), **options).to_pylist()[0]


def test_an_html_page_gets_text_title_and_charset_and_loses_its_bytes() -> None:
    got = row({"raw": PAGE.encode("gb18030"), "content_type": "text/html; charset=gb2312"})
    assert (got["text"], got["title"], got["raw"], got["reject"]) == (PROSE, "老槐树", None, None)
    assert got["label.charset"] == "gb18030"
    assert 0 < got["score.charset.confidence"] <= 1


def test_a_title_that_the_source_gave_stays() -> None:
    assert row({"raw": PAGE.encode(), "title": "原题"})["title"] == "原题"


def test_plain_text_is_taken_as_it_is() -> None:
    assert (
        row({"raw": f"登录\n{PROSE}\n".encode(), "content_type": "text/plain"})["text"] == f"登录\n{PROSE}\n"
    )


def test_without_a_content_type_tags_decide() -> None:
    assert row({"raw": PROSE.encode()})["text"] == PROSE
    assert row({"raw": PAGE.encode()})["text"] == PROSE


def test_a_feed_is_read_by_its_items_whatever_its_content_type_says() -> None:
    rss = f"<rss><channel><item><title>题</title><description>{PROSE}</description></item></channel></rss>"
    for kind in ("application/rss+xml", "text/html", None):
        assert row({"raw": rss.encode(), "content_type": kind})["text"] == f"题\n{PROSE}"


def test_a_page_without_main_text_gets_an_empty_text_and_no_error() -> None:
    got = row({"raw": b"<html><body><a href=/>x</a></body></html>"})
    assert (got["text"], got["raw"], got["reject"]) == ("", None, None)


def test_a_picture_and_a_page_over_the_limit_are_rejected_with_their_first_bytes() -> None:
    got = row({"raw": b"\x89PNG" + bytes(10_000), "content_type": "text/html"}, error_raw_bytes=16)
    assert (got["reject"], len(got["raw"]), got["text"]) == ("error.not_text", 16, None)
    got = row({"raw": PAGE.encode()}, max_page_bytes=100, error_raw_bytes=16)
    assert (got["reject"], got["raw"]) == ("error.page_too_large", PAGE.encode()[:16])


def test_a_page_on_which_the_extractor_fails_is_rejected_and_the_others_are_not(monkeypatch: Any) -> None:
    real = module.main_content.extract

    class Panic(BaseException):
        """As a Rust library raises it: not an Exception."""

    def failing(source: str, **options: Any) -> Any:
        if "坏页" in source:
            raise Panic
        return real(source, **options)

    monkeypatch.setattr(module.main_content, "extract", failing)
    got = extract(table({"raw": "<p>坏页".encode()}, {"raw": PAGE.encode()})).to_pylist()
    assert [(r["reject"], r["text"], r["raw"]) for r in got] == [
        ("error.extraction", None, "<p>坏页".encode()),
        (None, PROSE, None),
    ]


def test_rows_with_text_and_rejected_rows_pass_untouched_and_order_stays() -> None:
    given = table(
        {"text": "<p>已有正文</p>", "raw": b"<p>x"},
        {"raw": PAGE.encode()},
        {"raw": b"broken", "reject": "error.truncated"},
        {"text": None, "raw": None},
        {"text": "", "raw": None},
    )
    got = extract(given)
    assert got["id"].to_pylist() == given["id"].to_pylist()
    assert got.select(given.column_names).schema == given.schema
    before, after = given.to_pylist(), got.select(given.column_names).to_pylist()
    assert [after[i] for i in (0, 2, 3, 4)] == [before[i] for i in (0, 2, 3, 4)]
    assert after[1]["text"] == PROSE
    assert got["label.charset"].to_pylist() == [None, "utf-8", None, None, None]


def test_a_table_without_raw_pages_only_gains_the_columns() -> None:
    given = table({"text": PROSE}, {"text": "二"})
    got = extract(given)
    assert got.select(given.column_names) == given
    assert got["score.charset.confidence"].null_count == 2
    assert extract(given.slice(0, 0)).num_rows == 0


def test_a_chunked_table_gives_what_its_copy_in_one_piece_gives() -> None:
    rows = [{"raw": PAGE.encode()}, {"text": PROSE}, {"raw": PAGE.encode("gb18030")}]
    whole = table(*rows)
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2)])
    assert extract(pieces).to_pylist() == extract(whole).to_pylist()
