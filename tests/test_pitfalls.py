"""The pitfalls of Chinese web text: what goes wrong in filters made for English does not go wrong here.

Pages go through the stages of the shipped recipes. Each pitfall by its number, with the tests that look
closer:

 1 word thresholds on unsegmented text: here; text/test_released.py
 2 segmenters in the hot path: here
 3 end marks: here; text/test_measures_line.py
 4 function words: here; text/test_measures_script.py
 5 年月日 as function words: here; text/test_measures_script.py
 6 newlines in verse, lyrics, dialogue: here; corpus/test_stage_lines.py on real genres
 7 width in the output: here; text/test_normalize.py, text/test_similar_lines.py (folded in keys only)
 8 NFKC: here; text/test_normalize.py
 9 Traditional kept as it is: here; text/test_normalize.py
10 one Traditional character: here; text/test_measures_script.py 11 Han beyond 9FA5, Japanese: here;
text/test_measures_script.py 12 language of classical, regional and mixed pages: here; text/test_language.py
13 length: here; text/test_fuse.py, text/test_measures_document.py (windows) 14 templates of statutes: here;
text/test_measures_repetition.py 15 covered positions: here; text/test_fuse.py,
text/test_measures_repetition.py 16 MinHash shingles: with the issue of deduplication 17 digits in keys:
text/test_similar_lines.py for lines; masked keys with the issue of deduplication 18 mojibake of valid Han:
here; text/test_mojibake.py 19 ftfy: here 20 spun pages need signals of hosts: with the issue of host
verdicts; injected lines: here, corpus/test_stage_lines.py 21 sensitive words as topics: here;
text/test_lexicon.py 22 navigation: here; text/test_html.py, text/test_line_rules.py 23 encodings that lie:
here; text/test_charset.py 24 personal data: with the issue of personal data 25 sentence ends: here;
text/test_measures_document.py 26 which copy deduplication keeps: with the issue of deduplication 27 errors
counted: here; corpus/test_section.py, corpus/test_sources_*.py 28 bytes and characters: here
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ctllm_ray.base import recipe
from ctllm_ray.base.errors import ErrorShareExceeded
from ctllm_ray.corpus import clean, pipeline
from ctllm_ray.sample.writers import stock
from ctllm_ray.text.measures import words
from tests import pitfall_texts as texts
from tests.conftest import REPOSITORY
from tests.corpus.conftest import run_here
from tests.pitfall_pages import rejects, shipped, through

OURS = ["map_cc", "zh_web"]


@pytest.mark.parametrize("name", OURS)
def test_01_a_page_without_a_space_is_not_a_page_of_one_word(name: str) -> None:
    assert len(texts.PROSE.split()) == 1
    assert rejects(name, texts.PROSE) == [None]


def test_01_where_words_are_asked_for_they_are_segmented() -> None:
    assert 1.3 < words.mean_length(texts.PROSE) < 2.2


def test_02_no_shipped_recipe_of_ours_loads_a_segmenter() -> None:
    uses = {rule.use for name in [*OURS, "tiny"] for rule in clean.every_rule(shipped(name).stages)}
    assert not {use for use in uses if use.startswith(("words.", "released."))}
    code = (
        "import sys; from tests.pitfall_pages import rejects; from tests.pitfall_texts import PROSE;"
        # ftfy: pitfall 19
        "rejects('zh_web', PROSE); sys.exit(bool({'jieba', 'rjieba', 'ftfy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


@pytest.mark.parametrize("name", OURS)
def test_03_dialogue_that_ends_its_lines_in_closing_quotes_is_kept(name: str) -> None:
    assert rejects(name, texts.DIALOGUE) == [None]


def test_04_text_with_few_function_words_by_right_is_kept() -> None:
    pages = [texts.CLASSICAL, texts.REGULATED_VERSE, texts.HEADLINES, texts.STATUTE]
    assert rejects("zh_web", *pages) == [None] * 4


@pytest.mark.parametrize("gap", [" ", "\n", " | "])
def test_04_a_list_of_keywords_is_rejected_however_long(gap: str) -> None:
    cities, things, works = (
        ["北京", "上海", "广州", "深圳"],
        ["空调", "冰箱", "热水器"],
        ["维修", "清洗", "安装", "移机"],
    )
    keywords = gap.join(city + thing + work for city in cities for thing in things for work in works)
    assert rejects("zh_web", keywords)[0] in {"line.label_share", "lines.nothing_left"}


def test_05_a_timetable_full_of_dates_is_rejected_and_an_essay_without_any_is_kept() -> None:
    assert set("年月日") <= set(texts.TIMETABLE)
    assert not set("年月日") & set(texts.DRUGS)
    timetable, essay = rejects("zh_web", texts.TIMETABLE, texts.DRUGS)
    assert (timetable is None, essay) == (False, None)


@pytest.mark.parametrize("page", ["QUATRAIN", "REGULATED_VERSE", "LYRIC", "LYRICS", "DIALOGUE", "CLASSICAL"])
def test_06_short_lines_that_are_text_are_kept_line_by_line(page: str) -> None:
    text = getattr(texts, page)
    (row,) = through("zh_web", text)
    assert (row["reject"], row["text"], row["cuts"]) == (None, text, None)


WIDTHS = "　　“全角”，标点；ＡＢＣ１２３（是的！）……——《书》：‘好’？\n" + texts.PROSE


@pytest.mark.parametrize("name", [*OURS, "tiny"])
def test_07_full_width_marks_letters_and_indents_are_in_the_output_as_they_were(name: str) -> None:
    assert through(name, WIDTHS)[0]["text"].strip() == WIDTHS.strip()


@pytest.mark.parametrize("name", ["zh_web", "tiny"])
def test_07_the_ideographic_space_that_indents_a_paragraph_stays(name: str) -> None:
    page = texts.PROSE + "\n　　" + texts.DRUGS
    assert through(name, page)[0]["text"] == page


@pytest.mark.parametrize("name", [*OURS, "tiny"])
def test_08_what_nfkc_would_rewrite_is_in_the_output_as_it_was(name: str) -> None:
    page = texts.PROSE + "面积为 12㎡，见图①与表Ⅳ，约合㈱、℃、…、ﬁ、½、㍿。"
    assert through(name, page)[0]["text"] == page


@pytest.mark.parametrize("name", [*OURS, "tiny"])
def test_09_traditional_text_is_kept_in_its_own_script_and_words(name: str) -> None:
    (row,) = through(name, texts.TRADITIONAL)
    assert (row["reject"], row["text"]) == (None, texts.TRADITIONAL)
    assert "計程車" in row["text"]


def test_10_one_traditional_character_neither_rejects_a_page_nor_calls_it_traditional() -> None:
    page = texts.PROSE + "他的名字是陳昇，书法作品題为《蘭亭》。"
    (row,) = through("zh_web", page)
    assert row["reject"] is None
    assert 0 < row["score.script.traditional_share"] < 0.3
    assert through("zh_web", texts.TRADITIONAL)[0]["score.script.traditional_share"] == 1


def test_11_rare_names_and_han_beyond_the_basic_block_count_as_han() -> None:
    page = texts.PROSE + "二〇二六年，村民𠮷田𤭢与㐂代子为佐々木家修缮了𪚥𪚥轩。"
    (row,) = through("zh_web", page)
    assert (row["reject"], row["text"]) == (None, page)
    assert row["score.script.han_letter_share"] == 1


@pytest.mark.parametrize("name", OURS)
def test_11_japanese_is_rejected_however_many_kanji_it_has(name: str) -> None:
    assert rejects(name, texts.JAPANESE)[0] is not None


def test_11_a_chinese_page_that_quotes_japanese_is_kept() -> None:
    assert rejects("zh_web", texts.PROSE + "日语里把这叫作「ほんや」。") == [None]


@pytest.mark.parametrize("page", ["CLASSICAL", "CANTONESE", "TRADITIONAL", "TECH", "REGULATED_VERSE"])
def test_12_classical_regional_and_code_mixed_pages_are_chinese(page: str) -> None:
    assert rejects("zh_web", getattr(texts, page)) == [None]


def test_13_a_document_of_more_than_10000_characters_is_kept_whole() -> None:
    book = "\n".join(
        text.body for text in stock.clean_texts() if text.kind in {"essay", "fiction", "history", "travel"}
    )
    assert len(book) > 10_000
    (row,) = through("zh_web", book)
    assert (row["reject"], row["text"]) == (None, book)
    assert row["score.document.windowed_entropy_nats"] > 4


def test_13_neither_length_nor_variety_rejects_in_zh_web_as_texts_grow() -> None:
    bounded = {rule.use for rule in clean.measure_rules(shipped("zh_web").stages) if rule.decides}
    assert not bounded & {"document.char_count", "document.distinct_char_share", "document.entropy_nats"}


@pytest.mark.parametrize("name", OURS)
def test_14_the_formulas_of_a_statute_are_no_repetition(name: str) -> None:
    assert texts.STATUTE.count("人民法院") >= 6
    assert texts.STATUTE.count("百分之") >= 5
    assert rejects(name, texts.STATUTE) == [None]


@pytest.mark.parametrize("copies", [3, 30, 150])
def test_15_a_page_of_one_repeated_sentence_is_covered_whole_and_rejected(copies: int) -> None:
    (row,) = through("zh_web", texts.PARAGRAPH * copies)
    assert row["reject"] == "repetition.covered_share.n10"
    assert row["reject_value"] == 1


def test_15_lines_said_over_and_over_go_once_and_the_page_is_kept() -> None:
    (row,) = through("zh_web", texts.PROSE + "\n" + "\n".join([texts.PARAGRAPH] * 5) + "\n" + texts.DRUGS)
    assert row["reject"] is None
    assert row["text"].count(texts.PARAGRAPH) == 1


def test_18_mojibake_that_is_all_han_is_undone() -> None:
    broken = texts.PROSE.encode().decode("gb18030", "replace")
    assert sum("\u4e00" <= c <= "\u9fff" for c in broken) > 0.8 * len(broken)
    (row,) = through("zh_web", texts.PROSE.encode("gb18030").decode("latin-1"))
    assert (row["reject"], row["text"]) == (None, texts.PROSE)
    (row,) = through("zh_web", broken)
    assert row["reject"] is not None or row["text"] == texts.PROSE


def test_18_ghosts_and_fills_that_no_one_can_undo_reject_their_page() -> None:
    pages = ["锟斤拷" * 40, "烫" * 90, "锟斤拷".join(texts.PROSE[i : i + 9] for i in range(0, 90, 9))]
    assert rejects("zh_web", *pages) == ["mojibake.suspect_share"] * 3


def test_19_repair_leaves_quotes_and_widths_of_clean_text_alone() -> None:
    page = texts.PROSE + "‘单引号’与“双引号”，'直的'与\"直的\"，全角：（１２３）；半角: (123); ﹁竖排﹂。"
    assert through("zh_web", page)[0]["text"] == page


INJECTED = "澳门新葡京娱乐城 百家乐 真人荷官 注册送彩金 www.example.com"


def test_20_an_injected_line_is_cut_and_on_record_and_its_page_is_kept() -> None:
    (row,) = through("zh_web", f"{texts.PROSE}\n{INJECTED}\n{texts.DRUGS}")
    assert (row["reject"], row["text"]) == (None, f"{texts.PROSE}\n{texts.DRUGS}")
    assert row["cuts"] == [{"rule": "lines.injected_spam", "text": INJECTED}]


def test_20_a_page_of_nothing_but_gambling_offers_is_rejected() -> None:
    assert rejects("zh_web", texts.GAMBLING_SPAM) == ["lexicon.density.gambling.min_distinct2"]


@pytest.mark.parametrize("page", ["DRUGS", "GAMBLING_LAW", "MEDICAL"])
def test_21_vice_as_a_topic_of_encyclopaedia_law_and_medicine_is_kept(page: str) -> None:
    assert rejects("zh_web", getattr(texts, page)) == [None]


def test_22_navigation_at_head_and_tail_goes_and_the_article_stays() -> None:
    head = "首页 > 新闻中心 > 正文\n字号：大 中 小"
    tail = "责任编辑：小编\n分享到：微信 微博 QQ空间\n上一篇：没有了\n下一篇：秋天的雨"
    (row,) = through("zh_web", f"{head}\n{texts.PROSE}\n{tail}")
    assert (row["reject"], row["text"]) == (None, texts.PROSE)
    assert len(row["cuts"]) == 6


def test_22_a_page_of_nothing_but_navigation_is_rejected() -> None:
    assert rejects("zh_web", texts.MENU, "首页 > 新闻 > 正文\n上一篇：没有了")[1] == "lines.nothing_left"
    assert rejects(
        "zh_web", "\n".join(f"{a}{b}" for a in "春夏秋冬" for b in ["装", "鞋", "帽", "裤", "包"])
    )[0]


def page_in(text: str, charset: str, label: str) -> dict[str, object]:
    body = "".join(f"<p>{part}</p>" for part in text.split("\n"))
    source = f"<html><head><title>A</title></head><body><article>{body}</article></body></html>"
    return {"raw": source.encode(charset), "content_type": f"text/html; charset={label}"}


def test_23_a_gb2312_label_does_not_lose_characters_of_gb18030() -> None:
    text = texts.PROSE + "朱镕基题写了“囧”字，㐂代子与𠮷田参加了典禮。"
    with pytest.raises(UnicodeEncodeError):
        text.encode("gb2312")
    (row,) = through("zh_web", page_in(text, "gb18030", "gb2312"))
    assert (row["reject"], row["text"]) == (None, text)


def test_23_a_big5_label_does_not_lose_characters_of_hong_kong() -> None:
    text = texts.CANTONESE
    with pytest.raises(UnicodeEncodeError):
        text.encode("big5")
    (row,) = through("zh_web", page_in(text, "big5hkscs", "big5"))
    assert (row["reject"], row["text"]) == (None, text)


@pytest.mark.parametrize(
    ("charset", "label"), [("utf-8", "gbk"), ("gb18030", "utf-8"), ("utf-8", "iso-8859-1")]
)
def test_23_a_header_that_lies_is_not_believed(charset: str, label: str) -> None:
    (row,) = through("zh_web", page_in(texts.PROSE, charset, label))
    assert (row["reject"], row["text"]) == (None, texts.PROSE)


def test_23_utf8_cut_within_a_character_loses_that_character_only() -> None:
    cut = {
        "raw": texts.PROSE.encode()[:-4],
        "content_type": "text/plain; charset=utf-8",
    }  # 。 and a byte of 方
    (row,) = through("zh_web", cut)
    assert row["reject"] is None
    assert row["text"] == texts.PROSE[:-2]


def test_25_dots_of_numbers_and_versions_end_no_sentence_and_stay_in_the_text() -> None:
    (row,) = through("map_cc", texts.TECH)
    assert (row["reject"], row["text"]) == (None, texts.TECH)
    numbers = "版本 1.2.3 取代 1.2.2 和 1.1.9，圆周率取 3.14159，误差小于 0.001，地址是 10.0.0.1，" * 2
    assert through("map_cc", numbers)[0]["score.document.sentence_count"] == 1


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """A file of 40 good lines, of which three were broken."""
    lines = [json.dumps({"text": f"{texts.PROSE}第{i}页。"}, ensure_ascii=False).encode() for i in range(40)]
    lines[3], lines[17], lines[30] = (
        b'{"text": "cut',
        b'{"url": "http://a.example/"}',
        b'{"text": "\xff\xfe"}',
    )
    path = tmp_path / "crawl.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def sectioned(crawl: Path, max_error_share: float) -> pipeline.Manifest:
    overrides = [f"root={crawl.parent}/out", f"data.max_error_share={max_error_share}"]
    path = str(REPOSITORY / "jobs" / "recipes" / "zh_web.yaml")
    inputs = f"data.inputs=[{{use: jsonl, path: {crawl}}}]"
    return pipeline.clean(recipe.load_recipe(path, [*overrides, inputs]), run_here)


def test_27_each_bad_record_is_counted_and_costs_no_other(crawl: Path) -> None:
    counts = sectioned(crawl, 0.1).counts
    errors = {key: n for key, n in counts.items() if key.startswith("reject:error.")}
    assert (counts["in"], counts["kept"], sum(errors.values())) == (40, 37, 3)


def test_27_a_section_with_more_errors_than_the_recipe_allows_fails_and_says_how_many(crawl: Path) -> None:
    with pytest.raises(ErrorShareExceeded, match=r"7\.50% of 40 records"):
        sectioned(crawl, 0.05)


def test_28_length_is_counted_in_characters_and_throughput_in_bytes(crawl: Path) -> None:
    long = "".join(text.body for text in stock.clean_texts() if text.kind in {"essay", "fiction"})[:9_000]
    assert len(long.encode()) > 20_000
    (row,) = through("map_cc", long)
    assert row["score.document.char_count"] == len(long)
    assert row["reject"] is None
    assert sectioned(crawl, 0.1).shards[0].text_bytes == sum(
        len(f"{texts.PROSE}第{i}页。".encode()) for i in range(40) if i not in {3, 17, 30}
    )
