"""Laws of lexicon matching on small lists, and what the built-in lists say about known texts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.text import lexicon
from ctllm_ray.text.lexicon import BUILT_IN, build, load
from ctllm_ray.text.measures import lexicon as measures

SMALL = build(
    {"gambling": ["博彩网", "赌博", "赌博网站", "bet365", "!好赌博士"], "contact": ["加微信", "av", "QQ群"]}
)


def density(text: str, **options: Any) -> float:
    return float(measures.density(pa.array([text]), **options)[0])


def distinct_hits(text: str, **options: Any) -> int:
    return int(measures.distinct_hits(pa.array([text]), **options)[0])


def evasion_count(text: str, **options: Any) -> int:
    return int(measures.evasion_count(pa.array([text]), **options)[0])


def found(text: str) -> list[tuple[str, bool]]:
    return [(span.term, span.evaded) for span in SMALL.spans(text)]


@pytest.mark.parametrize("text", ["博彩网", "这里有博彩网，快来", "博彩網", "的博彩网络"])
def test_plain_writing_in_either_script_is_found_and_is_no_evasion(text: str) -> None:
    assert found(text) == [("博彩网", False)]


@pytest.mark.parametrize(
    "text",
    [
        "博*彩网",
        "博 彩 网",
        "博·彩★网",
        "博.彩.网",
        "博\u200b彩\u00ad网",
        "博🎲彩🎲网",
        "博\x05彩网",
        "博【彩】网",
    ],
)
def test_up_to_two_symbols_between_letters_are_skipped_and_counted_as_evasion(text: str) -> None:
    assert found(text) == [("博彩网", True)]


@pytest.mark.parametrize(
    "text",
    [
        "博\n彩网",
        "博。彩网",
        "博！彩网",
        "博，彩网",
        "博、彩网",
        "博……彩网",
        "博***彩网",
        "博. 彩网",
        "博x彩网",
        "博人彩网",
    ],
)
def test_nothing_is_found_across_a_line_a_clause_three_symbols_or_a_letter(text: str) -> None:
    assert found(text) == []


def test_width_look_alikes_and_case_fold_and_only_case_is_plain_writing() -> None:
    assert found("BET365") == [("bet365", False)]
    assert found("ｂｅｔ３６５") == [("bet365", True)]
    assert found("加薇信") == [("加微信", True)]
    assert found("加ｑｑ") == []
    assert found("qq群") == found("QQ 群") == [("qq群", False)]
    assert found("QQ*群") == found("QQ  群") == [("qq群", True)]
    assert found("ａѵ") == []
    assert found("аv") == [("av", True)]  # a Cyrillic a


def test_latin_terms_stand_alone_and_spaces_between_latin_letters_are_not_skipped() -> None:
    assert found("java") == found("av1x".replace("1", "b")) == found("a v") == found("a.v") == []
    assert found("看av片") == [("av", False)]
    assert found("xbet365") == found("bet3650") == []


def test_the_longest_term_wins_and_hits_never_overlap() -> None:
    assert found("赌博网站") == [("赌博网站", False)]
    assert found("赌博网站赌博") == [("赌博网站", False), ("赌博", False)]
    three = build({"x": ["甲乙丙", "丁戊", "丙丁戊己庚"]})
    assert [s.term for s in three.spans("甲乙丙丁戊己庚")] == ["甲乙丙", "丁戊"]


def test_an_innocent_phrase_hides_the_terms_in_it() -> None:
    assert found("他是好赌博士") == []
    assert found("他是好赌博") == [("赌博", False)]


def test_hits_equal_a_search_for_every_term_where_nothing_is_folded() -> None:
    text = "".join(chr(0x4E00 + (i * i * 7 + i // 3) % 12) for i in range(2_000))
    terms = sorted({text[i : i + 3] for i in range(0, 60, 7)})
    spans = build({"x": terms}).spans(text)
    assert all(text[s.start : s.stop] == s.term for s in spans)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
    covered = {i for s in spans for i in range(s.start, s.stop)}
    for term in terms:
        at = text.find(term)
        while at >= 0:
            assert covered & {at, at + 1, at + 2}
            at = text.find(term, at + 1)


def test_density_is_letters_covered_per_thousand_characters() -> None:
    text = "赌博网站" + "好" * 46 + "博*彩 公司"  # the second hit covers 4 letters; 56 characters in all
    assert density(text, category="gambling") == pytest.approx(1000 * 8 / 56)
    assert distinct_hits(text + text, category="gambling") == 2
    assert evasion_count(text + text, category="gambling") == 2
    assert density("", category="gambling") == evasion_count("", category="gambling") == 0


def test_density_can_ask_for_several_different_terms() -> None:
    assert density("赌博网站，赌博网站", category="gambling", min_distinct=2) == 0
    assert density("赌博网站，线上赌场", category="gambling", min_distinct=2) == pytest.approx(1000 * 8 / 9)


def test_every_character_of_unicode_can_be_scanned() -> None:
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    assert load().tally(pa.array([text])).hits.sum() >= 0
    assert len(load().find(text + "\ud800")) >= 0


def test_a_text_counts_the_same_alone_and_in_a_column() -> None:
    texts = ["赌博网站", "天气", "赌 博网站，天气", "", "赌博网站"]
    together = load().tally(pa.array(texts))
    for i, text in enumerate(texts):
        alone = load().tally(pa.array([text]))
        assert [part[i].tolist() for part in together] == [part[0].tolist() for part in alone]


def test_the_kept_tally_is_of_the_column_that_is_asked_for() -> None:
    first, second = pa.array(["赌博网站"]), pa.array(["天气"])
    assert lexicon.tally(first, BUILT_IN).hits.sum() == 1
    assert lexicon.tally(second, BUILT_IN).hits.sum() == 0
    assert lexicon.tally(first, BUILT_IN).hits.sum() == 1


def test_own_lists_take_the_place_of_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "drinks.txt").write_text(
        "\ufeff# what people drink\n珍珠奶茶\n!珍珠奶茶色\n", encoding="utf-8"
    )
    assert density("一杯珍珠奶茶。", category="drinks", path=str(tmp_path)) == pytest.approx(1000 * 4 / 7)
    assert distinct_hits("珍珠奶茶色的裙子", category="drinks", path=str(tmp_path)) == 0
    with pytest.raises(RecipeError, match="unknown lexicon category 'gambling'"):
        density("", category="gambling", path=str(tmp_path))


def test_a_bad_list_is_an_error_that_says_what_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no word list"):
        density("", category="x", path=str(tmp_path))
    with pytest.raises(InputError, match="2 to 32 letters"):
        build({"x": ["赌"]})
    with pytest.raises(RecipeError, match="did you mean 'gambling'"):
        density("", category="gamblin")


def test_spam_is_dense_in_trade_terms_and_encyclopaedia_law_and_news_are_not() -> None:
    spam = "澳门新葡京娱乐城开户送彩金，在线投注首选，百*家*乐平台注册送体验金，加薇信领取。"
    law = "以营利为目的，聚众赌博或者以赌博为业的，并处罚金。开设赌场的，处五年以下有期徒刑。"
    wiki = "澳门的博彩业是当地经济的支柱，博彩税占政府收入的大部分；首家赌场于1962年开业。"
    assert density(spam, category="gambling") > 300
    assert distinct_hits(spam, category="gambling") >= 5
    for text in (law, wiki):
        assert density(text, category="gambling") == 0
        assert density(text, category="topic") > 0


def test_every_built_in_term_finds_itself_in_its_own_category_with_gaps_too() -> None:
    built_in = load()
    for number, term in enumerate(built_in.terms):
        category = built_in.of_term[number]
        spans = built_in.spans(term)
        assert [s.term for s in spans] == ([term] if category >= 0 else [])
        if category >= 0 and not any(c.isascii() for c in term):
            assert [(s.term, s.evaded) for s in built_in.spans("☆".join(term))] == [(term, True)]
