"""The released formulas, hand-worked; each bug of the released filter (ct_llm.md A1.5) beside our own
measure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.ct_llm_released import ascii_punctuation, clean, without_links
from ctllm_ray.text.kernels import characters, codepoints, fuse
from ctllm_ray.text.measures import lexicon, released, words

PARAGRAPH = (
    "山里的清晨来得很早，薄雾还没散去，老人已经挑着担子走下石阶。"
    "他要赶在集市开门之前，把新摘的茶叶送到镇上，顺便给孙女买一支铅笔。"
)


def ours(text: str, use: str, **options: Any) -> float:
    """A measure of ours on one text, interpreted."""
    out = np.zeros((1, 1), np.float32)
    data, offsets = codepoints.buffers(pa.array([text]))
    fuse.interpret(((use, tuple(options.items())),))(data, offsets, characters.table(), out)
    return float(out[0, 0])


# Cleaning.


def test_full_width_punctuation_becomes_ascii_while_digits_and_letters_stay_wide():
    assert ascii_punctuation("“你好”，ＡＢＣ１２３：！？（）～。") == '"你好",ＡＢＣ１２３:!?()~.'


@pytest.mark.parametrize("mark", list("、《》「」『』—…·【】＂＇．"))
def test_marks_outside_the_released_table_stay(mark):
    assert clean(f"甲{mark}乙") == f"甲{mark}乙"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("见https://a.example/b?c=d,再看", "见,再看"),
        ("见http://a.example/路径", "见路径"),
        ("www.a.example后面", "后面"),
        ("a.b.c.d... 完", " 完"),
        ("mail x-y.example.com now", "mail  now"),
        ("one.two three.FOUR five.toolongs", " three.FOUR five.toolongs"),
        ("版本1.2.3", "版本1.2.3"),
        ("", ""),
    ],
)
def test_links_are_cut_as_the_released_patterns_cut_them(text, left):
    assert without_links(text) == left


def test_the_released_link_patterns_eat_versions_and_addresses_and_spare_a_domain_glued_to_han():
    assert without_links("升级到v1.2.3.4,网关192.168.0.1") == "升级到,网关"
    assert without_links("请访问example.com吧") == "请访问example.com吧"
    assert without_links("请访问 example.com 吧") == "请访问  吧"
    assert without_links("请访问sub.example.com") == "请访问sub"  # from the first word boundary on


@pytest.mark.parametrize("unit", ["a", "a-", "a..", "-", "http://", "【", "a.b.c"])
def test_no_run_of_link_characters_takes_more_than_linear_time(unit):
    # The released patterns need 23 minutes for the first of these: without the guards this test would not
    # come back.
    text = unit * (1_000_000 // len(unit))
    assert len(clean("中" + text)) <= len(text) + 1
    assert released.bracket_share(text) == 0


# Formulas.


@pytest.mark.parametrize(
    ("function", "text", "value"),
    [
        (released.bracket_share, "【一二】三四【五", 2 / 8),
        (
            released.bracket_share,
            "【一\n二】【【三】",
            2 / 9,
        ),  # not across lines; an inner opening one is content
        (released.sentence_count, '甲.乙!?丙;"丁"  ', 4),
        (released.sentence_count, "圆周率是3.14", 2),
        (released.char_count, "ＡＢ…\n", 6),  # NFKC: AB, three full stops, newline
        (released.hashtag_run_share, "##a#bc", 2 / 6),
        (released.ellipsis_run_share, "一……二..三.四", 2 / 9),
        (released.digit_share, "12,ab 三", 2 / 6),
        (released.digit_share, "①²!", 1.0),
        (released.readmore_line_share, "新闻\n查看更多\n点击展开\n尾", 2 / 4),
        (released.bullet_line_share, "• 一\n– 二\n- 三\n* 四", 2 / 4),
        (released.punctuation_share, "a,b、c", 1 / 5),
        (released.distinct_char_share, "aabb", 2 / 4),
        (released.unigram_entropy_nats, "aabb", math.log(2)),
    ],
)
def test_a_released_formula_gives_the_value_worked_by_hand(function, text, value):
    assert function(text) == pytest.approx(value)


def test_the_top_ngram_counts_overlaps_and_leaves_the_first_occurrence_out():
    assert released.top_ngram_share("aaaa", n=2) == (3 - 1) * 2 / 4
    assert released.top_ngram_share("a", n=2) == 0


def test_ngram_characters_count_once_each_however_often_they_repeat():
    assert released.distinct_ngram_char_share("abcde" * 2, n=5) == 5 / 10
    assert released.distinct_ngram_char_share("abcdef", n=5) == 0


@pytest.mark.parametrize(
    "name", [n for n in vars(released) if n.endswith(("_share", "_count", "_nats", "_length"))]
)
def test_every_released_measure_is_zero_of_the_empty_text(name):
    if not name.startswith("_"):
        options = {"n": 5} if "ngram" in name else {}
        assert getattr(released, name)("", **options) == 0


def test_each_run_of_underscores_is_a_word_of_the_released_rule():
    assert released.mean_word_length("snake_case__name") == pytest.approx(16 / 5)


def test_words_of_neighbouring_clauses_touch_in_the_released_rule_and_not_in_ours():
    assert released.mean_word_length("cat,dog") == 6
    assert words.mean_length("cat,dog") == 3


def test_mean_word_length_leaves_punctuation_and_spaces_out():
    assert words.mean_length("我们 喜欢, 北京!") == 2
    assert words.mean_length("!? \n") == 0


# Bugs of the released code, by their number in docs/reference/ct-llm.md, and what ours does.


def test_bug_2_repetition_shrinks_as_a_repeated_text_grows_where_ours_nears_one():
    shares = [released.distinct_ngram_char_share(PARAGRAPH * copies, n=5) for copies in (2, 5, 20)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] < 0.6  # the bound that was meant: it does not even reach two copies
    covered = [ours(PARAGRAPH * copies, "repetition.covered_share", n=5) for copies in (2, 5, 20)]
    assert covered == [1, 1, 1]


def test_bug_3_a_paragraph_pasted_thirty_times_passes_every_released_repetition_bound():
    text = PARAGRAPH * 30
    assert all(released.distinct_ngram_char_share(text, n=n) < 0.6 for n in range(5, 11))
    assert released.top_ngram_share(text, n=2) < 0.2
    assert released.top_ngram_share(text, n=3) < 0.18
    assert released.top_ngram_share(text, n=4) < 0.16
    assert ours(text, "repetition.covered_share", n=10) == 1


def test_bug_4_script_shares_tell_english_and_japanese_from_chinese():
    assert ours("It was a dark and stormy night.", "script.han_letter_share") == 0
    assert ours("これは日本語の文章です。", "script.kana_share") > 0.5
    assert ours(PARAGRAPH, "script.han_letter_share") == 1
    assert ours("這裡說的話與簡體不同", "script.traditional_share") == 1


def test_bug_5_the_lexicon_measures_see_gambling_spam_that_the_released_rules_keep():
    text = "澳门娱乐城线上开户，首存送彩金888元！百家乐、老虎机、时时彩应有尽有。"
    hits = lexicon.distinct_hits(pa.array([text, PARAGRAPH]), category="gambling")
    assert hits[0] >= 1
    assert hits[1] == 0


def test_distinct_characters_fall_with_length_in_the_released_rule_and_ours_are_windowed():
    prose = "".join(chr(0x4E00 + i * 7919 % 900) for i in range(9500))
    assert released.distinct_char_share(prose) < 0.1  # 900 different characters of 9,500
    assert ours(prose, "document.windowed_distinct_share") > 0.9


def test_bug_9_three_full_stops_never_end_a_line_after_cleaning():
    page = "今天的新闻。。。\n明天的新闻。。。\n"
    assert released.readmore_line_share(clean(page)) == 0
    assert ours(page, "line.ellipsis_share") == 1


def test_bug_9_an_ellipsis_is_never_punctuation_as_such():
    assert released.punctuation_share("……") == 1  # as six ASCII full stops, which NFKC makes of it
    assert (
        released.punctuation_share("他说「走」、《书》") == 0
    )  # and the marks of Chinese do not count at all
    assert ours("他说「走」、《书》", "document.punctuation_share") == pytest.approx(5 / 9)
