"""Measures of the whole document, worked by hand."""

from __future__ import annotations

import math

import pytest

from ctllm_ray.base.resolve import MEASURES, names
from ctllm_ray.text.kernels import fuse
from tests.text.interpreted import measured

KERNELS = [name for name in names(MEASURES) if fuse.is_kernel(name)]
#: What is not 0 of an empty text.
EMPTY = {"script.traditional_share": math.nan}
PROSE = "他把信放在桌上，看了看窗外的雨。雨下得很大，街上没有人。"


@pytest.mark.parametrize("name", KERNELS)
def test_every_measure_of_an_empty_text_is_zero_or_says_that_there_is_no_evidence(name: str) -> None:
    options = {"n": 2} if name.startswith("repetition.") else {}
    assert measured(name, "", **options) == pytest.approx(EMPTY.get(name, 0), nan_ok=True)


@pytest.mark.parametrize("name", [n for n in KERNELS if n.endswith("_share")])
@pytest.mark.parametrize(
    "text", ["。", "\n \n", "的", "了了了了", "<p>", "a,b.c", "1", "\ue000", PROSE, PROSE * 3]
)
def test_every_share_lies_between_0_and_1(name: str, text: str) -> None:
    options = {"n": 3} if name.startswith("repetition.") else {}
    value = measured(name, text, **options)
    assert 0 <= value <= 1 or math.isnan(value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        # Code points, whatever bytes they take: 3 for 天, 4 for 𠀀 and 😀, 1 for a.
        ("char_count", "天 地\n", 4),
        ("char_count", "𠀀😀a", 3),
        ("visible_count", "天\t地 　玄\n\u200b黄\u00a0", 4),
        # Digits over letters, digits and Han: marks and spaces take no part, so that they cannot hide a
        # table.
        ("digit_share", "共12个，", 2 / 4),
        ("digit_share", "１２ab", 2 / 4),  # full width
        ("digit_share", "①②③", 0),  # numerals in circles are symbols
        ("digit_share", "，。！", 0),
        ("latin_share", "用 Python 写", 6 / 8),
        ("latin_share", "ＡＢ中文", 2 / 4),
        ("latin_share", "naïve", 1),
        ("latin_share", "ЖЖ", 0),
        ("punctuation_share", "好，好。", 2 / 4),
        ("punctuation_share", "「好」", 2 / 3),
        ("punctuation_share", "好 好", 0),
        ("symbol_share", "好★ ☆ 😀", 3 / 4),
        ("symbol_share", "─│┌┐好", 4 / 5),  # a table drawn with box characters
        ("symbol_share", "好，好。", 0),
        ("space_share", "a b　\n", 2 / 5),
        ("control_share", "好\x00\u200b\ufeff", 3 / 4),
        ("control_share", "好\t好\n", 0),
        ("private_share", "\ue000\ufffd好好", 2 / 4),
        ("distinct_char_share", "天地天地", 2 / 4),
        ("windowed_distinct_share", "天地天地", 2 / 4),
        ("entropy_nats", "天地天地", math.log(2)),
        ("windowed_entropy_nats", "天地天地", math.log(2)),
        ("entropy_nats", "天天天", 0),
        # 天地玄黄 and 宇宙 are clauses of 4 and 2; a quotation mark or Latin word inside a clause ends none.
        ("mean_clause_chars", "天地玄黄，宇宙。", 3),
        ("mean_clause_chars", "用Python写“代码”。", 4),
        ("mean_clause_chars", "abc. def.", 0),
        ("clause_mark_share", "天地，玄黄。\n", 2 / 6),
        ("clause_mark_share", "天地 玄黄", 0),
        ("hashtag_share", "#话题# ##", 3 / 7),  # runs, not characters
        ("hashtag_share", "＃＃好", 1 / 3),
        ("ellipsis_share", "好……好...好。。", 3 / 10),
        ("ellipsis_share", "好。好.", 0),
        ("bracket_share", "【转】好好", 1 / 5),
        ("bracket_share", "【转\n】好好", 0),  # not across lines
        ("bracket_share", "【转好好", 0),
        ("longest_run_share", "好哈哈哈哈好", 4 / 6),
        ("longest_run_share", "好        \t\t\t\n\n\n好", 1 / 16),
        ("longest_run_share", "－－－\n－－－", 3 / 7),
    ],
)
def test_a_measure_gives_the_value_worked_by_hand(name: str, text: str, value: float) -> None:
    assert measured(f"document.{name}", text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("好。好！好？好；好…", 5),
        ("好……", 1),
        ("真的？！真的。", 2),
        ("“走吧。”他说，“天黑了。”", 2),
        ("标题没有句号", 1),
        ("，——“”\n", 0),
        ("圆周率约为3.14，取3.1416。", 1),
        ("升级到 v1.2.3 以后重启。", 1),
        ("圆周率约为３．１４。", 1),
        ("He moved to the U.S. in May.", 1),
        ("J. K. Rowling wrote it.", 1),
        ("See example.com for more.", 1),
        ("It is 3.14. That is all.", 2),
        ("It rained. We stayed.", 2),
        ("It rained.\nWe stayed.\n", 2),
        ('He said "yes." She nodded.', 2),
        ("Born in 1990. Died in 2020.", 2),
        ("今天很好.我们去公园.", 2),  # Chinese written with ASCII marks
        ("安装 Node.js 和微软.NET。", 1),
        ("1. 安装\n2. 运行", 1),
        ("...", 0),
    ],
)
def test_sentences_end_in_end_marks_and_not_in_the_dots_of_numbers_versions_and_initials(
    text: str, count: int
) -> None:
    assert measured("document.sentence_count", text) == count


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("<p>", 3),
        ('<p style="color:red">好</p>', 25),
        ("好<br/>好", 5),
        ("<!-- 注 -->", 10),
        ("&nbsp;好&amp;", 11),
        ("<h1>好</h1>", 9),
        ("如果 a < b 且 c > d", 0),
        ("如果a<b且c>d", 0),
        ("for (i=0; i<n; i++) if (j>m)", 0),
        ("AT&T 和 R&D", 0),
        ("3 < 5，5 > 3", 0),
        ("<" + "a" * 400 + ">", 0),  # no tag is that long
        ("<a <b>", 3),
        ("<", 0),
        ("</", 0),
        ("&a", 0),
    ],
)
def test_tags_and_entities_are_markup_and_comparisons_are_not(text: str, inside: int) -> None:
    assert measured("document.markup_share", text) == pytest.approx(inside / len(text))


def test_variety_falls_and_entropy_rises_with_length_and_their_windowed_forms_do_neither() -> None:
    page = "".join(chr(0x4E00 + i) for i in range(256))
    others = "".join(chr(0x5000 + i) for i in range(256 * 7))
    assert measured("document.distinct_char_share", page * 8) == pytest.approx(1 / 8)
    assert measured("document.windowed_distinct_share", page * 8) == pytest.approx(1)
    assert measured("document.entropy_nats", page + others) == pytest.approx(math.log(256 * 8))
    assert measured("document.windowed_entropy_nats", page + others) == pytest.approx(math.log(256))


def test_the_last_window_ends_with_the_text_so_that_no_character_is_left_out() -> None:
    page = "".join(chr(0x4E00 + i) for i in range(256))
    # windows: the page (256 different), then its last 56 with 200 times 好
    assert measured("document.windowed_distinct_share", page + "好" * 200) == pytest.approx(
        (1 + 57 / 256) / 2
    )
