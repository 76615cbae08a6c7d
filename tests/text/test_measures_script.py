"""Measures of script, worked by hand: which characters are evidence, and which are none."""

from __future__ import annotations

import math

import pytest

from tests.text.interpreted import measured

MODERN = "我们昨天去看了外婆，她的身体很好，还给我们做了一桌子的菜。"
CLASSICAL = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？"


@pytest.mark.parametrize(
    "text",
    ["天地", "𠀀𪚥", "㐂㲋", "〇々〆", "龦鿿", "豈更", "\u2f00\u2f26", "𰻞", "二〇二六年"],
    ids=["URO", "B", "A", "marks", "after 9FA5", "compatibility", "radicals", "G", "year"],
)
def test_han_is_every_han_character_of_every_extension(text: str) -> None:
    assert measured("script.han_share", text) == 1
    assert measured("script.han_letter_share", text) == 1
    assert measured("script.kana_share", text) == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("han_share", "天地ab", 1 / 2),
        ("han_share", "天 地\n\u200b", 1),  # spaces and invisible characters take no part
        ("han_share", "天，地。", 1 / 2),
        ("han_letter_share", "天，地。2026", 1),  # digits and marks take no part
        ("han_letter_share", "天a", 1 / 2),
        ("han_letter_share", "天Жあ한", 1 / 4),
        ("rare_han_share", "天地𠀀㐂", 1 / 2),
        ("rare_han_share", "這裡說話", 0),  # level 1 of Big5 is as common as that of GB 2312
        ("rare_han_share", "烫烫屯屯", 0),  # fills are common characters: mojibake has a measure of its own
        ("rare_han_share", "浣犲ソ鐨勬棩瀛", 5 / 6),  # UTF-8 read as GBK; kana is no Han
        ("kana_share", "これは本", 3 / 4),
        ("kana_share", "ｱｲ本", 2 / 3),  # half width
        ("kana_share", "卡拉ＯＫ・ー", 0),  # the middle dot and the long mark are used elsewhere too
        ("kana_share", "ABC", 0),
        ("hangul_share", "한국 天地", 1 / 2),
        ("function_word_share", "我的书在家", 3 / 5),
        ("function_word_share", "abc", 0),
        ("function_word_kinds", "的的的了了是", 3),
        ("classical_share", "学而时习之", 1 / 5),
        ("modern_share", "我们看了", 2 / 4),
        ("run_mean_chars", "天地 玄 黄a宇宙洪荒", (2 + 1 + 1 + 4) / 4),
        ("run_mean_chars", "abc", 0),
    ],
)
def test_a_measure_gives_the_value_worked_by_hand(name: str, text: str, value: float) -> None:
    assert measured(f"script.{name}", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["天地日月", "后里干台面只斗", "乾著於後", "abc", "他在家"])
def test_characters_that_both_scripts_write_are_no_evidence(text: str) -> None:
    assert math.isnan(measured("script.traditional_share", text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("这里说话", 0),
        ("這裡說話", 1),
        ("这里的门说话發", 1 / 5),  # 这门说话 against 發
        ("他姓乾，字著，頭髮很短", 1),  # 頭髮; 乾 and 著 are written in both
    ],
)
def test_the_share_of_traditional_is_over_characters_of_one_script_only(text: str, value: float) -> None:
    assert measured("script.traditional_share", text) == pytest.approx(value)


def test_a_text_says_as_much_in_either_script() -> None:
    pairs = [
        ("为了让这里的人们过得好", "為了讓這裡的人們過得好"),
        ("从这里到那里，与对岸会合", "從這裡到那裡，與對岸會合"),
    ]
    for simplified, traditional in pairs:
        for name in ("function_word_share", "function_word_kinds", "modern_share", "classical_share"):
            assert measured(f"script.{name}", simplified) == measured(f"script.{name}", traditional)


def test_classical_prose_has_particles_and_no_modern_marks_and_modern_prose_the_reverse() -> None:
    assert measured("script.classical_share", CLASSICAL) > 0.2
    assert measured("script.modern_share", CLASSICAL) == 0
    assert measured("script.classical_share", MODERN) == 0
    assert measured("script.modern_share", MODERN) > 0.2


def test_a_timetable_of_dates_has_no_function_words() -> None:
    timetable = "2026年1月3日 上海 8时05分 北京 12时30分\n2026年1月4日 上海 9时10分 北京 13时40分"
    assert measured("script.function_word_kinds", timetable) == 0
    assert measured("script.function_word_share", timetable) == 0


def test_numerals_of_every_kind_number_the_articles_of_a_law() -> None:
    for numeral in ("一", "二十三", "壹佰", "一〇二", "12", "１２", " 7 "):
        assert measured("line.article_share", f"第{numeral}条 本法") == 1
