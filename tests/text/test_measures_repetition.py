"""Measures of repeated n-grams, worked by hand: positions, each counted once."""

from __future__ import annotations

import pytest

from tests.text.interpreted import measured

SENTENCE = "本站所有资源均来自网络收集。"  # 14 characters, of which none occurs twice
STATUTE = (
    "人民法院审理行政案件，适用本法。人民法院应当保障公民的起诉权利。当事人不服人民法院第一审判决的，"
    "有权在十五日内向上一级人民法院上诉。罚款数额为违法所得的百分之二十以上百分之五十以下；情节严重的，"
    "处百分之五十以上百分之一百以下的罚款。"
)


def covered(text: str, n: int) -> float:
    return measured("repetition.covered_share", text, n=n)


def top(text: str, n: int) -> float:
    return measured("repetition.top_ngram_share", text, n=n)


@pytest.mark.parametrize("text", ["", "天", "天地", "天地玄黄宇宙洪荒", SENTENCE])
def test_nothing_repeats_in_a_text_of_different_characters(text: str) -> None:
    assert [covered(text, n) for n in range(2, 11)] == [0] * 9
    assert [top(text, n) for n in range(2, 11)] == [0] * 9


def test_covered_counts_positions_of_first_occurrences_too_and_each_once() -> None:
    assert covered("天地玄天地", 2) == pytest.approx(4 / 5)
    assert covered("天地玄天地", 3) == 0
    assert covered("哈哈哈哈", 2) == 1  # three overlapping bigrams over four positions
    assert covered("哈哈哈哈", 3) == 1
    assert covered("哈哈哈哈", 4) == 0  # occurs once only


def test_top_counts_positions_of_the_most_frequent_one_alone() -> None:
    assert top("天地天地天地玄黄玄黄", 2) == pytest.approx(6 / 10)
    assert covered("天地天地天地玄黄玄黄", 2) == 1
    assert top("哈哈哈哈好", 2) == pytest.approx(4 / 5)


def test_of_equally_frequent_ones_the_first_in_the_text_is_the_top() -> None:
    # 哈哈 and 天地 occur twice each, but 哈哈 overlaps itself and covers three positions
    assert top("哈哈哈天地玄天地", 2) == pytest.approx(3 / 8)
    assert top("天地玄天地哈哈哈", 2) == pytest.approx(4 / 8)


def test_a_page_of_one_sentence_is_covered_whole_at_every_length_however_often_it_repeats() -> None:
    for copies in (2, 5, 30):
        assert [covered(SENTENCE * copies, n) for n in range(2, 11)] == [1] * 9
        assert top(SENTENCE * copies, 10) == pytest.approx(10 / 14)


def test_the_share_of_a_repeated_paragraph_does_not_shrink_as_copies_are_added() -> None:
    prose = "".join(chr(0x4E00 + i) for i in range(500))
    shares = [covered(prose + SENTENCE * copies, 10) for copies in (2, 10, 50)]
    assert shares == pytest.approx([28 / 528, 140 / 640, 700 / 1200])


def test_templates_of_statutes_stay_far_from_the_bounds_at_long_n() -> None:
    assert top(STATUTE, 4) < 0.16  # 人民法院, four times
    assert covered(STATUTE, 10) < 0.1
    assert covered(STATUTE, 2) > 0.3  # which is why coverage of short n-grams is no rule


def test_repetition_across_lines_counts_newlines_as_characters() -> None:
    assert covered("天地\n天地\n", 3) == 1
