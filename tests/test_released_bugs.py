"""The ten bugs of CT-LLM's released filter, by their number in docs/reference/ct-llm.md, and that our recipes have
none.

That `map_cc_as_released` does have them is tested in text/test_released.py and
corpus/test_released_agreement.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ctllm_ray.base import recipe
from ctllm_ray.base.errors import CtllmError
from ctllm_ray.corpus import clean, pipeline
from ctllm_ray.sample.writers import stock
from ctllm_ray.text.measures.url import blocklist
from tests import pitfall_texts as texts
from tests.conftest import REPOSITORY
from tests.corpus.conftest import run_here
from tests.pitfall_pages import rejects, shipped, through

REPETITION = ("repetition.", "line.duplicate_")
BOOK = "\n".join(
    text.body for text in stock.clean_texts() if text.kind in {"essay", "fiction", "history", "travel"}
)


def test_bug_1_a_page_that_repeats_itself_is_rejected_for_repetition() -> None:
    page = texts.PROSE + "哈" * 60 + "。"
    assert rejects("map_cc_as_released", page) == [None]
    (reason,) = rejects("map_cc", page)
    assert reason is not None
    assert reason.startswith(REPETITION)


def test_bug_2_copies_of_a_paragraph_raise_the_share_that_is_measured() -> None:
    rows = through("map_cc", *(texts.PROSE + texts.PARAGRAPH * copies for copies in (1, 2, 5, 20)))
    shares = [row["score.repetition.covered_share.n10"] for row in rows]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.9
    released = through(
        "map_cc_as_released", *(texts.PROSE + texts.PARAGRAPH * copies for copies in (2, 5, 20))
    )
    shrinking = [row["score.released.distinct_ngram_char_share.n10"] for row in released]
    assert shrinking == sorted(shrinking, reverse=True)


@pytest.mark.parametrize("copies", [5, 30])
@pytest.mark.parametrize("name", ["map_cc", "zh_web"])
def test_bug_3_a_paragraph_pasted_many_times_breaks_a_repetition_rule(name: str, copies: int) -> None:
    (row,) = through(name, texts.PROSE * copies)
    assert row["score.repetition.covered_share.n10"] == 1
    assert row["reject"] is not None
    assert row["reject"].startswith(REPETITION) or row["reject"] == "document.distinct_char_share"


def test_bug_3_in_zh_web_it_is_no_accident_of_the_distinct_character_rule() -> None:
    assert rejects("zh_web", texts.PROSE * 30) == ["repetition.covered_share.n10"]


@pytest.mark.parametrize("name", ["map_cc", "zh_web"])
def test_bug_4_other_languages_are_rejected_and_both_chinese_scripts_are_kept(name: str) -> None:
    lively = 'On Friday, 14 June, J. Quixley (Vermont) wrote: "Why pay $95 for a zigzag box?" We kept 37 of them; X & Y.'  # noqa: E501
    english, clever, japanese, simplified, traditional = rejects(
        name, texts.ENGLISH, lively, texts.JAPANESE, texts.PROSE, texts.TRADITIONAL
    )
    assert english
    assert clever
    assert japanese
    assert (simplified, traditional) == (None, None)
    assert rejects("map_cc_as_released", lively) == [None]


def test_bug_5_gambling_spam_is_rejected_for_what_it_is() -> None:
    assert rejects("map_cc_as_released", texts.GAMBLING_SPAM) == [None]
    (reason,) = rejects("zh_web", texts.GAMBLING_SPAM)
    assert reason is not None
    assert reason.startswith("lexicon.density.gambling")


@pytest.mark.parametrize("name", ["map_cc", "zh_web", "map_cc_as_released"])
def test_bug_6_a_record_without_url_is_worth_as_much_as_one_with(name: str) -> None:
    assert rejects(name, {"text": texts.PROSE}, {"text": texts.PROSE, "url": "http://a.example/"}) == [
        None,
        None,
    ]


def test_bug_7_only_the_categories_that_a_recipe_names_are_forbidden_and_white_lists_win(
    tmp_path: Path,
) -> None:
    for category, listed in {"gambling": "bet.example\nboth.example\n", "press": "news.example\n"}.items():
        (tmp_path / category).mkdir()
        (tmp_path / category / "domains").write_text(listed)
    (tmp_path / "liste_blanche").mkdir()
    (tmp_path / "liste_blanche" / "domains").write_text("both.example\n")
    hosts = ["bet.example", "news.example", "both.example"]
    found = [blocklist(f"http://{h}/a", folder=str(tmp_path), categories=["gambling"]) for h in hosts]
    assert found == ["gambling", "", ""]


def test_bug_8_length_is_a_line_of_the_recipe_and_zh_web_has_no_upper_bound() -> None:
    assert len(BOOK) > 10_000
    assert rejects("zh_web", BOOK) == [None]
    assert rejects("map_cc", BOOK) == ["document.char_count"]  # as described
    path = str(REPOSITORY / "jobs" / "recipes" / "map_cc.yaml")
    index = next(i for i, s in enumerate(shipped("map_cc").stages) if s.use == "measure")
    wider = recipe.load_recipe(path, [f"stages.{index}.rules.document.char_count.max=1000000"])
    bounds = {r.use: r.bounds for r in clean.measure_rules(wider.stages)}
    assert bounds["document.char_count"] == {"min": 50, "max": 1_000_000}


@pytest.mark.parametrize("ending", ["。。。", "...", "……", "…"])
def test_bug_9_an_ellipsis_in_any_of_its_forms_is_seen(ending: str) -> None:
    page = "\n".join(line + ending for line in texts.PROSE.replace("！", "。").split("。") if line)
    (row,) = through("map_cc", page)
    assert row["score.document.ellipsis_share"] == pytest.approx(page.count(ending) / len(page))
    assert row["text"] == page  # and is neither mapped away nor taken apart


def test_bug_10_an_input_is_a_glob_of_data_files_and_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.jsonl").write_text('{"text": "' + texts.PROSE + '"}\n', encoding="utf-8")

    def prepared(path: str) -> dict[str, int]:
        chosen = recipe.load_recipe(
            str(REPOSITORY / "jobs" / "recipes" / "zh_web.yaml"),
            [f"root={tmp_path}/out", f"data.inputs=[{{use: jsonl, path: '{path}'}}]"],
        )
        return pipeline.clean(chosen, run_here).counts

    with pytest.raises(CtllmError) as caught:
        prepared(f"{tmp_path}/crawl")
    assert "crawl" in str(caught.value)
    assert prepared(f"{tmp_path}/crawl/*.jsonl") == {"in": 1, "kept": 1}
