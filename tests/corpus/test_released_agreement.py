"""`map_cc_as_released` against what CT-LLM's released functions returned for every record of the raw crawl.

The recipe's own stages run here, extraction excepted: measures, options, bounds, their order and the float32
of stored scores are all part of what must agree.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ctllm_ray.base.recipe import Recipe, load_recipe
from ctllm_ray.base.resolve import STAGES, resolve
from ctllm_ray.corpus.stages.ct_llm_released import ct_llm_released
from ctllm_ray.shards import schema

RECIPE = Path(__file__).resolve().parents[2] / "jobs" / "recipes" / "map_cc_as_released.yaml"
BATCH_ROWS = 2000

#: What the released code calls a failed rule, and the measure that stands for it.
MEASURE_OF = {
    "Number of senteces less than 1": "released.sentence_count",
    "Word count less than 50 or larger than 10000": "released.char_count",
    "Mean word length less than 1.3 or larger than 10": "released.mean_word_length",
    "Hash tag ratios exceeding 0.1": "released.hashtag_run_share",
    "Ellipsis ratios exceeding 0.1": "released.ellipsis_run_share",
    "Digit over non_punctuation words": "released.digit_share",
    "Lines ending with readmore etc.": "released.readmore_line_share",
    "Line starting with bullet point": "released.bullet_line_share",
    "Punctuation ratio": "released.punctuation_share",
    "Unique words fraction": "released.distinct_char_share",
    "Entropy of unigram distribution": "released.unigram_entropy_nats",
}
#: The repetition rules in their order: the released label, the score, the bound that the program has and
#: ignores.
REPETITION = [
    ("characters in the top word 2gram", "released.top_ngram_share.n2", 0.20),
    ("characters in the top word 3gram", "released.top_ngram_share.n3", 0.18),
    ("characters in the top word 4gram", "released.top_ngram_share.n4", 0.16),
] + [
    (f"characters in duplicate word {n}grams", f"released.distinct_ngram_char_share.n{n}", 0.60)
    for n in range(5, 11)
]


class Outcome(NamedTuple):
    """What became of one text: its form in the end, the deciding rule ("" where kept), its value, and all
    scores."""

    text: str
    rule: str
    value: float
    scores: dict[str, float]

    @property
    def repetition(self) -> tuple[str, float]:
        """The first of the ignored repetition rules that the text breaks, and its value."""
        if not self.text:
            return "total character count", 0.0
        scored = [(label, self.scores[name], np.float32(bound)) for label, name, bound in REPETITION]
        broken = [
            (label, score) for label, score, bound in scored if score > bound
        ]  # in float32, as rules compare
        return broken[0] if broken else ("", 0.0)


@cache
def recipe() -> Recipe:
    """The recipe, checked and filled in by the loader."""
    return load_recipe(str(RECIPE))


def raw(texts: list[str | None]) -> pa.Table:
    """A working table of texts without url."""
    rows = [{"id": f"x#{i}", "text": text} for i, text in enumerate(texts)]
    return schema.working(pa.Table.from_pylist(rows, schema=schema.RAW), "x")


def outcomes(texts: list[str]) -> Iterator[Outcome]:
    """What the recipe decides about texts."""
    for start in range(0, len(texts), BATCH_ROWS):
        table = raw(list(texts[start : start + BATCH_ROWS]))
        for stage in recipe().stages[1:]:
            table = resolve(STAGES, stage.use)(table, **(stage.model_extra or {}))
        for row in table.to_pylist():
            scores = {name.removeprefix("score."): row[name] for name in row if name.startswith("score.")}
            yield Outcome(
                row["text"], row["reject"] or "", row["reject_value"] if row["reject"] else 0.0, scores
            )


def released(text: str) -> Outcome:
    """What the recipe decides about one text."""
    return next(outcomes([text]))


def records(shared_data: Path) -> Iterator[tuple[str, str]]:
    """Id and text of every text record of the raw crawl."""
    for part in sorted((shared_data / "web_zh_raw").glob("part-*.jsonl.zst")):
        with part.open("rb") as packed:
            stream = zstandard.ZstdDecompressor().stream_reader(packed)
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                record = json.loads(line)
                if "raw_content" in record:
                    yield record["doc_id"], record["raw_content"]


def reference(shared_data: Path) -> dict[str, dict[str, Any]]:
    """What the released functions returned, by id."""
    table = pq.read_table(shared_data / "reference_values" / "ct_llm_released_filter.parquet")
    return {row["doc_id"]: row for row in table.to_pylist()}


def disagreements(ours: Outcome, row: dict[str, Any]) -> list[str]:
    """The columns of the reference in which our outcome differs."""
    if not row["unify_ok"]:
        share = json.loads(row["unify_flag"])["bracket ratio"]
        return (
            [] if (ours.rule, ours.value) == ("released.bracket_share", pytest.approx(share)) else ["unify"]
        )
    rule, value = ours.repetition
    agrees = {
        "clean_sha1": hashlib.sha1(ours.text.encode()).hexdigest() == row["clean_sha1"],
        "clean_chars": len(ours.text) == row["clean_chars"],
        "rules_ok": (not ours.rule) == row["rules_ok"],
        "rule": ours.rule == MEASURE_OF.get(row["rule"], ""),
        "rule_value": ours.value
        == pytest.approx(row["rule_value"] or 0.0),  # 1e-6 of the value; float32 has 6e-8
        "dup_rule": rule == (row["dup_rule"] or ""),
        "dup_value": value == pytest.approx(row["dup_value"] or 0.0),
    }
    return [column for column, same in agrees.items() if not same]


def all_disagreements(chosen: dict[str, str], expected: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The columns that differ, by id, of the records where any does."""
    pairs = zip(chosen, outcomes(list(chosen.values())), strict=True)
    return {name: columns for name, ours in pairs if (columns := disagreements(ours, expected[name]))}


def test_a_sample_with_every_kind_of_decision_agrees_with_the_released_program(shared_data):
    expected = reference(shared_data)
    seen: Counter[tuple[Any, ...]] = Counter()
    chosen = {}
    for index, (name, text) in enumerate(records(shared_data)):
        row = expected[name]
        kind = (row["unify_ok"], row["rule"], row["dup_rule"])
        seen[kind] += 1
        if index % 60 == 0 or seen[kind] <= 20:
            chosen[name] = text
    assert {rule for _, rule, _ in seen} == {None, *MEASURE_OF} - {
        "Punctuation ratio"
    }  # which fires on no record
    assert all_disagreements(chosen, expected) == {}


@pytest.mark.slow
def test_every_record_agrees_with_the_released_program(shared_data):
    chosen = dict(records(shared_data))
    assert len(chosen) == 43_876
    assert all_disagreements(chosen, reference(shared_data)) == {}


# What the released program decides, on texts of our own; the numbers are those of the bugs in
# docs/reference/ct-llm.md.

PROSE = (
    "昨天傍晚，镇上的老书店终于重新开门。店主把门口的灯修好，又在窗边摆了三张旧木桌。"
    "放学的孩子围过来翻连环画，几位退休教师坐下喝茶，谈起三十年前排队买新书的冬天！"
)


def test_clean_prose_is_kept_with_ascii_punctuation():
    ours = released(PROSE)
    assert ours.rule == ""
    assert ours.text == PROSE.translate({ord("，"): ",", ord("。"): ".", ord("！"): "!"})


def test_bug_1_no_text_is_rejected_for_repetition():
    ours = released(PROSE + "哈" * 60)
    assert ours.repetition[0] == "characters in the top word 2gram"
    assert ours.rule == ""


def test_bug_3_a_pasted_paragraph_is_caught_by_accident_or_not_at_all():
    assert released(PROSE * 5).rule == ""
    thirty = released(PROSE * 30)
    assert thirty.rule == "released.distinct_char_share"
    assert thirty.repetition == ("", 0.0)


def test_bug_4_english_passes_every_rule_that_is_not_a_language_model():
    text = 'On Friday, 14 June, J. Quixley (Vermont) wrote: "Why pay $95 for a zigzag box?" We kept 37 of them; X & Y.'
    assert released(text).rule == ""


def test_bug_5_gambling_spam_passes_every_rule():
    text = "澳门娱乐城线上开户，首存送彩金888元！百家乐、老虎机、时时彩应有尽有。加客服微信领红包，提款秒到账，稳赚不赔。"  # noqa: E501
    assert released(text * 2).rule == ""


def test_bug_6_a_record_without_url_passes_where_the_released_program_loses_it():
    assert raw([PROSE])["url"].null_count == 1
    assert released(PROSE).rule == ""


def test_bug_8_a_text_over_10000_characters_is_dropped_whatever_it_says():
    novel = "".join(chr(0x4E00 + i % 4000) for i in range(9990)) + "。完了。好的。再"
    assert released(novel[-10_000:]).rule != "released.char_count"
    longer = released(novel + "见面了吧")
    assert (longer.rule, longer.value) == ("released.char_count", 10_002)


def test_only_live_rows_are_cleaned():
    table = raw(["甲。", None, "乙。"])
    table = schema.put_column(table, "reject", pa.array(["error.encoding", None, None], pa.string()))
    out = ct_llm_released(table)
    assert out["text"].to_pylist() == ["甲。", None, "乙."]
    assert out.schema == table.schema
