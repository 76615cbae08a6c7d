"""The charset ladder: declarations are priors, the bytes decide."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctllm_ray.text.encoding.charset import _sample, decode

SIMPLIFIED = "今天天气很好，我们去公园散步。路上遇见一位老师，他说图书馆下个月就要开门了。"
TRADITIONAL = "今天天氣很好，我們去公園散步。路上遇見一位老師，他說圖書館下個月就要開門了。"
ENCODED = [
    (SIMPLIFIED, "gb18030"),
    (TRADITIONAL, "gb18030"),
    (TRADITIONAL, "big5hkscs"),
    (SIMPLIFIED, "utf-8"),
]


@pytest.mark.parametrize(("text", "charset"), ENCODED)
@pytest.mark.parametrize("cut", [24, 40, 80, 1000])
def test_bytes_without_any_declaration_decode_at_every_length(text: str, charset: str, cut: int) -> None:
    raw = text.encode(charset)[:cut]
    found = decode(raw, None)
    assert found.charset == charset
    assert found.text.rstrip("�") == raw.decode(charset, "ignore")


def test_of_a_long_page_the_middle_is_looked_at_too() -> None:
    sample = _sample(("甲乙\n" * 20_000 + "丙丁\n" * 20_000).encode()).decode(errors="ignore")
    assert "甲" in sample
    assert "丁" in sample


@pytest.mark.parametrize("label", ["utf-8", "gb2312", "big5", "iso-8859-1", "shift_jis", "nonsense"])
@pytest.mark.parametrize(("text", "charset"), ENCODED)
def test_a_lying_header_is_not_believed(text: str, charset: str, label: str) -> None:
    assert decode(text.encode(charset), f"text/html; charset={label}").charset == charset


def test_gb2312_means_gb18030_and_big5_means_the_hong_kong_set() -> None:
    rare = SIMPLIFIED + "朱镕基、囧、㐂、𠮷"
    assert decode(rare.encode("gb18030"), "text/html; charset=gb2312").text == rare
    cantonese = TRADITIONAL + "佢哋嘅嘢喺邊度呀，冇諗過"
    assert decode(cantonese.encode("big5hkscs"), "text/html; charset=big5").text == cantonese


def test_a_byte_order_mark_wins_and_is_not_text() -> None:
    for charset in ("utf-8-sig", "utf-16"):
        found = decode(SIMPLIFIED.encode(charset), "text/html; charset=gbk")
        assert (found.text, found.evidence, found.confidence) == (SIMPLIFIED, "bom", 1.0)


def test_the_rung_that_was_believed_is_named() -> None:
    body = SIMPLIFIED.encode("gbk")
    assert decode(body, "text/html; charset=GBK").evidence == "http"
    assert (
        decode(b'<meta http-equiv=Content-Type content="text/html; charset=gb2312">' + body, None).evidence
        == "meta"
    )
    assert decode(b'<?xml version="1.0" encoding="gbk"?>' + body, None).evidence == "meta"
    assert decode(b"<meta charset=utf-8>" + body, "text/html").evidence == "score"
    assert decode(b"plain ascii", None).evidence == "ascii"


def test_utf8_cut_within_a_character_is_utf8_without_a_scar() -> None:
    raw = SIMPLIFIED.encode()
    for cut in (1, 2):
        found = decode(raw[:-cut], None)
        assert (found.text, found.charset) == (SIMPLIFIED[:-1], "utf-8")
        assert 0.9 < found.confidence < 1


@pytest.mark.parametrize("charset", ["utf-8", "gb18030", "big5hkscs"])
def test_a_few_bad_bytes_become_replacement_characters_and_lower_the_confidence(charset: str) -> None:
    good = (TRADITIONAL * 10).encode(charset)
    bad = good + b"\n\xff\n" + good
    found = decode(bad, None)
    assert found.charset == charset
    assert found.text.count("�") == 1
    assert found.confidence < decode(good, None).confidence


def test_short_gbk_that_is_also_valid_utf8_is_read_as_chinese() -> None:
    assert decode("联通".encode("gbk"), None).text == "联通"


def test_the_country_of_the_host_settles_a_draw_only() -> None:
    raw = TRADITIONAL.encode("big5hkscs")
    assert decode(raw, None, "http://www.example.cn/a").charset == "big5hkscs"
    assert decode(SIMPLIFIED.encode("gbk"), None, "http://www.example.com.tw/").charset == "gb18030"


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("L'été dernier, à Paris, j'étais très content : voilà.", "cp1252"),
        ("He said “don’t” – and that’s it.", "cp1252"),
        ("皆様、こんにちは。今日は良い天気ですね。東京の新聞を読みます。", "cp932"),
        ("Καλημέρα κόσμε, τι κάνεις", "utf-8"),
    ],
)
def test_pages_that_are_not_chinese_are_not_called_chinese(text: str, charset: str) -> None:
    found = decode(text.encode(charset), None)
    assert (found.charset, found.text) == (charset, text)


def test_any_bytes_at_all_give_text() -> None:
    for raw in (b"", b"\xff", b"\x80" * 50, bytes(range(256)), b"\x00" * 9):
        assert 0.0 <= decode(raw, "charset=", "not a url").confidence <= 1.0


@pytest.mark.parametrize("hints", ["declared", "none", "all wrong"])
def test_real_pages_decode_with_declarations_without_and_against_them(shared_data: Path, hints: str) -> None:
    pages = pq.read_table(shared_data / "html_zh" / "pages.parquet").to_pylist()
    names = {"big5": "big5hkscs"}
    wrong = []
    for page in pages:
        raw, header = page["raw"], page["content_type"]
        if hints != "declared":
            raw = re.sub(rb"(?i)charset|encoding=", b"x-------", raw)
            header = "text/html; charset=iso-8859-1" if hints == "all wrong" else None
        if decode(raw, header).charset != names.get(page["actual_charset"], page["actual_charset"]):
            wrong.append(page["page_id"])
    assert len(wrong) <= 0.01 * len(pages), wrong
