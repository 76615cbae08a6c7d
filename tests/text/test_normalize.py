"""Normalisation: what changes, what stays, and that doing it twice is doing it once."""

from __future__ import annotations

import random
import sys
import unicodedata

import pyarrow as pa
import pytest

from ctllm_ray.text.encoding.normalize import may_compose, normalize


def one(text: str, **options: str) -> str:
    return normalize(pa.array([text]), **options).texts[0].as_py()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("一\r\n二\r三\x85四\u2028五\u2029六\x0b七\x0c八", "一\n二\n三\n四\n五\n六\n七\n八"),
        ("中\x00文\x07字\u200b符\ufeff，\u00ad软\u202e连\ufffe", "中文字符，软连"),
        ("连\x0b接\x01断\x0c开", "连接断开"),  # in a text littered with controls these are litter too
        ("a\u00a0b\u2003\u2009c", "a b c"),
        ("行尾　 \t\n　　段首缩进", "行尾\n　　段首缩进"),
        ("甲\n\n\n\n\n乙\n\n\n丙", "甲\n\n乙\n\n\n丙"),
        ("\n\n  \n标题\n正文\n \n", "标题\n正文"),
        ("def f():\n    return  1\n\n\nx\ty\t\tz", "def f():\n    return 1\n\n\nx\ty\t\tz"),
        ("第一条　 总则", "第一条　总则"),
        ("e\u0301\u0041\u030a", "éÅ"),
    ],
)
def test_what_is_repaired(raw: str, clean: str) -> None:
    assert one(raw) == clean


@pytest.mark.parametrize(
    "text",
    [
        "　　全角，标点。“引号”——……！？（１２ＡＢｃ）㎡①Ⅳ…：",  # pitfalls 7 and 8
        "裡面乾淨，計程車後頭髮",  # pitfall 9: the script stays
        "👨‍👩‍👧 👩🏽‍⚕️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️",
        "می‌خواهم क्‍ष",  # joiners that are spelling
        "用字\ue123𠮷〇々\ufffd",
        "",
    ],
)
def test_what_says_something_stays_byte_for_byte(text: str) -> None:
    texts = pa.array([text])
    assert normalize(texts).texts is texts


def test_nothing_to_change_gives_the_same_array() -> None:
    texts = pa.array(["第一段。\n\n第二段。", "plain", ""])
    assert normalize(texts, links="remove", width="fold").texts is texts


def test_control_share_counts_removed_marks_over_code_points() -> None:
    shares = normalize(pa.array(["四个字符", "\x00一\u200b二", "", "\x00"])).control_share
    assert shares.tolist() == [0, 0.5, 0, 1]


def test_joiners_that_join_nothing_go() -> None:
    assert one("中\u200d文\u200c字 a\u200db 😀\u200d好") == "中文字 ab 😀好"


def test_width_folds_letters_and_digits_only_when_asked() -> None:
    text = "ＡＢＣ１２３，（ｘ）！"
    assert one(text) == text
    assert one(text, width="fold") == "ABC123，（x）！"


def test_script_is_converted_only_when_asked() -> None:
    assert one("頭髮發展", script="t2s") == "头发发展"
    assert one("计程车", script="s2t") == "計程車"
    assert one("計程車", script="tw2sp") == "出租车"


def test_form_keep_leaves_combining_marks_alone() -> None:
    assert one("e\u0301", form="keep") == "e\u0301"


def test_a_removed_link_leaves_no_double_blank() -> None:
    assert one("见 http://a.com/b 一文\nhttp://c.cn \n完", links="remove") == "见 一文\n\n完"


def test_every_code_point_that_nfc_may_touch_is_looked_at() -> None:
    for c in range(0x300, sys.maxunicode + 1):
        char = chr(c)
        if 0xD800 <= c < 0xE000:
            continue
        touched = unicodedata.combining(char) or unicodedata.normalize("NFC", char) != char
        assert may_compose(c) or not touched, hex(c)
    for first, second in [("\u1100", "\u1161"), ("\uac00", "\u11a8"), ("か", "\u3099"), ("\u0bc6", "\u0bbe")]:
        assert len(unicodedata.normalize("NFC", first + second)) == 1
        assert may_compose(ord(second))


def test_twice_is_once_on_fuzzed_strings() -> None:
    rng = random.Random(5)
    alphabet = [
        *"\n\r\t \x00\x07\x0b\x0c\x85\xa0\u3000\u2003\u200b\u200c\u200d\ufeff\u202e\u00ad\u2028",
        *"\u0301\u0308\u0327\ufe0f",
        *"中文，。（）１Ａ…Aaé09./:-#@()<>\ufffd\ufffe\uf900\u1100\u1161\u0915\u0628\u3099か",
        *["http://a.cn/x", "www.b.com", "c.net", "😀", "👩", "🏽", "\U0001f3f4", "\U000e0067", "\U000e007f"],
    ]
    texts = pa.array(["".join(rng.choices(alphabet, k=rng.randrange(40))) for _ in range(4000)])
    for options in (
        {},
        {"links": "remove"},
        {"width": "fold"},
        {"form": "keep"},
        {"links": "remove", "width": "fold"},
    ):
        once = normalize(texts, **options).texts  # type: ignore[arg-type]
        assert normalize(once, **options).texts.equals(once), options  # type: ignore[arg-type]


def test_output_never_holds_what_should_go_on_fuzzed_strings() -> None:
    rng = random.Random(6)
    texts = pa.array(["".join(chr(rng.randrange(0x3100)) for _ in range(60)) for _ in range(500)])
    for text in normalize(texts).texts.to_pylist():
        assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in text)
        assert all(line == line.rstrip(" \t\u3000") for line in text.split("\n"))
        assert "\n\n\n\n" not in text
        assert unicodedata.is_normalized("NFC", text)


def test_a_sliced_array_is_read_from_its_own_rows() -> None:
    texts = pa.array(["x\x00", "一\r\n二", "三  四", "y\x00"]).slice(1, 2)
    assert normalize(texts).texts.to_pylist() == ["一\n二", "三 四"]


def test_no_rows_are_no_trouble() -> None:
    empty = pa.array(["x"]).filter(pa.array([False]))
    assert len(normalize(empty, links="remove", script="t2s").texts) == 0
