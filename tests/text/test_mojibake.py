"""Mojibake is undone where the round trip is exact, marked where it is not, and clean text is left alone."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import pytest
import zstandard

from ctllm_ray.text.encoding.mojibake import repair, repair_suspicious, suspicious

SIMPLIFIED = (
    "今天天气很好，我们去公园散步。\n路上遇见一位老师，他说图书馆下个月就要开门了。\n\n学而时习之，不亦说乎？"
)
TRADITIONAL = (
    "今天天氣很好，我們去公園散步。\n路上遇見一位老師，他說圖書館下個月就要開門了。\n\n學而時習之，不亦說乎？"
)
MIXED = "用 Python 3.11 打开 config.yaml，然后运行 `make test`：\n- 第一步\n- 第二步 (optional)\n"


def cp1252(raw: bytes) -> str:
    """As browsers read it: the five bytes that windows-1252 leaves open are controls."""
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in raw)


def browser_gbk(raw: bytes) -> str:
    """As browsers read GBK: the byte 80 is a euro sign, another that fits nowhere U+FFFD."""
    read = raw.decode("gb18030", "surrogateescape").replace("\udc80", "€")
    return re.sub("[\ud800-\udfff]", "�", read)


@pytest.mark.parametrize("text", [SIMPLIFIED, TRADITIONAL, MIXED])
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("utf8_as_latin1", lambda t: t.encode().decode("latin-1")),
        ("utf8_as_latin1", lambda t: cp1252(t.encode())),
        ("utf8_as_latin1", lambda t: t.encode().decode("latin-1").replace("\xa0", " ")),
        ("gbk_as_latin1", lambda t: t.encode("gb18030").decode("latin-1")),
        ("gbk_as_latin1", lambda t: cp1252(t.encode("gbk"))),
        ("double", lambda t: cp1252(cp1252(t.encode()).encode())),
        ("double", lambda t: t.encode("gbk").decode("latin-1").encode().decode("gb18030")),
        ("double", lambda t: t.encode().decode("latin-1").encode().decode("gb18030")),
    ],
)
def test_a_reading_that_lost_nothing_is_undone_to_the_character(text: str, kind: str, damage) -> None:  # type: ignore[no-untyped-def]
    found = repair(damage(text))
    assert (found.text, found.kind, found.suspect_chars) == (text, kind, 0)


def test_utf8_read_as_gbk_is_undone_where_no_byte_was_lost() -> None:
    assert repair("浣犲ソ锛屼笘鐣").text == "你好，世�"
    text = "这是一个没有丢失的句子"
    found = repair(text.encode().decode("gb18030", "replace"))
    assert (found.text[:10], found.kind) == (text[:10], "utf8_as_gbk")


def test_byte_80_is_put_back_for_both_ways_decoders_write_it() -> None:
    text = "语言的人都是一样的，你说的话我们会听见"  # 言 ends in 80
    for read in (text.encode().decode("gb18030", "replace"), browser_gbk(text.encode())):
        assert "�" in read or "€" in read
        assert repair(read).text.startswith("语言的人都是")


def test_a_real_euro_sign_is_the_end_of_one_character_and_the_start_of_the_next() -> None:
    text = "我们的工作要换、还是不换呢"  # 换、 is E68DA2 E38081: read as E68D A2E3 80 81E8, and A2E3 is €
    read = browser_gbk(text.encode())
    assert "€€" in read
    assert repair(read).text == text


def test_a_lost_byte_costs_its_character_and_is_never_guessed() -> None:
    found = repair(
        "今天天气很好。\n我们去公园散步。\n路上遇见一位老师吗".encode().decode("gb18030", "replace")
    )
    assert found.text == "今天天气很好�\n我们去公园散步�\n路上遇见一位老师�"
    assert found.suspect_chars == len("今天天气很好�我们去公园散步�路上遇见一位老师�")


def test_question_marks_of_an_encoder_cost_their_character_too() -> None:
    read = "今天天气很好。\n我们去公园散步吗？".encode().decode("gb18030", "replace")
    found = repair(read.encode("gbk", "replace").decode("gbk"))
    assert found.text == "今天天气很好�\n我们去公�步吗�"  # 园散 are E59B ADE6 95A3, and ADE6 is not in GBK
    assert found.suspect_chars > 0


def test_big5_and_gbk_taken_for_each_other_are_undone() -> None:
    found = repair(TRADITIONAL.encode("big5").decode("gb18030", "replace"))
    assert (found.text, found.kind) == (TRADITIONAL, "big5_as_gbk")
    text = "我们的工作是把这个问题说清楚，然后大家一起来想办法，看看能不能做得更好"
    found = repair(text.encode("gbk").decode("big5hkscs", "replace"))
    assert found.kind == "gbk_as_big5"
    assert sum(a == b for a, b in zip(found.text, text, strict=False)) > 0.5 * len(text)


def test_one_bad_line_in_a_good_page_is_repaired_and_nothing_else_is_touched() -> None:
    for bad in (
        cp1252("版权所有，转载请注明出处".encode()),
        "版权所有，转载请注明出处".encode("gbk").decode("latin-1"),
    ):
        page = f"{SIMPLIFIED}\n{bad}\n{MIXED}“引号”……—— naïve café ×3 · 25°C"
        found = repair(page)
        assert found.text == page.replace(bad, "版权所有，转载请注明出处")
        assert found.suspect_chars == 0


def test_ghosts_and_fills_are_marked_and_left_alone() -> None:
    ghost = repair(f"{SIMPLIFIED}锟斤拷锟斤拷")
    assert (ghost.text, ghost.kind, ghost.is_repaired, ghost.suspect_chars) == (
        f"{SIMPLIFIED}锟斤拷锟斤拷",
        "gbk_ghost",
        False,
        6,
    )
    for fill in ("烫烫烫烫", "屯屯屯屯", "葺葺葺葺"):
        found = repair(SIMPLIFIED + fill)
        assert (found.kind, found.is_repaired, found.suspect_chars) == ("debug_fill", False, 4)
    assert repair(SIMPLIFIED + "��").suspect_chars == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        SIMPLIFIED,
        TRADITIONAL,
        "他名叫李锟，住在翻修葺新的屯子里，喝了一碗烫烫的汤。锘是102号元素。",
        "L'été, à Noël, où êtes-vous ? Señor Muñoz, Größe, Ångström, Kraków, façade",
        "¡¡¡Olé!!! ···×××°°°§§ «»",
        "これは日本語の文章です。今日は天気がいいですね。",
        "Καλημέρα κόσμε. Привет, мир! Добрый день, как дела сегодня",
        "浣熊、涓涓细流、绗缝、鏖战、璇玑、脝脞、忙茫芒",
        "　　全角空格缩进，“弯引号”不动；ＡＢＣ１２３也不动。\r\n\t制表\u00a0\u200b",
    ],
)
def test_clean_text_comes_back_as_it_was(text: str) -> None:
    for found in (repair(text), repair_suspicious(text)):
        assert (found.text, found.kind, found.suspect_chars) == (text, "", 0)


def test_lone_surrogates_and_noncharacters_do_not_raise() -> None:
    assert repair("a\ud800b锟斤拷").kind == "gbk_ghost"
    assert repair("�\x1a\x19\ufffe\uffff").kind == "replacement"


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[dict]:
    """Forty records of each text file: every genre, both scripts, some English and code."""
    found: list[dict] = []
    for file in sorted((shared_data / "text").glob("*.jsonl.zst")):
        with file.open("rb") as stream:
            lines = io.TextIOWrapper(
                zstandard.ZstdDecompressor().stream_reader(stream), encoding="utf-8"
            ).readlines()
        found += map(json.loads, random.Random(5).sample(lines, min(40, len(lines))))
    return found


def chinese(record: dict) -> bool:
    return record["lang"] in {"zh", "zh-Hant"} and sum("一" <= c <= "龥" for c in record["text"]) >= 8


@pytest.mark.parametrize(
    ("damage", "exact_share"),
    [
        (
            lambda t: t.encode().decode("gb18030", "replace"),
            0.0,
        ),  # it loses bytes at the end of most sentences
        (lambda t: t.encode().decode("latin-1"), 0.99),
        (lambda t: cp1252(t.encode()), 0.99),
        (lambda t: t.encode("gb18030").decode("latin-1"), 0.99),
        (lambda t: t.encode().decode("latin-1").encode().decode("latin-1"), 0.99),
        (lambda t: t.encode("gb18030").decode("latin-1").encode().decode("gb18030", "replace"), 0.95),
    ],
)
def test_real_texts_of_every_genre_come_back_exact_or_marked(
    records: list[dict], damage, exact_share: float
) -> None:  # type: ignore[no-untyped-def]
    texts = [record["text"][:1500] for record in records[::6] if chinese(record)]
    exact = unmarked = 0
    for text in texts:
        found = repair(damage(text))
        exact += found.text == text
        unmarked += found.text != text and found.suspect_chars <= 0.02 * len(found.text)
    assert exact >= exact_share * len(texts)
    assert unmarked <= 0.01 * len(texts)


def test_what_is_restored_of_a_lossy_reading_is_right_to_the_character(records: list[dict]) -> None:
    for text in (record["text"][:1500].replace("\ufeff", "") for record in records[::6] if chinese(record)):
        for read in (text.encode().decode("gb18030", "replace"), browser_gbk(text.encode())):
            kept = [re.escape(piece) for piece in re.split("�+", repair(read).text)]
            assert re.fullmatch(".{0,4}?".join(kept), text, re.DOTALL), text[:80]


def test_real_clean_texts_are_not_changed_even_where_the_scan_errs(records: list[dict]) -> None:
    texts = [record["text"] for record in records]
    assert sum(map(suspicious, texts)) <= 0.05 * len(texts)
    assert not [text for text in texts if repair_suspicious(text).text != text]
