"""Two texts side by side: what is marked is what differs, and nothing of a text is lost or made up."""

from __future__ import annotations

import random

from ctllm_ray.text.dedup.differences import LEAD_CHARS, WINDOW_CHARS, Excerpt, side_by_side


def shown(excerpt: Excerpt) -> str:
    return "".join(text for text, _ in excerpt.pieces)


def only(excerpt: Excerpt) -> list[str]:
    return [text for text, differs in excerpt.pieces if differs]


def test_characters_that_differ_are_marked_on_their_side() -> None:
    one, other = side_by_side("今天天气很好，我们去公园玩。", "今天天气不好，我们去商场玩。")
    assert (only(one), only(other)) == (["很", "公园"], ["不", "商场"])


def test_a_latin_word_or_a_number_differs_as_a_whole() -> None:
    one, other = side_by_side("版权所有 2019 by Example", "版权所有 2020 by Examples")
    assert (only(one), only(other)) == (["2019", "Example"], ["2020", "Examples"])


def test_what_is_equal_by_chance_between_two_differences_belongs_to_them() -> None:
    one, other = side_by_side("开头开头，红的花开在山上，结尾结尾", "开头开头，绿的草长在水边，结尾结尾")
    assert (only(one), only(other)) == (["红的花开在山上"], ["绿的草长在水边"])


def test_the_excerpt_begins_shortly_before_the_first_difference_wherever_it_is() -> None:
    same, behind = "天地玄黄" * 5000, "宇宙洪荒" * 5000
    one, other = side_by_side(same + "甲" + behind, same + "乙丙" + behind)
    assert one.before_chars == other.before_chars == len(same) - LEAD_CHARS
    assert (only(one), only(other)) == (["甲"], ["乙丙"])
    assert len(shown(one)) <= WINDOW_CHARS


def test_where_windows_end_at_different_places_nothing_is_called_missing() -> None:
    more = "".join(chr(0x4E00 + i) for i in range(900))
    one, other = side_by_side("新加的一段" + more, more)
    assert (only(one), only(other)) == (["新加的一段"], [])


def test_a_word_that_the_end_of_a_window_halves_is_not_called_another() -> None:
    one, other = side_by_side("甲甲，" + "documentation " * 40, "乙，" + "documentation " * 40)
    assert (only(one), only(other)) == (["甲甲"], ["乙"])


def test_a_text_that_goes_on_at_its_end_is_marked_there() -> None:
    one, other = side_by_side("床前明月光", "床前明月光，疑是地上霜")
    assert (only(one), only(other)) == ([], ["，疑是地上霜"])


def test_equal_texts_are_shown_from_their_beginning_without_marks() -> None:
    text = "天地玄黄，宇宙洪荒。" * 100
    one, other = side_by_side(text, text)
    assert one == other == Excerpt(0, ((text[:WINDOW_CHARS], False),), len(text) - WINDOW_CHARS)
    assert side_by_side("", "") == (Excerpt(0, (), 0), Excerpt(0, (), 0))


def test_an_excerpt_is_a_stretch_of_its_text_and_both_share_what_is_not_marked() -> None:
    draw = random.Random(7)
    for _ in range(200):
        base = "".join(draw.choices("天地玄黄ab 1，", k=draw.randrange(900)))
        texts = [
            "".join(c if draw.random() > 0.03 else draw.choice(["", "改", c * 2]) for c in base) for _ in "ab"
        ]
        pair = side_by_side(*texts)
        for text, excerpt in zip(texts, pair, strict=True):
            end = len(text) - excerpt.after_chars
            assert shown(excerpt) == text[excerpt.before_chars : end]
        shared = ["".join(text for text, differs in excerpt.pieces if not differs) for excerpt in pair]
        assert shared[0] == shared[1]
