"""The line stage on tables: cuts are kept on record, and genres without furniture come through untouched."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.corpus.stages.lines import NOTHING_LEFT, SCORES, lines
from ctllm_ray.corpus.stages.normalize import normalize
from ctllm_ray.shards import schema

SHARE = f"score.{SCORES[0]}"


def table(*texts: str | None) -> pa.Table:
    n = len(texts)
    columns = {"id": [f"x#{i}" for i in range(n)], "text": list(texts)}
    raw = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * n), f.type) for f in schema.RAW}, schema=schema.RAW
    )
    return schema.working(raw, "x")


def test_injected_lines_go_and_the_page_stays() -> None:
    done = lines(
        table("正文第一段。\n\n老虎机 百家乐 开户 官网\n\n正文第二段。\n上一篇：没有了\n\n相关推荐\n")
    )
    assert done["text"].to_pylist() == ["正文第一段。\n\n正文第二段。"]
    assert done["cuts"].to_pylist() == [
        [
            {"rule": "lines.injected_spam", "text": "老虎机 百家乐 开户 官网"},
            {"rule": "lines.pager", "text": "上一篇：没有了"},
            {"rule": "lines.related_heading", "text": "相关推荐"},
        ]
    ]
    assert done[SHARE].to_pylist() == [pytest.approx(24 / 36)]
    assert done["reject"].to_pylist() == [None]


def test_a_document_that_loses_every_line_is_rejected_and_its_lines_stay_on_record() -> None:
    done = lines(table("正在加载中，请稍候...\nLoading...\n", "正文。"))
    assert done["text"].to_pylist() == ["", "正文。"]
    assert done["reject"].to_pylist() == [NOTHING_LEFT, None]
    assert done["reject_value"].to_pylist() == [1, None]
    assert [cut["text"] for cut in done["cuts"][0].as_py()] == ["正在加载中，请稍候...", "Loading..."]


def test_untouched_documents_keep_every_byte_and_null_cuts() -> None:
    texts = ["甲\n\n\n乙\n", "", "  诗曰：\n\n\n\n"]
    done = lines(table(*texts, None))
    assert done["text"].to_pylist() == [*texts, None]
    assert done["cuts"].to_pylist() == [None] * 4
    assert done[SHARE].to_pylist() == [0, 0, 0, None]


def test_similar_lines_are_cut_as_the_recipe_says() -> None:
    line = "在消息面的影响下，白银价格亦是飞流直线三千尺。"
    text = f"{line}\n{line}\n另一段话。\n{line}"
    assert lines(table(text))["text"].to_pylist() == [f"{line}\n另一段话。\n{line}"]
    assert lines(table(text), similar="anywhere")["text"].to_pylist() == [f"{line}\n另一段话。"]
    assert lines(table(text), similar="keep")["text"].to_pylist() == [text]
    assert lines(table(text), similar_min_han=30)["text"].to_pylist() == [text]


def test_furniture_between_copies_does_not_hide_them() -> None:
    line = "在消息面的影响下，白银价格亦是飞流直线三千尺。"
    assert lines(table(f"{line}\n展开全文\n{line}"))["text"].to_pylist() == [line]


def test_the_stage_run_twice_changes_nothing_more_and_keeps_the_record() -> None:
    once = lines(table("正文。\n上一篇：没有了\n完。"))
    twice = lines(once)
    assert twice["text"].equals(once["text"])
    assert twice["cuts"].equals(once["cuts"])


def test_bad_word_needs_its_list(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a word list"):
        lines(table("x"), cut=("bad_word",))
    words = tmp_path / "words.txt"
    words.write_text("坏词\n\n", encoding="utf-8")
    done = lines(table("好行\n有坏词的行"), cut=("bad_word",), bad_words=str(words))
    assert done["text"].to_pylist() == ["好行"]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, list[str]]:
    """Texts of one real part by genre, and by planted noise under its own name."""
    truth = pq.read_table(
        shared_data / "web_zh_raw" / "truth.parquet", columns=["doc_id", "noise_type", "subkind", "dup_op"]
    )
    by_id = {row["doc_id"]: row for row in truth.to_pylist()}
    texts: dict[str, list[str]] = {}
    with zstandard.open(shared_data / "web_zh_raw" / "part-000.jsonl.zst", "rt", encoding="utf-8") as stream:
        for record in map(orjson.loads, stream):
            row = by_id[record["doc_id"]]
            name = row["noise_type"] or (
                row["dup_op"] if row["dup_op"] == "boiler_head_tail" else row["subkind"]
            )
            if "raw_content" in record and (row["dup_op"] in (None, "boiler_head_tail")):
                texts.setdefault(name, []).append(record["raw_content"])
    return texts


@pytest.mark.parametrize(
    "genre", ["poetry", "classical", "law", "law_hant", "wiki", "essay", "dialogue", "abstract"]
)
def test_genres_without_furniture_lose_no_line(real: dict[str, list[str]], genre: str) -> None:
    done = lines(normalize(table(*real[genre])))
    assert done.num_rows > 40
    assert sum(cuts is not None for cuts in done["cuts"].to_pylist()) == 0


@pytest.mark.parametrize("noise", ["js_cookie_notice", "url_list", "lorem_ipsum"])
def test_pages_of_nothing_but_furniture_are_left_with_nothing(real: dict[str, list[str]], noise: str) -> None:
    rejects = lines(normalize(table(*real[noise])))["reject"].to_pylist()
    assert rejects.count(NOTHING_LEFT) >= 0.95 * len(rejects)


def test_planted_boilerplate_goes_and_its_page_stays(real: dict[str, list[str]]) -> None:
    done = lines(normalize(table(*real["boiler_head_tail"])))
    assert all(cuts for cuts in done["cuts"].to_pylist())
    assert done["reject"].null_count == done.num_rows
